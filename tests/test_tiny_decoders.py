"""Every tiny decoder runs."""

from __future__ import annotations

import pytest
import torch
from tiny_decoders import DECODERS, build


@pytest.mark.parametrize("name", DECODERS)
def test_forward(name):
    model, inputs = build(name)
    with torch.no_grad():
        logits = model(**inputs).logits
    assert logits.shape[:2] == inputs["input_ids"].shape
    assert logits.isfinite().all()
