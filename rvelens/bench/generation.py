"""Speed of generation under hooks, and what is reported beside it.

Every setting generates once per round and the settings take turns, so that what else the machine
does falls on all of them alike; what is reported are medians of the ratios within each round.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from rvelens.bench.clock import Progress, interleaved, quartiles
from rvelens.bench.memory import capture_memory
from rvelens.bench.scoring import scoring
from rvelens.bench.settings import settings_side_by_side
from rvelens.bench.shapes import SHAPES, Inputs, Shape, build, prompt_of
from rvelens.bench.sharing import sharing
from rvelens.hooks import rve_hooks
from rvelens.layers import parse_layers
from rvelens.model import HookedLVLM
from rvelens.profile import ARSProfile
from rvelens.tokens import attach_tokens

# What is timed, by the names that the tables show.
PLAIN, UNHOOKED, RVE, BRIDGE = "transformers SDPA", "HookedLVLM", "HookedLVLM + RVE", "Bridge + RVE"


def run(
    shape_name: str,
    *,
    runs: int = 7,
    new_tokens: int = 16,
    device: str = "cpu",
    progress: Progress = iter,
) -> dict[str, Any]:
    """Measure a shape: seconds of each setting, ratios to plain SDPA, memory of an ARS capture.

    Args:
        shape_name: one of `SHAPES`.
        runs: rounds, at least 7 for figures to be quoted; one more warms up.
        new_tokens: tokens each generation adds.
        device: "cpu" or "cuda".
        progress: wraps the iteration over rounds, for a progress bar.

    Raises:
        ValueError: an unknown shape, too few rounds, or a device that cannot hold the model.
    """
    if shape_name not in SHAPES:
        raise ValueError(f"shape {shape_name!r}: expected one of {', '.join(SHAPES)}.")
    if runs < 1:
        raise ValueError(f"runs={runs}: expected at least 1, and 7 for figures to be quoted.")
    return run_shape(SHAPES[shape_name], shape_name, runs, new_tokens, device, progress)


def run_shape(
    shape: Shape, name: str, runs: int, new_tokens: int, device: str, progress: Progress
) -> dict[str, Any]:
    """`run` for a shape of one's own."""
    hf_model = build(shape, device)
    hooked = HookedLVLM(twin(hf_model))
    inputs = prompt_of(hf_model, shape.text_tokens)
    layers = parse_layers("preset", None, hooked.n_layers)
    settings, missing = _settings(hf_model, hooked, inputs, layers, new_tokens)
    seconds = interleaved(settings, runs, device, progress)
    ratios = {
        setting: [a / b for a, b in zip(times, seconds[PLAIN], strict=True)]
        for setting, times in seconds.items()
    }
    prompts = [prompt_of(hf_model, shape.text_tokens, images) for images in (1, 2)]
    return {
        "shape": name,
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
        "dtype": str(shape.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "layers": hooked.n_layers,
        "rve_layers": layers,
        "prompt_tokens": int(inputs["input_ids"].shape[1]),
        "new_tokens": new_tokens,
        "runs": runs,
        "seconds": {setting: statistics.median(times) for setting, times in seconds.items()},
        "ratios": {setting: statistics.median(r) for setting, r in ratios.items()},
        "quartiles": {setting: quartiles(r) for setting, r in ratios.items()},
        "missing": missing,
        "capture": [capture_memory(hooked, prompt) for prompt in prompts],
        "sharing": sharing(hooked, runs, device),
        "scoring": scoring(hooked, runs, device),
        "settings": settings_side_by_side(hooked, runs, device),
    }


def twin(model: PreTrainedModel) -> PreTrainedModel:
    """The same weights (shared, not copied) in modules of their own."""
    memo = {id(p): p for p in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, memo)


def _settings(
    hf_model: PreTrainedModel,
    hooked: HookedLVLM,
    inputs: Inputs,
    layers: list[int],
    new_tokens: int,
) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """What to time, and the reason of what cannot be timed here."""
    options = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "do_sample": False}
    scores = torch.rand(hooked.n_layers, hooked.n_heads, generator=torch.Generator().manual_seed(2))
    hooks = rve_hooks(ARSProfile.from_scores(scores), layers, k=min(5, hooked.n_heads // 2))

    @torch.no_grad()
    def under_rve() -> None:
        with hooked.hooks(hooks):
            hooked.generate(**inputs, **options)

    generate: Any = hf_model.generate
    settings: dict[str, Callable[[], Any]] = {
        PLAIN: torch.no_grad()(lambda: generate(**inputs, **options)),
        UNHOOKED: lambda: hooked.generate(**inputs, **options),
        RVE: under_rve,
    }
    try:
        bridge = boot_bridge(twin(hf_model))
    except Exception as error:  # Whatever keeps TransformerLens from booting is shown, not raised.
        return settings, {BRIDGE: f"{type(error).__name__}: {' '.join(str(error).split())}"}
    attach_tokens(bridge.hook_dict.values(), hooked.token_map(inputs))

    @torch.no_grad()
    def bridge_under_rve() -> None:
        with bridge.hooks(fwd_hooks=hooks):
            bridge.original_model.generate(**inputs, **options)

    return {**settings, BRIDGE: bridge_under_rve}, {}


def boot_bridge(hf_model: PreTrainedModel) -> Any:
    """TransformerLens' bridge around a loaded LLaVA; the model is changed in place."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    with no_installs():
        return build_bridge_from_module(
            hf_model, "LlavaForConditionalGeneration", hf_config=hf_model.config
        )


@contextmanager
def no_installs() -> Iterator[None]:
    """Keep TransformerLens from running `pip install torchvision`, which would replace torch."""
    from transformer_lens.model_bridge.sources.transformers import helpers

    before = helpers._ensure_torchvision
    helpers._ensure_torchvision = lambda: False
    try:
        yield
    finally:
        helpers._ensure_torchvision = before
