"""Time per example of every method, side by side in one run (Figure 9b)."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from rvelens.evaluate.answering import answer
from rvelens.files.paths import slug
from rvelens.interventions.methods import Method
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.plots import timing_bars
from rvelens.speed.clock import interleaved, quartiles
from rvelens.speed.generation import twin
from rvelens.stats import Estimate, mcnemar
from rvelens.studies.kit.base import Measured, Setup, Shown, Study, Work, iterate
from rvelens.studies.kit.comparison import compare_with_paper
from rvelens.studies.kit.paper import PaperCell, lookup, model_key
from rvelens.tables import Table

PLAIN, BASE = "transformers", "vanilla"
MIN_RUNS = 7


def _measure(setup: Setup) -> dict[str, Any]:
    """Seconds of every method in every round, for one token and for a whole answer.

    Questions are asked one at a time, image and prompt to answer, by `rvelens.evaluate.answer`, and
    every answer has the same length. Beside the methods runs a copy of the model (of the same weights)
    as transformers has it, under SDPA.

    A round is of use only beside the others of its run: a run that was interrupted begins again. One
    that is done is kept, for its device.

    Raises:
        ValueError: options out of range, methods without vanilla, or an image that cannot be read.
    """
    options = setup.options
    runs, new_tokens, n = (options[name] for name in ("runs", "new_tokens", "n_questions"))
    if runs < MIN_RUNS or new_tokens < 2 or n < 1:
        raise ValueError(
            f"runs={runs}, new_tokens={new_tokens}, n_questions={n}: expected at least {MIN_RUNS} "
            "rounds, 2 tokens and 1 question; pass larger numbers."
        )
    if BASE not in [method.name for method in setup.methods]:
        raise ValueError(
            "latency without the method vanilla: expected vanilla, with which the others are "
            "compared; add it to methods (--method vanilla)."
        )
    return setup.parts.keep(f"seconds-{slug(_device(setup))}", lambda: _run(setup))


def _work(setup: Setup) -> Work:
    """Every round, the one that warms up included, with answers of one token and of full length."""
    n = min(setup.options["n_questions"], len(setup.benchmark.items))
    rows = 1 + len(setup.methods) + sum(m.contrast is not None for m in setup.methods)
    whole = n * rows * (1 + setup.options["runs"])
    return Work(2 * whole, whole, setup.options["new_tokens"])


def _device(setup: Setup) -> str:
    """The GPU by its name, or cpu."""
    device = setup.model.device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _run(setup: Setup) -> dict[str, Any]:
    model, options = setup.model, setup.options
    items = setup.benchmark.sample(options["n_questions"]).items
    prompts = [(item.load(), setup.decoding.question(item), item.image) for item in items]
    lengths = (1, options["new_tokens"])
    rows: dict[str, Callable[[int], None]] = {PLAIN: _plain(setup, prompts)}
    rows |= {method.name: _of_method(setup, method, prompts) for method in setup.methods}
    seconds = interleaved(
        {f"{name} {n}": lambda run=run, n=n: run(n) for name, run in rows.items() for n in lengths},
        options["runs"],
        str(model.device),
        iterate(setup.progress, "rounds"),
    )
    return {
        "model": model.name,
        "device": _device(setup),
        "dtype": str(model.hf_model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "questions": len(prompts),
        "prompt_tokens": [
            int(model.prepare(image, text, setup.decoding.prompt)["input_ids"].shape[1])
            for image, text, _ in prompts
        ],
        "new_tokens": options["new_tokens"],
        "runs": options["runs"],
        # Per example and round.
        "first": {name: [s / len(prompts) for s in seconds[f"{name} 1"]] for name in rows},
        "whole": {
            name: [s / len(prompts) for s in seconds[f"{name} {lengths[1]}"]] for name in rows
        },
        "peak_bytes": {name: _peak(model.device, run, lengths[1]) for name, run in rows.items()}
        if model.device.type == "cuda"
        else None,
    }


Prompts = Sequence[tuple[Image.Image, str, str]]


def _of_method(setup: Setup, method: Method, prompts: Prompts) -> Callable[[int], None]:
    """Answers all questions with a number of tokens each, one after the other."""

    def run(n: int) -> None:
        decoding = replace(setup.decoding, max_new_tokens=n)
        for image, text, name in prompts:
            answer(setup.model, method, [image], [text], [name], decoding, min_new_tokens=n)

    return run


def _plain(setup: Setup, prompts: Prompts) -> Callable[[int], None]:
    """The same questions, with what transformers alone offers."""
    copy = plain_copy(setup.model)

    @torch.no_grad()
    def run(n: int) -> None:
        for image, text, _ in prompts:
            inputs = setup.model.prepare(image, text, setup.decoding.prompt)
            copy.generate(**inputs, do_sample=False, max_new_tokens=n, min_new_tokens=n)

    return run


def plain_copy(model: HookedLVLM) -> Any:
    """A copy of the model, of the same weights, as transformers has it: under SDPA, without hooks."""
    copy = twin(model.hf_model)
    copy.set_attn_implementation({"text_config": "sdpa"})
    return copy


def _peak(device: torch.device, run: Callable[[int], None], n: int) -> int:
    """The most bytes above what is there between answers, weights included."""
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run(n)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def over_vanilla(times: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Each row's time over that of vanilla in the same round."""
    return {
        name: [a / b for a, b in zip(seconds, times[BASE], strict=True)]
        for name, seconds in times.items()
    }


