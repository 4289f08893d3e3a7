"""A few questions of the test split, answered without and with RVE, and pictures of what it does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from rvelens.benchmarks.action_scenes import Question, make_questions
from rvelens.heads.layers import parse_layers
from rvelens.hooks import mask_recording_hooks, rve_hooks
from rvelens.hooks.enhanced import Masks
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.yes_no import yes_no_probabilities
from rvelens.plots import ars_heatmap, overlay_enhanced, save_figure
from rvelens.studies.demo.build import DemoReport
from rvelens.studies.demo.settings import ALPHA, BETA, K
from rvelens.tables import Table


@dataclass(frozen=True)
class Example:
    """One question with both answers and the probability of yes under each."""

    question: Question
    plain: str
    steered: str
    p_plain: float
    p_steered: float


def examples(model: HookedLVLM, report: DemoReport, n: int = 8) -> list[Example]:
    """The first `n` test questions, two of each group, answered with the paper's defaults."""
    questions = make_questions("test", n, report.data["seed"])
    images, texts = [q.image for q in questions], [q.text for q in questions]
    hooks = default_hooks(model, report)
    plain, p_plain = model.ask(images, texts), _p_yes(model, images, texts)
    with model.hooks(hooks):
        steered, p_steered = model.ask(images, texts), _p_yes(model, images, texts)
    return [
        Example(*row) for row in zip(questions, plain, steered, p_plain, p_steered, strict=True)
    ]


def default_hooks(model: HookedLVLM, report: DemoReport) -> list:
    """RVE with the paper's defaults in the preset layers."""
    layers = parse_layers("preset", report.profile, model.n_layers)
    return rve_hooks(report.profile, layers, min(K, model.n_heads // 2), ALPHA, BETA)


def examples_table(rows: list[Example]) -> Table:
    """Each question with its answers."""
    columns = ("question", "group", "truth", "plain", "RVE", "P(yes) plain", "P(yes) RVE")
    cells = [
        (
            row.question.text,
            row.question.group,
            "Yes" if row.question.answer else "No",
            row.plain,
            row.steered,
            f"{row.p_plain:.3f}",
            f"{row.p_steered:.3f}",
        )
        for row in rows
    ]
    title = "Test questions, answered without and with RVE (paper's defaults)"
    return Table(title, columns, cells, notes=("",))


def draw_examples(model: HookedLVLM, report: DemoReport, folder: Path) -> None:
    """Write `ars.png`, the ARS map, and `overlay.png`, what RVE enhanced for one question."""
    save_figure(ars_heatmap(report.profile), folder / "ars.png")
    question = make_questions("test", 1, report.data["seed"])[0]
    grid = model.image_grid(question.image)
    if grid is None:
        return
    masks: dict[int, Masks] = {}
    with model.hooks(mask_recording_hooks(default_hooks(model, report), masks)), torch.no_grad():
        model(**model.prepare(question.image, question.text), logits_to_keep=1)
    save_figure(
        overlay_enhanced(question.image, masks, grid, title=question.text), folder / "overlay.png"
    )


@torch.no_grad()
def _p_yes(model: HookedLVLM, images: list, texts: list[str]) -> list[float]:
    logits = model(**model.prepare(images, texts), logits_to_keep=1)[:, -1]
    return yes_no_probabilities(logits, model.processor)[:, 0].tolist()
