"""RVE through the hooks against the literal reference of equations 4 to 6, for every family."""

from __future__ import annotations

import pytest
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
    verifies,
)

from rvelens.hooks import rve_hooks

LAYERS = [0, 1, 2]
OPTIONS = {"k": 3, "alpha": 0.3, "beta": 1.0}
VARIANTS = {
    "sensitive heads only": {"scope": "sensitive"},
    "no denoising": {"denoise": False},
    "one token": {"alpha": 0.001},
    "every token": {"alpha": 1.0, "denoise": False},
    "every token, all denoised": {"alpha": 1.0},
    "some layers, stronger": {"layers": [1, 2], "beta": 2.5},
}


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@verifies("RVE = reference")
@pytest.mark.parametrize("variant", [None, *VARIANTS])
def test_prefill(name, variant):
    options = {"layers": LAYERS, **OPTIONS, **VARIANTS.get(variant, {})}
    model = hooked(name)
    inputs, profile = batch(model), profile_of(model)
    with torch.no_grad():
        plain = model(**inputs)[:, -1]
        with model.hooks(rve_hooks(profile, **options)):
            logits = model(**inputs)[:, -1]
    rve = reference_of(profile, inputs, model.image_token_id, **options)
    expected = reference_logits(name, inputs, inputs["input_ids"][:, -1:], rve)[:, 0]
    close(logits, expected)
    changed = (logits - plain).abs().max() > 1e-2
    assert changed == (variant != "every token, all denoised")


@verifies("generation")
def test_each_step_of_a_generation(name):
    options = {"layers": LAYERS, **OPTIONS}
    model = hooked(name)
    inputs, profile = batch(model), profile_of(model)
    n_prompt = inputs["input_ids"].shape[1]
    with model.hooks(rve_hooks(profile, **options)):
        output = generate(model, inputs, output_logits=True)
    new = output.sequences[:, -6:]
    assert output.sequences.shape[1] in (6, n_prompt + 6)
    rve = reference_of(profile, inputs, model.image_token_id, **options)
    close(torch.stack(output.logits, dim=1), reference_logits(name, inputs, new, rve))


@pytest.mark.slow
@verifies("beams")
def test_beams(name):
    options = {"layers": LAYERS, **OPTIONS}
    model = hooked(name)
    inputs, profile = batch(model), profile_of(model)
    how = {"num_beams": 3, "num_return_sequences": 3, "length_penalty": 0.0, "output_scores": True}
    with model.hooks(rve_hooks(profile, **options)):
        output = generate(model, inputs, **how)
    new = output.sequences[:, -6:]
    repeated = batch(model, times=3)
    rve = reference_of(profile, repeated, model.image_token_id, **options)
    logits = reference_logits(name, repeated, new, rve)
    expected = logits.log_softmax(dim=-1).gather(-1, new[..., None]).sum(dim=(1, 2))
    close(output.sequences_scores, expected)
    for sample in new.split(3):
        assert len({tuple(row) for row in sample.tolist()}) == 3


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_right_padded_forward(name):
    """A plain forward may be padded on the right: the last real row is edited, wherever it is."""
    options = {"layers": LAYERS, **OPTIONS}
    model = hooked(name)
    inputs, profile = dict(batch(model)), profile_of(model)
    order = inputs["attention_mask"].argsort(dim=1, stable=True, descending=True)
    for key in ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"):
        if key in inputs:
            inputs[key] = inputs[key].gather(1, order)
    with model.hooks(rve_hooks(profile, **options)):
        logits = model(**inputs)
    rve = reference_of(profile, inputs, model.image_token_id, **options)
    assert len(set(rve.last)) == 3
    expected = reference_forward(name, inputs, rve)
    for row, ours, theirs in zip(rve.last, logits, expected, strict=True):
        close(ours[row], theirs[row])


STATIC = [name for name in CASES if name != "instructblip"]


@pytest.mark.parametrize("name", STATIC)
def test_generation_with_a_static_cache(name):
    """A static cache holds empty slots behind the tokens, and its size stays."""
    options = {"layers": LAYERS, **OPTIONS}
    model = hooked(name)
    inputs, profile = batch(model), profile_of(model)
    with model.hooks(rve_hooks(profile, **options)):
        output = generate(
            model, inputs, output_logits=True, cache_implementation="static", disable_compile=True
        )
    new = output.sequences[:, -6:]
    rve = reference_of(profile, inputs, model.image_token_id, **options)
    close(torch.stack(output.logits, dim=1), reference_logits(name, inputs, new, rve))
