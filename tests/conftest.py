"""Shared fixtures: small thread pool, a tiny hooked LLaVA and a batch for it."""

from __future__ import annotations

import copy
from typing import Any

import hypothesis
import pytest
import torch
from tiny_models import FAMILIES, IMAGES, QUESTIONS, build

from rvelens import ARSProfile, HookedLVLM

# A machine that does other work is no reason to fail.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

# A padded batch, three axes of positions, sliding windows: `make quick` runs these families alone.
QUICK_FAMILIES = {"llava", "qwen2_5_vl", "gemma3"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of further families as `breadth`."""
    further = set(FAMILIES) - QUICK_FAMILIES
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec and any(isinstance(v, str) and v in further for v in callspec.params.values()):
            item.add_marker(pytest.mark.breadth)


@pytest.fixture
def run_command(tmp_path, capsys, monkeypatch):
    """Runs `rvelens` in an empty folder; returns exit code, stdout and stderr."""
    from rvelens.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        printed = capsys.readouterr()
        return end.value.code or 0, printed.out, printed.err  # type: ignore[return-value]

    return run


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def plain() -> Any:
    """A tiny random LLaVA as transformers gives it, under SDPA."""
    hf_model, _ = build("llava")
    hf_model.set_attn_implementation("sdpa")
    return hf_model


@pytest.fixture
def model(plain: Any) -> HookedLVLM:
    """The same model, hooked."""
    _, processor = build("llava")
    return HookedLVLM.from_pretrained(copy.deepcopy(plain), processor=processor)


@pytest.fixture
def inputs(model: HookedLVLM) -> Any:
    """A left-padded batch of prompts of different lengths."""
    return model.prepare(IMAGES, QUESTIONS)


@pytest.fixture
def profile(model: HookedLVLM) -> ARSProfile:
    """A profile with random scores."""
    generator = torch.Generator().manual_seed(0)
    return ARSProfile.from_scores(
        torch.rand(model.n_layers, model.n_heads, generator=generator), model="random"
    )
