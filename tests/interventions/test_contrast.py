"""The second branch with its cache against both branches from scratch."""

from __future__ import annotations

import pytest
import torch
from contrast_reference import assert_same, contrast, decode, repeated
from family_cases import CASES, IMAGES, QUESTIONS, batch, generate, hooked
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache

from rvelens.hooks import pai_hooks
from rvelens.interventions import ContrastProcessor
from rvelens.interventions.contrast import combine

# Eight query heads share four of keys in each; gemma3 has a sliding window.
NAMES = ["llava", "instructblip", "qwen2_5_vl", "gemma3"]
OTHERS = ["is there a horse ?", *QUESTIONS[:2]]


def raised(model, inputs, processor, **how):
    """A generation with what went into each choice of a token."""
    how |= {"logits_processor": [processor], "output_scores": True}
    return generate(model, inputs, **how)


@pytest.mark.parametrize("name", NAMES)
def test_greedy(name):
    model = hooked(name)
    inputs, negative = batch(model), model.prepare(IMAGES, OTHERS)
    output = raised(model, inputs, ContrastProcessor(model, negative, 0.8, 0.05))
    expected = decode(model, inputs, negative, contrast(0.8, 0.05))
    assert_same(output, expected)
    assert not torch.equal(output.sequences[:, -6:], generate(model, inputs).sequences[:, -6:])


@pytest.mark.parametrize("name", ["llava", "instructblip"])
def test_sampled_with_several_sequences_a_prompt(name):
    model = hooked(name)
    inputs, negative = batch(model), model.prepare(IMAGES, OTHERS)
    how = {"do_sample": True, "top_k": 0, "num_return_sequences": 2, "max_new_tokens": 6}
    how |= {"return_dict_in_generate": True, "output_scores": True}
    torch.manual_seed(3)
    processor = ContrastProcessor(model, negative, 1.0, 0.01)
    output = model.generate(**inputs, **how, logits_processor=[processor])
    torch.manual_seed(3)
    expected = decode(
        model,
        repeated(inputs, 2),
        repeated(negative, 2),
        contrast(1.0, 0.01),
        pick=lambda scores: torch.multinomial(scores.softmax(dim=-1), 1)[:, 0],
    )
    assert_same(output, expected)
    assert len({tuple(row) for row in output.sequences.tolist()}) > 3


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_second_branch_like_the_first_takes_nothing_away(name):
    """2 l - l is l at every step, for every family's positions, caches and hooks."""
    model = hooked(name)
    inputs = batch(model)
    torch.manual_seed(0)
    processor = ContrastProcessor(model, inputs, 1.0, 1e-30)
    how = {"do_sample": True, "num_return_sequences": 2, "top_k": 0, "max_new_tokens": 6}
    how |= {"return_dict_in_generate": True, "output_logits": True, "output_scores": True}
    with model.hooks(pai_hooks(model.n_layers, [0, 1, 2], alpha=0.7)):
        output = model.generate(**inputs, **how, logits_processor=[processor])
    for scores, logits in zip(output.scores, output.logits, strict=True):
        allowed = scores.isfinite()
        assert allowed.sum() > 100
        torch.testing.assert_close(scores[allowed], logits[allowed], rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("n_left", [1, 3])
def test_a_second_branch_that_is_prefilled_in_part(model, inputs, n_left):
    negative = dict(model.prepare(IMAGES, OTHERS))
    whole = raised(model, inputs, ContrastProcessor(model, negative))
    cache = DynamicCache(config=model.hf_model.config.get_text_config())
    first = {n: v[:, :-n_left] if n != "pixel_values" else v for n, v in negative.items()}
    with torch.no_grad():
        model(**first, past_key_values=cache, use_cache=True)
    del negative["pixel_values"]
    rest = {**negative, "past_key_values": cache}
    output = raised(model, inputs, ContrastProcessor(model, rest))
    assert_same(output, (whole.sequences[:, -6:], torch.stack(whole.scores, dim=1)))
    with pytest.raises(ValueError, match=r"cache holds \d+ of its \d+ tokens: expected all but"):
        ContrastProcessor(model, rest)


def test_a_batch_of_prompts_of_which_one_ends_early(model, inputs):
    """A finished row goes on with padding in both branches; the others do not notice."""
    processor = ContrastProcessor(model, inputs)
    free = raised(model, inputs, processor).sequences[:, -6:]
    end = int(free[0, 2])
    others = [row for row in free[1:].tolist() if end not in row]
    assert others
    how = {"eos_token_id": end, "logits_processor": [ContrastProcessor(model, inputs)]}
    stopped = generate(model, inputs, **how).sequences[:, -6:].tolist()
    assert stopped[0][3:] == [0, 0, 0]
    assert all(row in stopped for row in others)


def test_beams_are_refused(model, inputs):
    processor = ContrastProcessor(model, inputs, 0.0, 1e-6)
    with pytest.raises(ValueError, match=r"changed places .* leave num_beams at 1"):
        generate(model, inputs, num_beams=3, logits_processor=[processor])


@pytest.mark.parametrize("name", ["llava", "instructblip"])
@pytest.mark.parametrize("n_new", [1, 4])
def test_a_second_use_is_refused(name, n_new):
    model = hooked(name)
    inputs = batch(model)
    processor = ContrastProcessor(model, inputs)
    model.generate(**inputs, max_new_tokens=n_new, logits_processor=[processor])
    with pytest.raises(ValueError, match=r"saw \(3, \d+\) tokens .* make a new processor for each"):
        model.generate(**inputs, max_new_tokens=n_new, logits_processor=[processor])


def test_prompts_that_do_not_fit(model, inputs):
    negative = model.prepare(IMAGES[:2], QUESTIONS[:2])
    with pytest.raises(ValueError, match=r"3 rows are generated .* has 2 prompts"):
        generate(model, inputs, logits_processor=[ContrastProcessor(model, negative)])
    right = {**inputs, "attention_mask": inputs["attention_mask"].flip(1)}
    with pytest.raises(ValueError, match=r"second branch end in padding: expected a left-padded"):
        ContrastProcessor(model, right)


@pytest.mark.parametrize(
    ("alpha", "beta", "match"),
    [
        (-0.5, 0.1, r"alpha=-0\.5: expected a finite strength"),
        (float("nan"), 0.1, "alpha=nan"),
        (1.0, 0.0, r"beta=0\.0: expected a share"),
        (1.0, 1.5, r"beta=1\.5"),
    ],
)
def test_strength_and_cutoff_out_of_range(model, inputs, alpha, beta, match):
    with pytest.raises(ValueError, match=match):
        ContrastProcessor(model, inputs, alpha, beta)


LOGITS = st.lists(st.floats(-20, 20, width=16), min_size=5, max_size=5)


@given(LOGITS, LOGITS, st.floats(0, 3, width=16), st.sampled_from([0.01, 0.1, 0.5]))
def test_combination_matches_a_loop(one, other, alpha, beta):
    ours = combine(torch.tensor([one]), torch.tensor([other]), alpha, beta)
    expected = torch.tensor([contrast(alpha, beta)(one, other)])
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-4)
    assert ours[0, torch.tensor(one).argmax()].isfinite()
