"""Speed of generation under hooks, and what is reported beside it.

Every setting generates once per round and the settings take turns, so that what else the machine
does falls on all of them alike; what is reported are medians of the ratios within each round.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import CompileConfig, PreTrainedModel

from rvelens.evaluate.run import Progress
from rvelens.files.arguments import refuse_wrong_types
from rvelens.heads.layers import parse_layers
from rvelens.heads.profile import ARSProfile
from rvelens.hooks import rve_hooks
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.speed.clock import interleaved, quartiles
from rvelens.speed.counts import count_graph_breaks, count_kernels
from rvelens.speed.head_scores import scoring
from rvelens.speed.memory import capture_memory
from rvelens.speed.results import (
    BRIDGE,
    PLAIN,
    PLAIN_COMPILED,
    RVE,
    RVE_COMPILED,
    UNHOOKED,
    BenchResult,
    Conditions,
    Counts,
    OtherMeasurements,
    Times,
    plain_of,
)
from rvelens.speed.settings import settings_side_by_side
from rvelens.speed.shapes import SHAPES, PromptTensors, Shape, build_random, prompt_of
from rvelens.speed.sharing import sharing
from rvelens.tokens.token_map import attach_tokens


@dataclass(frozen=True)
class BenchSetting:
    """A way to generate.

    Attributes:
        model: of transformers; one forward of it is a decode step.
        generate: what is timed.
        hooks: the hooks that are on meanwhile.
    """

    model: Any
    generate: Callable[..., Any]
    hooks: Callable[[], AbstractContextManager[Any]] = nullcontext

    @torch.no_grad()
    def run(self, **options: Any) -> None:
        """Generate under the hooks."""
        with self.hooks():
            self.generate(**options)


@refuse_wrong_types
def run_bench(
    shape_name: str,
    *,
    runs: int = 7,
    new_tokens: int = 16,
    device: str = "cpu",
    progress: Progress = lambda items, label: items,
    compiled: bool | None = None,
) -> BenchResult:
    """Measure a shape: times, kernels and graph breaks of each setting, memory of an ARS capture.

    Args:
        shape_name: one of `SHAPES`.
        runs: rounds, at least 7 for figures to be quoted; one more warms up.
        new_tokens: tokens each generation adds.
        device: "cpu" or "cuda".
        progress: wraps the steps of each stage, with a label, for progress bars.
        compiled: time compiled generation too; None: on a GPU. The CPU needs a C++ compiler for it.

    Raises:
        ValueError: an unknown shape, too few rounds, or a device that cannot hold the model.
    """
    if shape_name not in SHAPES:
        raise ValueError(f"shape {shape_name!r}: expected one of {', '.join(SHAPES)}; choose one.")
    if runs < 1:
        raise ValueError(
            f"runs={runs}: expected at least 1; pass 7 or more for results to publish."
        )
    compiled = device != "cpu" if compiled is None else compiled
    config = compile_config_of(device) if compiled else None
    return run_shape(SHAPES[shape_name], shape_name, runs, new_tokens, device, progress, config)


def compile_config_of(device: str, backend: str = "inductor") -> CompileConfig:
    """transformers' own way to compile generation, allowed on the CPU too."""
    config = CompileConfig(backend=backend)
    # transformers compiles nothing on the CPU unless this is set.
    config._compile_all_devices = device == "cpu" or None  # type: ignore[assignment]
    return config


