"""Weights in files: which files, what is in them, and how they are written. Never unpickles code."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rvelens.files import atomic as files
from rvelens.files.wording import kind_of_value

# (index, files without an index), in the order of preference that transformers has.
_LAYOUTS = (
    ("model.safetensors.index.json", "model*.safetensors"),
    ("pytorch_model.bin.index.json", "pytorch_model*.bin"),
)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ValueError: no such file, or no JSON object in it.
    """
    if not path.is_file():
        raise ValueError(f"no file {path}: expected a JSON object there; check the folder.")
    data = files.read_json(path, "a JSON object; check the file")
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds {kind_of_value(data)}: expected a JSON object; correct it.")
    return data


def find_shards(path: Path) -> list[Path]:
    """The weight files of a checkpoint: those of its index, else all of the usual names.

    Args:
        path: a folder, or one weight file.

    Raises:
        ValueError: no weights there, or a file of the index is missing.
    """
    if path.is_file():
        return [path]
    for index, pattern in _LAYOUTS:
        if (path / index).is_file():
            weight_map = read_object(path / index).get("weight_map")
            named = weight_map.values() if isinstance(weight_map, dict) else ()
            shards = [path / Path(name).name for name in sorted({str(name) for name in named})]
        else:
            shards = sorted(path.glob(pattern))
        for shard in shards:
            if not shard.is_file():
                raise ValueError(
                    f"no file {shard}, which {index} names: expected every shard of the checkpoint; "
                    "download it again."
                )
        if shards:
            return shards
    patterns = " or ".join(pattern for _, pattern in _LAYOUTS)
    raise ValueError(f"no weights in {path}: expected {patterns}; check the folder.")


def read_shard(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor of everything in one weight file, mapped into memory and not loaded.

    Raises:
        ValueError: a truncated or foreign file, one that would run code, or an entry that is no
            tensor.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  # a handle, not a dict
                    yield name, file.get_tensor(name)
            return
        entries = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors: expected a file that loads without running code; use "
            "the checkpoint's safetensors instead."
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ValueError(
            f"{path} cannot be read ({reason}): expected safetensors, or weights as torch.save writes "
            "them since 1.6; the file may be truncated, download it again."
        ) from error
    if not isinstance(entries, Mapping):
        raise ValueError(
            f"{path} holds {kind_of_value(entries)}: expected tensors by name; pass "
            "the weights of a checkpoint."
        )
    for name, entry in entries.items():
        if not isinstance(entry, Tensor):
            raise ValueError(
                f"{name!r} in {path} is {kind_of_value(entry)}: expected only tensors; pass a "
                "checkpoint, not a training state."
            )
        yield str(name), entry


def write_shards(shards: Iterator[dict[str, Tensor]], n_shards: int, folder: Path) -> int:
    """Write dictionaries of tensors as sharded safetensors with an index; one in memory at a time.

    Args:
        shards: tensors by name, each dictionary a file; emptied once written.
        n_shards: how many dictionaries come.
        folder: an existing folder.

    Returns:
        bytes of all tensors.
    """
    weight_map: dict[str, str] = {}
    n_bytes = 0
    for number, tensors in enumerate(shards, start=1):
        name = f"model-{number:05}-of-{n_shards:05}.safetensors"
        try:
            save_file(tensors, folder / name, metadata={"format": "pt"})
        except (SafetensorError, OSError) as error:  # neither names the file
            raise ValueError(
                f"{folder / name} cannot be written ({error}): expected enough disk space for the "
                "weights; free some, or choose another folder."
            ) from error
        weight_map |= dict.fromkeys(tensors, name)
        n_bytes += sum(tensor.nbytes for tensor in tensors.values())
        tensors.clear()  # before the next shard is read
    index = {"metadata": {"total_size": n_bytes}, "weight_map": dict(sorted(weight_map.items()))}
    files.write_json(folder / "model.safetensors.index.json", index, indent=2)
    return n_bytes
