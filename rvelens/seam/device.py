"""Where a model reads its inputs, and tensors that outlive a forward."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.compiler import is_compiling


def outlasting() -> AbstractContextManager[Any]:
    """A context for tensors that later forwards use.

    A tensor made under `torch.inference_mode` cannot be changed in place or saved for backward
    outside of it. In this context it can.
    """
    return nullcontext() if is_compiling() else torch.inference_mode(False)


def execution_device(model: nn.Module) -> torch.device:
    """Where a module computes: for an offloaded one not where its weights lie ("meta")."""
    hook = getattr(model, "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    if device is not None:
        return torch.device(device)
    for module in model.modules():
        device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        if device is not None:
            return torch.device(device)
    return next(model.parameters()).device
