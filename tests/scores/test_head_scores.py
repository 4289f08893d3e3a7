"""Every head score against its definition in plain loops, and the interface that all share."""

from __future__ import annotations

import math

import pytest
import torch
from family_cases import hooked
from reference import ars as literal_ars
from tiny_models import IMAGES, QUESTIONS

from rvelens import ContrastivePair, score_heads
from rvelens.hooks import head_mask_hooks
from rvelens.model.yes_no import yes_margin, yes_no_ids
from rvelens.scores import SCORES
from rvelens.scores.maps import (
    ars,
    ars_as_published,
    difference,
    mass_weighted,
    renormalised,
)

PAIRS = [
    ContrastivePair(IMAGES[0], QUESTIONS[0], QUESTIONS[0].replace("hold", "eat"), "0"),
    ContrastivePair(IMAGES[1], QUESTIONS[2], QUESTIONS[2].replace("kick", "point"), "1"),
    ContrastivePair(IMAGES[0], QUESTIONS[2], QUESTIONS[2].replace("kick", "hold"), "2"),
]
# One family whose last token replays, one with grouped images, one that runs whole forwards.
FAMILIES = ("llava", "llava_next", "qwen2_5_vl")


def maps(model, text, image):
    """Attention of the last token to the image, [layer][head][image], as nested lists."""
    inputs = model.prepare(image, text)
    _, cache = model.run_with_cache(**inputs)
    image_keys = model.token_map(inputs).image[0]
    return [
        cache[f"blocks.{layer}.attn.hook_pattern"][0, :, -1, image_keys].tolist()
        for layer in range(model.n_layers)
    ]


def norm(values):
    return math.sqrt(sum(x * x for x in values))


def shares(values):
    return [x / sum(values) for x in values] if sum(values) else values


