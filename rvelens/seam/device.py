"""Where a model reads its inputs."""

from __future__ import annotations

import torch
from torch import nn


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
