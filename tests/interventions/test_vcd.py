"""Diffused images: the schedule, whose noise is whose, and the generation against a slow one."""

from __future__ import annotations

import math

import pytest
import torch
from contrast_reference import assert_same, contrast, decode
from family_cases import CASES, IMAGES, QUESTIONS, batch, generate, hooked

from rvelens import HookedLVLM
from rvelens.benchmarks.action_scenes import make_questions
from rvelens.interventions import diffused, vcd, vcd_negative
from rvelens.interventions.vcd import signal_left

NAMES = ["c", "a", "b"]


def literal_signal(step):
    """abar_t in plain numbers."""
    product = 1.0
    for t in range(step + 1):
        x = -6 + 12 * t / 999
        beta = 1 / (1 + math.exp(-x)) * (0.5e-2 - 1e-5) + 1e-5
        product *= 1 - beta
    return product


@pytest.mark.parametrize("step", [1, 2, 250, 500, 999])
def test_schedule(step):
    assert signal_left(step) == pytest.approx(literal_signal(step), rel=1e-3)
    assert 0 < signal_left(999) < signal_left(500) < signal_left(1) < 1


@pytest.mark.parametrize("step", [1, 500, 999])
def test_diffusion_is_signal_and_unit_noise(step):
    x, y = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 4 - 2
    left = literal_signal(step)
    noise = [(diffused(z, [7], step) - left**0.5 * z) / (1 - left) ** 0.5 for z in (x, y)]
    torch.testing.assert_close(*noise, rtol=1e-2, atol=1e-2)
    assert noise[0].mean().item() == pytest.approx(0, abs=0.03)
    assert noise[0].std().item() == pytest.approx(1, abs=0.03)
    other = diffused(x, [8], step)
    assert not torch.allclose(other, diffused(x, [7], step), atol=1e-3)


def test_bfloat16_pixels_get_the_same_noise(model, inputs):
    pixels = inputs["pixel_values"]
    narrow = diffused(pixels.bfloat16(), [1, 2, 3])
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.float(), diffused(pixels, [1, 2, 3]), rtol=2e-2, atol=2e-2)


def diffuse(model, samples):
    """Original and diffused pixels of some of the samples, as one batch."""
    inputs = model.prepare([IMAGES[i] for i in samples], [QUESTIONS[i] for i in samples])
    n_image = model.token_map(inputs).n_image
    noisy = vcd_negative(inputs, [NAMES[i] for i in samples], n_image=n_image)
    assert {key for key in inputs if noisy[key] is not inputs[key]} == {"pixel_values"}
    return inputs["pixel_values"], noisy["pixel_values"]


@pytest.mark.parametrize("name", CASES)
def test_noise_of_an_image_does_not_depend_on_its_batch(name):
    model = hooked(name)
    _, alone = diffuse(model, [1])
    pixels, together = diffuse(model, [2, 1, 0])
    if together.shape[0] == 3:
        padded = together[1].view(-1, *together.shape[-3:])
        size = alone[0].view(-1, *together.shape[-3:]).shape[0]
        found = padded[:size].view_as(alone[0]), alone[0]
        assert not padded[size:].any()
    else:  # Tiles or patches of all samples in one line.
        before = diffuse(model, [2])[1].shape[0]
        found = together[before : before + alone.shape[0]], alone
    torch.testing.assert_close(*found, rtol=0, atol=0)
    assert (together - pixels).std() > 0.3


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_both_frames_of_an_image_get_the_same_noise(name):
    model = hooked(name)
    pixels, noisy = diffuse(model, [0, 1])
    frames = noisy.view(noisy.shape[0], 3, 2, -1)
    assert torch.equal(frames[:, :, 0], frames[:, :, 1])
    assert (noisy != pixels).all()


def test_noise_follows_name_and_seed(model, inputs):
    same = {**inputs, "pixel_values": inputs["pixel_values"][:1].expand(3, -1, -1, -1)}
    one, other, again = vcd_negative(same, ["a", "b", "a"])["pixel_values"]
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    seeded = vcd_negative(same, ["a", "b", "a"], seed=56)["pixel_values"]
    assert not torch.equal(one, seeded[0])


@pytest.mark.parametrize("name", ["llava", "instructblip", "internvl", "qwen2_5_vl"])
def test_generation_matches_both_branches_from_scratch(name):
    model = hooked(name)
    inputs = batch(model)
    n_image = model.token_map(inputs).n_image
    negative = vcd_negative(inputs, NAMES, 700, 3, n_image)
    processor = vcd(model, inputs, NAMES, alpha=1.5, beta=0.02, step=700, seed=3)
    output = generate(model, inputs, logits_processor=[processor], output_scores=True)
    assert_same(output, decode(model, inputs, negative, contrast(1.5, 0.02)))
    plain = generate(model, inputs).sequences
    assert not torch.equal(output.sequences, plain)


def test_embedded_model():
    model = HookedLVLM.from_pretrained("rvelens/tiny")
    asked = make_questions("test", 4)
    inputs = model.prepare([q.image for q in asked], [q.text for q in asked])
    names = [f"scene-{n}" for n in range(4)]
    processor = vcd(model, inputs, names)
    how = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "output_scores": True}
    output = model.generate(
        **inputs, **how, return_dict_in_generate=True, logits_processor=[processor]
    )
    end = model.hf_model.generation_config.eos_token_id
    negative = vcd_negative(inputs, names)
    expected = decode(model, inputs, negative, contrast(1.0, 0.1), suppress=[end])
    assert_same(output, expected)


def test_mistakes(model, inputs):
    for step in (0, 1000):
        with pytest.raises(ValueError, match=rf"step={step}: expected a step .* from 1 to 999"):
            vcd(model, inputs, NAMES, step=step)
    with pytest.raises(ValueError, match=r"2 image names for 3 samples: expected one for"):
        vcd_negative(inputs, NAMES[:2])
    lined_up = {**inputs, "pixel_values": torch.ones(7, 3, 8, 8)}
    for n_image in (None, (1, 1, 3)):
        with pytest.raises(ValueError, match=r"7 entries of pixel_values for 3 samples"):
            vcd_negative(lined_up, NAMES, n_image=n_image)
    for pixels in (torch.rand(6, 12), torch.ones(6, 13)):
        with pytest.raises(ValueError, match=r"use another method for this family"):
            vcd_negative({**inputs, "pixel_values": pixels}, NAMES, n_image=(1, 1, 1))
