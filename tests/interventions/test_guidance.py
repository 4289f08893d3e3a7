"""PAI's text-only guidance against the formula on log probabilities, each prompt by itself."""

from __future__ import annotations

import math

import pytest
import torch
from contrast_reference import decode
from family_cases import CASES, batch, generate, hooked

from rvelens.hooks import pai_hooks
from rvelens.interventions import text_guidance, text_negative

GAMMA = 1.6


def guided(one, other):
    """gamma (log p - log p') + log p', cut off at a tenth of the largest p."""

    def log_softmax(row):
        top = max(row)
        total = top + math.log(sum(math.exp(x - top) for x in row))
        return [x - total for x in row]

    one, other = log_softmax(one), log_softmax(other)
    cutoff = max(one) + math.log(0.1)
    return [
        GAMMA * (x - y) + y if x >= cutoff else -math.inf for x, y in zip(one, other, strict=True)
    ]


def without_image(model, inputs):
    """Logits of each prompt's text, unpadded and in a batch of one, from scratch."""
    hf_model = model.hf_model
    text_model = hf_model.language_model if model.family.name == "instructblip" else hf_model

    def logits(new):
        rows = []
        for ids, mask, tokens in zip(
            inputs["input_ids"], inputs["attention_mask"], new, strict=True
        ):
            pairs = zip(ids.tolist(), mask.tolist(), strict=True)
            text = [i for i, real in pairs if real and i != model.image_token_id]
            text = torch.tensor([text + tokens.tolist()])
            at = torch.arange(text.shape[1])[None]
            rows.append(text_model(input_ids=text, position_ids=at, use_cache=False).logits[:, -1])
        return torch.cat(rows)

    return logits


@pytest.mark.parametrize("name", ["llava", "instructblip", "qwen2_5_vl"])
def test_generation_matches_the_formula(name):
    model = hooked(name)
    inputs = batch(model)
    processor = text_guidance(model, inputs, GAMMA)
    output = generate(model, inputs, logits_processor=[processor], output_scores=True)
    tokens, scores = decode(model, inputs, without_image(model, inputs), guided)
    assert torch.equal(output.sequences[:, -6:], tokens)
    ours = torch.stack(output.scores, dim=1)
    # Logits and log probabilities differ by one number a row.
    torch.testing.assert_close(ours.log_softmax(-1), scores.log_softmax(-1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["llava", "instructblip"])
def test_hooks_on_the_image_leave_the_text_branch_alone(name):
    """One step under PAI: the first branch is steered, the second is that of the plain model."""
    model = hooked(name)
    inputs = batch(model)
    hooks = pai_hooks(model.n_layers, [0, 1, 2], alpha=0.7)
    with model.hooks(hooks):
        steered = generate(model, inputs, output_logits=True).logits[0]
        processor = text_guidance(model, inputs, GAMMA, beta=1e-30)
        how = {"logits_processor": [processor], "output_scores": True}
        scores = generate(model, inputs, **how).scores[0]
    plain = without_image(model, inputs)(inputs["input_ids"][:, :0])
    allowed = scores.isfinite()
    expected = (GAMMA * steered - (GAMMA - 1) * plain)[allowed]
    torch.testing.assert_close(scores[allowed], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_text_prompts_are_left_padded_and_in_order(name):
    model = hooked(name)
    inputs = batch(model)
    negative = text_negative(inputs, model.image_token_id)
    assert bool(negative["attention_mask"].any(dim=0).all())
    for row in range(3):
        kept = negative["input_ids"][row][negative["attention_mask"][row].bool()].tolist()
        real = inputs["input_ids"][row][inputs["attention_mask"][row].bool()].tolist()
        assert kept == [i for i in real if i != model.image_token_id]
        assert negative["position_ids"][row][-len(kept) :].tolist() == list(range(len(kept)))


def test_guidance_out_of_range(model, inputs):
    with pytest.raises(ValueError, match=r"gamma=0\.9: expected a finite strength from 1 to 1000"):
        text_guidance(model, inputs, 0.9)
