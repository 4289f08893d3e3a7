"""Frames of a video are visual tokens: the token map, RVE and the grid know them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from family_cases import hooked, profile_of, reference_forward
from reference import RVE
from tiny_models import IMAGES, QUESTIONS

from rvelens import TokenMap
from rvelens.hooks import rve_hooks

FRAMES = 3


def qwen_video(model: Any, marks_time: bool) -> dict[str, Any]:
    """A prompt with a video of 3 x 4 x 6 patches, which merge to 3 x 2 x 3 tokens."""
    config = model.hf_model.config
    vision = config.vision_config
    n_patches = FRAMES * 4 * 6
    channels = 3 * vision.temporal_patch_size * vision.patch_size**2
    generator = torch.Generator().manual_seed(5)
    start, end = config.vision_start_token_id, config.vision_end_token_id
    frame = [start, *[config.video_token_id] * 6, end]
    video = frame * FRAMES if marks_time else [start, *[config.video_token_id] * 18, end]
    ids = torch.tensor([[40, 41, *video, 50, 51, 52]])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": 2 * (ids == config.video_token_id).int(),
        "pixel_values_videos": torch.randn(n_patches, channels, generator=generator),
        "video_grid_thw": torch.tensor([[FRAMES, 4, 6]]),
    }


def onevision_video(model: Any) -> dict[str, Any]:
    """A prompt with three frames of 4 x 4 patches, pooled to 2 x 2, and a newline."""
    config = model.hf_model.config
    generator = torch.Generator().manual_seed(5)
    ids = torch.tensor([[40, 41, *[config.video_token_id] * (FRAMES * 4 + 1), 50, 51, 52]])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values_videos": torch.randn(1, FRAMES, 3, 32, 32, generator=generator),
    }


CASES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava_onevision")


def video_inputs(name: str, model: Any) -> dict[str, Any]:
    if name == "llava_onevision":
        return onevision_video(model)
    return qwen_video(model, marks_time=name == "qwen3_vl")


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_rve_enhances_frames_as_the_literal_reference_does(name):
    model = hooked(name)
    inputs = video_inputs(name, model)
    is_frame = inputs["input_ids"] == model.hf_model.config.video_token_id
    profile = profile_of(model)
    plain = model(**inputs)
    assert torch.equal(model.tokens.image, is_frame)
    assert torch.equal(model.token_map(inputs).image, is_frame)
    with model.hooks(rve_hooks(profile, [0, 1, 2], k=3, alpha=0.3)):
        got = model(**inputs)[:, -1]
        generated = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    image = [is_frame[0].nonzero().flatten().tolist()]
    last = [is_frame.shape[1] - 1]
    rve = RVE(profile.ranking.tolist(), image=image, last=last, layers=[0, 1, 2], k=3, alpha=0.3)
    expected = reference_forward(name, inputs, rve)[:, -1]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(got, plain[:, -1], atol=1e-3)
    n_prompt = inputs["input_ids"].shape[1]
    allowed = got.index_fill(
        -1, torch.tensor(model.hf_model.generation_config.suppress_tokens), -torch.inf
    )
    assert int(generated[0, n_prompt]) == int(allowed.argmax())


@pytest.mark.parametrize("name", CASES)
def test_the_grid_of_a_video_has_time_rows_and_columns(name):
    model = hooked(name)
    inputs = video_inputs(name, model)
    grid = model.video_grid(inputs)
    assert grid is not None
    n_tokens = int(model.token_map(inputs).n_image[0])
    assert grid.n_tokens == n_tokens
    shape = (3, 2, 2) if name == "llava_onevision" else (3, 2, 3)
    volume = grid.volume(np.arange(n_tokens, dtype=float))
    assert volume.shape == shape
    assert np.array_equal(volume.flatten(), np.arange(np.prod(shape)))
    with pytest.raises(ValueError, match=r"a vector of shape \(2,\) for a video of \d+ tokens"):
        grid.volume(np.zeros(2))
    assert model.video_grid({}) is None


@torch.no_grad()
@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava_onevision"])
def test_a_frame_that_changes_moves_attention_at_its_place(name):
    """The tokens of a frame, in the grid's order, are those whose keys change with it."""
    model = hooked(name)
    inputs = video_inputs(name, model)
    grid = model.video_grid(inputs)
    changed = {k: v.clone() for k, v in inputs.items()}
    pixels = changed["pixel_values_videos"]
    if name == "llava_onevision":
        pixels[:, 1] += 1
    else:
        pixels[24:48] += 1  # the second of three frames, 4 x 6 patches
    rows = []

    def record(module, args, kwargs):
        rows.append(kwargs["inputs_embeds"][0])

    handle = model.hf_model.get_decoder().register_forward_pre_hook(record, with_kwargs=True)
    model(**inputs)
    model(**changed)
    handle.remove()
    moved = (rows[0] - rows[1]).abs().sum(dim=-1)[model.token_map(inputs).image[0]]
    by_frame = grid.volume(moved.numpy()).sum(axis=(1, 2)) > 0
    assert by_frame.tolist() == [False, True, False]


def test_a_map_of_images_and_frames_counts_both():
    ids = torch.tensor([[5, 7, 7, 9, 8, 8, 8]])
    assert TokenMap.from_inputs(ids, (7, 8)).n_image == (5,)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_a_tower_that_runs_for_images_and_for_videos_is_not_cached(name):
    """A cache would hold what the tower saw of the video alone."""
    model = hooked(name)
    image, video = model.prepare(IMAGES[0], QUESTIONS[0]), video_inputs(name, model)
    both = {**image, **video}
    for key in ("input_ids", "attention_mask", "mm_token_type_ids"):
        if key in video:
            both[key] = torch.cat([image[key], video[key]], dim=1)
    calls = []
    with model.hooks([("vision.blocks.0.hook_resid_post", lambda x, hook: calls.append(x.shape))]):
        model(**both)
    assert len(calls) == 2
    for names in ("vision.blocks.0.hook_resid_post", lambda n: n.endswith("hook_resid_post")):
        with pytest.raises(
            ValueError, match="ran 2 times in a forward, and a cache holds its last"
        ):
            model.run_with_cache(**both, names_filter=names)
    _, cache = model.run_with_cache(**both, names_filter=lambda n: n.startswith("blocks.1."))
    assert "blocks.1.hook_resid_post" in cache
    model.run_with_cache(**image, names_filter="vision.blocks.0.hook_resid_post")
