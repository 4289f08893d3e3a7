"""What the model loses with its sensitive, its least sensitive and random heads (Figure 9a)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from rvelens.benchmarks import Item
from rvelens.files.wording import counted, too_few
from rvelens.heads.layers import format_layers, parse_layers
from rvelens.hooks import head_mask_hooks
from rvelens.model.yes_no import yes_margin, yes_no_ids
from rvelens.plots import Series, lines
from rvelens.stats import FEW
from rvelens.studies.kit.base import Batch, Measured, Setup, Shown, Study, Work
from rvelens.studies.kit.margins import MARGIN_METRICS, Draws, draw_figures
from rvelens.studies.kit.work import work_of_prompts
from rvelens.studies.masking.masks import (
    LEAST,
    RANDOM,
    SENSITIVE,
    Mask,
    choose_masks,
    distinct,
    settled_counts,
    summary,
)
from rvelens.tables import Table

_MIN_DRAWS = 10
_NOTES = (
    "Masked heads give nothing at any position. Random heads are as many in each of the same layers. "
    "Intervals are over photographs, for the heads that were drawn; the range is over draws of heads.",
    "The answer is yes where its log-odds over no at the first token are above 0.",
    "The paper's Figure 9a shows a slow decline for random heads and a sharp one for sensitive heads; "
    "it prints no numbers, and does not say in which layers.",
)


def _measure(setup: Setup) -> dict[str, Any]:
    """Figures by number of masked heads, for each way to choose them, and paired differences.

    A masked head gives nothing at any position, so the rows of the image change too: masks share no
    part of a forward, and each costs a whole one. An answer is read from the log-odds of yes over no
    at the first token; nothing is generated.

    Raises:
        ValueError: options out of range, questions that are not yes/no, a profile of another model, or
            a tokenizer without single tokens for yes and no.
    """
    _check(setup)
    masks = _masks(setup)
    every = distinct(masks)
    sample = setup.benchmark.sample(setup.options["n_questions"]).items
    margins = margins_under(setup, sample, every)
    items = [item for item in sample if item.id in margins]
    if not items:
        raise ValueError(
            f"none of the questions ({len(sample)}) of {setup.benchmark.name} could "
            "be asked: expected "
            "readable images; run `rvelens data check`."
        )
    column = {mask: n for n, mask in enumerate(every)}
    at = {
        choice: [[column[mask] for mask in draw] for draw in many] for choice, many in masks.items()
    }
    return {
        "model": setup.model.name,
        "benchmark": setup.benchmark.name,
        "questions": len(items),
        "of_questions": len(setup.benchmark.items),
        "photographs": len({item.source for item in items}),
        "layers": _layers(setup),
        "n_heads": setup.model.n_heads,
        "counts": _counts(setup),
        **summary(figures_of(items, margins, setup.seed), at),
    }


def _work(setup: Setup) -> Work:
    """Every question under every mask, each a whole forward."""
    n = min(setup.options["n_questions"], len(setup.benchmark.items))
    masks = len(distinct(_masks(setup)))
    return replace(work_of_prompts(n, masks), prompts=n * masks)


def _layers(setup: Setup) -> list[int]:
    """Where heads are masked."""
    text, n = str(setup.options["layers"]).strip(), setup.model.n_layers
    return parse_layers(f"0-{n - 1}" if text == "all" else text, setup.ranking, n)


def _counts(setup: Setup) -> list[int]:
    return settled_counts(setup.options["counts"], setup.model.n_heads)


def _masks(setup: Setup) -> dict[str, list[list[Mask]]]:
    n = setup.options["n_random"]
    return choose_masks(setup.ranking, _layers(setup), _counts(setup), n, setup.seed)


def _check(setup: Setup) -> None:
    """Refuse what would fail after hours."""
    name, n_random, n = (
        setup.benchmark.name,
        setup.options["n_random"],
        setup.options["n_questions"],
    )
    if n_random < _MIN_DRAWS:
        raise ValueError(
            f"n_random={n_random}: expected at least {_MIN_DRAWS} random choices of heads; leave it "
            "out to use the default."
        )
    if n < 1:
        raise ValueError(f"n_questions={n}: expected at least 1; pass a larger number.")
    if any(item.truth is None for item in setup.benchmark.items):
        raise ValueError(
            f"{name} has open-ended questions: expected yes/no questions, which the first token "
            "answers; choose another benchmark."
        )
    yes_no_ids(setup.model.processor)


def margins_under(
    setup: Setup, items: Sequence[Item], masks: Sequence[Mask]
) -> dict[str, list[float]]:
    """Log-odds of yes over no under each mask, by question id; kept batch by batch."""
    return setup.map_items("margins", items, lambda batch: _margins(setup, batch, masks))


@torch.no_grad()
def _margins(setup: Setup, batch: Batch, masks: Sequence[Mask]) -> list[list[float]]:
    """Log-odds of yes over no for each question of a batch, under each mask."""
    if not batch.items:
        return []
    model = setup.model
    inputs = model.prepare(batch.images, batch.texts, setup.decoding.prompt)
    margins = []
    for mask in masks:
        with model.hooks(head_mask_hooks(dict(mask))):
            logits = model(**inputs, logits_to_keep=1)[:, -1]
        margins.append(yes_margin(logits, model.processor))
    return torch.stack(margins, dim=1).tolist()


def figures_of(
    items: Sequence[Item], margins: Mapping[str, Sequence[float]], seed: int
) -> Mapping[str, Draws]:
    """What `draw_figures` finds of questions with known truths, one column a mask."""
    truth = np.array([bool(item.truth) for item in items])
    _, cluster = np.unique([item.source for item in items], return_inverse=True)
    margin = np.array([margins[item.id] for item in items]).T
    return draw_figures(truth, margin, cluster, seed=seed)


def _show(setup: Setup, measured: Sequence[Measured]) -> Shown:
    """Curves, every figure by count, and what the differences confirm."""
    (data,) = measured
    tables = {
        "": _curves(data, "accuracy"),
        "differences": _differences(data),
        **{metric.replace("_", "-"): _curves(data, metric) for metric in MARGIN_METRICS[1:]},
    }
    drawn = [m for m in ("accuracy", "auc") if None not in data["curves"][SENSITIVE][m]]
    figures = {"" if metric == "accuracy" else metric: _figure(data, metric) for metric in drawn}
    return Shown(tables, figures, sentences=tuple(_conclude(data)))


def _curves(data: Measured, metric: str) -> Table:
    curves, n_draws = data["curves"], len(data["draws"][metric])
    columns = ("heads a layer", SENSITIVE, LEAST, f"random, mean of {n_draws}", "random, range")
    rows = [
        (
            str(n),
            *(curves[choice][metric][k] for choice in (SENSITIVE, LEAST, RANDOM)),
            _range(data, metric, k),
        )
        for k, n in enumerate(data["counts"])
    ]
    title = f"{_label(metric)} with heads masked in layers {format_layers(data['layers'])}; "
    questions = counted(data["of_questions"], "question")
    title += f"{data['questions']} of {questions} of {data['benchmark']}"
    main = metric == "accuracy"
    return Table(
        f"{data['model']}: {title}", columns, rows, notes=_NOTES if main else (), aside=not main
    )


def _label(metric: str) -> str:
    return "AUC" if metric == "auc" else metric.replace("_", " ")


def _range(data: Measured, metric: str, k: int) -> str | None:
    values = [draw[k] for draw in data["draws"][metric]]
    return None if None in values else f"{min(values):.3f} to {max(values):.3f}"


def _differences(data: Measured) -> Table:
    pairs = [(choice, metric) for choice in (SENSITIVE, LEAST) for metric in ("accuracy", "auc")]
    names = [f"{choice}, {_label(metric)}" for choice, metric in pairs]
    rows = [
        (str(n), *(data["differences"][choice][metric][k] for choice, metric in pairs))
        for k, n in enumerate(data["counts"])
    ]
    rows.append(("mean", *(data["means"][choice][metric] for choice, metric in pairs)))
    title = "Paired difference from the mean of random heads"
    note = (
        "Below 0, masking costs more than masking random heads. Each interval stands alone: by chance "
        "about one in twenty excludes 0."
    )
    return Table(title, ("heads a layer", *names), rows, frozenset(names), (note,))


def _figure(data: Measured, metric: str) -> Figure:
    """The curves; bars of random heads are the range of their draws, the others' are intervals."""
    x, series = np.array(data["counts"]), {}
    for choice, role in ((SENSITIVE, "rve"), (LEAST, "least"), (RANDOM, "random")):
        value, low, high = (
            np.array([point[key] for point in data["curves"][choice][metric]])
            for key in ("value", "low", "high")
        )
        name = f"{choice} heads"
        if choice == RANDOM:
            draws = np.array(data["draws"][metric])
            low, high, name = draws.min(axis=0), draws.max(axis=0), f"{name}, range of {len(draws)}"
        series[name] = Series(value, x, low, high, role)
    return lines(
        series,
        x_label=f"heads masked of {data['n_heads']}, in each of {len(data['layers'])} layers",
        y_label=_label(metric),
        title=f"{data['model']}, {data['benchmark']}",
    )