FORMULAS = {
    "ars": literal_ars,
    "difference": lambda a, b: norm([x - y for x, y in zip(a, b, strict=True)]),
    "ars-renormalised": lambda a, b: literal_ars(shares(a), shares(b)),
    "mass-weighted": lambda a, b: literal_ars(a, b) * (sum(a) + sum(b)) / 2,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_of_maps_against_loops(family):
    model = hooked(family)
    both = [[maps(model, t, p.image) for t in (p.question, p.contrastive)] for p in PAIRS]
    for name, formula in FORMULAS.items():
        found = score_heads(model, PAIRS, score=name, batch_size=2)
        expected = [
            [[formula(*heads) for heads in zip(*layers, strict=True)]
             for layers in zip(*texts, strict=True)]
            for texts in both
        ]  # fmt: skip
        torch.testing.assert_close(found.per_pair, torch.tensor(expected), rtol=0, atol=2e-5)
        assert found.about["score"] == name


def test_ars_as_published_rounds_to_float16_and_adds_1e_8():
    a, b = torch.tensor([[[0.25, 0.5]]]), torch.tensor([[[0.5, 0.25]]])
    exact = math.sqrt(2) * 0.25 / (math.sqrt(0.3125) + 1e-8)
    assert float(ars_as_published(a, b)) == pytest.approx(exact, rel=1e-6)
    assert float(ars_as_published(a * 0, a * 0)) == 0
    # The smallest step of float16 is 2**-24: 0.7 of it becomes 1, and 0.4 of it becomes 0.
    step = 2.0**-24
    a, b = torch.tensor([[[0.7, 0.7]]]) * step, torch.tensor([[[0.7, 0.4]]]) * step
    norm = (math.sqrt(2) + 1) / 2 * step
    assert float(ars_as_published(a, b)) == pytest.approx(step / (norm + 1e-8), rel=1e-5)
    assert float(ars(a, b)) == pytest.approx(literal_ars([0.7, 0.7], [0.7, 0.4]), rel=1e-4)


def test_as_published_is_a_score_of_its_own_name():
    model = hooked("llava")
    profile = score_heads(model, PAIRS, as_published=True)
    assert profile.about["score"] == "ars-as-published"
    named = score_heads(model, PAIRS, score="ars-as-published")
    assert torch.equal(profile.scores, named.scores)
    plain = score_heads(model, PAIRS)
    torch.testing.assert_close(profile.scores, plain.scores, rtol=1e-2, atol=1e-2)
    assert not torch.equal(profile.scores, plain.scores)
    with pytest.raises(ValueError, match="as_published with score='random': expected 'ars'"):
        score_heads(model, PAIRS, score="random", as_published=True)


def test_heads_that_hardly_look_score_high_in_ars_alone():
    little = torch.tensor([[[1e-4, 0.0, 0.0]]]), torch.tensor([[[0.0, 1e-4, 0.0]]])
    assert float(renormalised(*little)) == pytest.approx(math.sqrt(2))
    assert float(difference(*little)) < 2e-4
    assert float(mass_weighted(*little)) < 2e-4
    nothing = torch.zeros(1, 1, 3)
    assert float(renormalised(nothing, nothing)) == 0
    assert float(renormalised(little[0], nothing)) == pytest.approx(2)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_against_finite_differences(family):
    model = hooked(family)
    model.hf_model.double()
    pair, layer, eps = PAIRS[0], 1, 1e-2  # norms round to float32, so smaller steps drown
    found = score_heads(model, [pair], score="gradient").per_pair[0, layer]
    expected = torch.zeros(model.n_heads, dtype=torch.float64)
    for text in (pair.question, pair.contrastive):
        inputs = model.prepare(pair.image, text)
        for key in model.token_map(inputs).image[0].nonzero().flatten().tolist():
            for head in range(0, model.n_heads, 3):
                up, down = (margin(model, inputs, layer, head, key, step) for step in (eps, -eps))
                expected[head] += abs(up - down) / (2 * eps) / 2
    asked = slice(0, model.n_heads, 3)
    torch.testing.assert_close(found[asked].double(), expected[asked], rtol=2e-3, atol=1e-4)
    assert float(expected.max()) > 1e-2


def margin(model, inputs, layer, head, key, step):
    def nudged(scores, hook):
        scores = scores.clone()
        scores[:, head, -1, key] += step
        return scores

    with torch.no_grad(), model.hooks([(f"blocks.{layer}.attn.hook_attn_scores", nudged)]):
        logits = model(**inputs)[0, -1]
    yes, no = (logits[ids].logsumexp(-1) for ids in yes_no_ids(model.processor))
    return float(yes - no)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_patching_against_one_head_at_a_time(family):
    model = hooked(family)
    found = score_heads(model, PAIRS[:2], score="patching", batch_size=2).per_pair
    for n, pair in enumerate(PAIRS[:2]):
        own, other = (model.prepare(pair.image, t) for t in (pair.question, pair.contrastive))
        _, cache = model.run_with_cache(**other)
        plain = float(yes_margin(model(**own)[:, -1], model.processor))
        for layer, head in ((0, 0), (1, 5), (2, 7)):
            point = f"blocks.{layer}.attn.hook_z"
            z_hat = cache[point][:, -1, head]

            def patched(z, hook, head=head, z_hat=z_hat):
                z = z.clone()
                z[:, -1, head] = z_hat
                return z

            with model.hooks([(point, patched)]):
                changed = float(yes_margin(model(**own)[:, -1], model.processor))
            assert float(found[n, layer, head]) == pytest.approx(abs(changed - plain), abs=2e-5)
    assert float(found.max()) > 1e-3


def test_random_numbers_belong_to_their_pair(model):
    first, again = (score_heads(model, PAIRS, score="random", batch_size=n) for n in (3, 1))
    assert torch.equal(first.per_pair, again.per_pair)
    turned = score_heads(model, PAIRS[::-1], score="random").per_pair.flip(0)
    assert torch.equal(first.per_pair, turned)
    assert len(first.per_pair.unique()) == first.per_pair.numel()


@pytest.mark.parametrize("name", SCORES)
def test_every_score_leaves_the_model_as_it_was(model, name):
    inputs = model.prepare(IMAGES, QUESTIONS)
    before = model(**inputs)
    found = score_heads(model, PAIRS, score=name, batch_size=2)
    assert found.per_pair.shape == (3, model.n_layers, model.n_heads)
    assert found.per_pair.dtype == torch.float32
    assert not found.per_pair.requires_grad
    assert not model.list_hooks()
    assert torch.equal(model(**inputs), before)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", SCORES)
def test_every_score_sees_hooks_that_are_on(model, name):
    """A mask of all heads of layer 1 leaves nothing to find there, save for maps and chance."""
    plain = score_heads(model, PAIRS, score=name)
    with model.hooks(head_mask_hooks({0: range(model.n_heads)})):
        masked = score_heads(model, PAIRS, score=name)
    same = torch.allclose(plain.scores, masked.scores, atol=1e-4)
    assert same == (name == "random")


def test_an_unknown_score_is_refused(model):
    with pytest.raises(
        ValueError, match="no head score 'nothing': expected one of ars, ars-as-published"
    ):
        score_heads(model, PAIRS, score="nothing")
