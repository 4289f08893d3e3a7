"""Tensors that outlive a forward."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.compiler import is_compiling


def outlasting() -> AbstractContextManager[Any]:
    """A context for tensors that later forwards use.

    A tensor made under `torch.inference_mode` cannot be changed in place or saved for backward
    outside of it. In this context it can.
    """
    return nullcontext() if is_compiling() else torch.inference_mode(False)
