"""Loading a model by its name, with one sentence if this fails."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.utils import disable_progress_bars

from rvelens.files.arguments import refuse_wrong_types
from rvelens.files.atomic import one_line
from rvelens.model.hooked_lvlm import HookedLVLM, parts_of_checkpoint
from rvelens.seam.device import execution_device


@refuse_wrong_types
def load_model(
    name: str | Path,
    *,
    family: str | None = None,
    dtype: str = "auto",
    device_map: str | None = None,
) -> HookedLVLM:
    """Load a model quietly; everything that other libraries print goes to stderr.

    Args:
        name: a hub name, a folder, or rvelens/tiny.
        family: see `HookedLVLM.from_pretrained`.
        dtype: precision of the weights; "auto" takes that of the files.
        device_map: as in transformers; by default the GPU of this process, all GPUs, or the CPU.

    Raises:
        ValueError: the model cannot be found or read.
    """
    name = str(name)
    with _loading(name):
        options = _options(dtype, device_map)
        model = HookedLVLM.from_pretrained(name, family=family, **options)
    _check_placed(model.hf_model, name, device_map)
    return model


def load_parts(
    name: str, *, dtype: str = "auto", device_map: str | None = None
) -> tuple[transformers.PreTrainedModel, Any]:
    """An unwrapped model and its processor; arguments and errors as in `load_model`."""
    with _loading(name):
        hf_model, processor = parts_of_checkpoint(name, **_options(dtype, device_map))
    _check_placed(hf_model, name, device_map)
    return hf_model, processor


def _options(dtype: str, device_map: str | None) -> dict[str, Any]:
    """Options of transformers' `from_pretrained`."""
    if device_map is None and torch.cuda.is_available():
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1  # processes, one GPU each
        device_map = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if several else "auto"
    return {"dtype": str(dtype), **({"device_map": device_map} if device_map else {})}


@contextlib.contextmanager
def _loading(name: str) -> Iterator[None]:
    """Silence, and a sentence where a library fails to load a model."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    disable_progress_bars()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    # Files of other types than transformers expects end in any error of any library.
    except Exception as error:
        if _is_ours(error):
            raise
        # The first sentence: what follows tells how to repair it in Python.
        reason = re.split(r"\.\s+(?=[A-Z])", one_line(error))[0].rstrip(".")
        raise ValueError(
            f"the model {name!r} cannot be loaded ({reason}): expected a folder with safetensors "
            "weights, rvelens/tiny, or a name on a hub that can be reached; check the path."
        ) from error


def _check_placed(hf_model: Any, name: str, device_map: str | None) -> None:
    """Raise ValueError where weights are on no device."""
    if execution_device(hf_model).type == "meta":
        raise ValueError(
            f"device_map={device_map!r} leaves the weights of {name} out: expected a device that "
            "computes; pass auto, cpu or cuda."
        )


# What transformers takes for devices, beside the names of devices themselves.
_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")


def check_device_map(device_map: str | None) -> None:
    """Raise ValueError for devices that this machine lacks, before a model is loaded."""
    if device_map is None or device_map in _MAPS:
        return
    try:
        kind = torch.device(int(device_map) if device_map.isdigit() else device_map).type
    except RuntimeError as error:
        raise ValueError(
            f"device_map={device_map!r} is not a device: expected {', '.join(_MAPS)}, cpu, cuda "
            "or cuda:0; correct it."
        ) from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device_map={device_map!r}, and torch finds no CUDA device here: expected cpu or auto; "
            "leave it out, or install a torch that fits the driver."
        )


def _is_ours(error: BaseException) -> bool:
    """Whether rvelens raised the error: its messages are written for the user already."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals["__name__"].startswith("rvelens.")
