"""ShareGPT4V, whose weights exist in the original LLaVA format only, as a transformers LLaVA folder.

The original names (`model.layers.*`, `model.mm_projector.{0,2}.*`,
`model.vision_tower.vision_tower.vision_model.*`, `lm_head.weight`) become those of
`LlavaForConditionalGeneration`. Dropped by name are `rotary_emb.inv_freq` and
`embeddings.position_ids`, buffers that follow from the configuration. Every other tensor has exactly
one place, and every place one tensor, or nothing is written.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import GenerationConfig, LlavaConfig, LlavaForConditionalGeneration

from rvelens.convert.original import (
    check_config,
    llava_config,
    llava_processor,
    read_tokenizer,
    read_vision_config,
)
from rvelens.convert.shards import find_shards, read_object, read_shard, write_shards
from rvelens.files.arguments import refuse_wrong_types

_DTYPES = ("auto", "float32", "bfloat16", "float16")
_DROPPED = re.compile(r"(^|\.)(rotary_emb\.inv_freq|embeddings\.position_ids)$")
_RENAMED = [
    (re.compile(pattern), new)
    for pattern, new in (
        (r"^model\.mm_projector\.0\.", "model.multi_modal_projector.linear_1."),
        (r"^model\.mm_projector\.2\.", "model.multi_modal_projector.linear_2."),
        (r"^model\.vision_tower\.(vision_tower\.)?(vision_model\.)?", "model.vision_tower."),
        (r"^model\.(?=embed_tokens\.|layers\.|norm\.)", "model.language_model."),
        (r"^lm_head\.", "lm_head."),
    )
]
_RENAMED_TOWER = re.compile(r"^((model\.)?vision_tower\.(vision_tower\.)?)?(vision_model\.)?")
_VOCAB_TENSORS = ("model.language_model.embed_tokens.weight", "lm_head.weight")


@dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    Attributes:
        folder: the new model folder.
        placed: tensors written.
        dropped: names of the source's buffers that were left out.
        n_bytes: bytes of all tensors written.
    """

    folder: Path
    placed: int
    dropped: tuple[str, ...]
    n_bytes: int


@dataclass(frozen=True)
class _Plan:
    """New names by file and old name, and what was found out on the way."""

    files: dict[Path, dict[str, str]]
    dropped: tuple[str, ...]
    dtype: torch.dtype


