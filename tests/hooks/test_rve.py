"""RVE's masks and arguments; agreement with the paper's equations is in tests/families."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import reference
import torch
from family_cases import (
    CASES,
    batch,
    generate,
    hooked,
    profile_of,
    reference_forward,
    reference_logits,
    reference_of,
)
from hypothesis import given
from hypothesis import strategies as st

from rvelens import ARSProfile
from rvelens.hooks import rve_hooks
from rvelens.hooks.rve import mask_hooks
from rvelens.hooks.selection import image_entropy, n_selected, top_image_tokens


@given(st.integers(1, 100), st.integers(1, 3000))
def test_m_is_the_floor_of_the_decimal_product(percent, n_image):
    exact = Fraction(percent, 100) * n_image
    assert n_selected(percent / 100, n_image) == max(exact.numerator // exact.denominator, 1)


@given(st.data())
def test_top_image_tokens_against_sorting(data):
    batch, keys = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 9))
    number = st.integers(-3, 3).map(float)  # few values, so that ties are common
    row = st.lists(number, min_size=keys, max_size=keys)
    scores = torch.tensor(data.draw(st.lists(row, min_size=batch, max_size=batch)))
    flags = st.lists(st.booleans(), min_size=keys, max_size=keys)
    image = torch.tensor(data.draw(st.lists(flags, min_size=batch, max_size=batch)))
    counts = image.sum(1).tolist()
    m = tuple(data.draw(st.integers(1, max(n, 1))) for n in counts)
    chosen = top_image_tokens(scores, image, m)
    for b in range(batch):
        values = sorted(
            (float(s) for s, i in zip(scores[b], image[b], strict=True) if i), reverse=True
        )
        threshold = values[m[b] - 1] if values else None
        for key in range(keys):
            expected = bool(image[b, key]) and float(scores[b, key]) >= threshold
            assert bool(chosen[b, key]) == expected


def test_more_tokens_asked_for_than_there_are_keys():
    scores = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert top_image_tokens(scores, torch.ones_like(scores).bool(), (1, 7)).tolist() == [
        [False, True],
        [True, True],
    ]


@pytest.mark.parametrize(("heads", "says"), [([8], r"heads \[8\] of 8"), ([], r"heads \[\] of 8")])
def test_masks_of_heads_that_are_not_there(heads, says):
    with pytest.raises(ValueError, match=says):
        mask_hooks({0: heads}, 8)


def test_hooks_of_a_profile_of_another_depth(model):
    deeper = ARSProfile.from_scores(torch.rand(model.n_layers + 4, model.n_heads))
    with (
        pytest.raises(ValueError, match="a profile of 7 layers x 8 heads for a model of 3 x 8"),
        model.hooks(rve_hooks(deeper, [0], k=2)),
    ):
        pass


def test_hooks_name_their_layers_once(profile):
    hooks = rve_hooks(profile, [2, 1, 2], k=3)
    assert [name for name, _ in hooks] == [
        "blocks.1.attn.hook_attn_scores",
        "blocks.2.attn.hook_attn_scores",
    ]
    assert [name for name, _ in rve_hooks(profile, "1-2", k=3)] == [name for name, _ in hooks]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": [3]}, r"layers \[3\] for a profile of 3 layers: expected layers from 0 to 2"),
        ({"layers": [-1]}, r"layers \[-1\] for a profile of 3 layers"),
        ({"layers": "1-3"}, "layers '1-3': expected layers from 0 to 2"),
        ({"layers": []}, r"layers \[\] for a profile of 3 layers.*choose at least one"),
        ({"k": 5}, "k=5 for 8 heads a layer: expected 1 to 4"),
        ({"k": 0}, "k=0 for 8 heads a layer"),
        ({"alpha": 0.0}, r"alpha=0.0: expected a share of the image tokens in \(0, 1\]"),
        ({"alpha": 1.5}, "alpha=1.5"),
        ({"alpha": float("nan")}, "alpha=nan"),
        ({"beta": -0.1}, "beta=-0.1: expected a finite strength from 0 to 1000"),
        ({"beta": float("inf")}, "beta=inf"),
        ({"max_entropy": 0.0}, r"max_entropy=0.0: expected a share of the entropy .* in \(0, 1\]"),
        ({"max_entropy": 1.1}, "max_entropy=1.1: .*; leave it at 1 to enhance every input"),
        ({"max_entropy": float("nan")}, "max_entropy=nan"),
        ({"scope": "some"}, "scope='some': expected 'all' or 'sensitive'"),
    ],
)
def test_mistakes_are_answered_when_the_list_is_built(profile, arguments, message):
    with pytest.raises(ValueError, match=message):
        rve_hooks(profile, **{"layers": [1], "k": 3, **arguments})


def test_beta_zero_changes_nothing(model, inputs, profile):
    with torch.no_grad():
        with model.hooks([("blocks.1.attn.hook_attn_scores", lambda scores, hook: scores.clone())]):
            open_row = model(**inputs)
        with model.hooks(rve_hooks(profile, [1], k=3, alpha=0.3, beta=0.0)):
            assert torch.equal(model(**inputs), open_row)


def test_every_sample_has_its_own_masks(model, inputs, profile):
    hooks = rve_hooks(profile, range(3), k=3, alpha=0.2)
    with torch.no_grad(), model.hooks(hooks):
        together = model(**inputs)[:, -1]
        for row in range(3):
            one = {k: v[row : row + 1] for k, v in inputs.items()}
            torch.testing.assert_close(
                model(**one)[:, -1], together[row : row + 1], rtol=0, atol=1e-5
            )


def test_a_prompt_without_an_image_is_left_alone(model, inputs, profile):
    text = inputs["input_ids"][inputs["input_ids"] != model.image_token_id][None, -8:]
    with torch.no_grad():
        with model.hooks([("blocks.1.attn.hook_attn_scores", lambda scores, hook: scores.clone())]):
            plain = model(input_ids=text)
        with model.hooks(rve_hooks(profile, [1], k=3)):
            assert torch.equal(model(input_ids=text), plain)


def test_the_control_from_all_heads_equals_rve_with_those_heads(model, inputs):
    everyone = list(range(model.n_heads))
    ranking = torch.arange(8).repeat(3, 1)
    profile = ARSProfile(ranking)
    rve = rve_hooks(profile, [1], k=4, alpha=0.2, denoise=False)
    control = mask_hooks({1: everyone[:4]}, 8, alpha=0.2)
    with torch.no_grad():
        with model.hooks(rve):
            expected = model(**inputs)
        with model.hooks(control):
            assert torch.equal(model(**inputs), expected)
    with pytest.raises(ValueError, match="alpha=2"):
        mask_hooks({1: everyone}, 8, alpha=2.0)


def literal_entropy(s):
    """s[h][i]: score of head h, image token i that the row can see; 0 for one of them or none."""
    n_image = len(s[0])
    if n_image < 2:
        return 0.0
    p = [0.0] * n_image
    for scores in s:
        weights = [math.exp(x - max(scores)) for x in scores]
        for i in range(n_image):
            p[i] += weights[i] / sum(weights) / len(s)
    return -sum(x * math.log(x) for x in p if x > 0) / math.log(n_image)


@given(st.data())
def test_entropy_against_loops(data):
    shape = [data.draw(st.integers(1, n)) for n in (3, 4, 7)]
    seed = data.draw(st.integers(0, 1000))
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(shape, generator=generator) * data.draw(st.sampled_from([0.0, 1.0, 30.0]))
    image = torch.rand(shape[0], shape[2], generator=generator) < 0.6
    hidden = torch.rand(shape[0], shape[2], generator=generator) < 0.2
    scores = scores.masked_fill(hidden[:, None], torch.finfo(torch.float32).min)
    image &= ~hidden
    got = image_entropy(scores, image)
    for b in range(shape[0]):
        seen = image[b].nonzero().flatten().tolist()
        literal = literal_entropy([[row[i] for i in seen] for row in scores[b].tolist()])
        assert float(got[b]) == pytest.approx(literal, abs=1e-5)


def test_entropies_that_are_known():
    far = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [9e9, 0.0, 0.0, 0.0]]])
    everywhere = torch.tensor([[True, True, True, True]])
    assert float(image_entropy(far[:, :1], everywhere)) == 1
    assert float(image_entropy(far[:, 1:], everywhere)) == 0
    half = torch.tensor([[[5.0, 5.0, -1e4, -1e4]]])
    assert float(image_entropy(half, everywhere)) == pytest.approx(0.5)
    assert float(image_entropy(half, torch.tensor([[False, False, True, True]]))) == 1
    # Heads that look at one token each, and at different ones, look about as a whole.
    apart = torch.tensor([[[9e9, 0.0, 0.0, 0.0], [0.0, 9e9, 0.0, 0.0]]])
    assert float(image_entropy(apart, everywhere)) == pytest.approx(0.5)
    for n in (0, 1):
        assert float(image_entropy(far[:, :1], torch.arange(4)[None] < n)) == 0


GATED = {"layers": [0, 1, 2], "k": 3, "alpha": 0.3, "beta": 1.0}


@pytest.fixture
def entropies(monkeypatch):
    """Lets the literal reference enhance only where `limit` allows; collects what it found."""
    found = {"limit": 1.0, "seen": []}
    every = reference.target_mask

    def target_mask(rve, layer, s):
        sensitive = [s[h] for h in rve.ranking[layer][: rve.k]]
        seen = [i for i in range(len(s[0])) if s[0][i] > reference.HIDDEN]
        found["seen"].append(literal_entropy([[row[i] for i in seen] for row in sensitive]))
        shut = found["seen"][-1] > found["limit"]
        return [0] * len(s[0]) if shut else every(rve, layer, s)

    monkeypatch.setattr(reference, "target_mask", target_mask)
    return found


def middle(found):
    """Between two entropies, and so on none of them; images that a window hides count for nothing."""
    found = sorted(x for x in found if x > 0)
    return sum(found[len(found) // 2 - 1 : len(found) // 2 + 1]) / 2


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_layers_that_depend_on_the_input(name, entropies):
    """Prefill and each step of a generation, against loops; padding and windows are in there."""
    model = hooked(name)
    inputs, profile = batch(model), profile_of(model)
    literal = reference_of(profile, inputs, model.image_token_id, **GATED)
    reference_forward(name, inputs, literal)
    entropies["limit"] = limit = middle(entropies["seen"])
    entropies["seen"].clear()
    with model.hooks(rve_hooks(profile, **GATED, max_entropy=limit)):
        output = generate(model, inputs, output_logits=True)
    logits, new = torch.stack(output.logits, dim=1), output.sequences[:, -6:]
    expected = reference_logits(name, inputs, new, literal)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    shut = [entropy > limit for entropy in entropies["seen"]]
    assert len(shut) == 3 * 3 * 7  # layers, samples, rows: the prompt's last and all that are new
    assert 9 <= sum(shut) <= len(shut) - 9
    entropies["limit"] = 1.0
    assert not torch.allclose(reference_logits(name, inputs, new, literal), expected, atol=1e-3)


def test_what_max_entropy_costs_at_its_default(model, inputs, profile, monkeypatch):
    with torch.no_grad():
        with model.hooks(rve_hooks(profile, **GATED)):
            default = model(**inputs)
        with model.hooks(rve_hooks(profile, **GATED, max_entropy=0.9999)):
            assert torch.equal(model(**inputs), default)

        def computed(scores, image):
            raise AssertionError("an entropy was computed")

        monkeypatch.setattr("rvelens.hooks.rve.image_entropy", computed)
        with model.hooks(rve_hooks(profile, **GATED, max_entropy=1.0)):
            assert torch.equal(model(**inputs), default)
        with (
            pytest.raises(AssertionError, match="was computed"),
            model.hooks(rve_hooks(profile, **GATED, max_entropy=0.9999)),
        ):
            model(**inputs)


def test_nothing_is_enhanced_where_no_layer_is_sure(model, inputs, profile):
    with torch.no_grad():
        looks = [
            (name, lambda scores, hook: scores.clone()) for name, _ in rve_hooks(profile, **GATED)
        ]
        with model.hooks(looks):
            plain = model(**inputs)
        with model.hooks(rve_hooks(profile, **GATED, max_entropy=1e-6)):
            assert torch.equal(model(**inputs), plain)