def _conclude(data: Measured) -> list[str]:
    """What intervals confirm, and where they confirm nothing."""
    if data["photographs"] < FEW:
        return [f"{too_few(data['photographs'], 'photograph')} to say anything."]
    sentences = [
        _mean(choice, metric, data["means"][choice][metric])
        for choice in (SENSITIVE, LEAST)
        for metric in ("accuracy", "auc")
        if data["means"][choice][metric] is not None
    ]
    gaps = dict(zip(data["counts"], data["differences"][SENSITIVE]["accuracy"], strict=True))
    gaps = {n: gap for n, gap in gaps.items() if gap is not None}
    if not gaps:
        return sentences
    sure = [str(n) for n, gap in gaps.items() if not gap["low"] <= 0 <= gap["high"]]
    largest = max(gaps, key=lambda n: abs(gaps[n]["value"]))
    at = data["counts"].index(largest)
    mine = data["curves"][SENSITIVE]["accuracy"][at]["value"]
    draws = data["draws"]["accuracy"]
    sentences.append(
        f"Taken alone, the difference in accuracy of the {SENSITIVE} heads is confirmed at "
        f"{', '.join(sure) or 'no number of'} heads a layer; it is largest at {largest} "
        f"({_signed(gaps[largest])}), where {sum(draw[at] > mine for draw in draws)} of {len(draws)} "
        "random draws keep more accuracy."
    )
    return sentences


def _signed(gap: Mapping[str, float]) -> str:
    return f"{gap['value']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]"


def _mean(choice: str, metric: str, gap: Mapping[str, float]) -> str:
    label = _label(metric)
    number = _signed(gap)
    if gap["low"] <= 0 <= gap["high"]:
        return (
            f"Masking the {choice} heads: no difference in {label} from random heads that these "
            f"questions confirm ({number}, mean over the numbers of heads)."
        )
    verb = "costs more" if gap["high"] < 0 else "costs less"
    return (
        f"Masking the {choice} heads {verb} {label} than masking random ones ({number}, mean over the "
        "numbers of heads)."
    )


STUDY = Study(
    "masking",
    "Figure 9a",
    "accuracy as sensitive, least sensitive and random heads are masked",
    _measure,
    _show,
    needs=frozenset({"profile"}),
    options={"n_random": 10, "counts": [], "layers": "preset", "n_questions": 96},
    work=_work,
)