def run_shape(
    shape: Shape,
    name: str,
    runs: int,
    new_tokens: int,
    device: str,
    progress: Progress,
    compile_config: CompileConfig | None = None,
) -> BenchResult:
    """`run_bench` for a shape of one's own; with `compile_config` compiled generation is timed too."""
    hf_model = build_random(shape, device)
    hooked = HookedLVLM(twin(hf_model))
    inputs = prompt_of(hf_model, shape.text_tokens)
    layers = parse_layers("preset", None, hooked.n_layers)
    settings, missing = _settings(hf_model, hooked, inputs, layers)
    counts = _counts(settings, inputs, progress)
    timed, failed = _timed(settings, inputs, new_tokens, compile_config, progress)
    seconds = interleaved(timed, runs, device, lambda rounds: progress(rounds, "rounds"))
    conditions: Conditions = {
        "shape": name,
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
        "dtype": str(shape.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "layers": hooked.n_layers,
        "rve_layers": layers,
        "prompt_tokens": int(inputs["input_ids"].shape[1]),
        "new_tokens": new_tokens,
        "runs": runs,
    }
    return {
        **conditions,
        **_times(seconds, {**missing, **failed}),
        **counts,
        **_measure_others(hooked, shape, runs, device, progress),
    }


def _times(seconds: dict[str, list[float]], missing: dict[str, str]) -> Times:
    ratios = {
        name: [a / b for a, b in zip(times, seconds[plain_of(name)], strict=True)]
        for name, times in seconds.items()
    }
    return {
        "seconds": {name: statistics.median(times) for name, times in seconds.items()},
        "ratios": {name: statistics.median(r) for name, r in ratios.items()},
        "quartiles": {name: quartiles(r) for name, r in ratios.items()},
        "missing": missing,
    }


def _measure_others(
    hooked: HookedLVLM, shape: Shape, runs: int, device: str, progress: Progress
) -> OtherMeasurements:
    prompts = [prompt_of(hooked.hf_model, shape.text_tokens, images) for images in (1, 2)]

    def step(label: str, measure: Callable[[], Any]) -> Any:
        """A measurement behind a bar of its own: each may take minutes."""
        (measured,) = [measure() for _ in progress([label], label)]
        return measured

    return {
        "capture": step("memory", lambda: [capture_memory(hooked, prompt) for prompt in prompts]),
        "sharing": step("shared prefixes", lambda: sharing(hooked, runs, device)),
        "scoring": step("head scores", lambda: scoring(hooked, runs, device)),
        "settings": step("settings", lambda: settings_side_by_side(hooked, runs, device)),
    }


def twin(model: PreTrainedModel) -> PreTrainedModel:
    """The same weights (shared, not copied) in modules of their own."""
    memo = {id(p): p for p in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, memo)


def _settings(
    hf_model: PreTrainedModel, hooked: HookedLVLM, inputs: PromptTensors, layers: list[int]
) -> tuple[dict[str, BenchSetting], dict[str, str]]:
    """What to measure, and the reason of what cannot be measured here."""
    scores = torch.rand(hooked.n_layers, hooked.n_heads, generator=torch.Generator().manual_seed(2))
    hooks = rve_hooks(ARSProfile.from_scores(scores), layers, k=min(5, hooked.n_heads // 2))
    plain: Any = hf_model
    settings = {
        PLAIN: BenchSetting(plain, plain.generate),
        UNHOOKED: BenchSetting(hooked.hf_model, hooked.generate),
        RVE: BenchSetting(hooked.hf_model, hooked.generate, partial(hooked.hooks, hooks)),
    }
    try:
        bridge = boot_bridge(twin(hf_model))
    except Exception as error:  # Whatever keeps TransformerLens from booting is shown, not raised.
        return settings, {BRIDGE: _reason(error)}
    attach_tokens(bridge.hook_dict.values(), hooked.token_map(inputs))
    original = bridge.original_model
    settings[BRIDGE] = BenchSetting(
        original, original.generate, partial(bridge.hooks, fwd_hooks=hooks)
    )
    return settings, {}


def _counts(settings: dict[str, BenchSetting], inputs: PromptTensors, progress: Progress) -> Counts:
    """Kernels of every setting, and graph breaks of all but the bridge."""
    counts: Counts = {"kernels": {}, "graph_breaks": {}, "uncounted": {}}
    for name, setting in progress(list(settings.items()), "kernels and graph breaks"):
        with setting.hooks():
            counts["kernels"][name] = count_kernels(setting.model, inputs)
            if name == BRIDGE:
                counts["uncounted"][name] = "the bridge is not compiled"
                continue
            try:
                counts["graph_breaks"][name] = count_graph_breaks(setting.model, inputs)
            except (
                Exception
            ) as error:  # For example a Python that torch cannot compile; the reason is shown.
                counts["uncounted"][name] = _reason(error)
    return counts


def _timed(
    settings: dict[str, BenchSetting],
    inputs: PromptTensors,
    new_tokens: int,
    config: CompileConfig | None,
    progress: Progress,
) -> tuple[dict[str, Callable[[], None]], dict[str, str]]:
    """What is timed, and the reason of what cannot be compiled here."""
    length = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
    options = {**inputs, **length, "do_sample": False}
    eager = {name: partial(setting.run, **options) for name, setting in settings.items()}
    if config is None:
        return eager, {}
    options |= {"cache_implementation": "static", "compile_config": config}
    compiled = {
        PLAIN_COMPILED: partial(settings[PLAIN].run, **options),
        RVE_COMPILED: partial(settings[RVE].run, **options),
    }
    try:
        for generate in progress(list(compiled.values()), "compiling"):
            generate()  # compiles, so that no round does
    except Exception as error:  # For example no C++ compiler; the other rows are still timed.
        # Both are left out, since one is compared with the other.
        return eager, dict.fromkeys(compiled, _reason(error))
    return {**eager, **compiled}, {}


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


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