@refuse_wrong_types
def convert_sharegpt4v(
    src: str | Path,
    dst: str | Path,
    *,
    vision_tower: str | Path | None = None,
    vision_config: str | Path | None = None,
    dtype: str = "auto",
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Conversion:
    """Write an original ShareGPT4V checkpoint as a folder that `HookedLVLM.from_pretrained` loads.

    All names and shapes are checked before the first byte is written; then one shard at a time is
    in memory. The folder appears under its name when it is complete. The new vocabulary rows, for
    "<image>", the padding token and the padding to a multiple of 64, hold the mean of the others:
    their logit is the mean logit, which never wins a greedy choice.

    Args:
        src: folder with config.json, tokenizer files, and safetensors or pytorch_model*.bin.
        dst: the folder to make; it may exist if it is empty.
        vision_tower: where `src` does not hold the tower's weights: the folder or weight file of
            the tuned tower, published apart from the model (`mm_vision_tower` in config.json).
        vision_config: JSON of the tower's CLIP configuration; by default config.json beside
            `vision_tower`, else CLIP ViT-L/14 at 336 pixels.
        dtype: "float32", "bfloat16", "float16", or "auto" for that of the token embeddings.
        progress: wraps the iterable of shards.

    Raises:
        ValueError: a configuration that transformers' LLaVA does not compute, an unreadable file, a
            tensor that is unknown, missing, there twice or of another shape, or `dst` is not empty.
    """
    src, dst = Path(src), Path(dst)
    tower = None if vision_tower is None else Path(vision_tower)
    _check_target(dst, dtype)
    raw = read_object(src / "config.json")
    check_config(raw, src)
    tokenizer = read_tokenizer(src)
    config = llava_config(raw, read_vision_config(tower, vision_config), tokenizer)
    plan = _plan(src, tower, config, int(raw["vocab_size"]))
    config.dtype = plan.dtype if dtype == "auto" else getattr(torch, dtype)
    partial = dst.with_name(f".{dst.name}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        config.save_pretrained(partial)
        GenerationConfig.from_model_config(config).save_pretrained(partial)
        llava_processor(config, tokenizer, raw).save_pretrained(partial)
        shards = _converted(plan, config, progress)
        n_bytes = write_shards(shards, len(plan.files), partial)
        partial.rename(dst)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    placed = sum(len(names) for names in plan.files.values())
    return Conversion(dst, placed, plan.dropped, n_bytes)


def _check_target(dst: Path, dtype: str) -> None:
    if dtype not in _DTYPES:
        raise ValueError(f"dtype {dtype!r}: expected one of {', '.join(_DTYPES)}; choose one.")
    if dst.exists() and not (dst.is_dir() and not any(dst.iterdir())):
        raise ValueError(
            f"{dst} exists and is not an empty folder: expected a new name; choose another or move it."
        )
    if not dst.absolute().parent.is_dir():
        raise ValueError(
            f"no folder {dst.absolute().parent} for {dst.name}: expected an existing folder; "
            "create it first."
        )


def _plan(src: Path, tower: Path | None, config: LlavaConfig, n_rows: int) -> _Plan:
    """Where every tensor goes, by names and shapes alone."""
    shapes = _list_shapes(config, n_rows)
    files: dict[Path, dict[str, str]] = {}
    owner: dict[str, str] = {}
    dropped: list[str] = []
    faults: dict[str, list[str]] = {"unknown": [], "there twice": [], "misshapen": []}
    dtype = torch.float32
    shards = [(path, _renamed) for path in find_shards(src)]
    shards += [(path, _renamed_tower) for path in (find_shards(tower) if tower else [])]
    for path, rename in shards:
        for old, tensor in read_shard(path):
            new = rename(old)
            if _DROPPED.search(old):
                dropped.append(old)
            elif new is None or new not in shapes:
                faults["unknown"].append(old)
            elif new in owner:
                faults["there twice"].append(f"{old} in {owner[new]} and {path.name}")
            else:
                owner[new] = path.name
                files.setdefault(path, {})[old] = new
                if tensor.shape != shapes[new] or not tensor.is_floating_point():
                    kind = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
                    faults["misshapen"].append(f"{old} {kind} for {list(shapes[new])}")
                if new == _VOCAB_TENSORS[0]:
                    dtype = tensor.dtype
    faults["missing"] = [name for name in shapes if name not in owner]
    _raise_faults(src, faults, any(new.startswith("model.vision_tower.") for new in owner))
    return _Plan(files, tuple(dropped), dtype)


def _list_shapes(config: LlavaConfig, n_rows: int) -> dict[str, torch.Size]:
    """Name and shape of every tensor to come, the vocabulary's tables with the source's rows."""
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    return shapes | {name: torch.Size([n_rows, shapes[name][1]]) for name in _VOCAB_TENSORS}


def _renamed(name: str) -> str | None:
    for pattern, new in _RENAMED:
        if pattern.match(name):
            return pattern.sub(new, name)
    return None


def _renamed_tower(name: str) -> str:
    return _RENAMED_TOWER.sub("model.vision_tower.", name)


def _raise_faults(src: Path, faults: dict[str, list[str]], has_tower: bool) -> None:
    lines = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in faults.items()
        if names
    ]
    if not lines:
        return
    advice = "check that all shards are there and config.json is theirs"
    if not has_tower:
        advice = "no weights of the vision tower are among them, give its folder as vision tower"
    raise ValueError(
        f"the tensors of {src} do not fit its config.json: {'; '.join(lines)}: expected every tensor "
        f"of a LLaVA once and no other; {advice}."
    )


def _converted(
    plan: _Plan, config: LlavaConfig, progress: Callable[[Iterable[Any]], Iterable[Any]]
) -> Iterator[dict[str, Tensor]]:
    """Each source file's tensors under their new names, in memory, one file after the other."""
    n_rows = config.get_text_config().vocab_size
    for path in progress(list(plan.files)):
        tensors: dict[str, Tensor] = {}
        for old, tensor in read_shard(path):
            new = plan.files[path].get(old)
            if new is None:  # a buffer that is dropped
                continue
            if new in _VOCAB_TENSORS:
                tensor = with_mean_rows(tensor, n_rows)
            # A copy: safetensors takes no views of a shared or mapped storage.
            tensors[new] = tensor.to(config.dtype, copy=True).contiguous()
        yield tensors


def with_mean_rows(
    table: Float[Tensor, "vocab d_model"], n_rows: int
) -> Float[Tensor, "rows d_model"]:
    """A vocabulary table filled up to `n_rows` with the mean of its rows."""
    mean = table.float().mean(dim=0).to(table.dtype)
    return torch.cat([table, mean.expand(n_rows - table.shape[0], -1)])
