"""Points hold what TransformerLens' bridge shows under the same names, where it knows the family."""

from __future__ import annotations

import subprocess

import pytest
import torch
from family_cases import hooked
from plain_hooks import halved
from tiny_models import IMAGES, QUESTIONS, build
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformer_lens.model_bridge.sources.transformers import helpers

from rvelens.seam.points import rows_of

FAMILIES = ("llava", "llava_next", "llava_onevision", "gemma3", "idefics3")
EDITED = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "attn.hook_q", "attn.hook_z")


@pytest.fixture(autouse=True)
def _no_installation(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("something tried to install a package")

    monkeypatch.setattr(helpers, "_ensure_torchvision", refuse)
    monkeypatch.setattr(subprocess, "check_call", refuse)


def pair(name):
    """The model and its bridge, and one prompt: the bridge counts positions in padding as well."""
    hf_model, _ = build(name)
    bridge = build_bridge_from_module(hf_model, type(hf_model).__name__, hf_config=hf_model.config)
    model = hooked(name)
    model.query_rows = "all"
    inputs = model.prepare(IMAGES[0], QUESTIONS[0])
    return model, bridge, inputs, {k: v for k, v in inputs.items() if k != "input_ids"}


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_caches_agree(name):
    model, bridge, inputs, rest = pair(name)
    _, ours = model.run_with_cache(**inputs)
    _, theirs = bridge.run_with_cache(inputs["input_ids"], **rest)
    # hook_embed of the bridge shows the text before the image takes its place.
    names = ["ln_final.hook_scale"]
    for layer in range(model.n_layers):
        names += [f"blocks.{layer}.{row.name}" for row in rows_of("layer", "attention")]
    for point in names:
        if not point.endswith("hook_result"):
            torch.testing.assert_close(
                ours[point], theirs[point], atol=1e-4, rtol=1e-4, msg=lambda m, n=point: f"{n}: {m}"
            )


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_edits_agree(name):
    model, bridge, inputs, rest = pair(name)
    plain = model(**inputs)
    for point in EDITED:
        hooks = [(f"blocks.1.{point}", lambda x, hook: halved(x))]
        ours = model.run_with_hooks(**inputs, fwd_hooks=hooks)
        with bridge.hooks(fwd_hooks=hooks):
            theirs = bridge(inputs["input_ids"], **rest)
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
        assert (ours - plain).abs().max() > 1e-3, point
