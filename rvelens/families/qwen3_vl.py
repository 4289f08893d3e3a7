"""Qwen3-VL: as Qwen2.5-VL, with features of several vision layers added to the decoder's."""

from __future__ import annotations

from rvelens.families import qwen2_5_vl
from rvelens.families.base import ALL_CHECKS, Family

FAMILY = Family(
    name="qwen3_vl",
    model_types=("qwen3_vl",),
    prompts={"chat": qwen2_5_vl.USER + "<|im_start|>assistant\n"},
    grid=qwen2_5_vl.qwen_grid,
    video_grid=qwen2_5_vl.video_grid,
    note="dense decoders; single images; videos from the processor's own inputs",
    verified=ALL_CHECKS,
)
