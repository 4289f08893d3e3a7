"""Qwen2-VL and Qwen2.5-VL: one rectangle of merged patches in the image's own shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rvelens.families.base import ALL_CHECKS, Family
from rvelens.tokens.grid import ImageGrid, VideoGrid, single_tile

USER = "<|im_start|>user\n<|vision_start|>{image}<|vision_end|>{question}<|im_end|>\n"
_CHAT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    + USER
    + "<|im_start|>assistant\n"
)


def qwen_grid(
    config: Any, processor: Any, size: tuple[int, int], n_tokens: int
) -> ImageGrid | None:
    """Merged patches of the resized image, row by row; nothing is cropped or padded."""
    # Here, since it loads what a model needs, and `import rvelens` need not wait for that.
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    images = getattr(processor, "image_processor", None)
    if images is None:
        return None
    factor = images.patch_size * images.merge_size
    limits = images.size
    height, width = smart_resize(
        size[1], size[0], factor, limits["shortest_edge"], limits["longest_edge"]
    )
    rows, columns = height // factor, width // factor
    return single_tile(rows, columns) if rows * columns == n_tokens else None


def video_grid(config: Any, inputs: Mapping[str, Any], video: int) -> VideoGrid | None:
    """Merged patches of merged frames: both sides of `video_grid_thw` by the spatial merge."""
    if inputs.get("video_grid_thw") is None:
        return None
    frames, rows, columns = inputs["video_grid_thw"][video].tolist()
    merge = config.vision_config.spatial_merge_size
    rows, columns = rows // merge, columns // merge
    return VideoGrid(frames, rows, columns, frames * rows * columns)


FAMILY = Family(
    name="qwen2_5_vl",
    model_types=("qwen2_5_vl", "qwen2_vl"),
    prompts={"chat": _CHAT},
    grid=qwen_grid,
    video_grid=video_grid,
    note="Qwen2-VL too; single images; videos from the processor's own inputs",
    verified=ALL_CHECKS,
)