def further(data: Measured) -> dict[str, list[float]]:
    """Seconds of each token behind the first, by row and round."""
    n = data["new_tokens"] - 1
    return {
        name: [(b - a) / n for a, b in zip(data["first"][name], whole, strict=True)]
        for name, whole in data["whole"].items()
    }


def middle(values: Sequence[float]) -> dict[str, float]:
    """Median with first and third quartile."""
    low, high = quartiles(list(values))
    return {"value": statistics.median(values), "low": low, "high": high}


def _show(setup: Setup, measured: Sequence[Measured]) -> Shown:
    """Times and ratios by method, what the rounds confirm, and the paper's words beside."""
    (data,) = measured
    ratios = over_vanilla(data["whole"])
    tables = {"": _times(data), "paper": _paper(data, ratios)}
    figures = {"": _figure(data, ratios)}
    return Shown(tables, figures, {}, tuple(_conclude(ratios)), _measured(data, ratios))


def _times(data: Measured) -> Table:
    n = data["new_tokens"]
    columns = ["method", "first token, ms", "further token, ms", f"{n} tokens, × vanilla",
               "first token, × vanilla"]  # fmt: skip
    whole, first, later = over_vanilla(data["whole"]), over_vanilla(data["first"]), further(data)
    rows: list[list[Any]] = [
        [
            name,
            middle([1000 * s for s in data["first"][name]]),
            middle([1000 * s for s in later[name]]),
            middle(whole[name]),
            middle(first[name]),
        ]
        for name in data["whole"]
    ]
    if data["peak_bytes"] is not None:
        columns.append("peak MiB above weights")
        for row in rows:
            row.append(data["peak_bytes"][row[0]] / 2**20)
    return Table(f"{data['model']}: time per example", tuple(columns), rows, notes=_notes(data))


def _notes(data: Measured) -> tuple[str, ...]:
    lengths = sorted({min(data["prompt_tokens"]), max(data["prompt_tokens"])})
    return (
        f"On {data['device']}, threads: {data['threads']}, {data['dtype']}. Questions asked one at a "
        f"time: {data['questions']}, of {' to '.join(map(str, lengths))} tokens; each answer has "
        f"{data['new_tokens']} tokens. Image processing is included.",
        f"Medians over {data['runs']} rounds in which the methods took turns, ratios within rounds; "
        "brackets are first and third quartile, not intervals.",
        f"{PLAIN}: the model under SDPA, without rvelens. Methods are asked as `rvelens eval` asks: in "
        "most families the prompt up to the end of its image runs before the rest.",
    )


def _paper(data: Measured, ratios: Mapping[str, Sequence[float]]) -> Table:
    """The paper names no model: any of its models is put beside, and no other."""
    cells = lookup("figures", figure="9b")
    is_in_paper = model_key(data["model"]) is not None
    table = compare_with_paper(cells, _measured(data, ratios), "What the paper says (Figure 9b)")
    note = (
        "Brackets are quartiles over rounds."
        if is_in_paper
        else f"{data['model']} is none of the paper's models: nothing is put beside."
    )
    return replace(table, notes=(*table.notes, note, "Of RVE it says 'negligible extra' cost."))


def _measured(data: Measured, ratios: Mapping[str, Sequence[float]]) -> dict[PaperCell, Estimate]:
    return {
        cell: Estimate(**middle(ratios[str(cell.method)]))
        for cell in lookup("figures", figure="9b")
        if model_key(data["model"]) is not None and cell.method in ratios
    }


def _figure(data: Measured, ratios: Mapping[str, Sequence[float]]) -> Figure:
    names = list(data["whole"])
    first = np.array([statistics.median(data["first"][name]) for name in names])
    whole = [middle(data["whole"][name]) for name in names]
    total = np.array([summary["value"] for summary in whole])
    return timing_bars(
        names,
        first,
        np.maximum(total - first, 0.0),
        ratios=np.array([statistics.median(ratios[name]) for name in names]),
        low=np.array([summary["low"] for summary in whole]),
        high=np.array([summary["high"] for summary in whole]),
        title=f"{data['model']} on {data['device']}, {data['new_tokens']} tokens",
    )


def _conclude(ratios: Mapping[str, Sequence[float]]) -> list[str]:
    """A difference only where so many rounds on one side are no chance (sign test, 5%)."""
    sentences = []
    for name, by_round in ratios.items():
        if name == BASE:
            continue
        summary = middle(by_round)
        number = (
            f"{summary['value']:.2f} times vanilla, quartiles {summary['low']:.2f} to "
            f"{summary['high']:.2f}"
        )
        slower = sum(ratio > 1 for ratio in by_round)
        if mcnemar(slower, len(by_round) - slower) < 0.05:
            side, rounds = (
                ("slower", slower) if summary["value"] > 1 else ("faster", len(by_round) - slower)
            )
            sentences.append(f"{name} is {side} in {rounds} of {len(by_round)} rounds ({number}).")
        else:
            sentences.append(
                f"{name} is slower in {slower} of {len(by_round)} rounds, which confirms no difference "
                f"({number})."
            )
    return sentences


STUDY = Study(
    "latency",
    "Figure 9b",
    "time per example of every method in one interleaved run",
    _measure,
    _show,
    methods=("vanilla", "rve", "vcd", "icd", "vaf", "pai", "devils"),
    options={"runs": 7, "new_tokens": 16, "n_questions": 4},
    work=_work,
)
