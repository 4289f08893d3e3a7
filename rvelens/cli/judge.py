"""`rvelens judge`: open-ended answers, scored by another model."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rvelens.cli.common import Json, bar, emit_json, out
from rvelens.endpoint import Endpoint
from rvelens.judge import PROMPT_VERSION, by_group, load_items, summarise
from rvelens.judge import judge as score_answers
from rvelens.tables import Table


def judge(
    answers: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help='JSON lines with "id", "question", "reference", "answer", or a folder with '
            "answers.jsonl.",
        ),
    ],
    model: Annotated[
        str, typer.Option(envvar="RVELENS_JUDGE_MODEL", help="The judge, such as gpt-5-mini.")
    ],
    base_url: Annotated[
        str | None,
        typer.Option(
            envvar="OPENAI_BASE_URL",
            help="An OpenAI-compatible endpoint; its key comes from OPENAI_API_KEY alone.",
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at one time.")] = 8,
    cache: Annotated[
        Path | None, typer.Option(help="A folder that keeps replies, so that none is paid twice.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, help="Sent only if given; some models refuse it.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds a request may take.")] = 120.0,
    retries: Annotated[int, typer.Option(min=0, help="Further tries of a failed request.")] = 5,
    json: Json = False,
) -> None:
    """Score open-ended answers from 0 to 10 against the ground truth.

    The criteria are those of the paper's Appendix D, the wording of the prompt is our own.

    Exit code 1 if a request failed in the end; run again with --cache to ask only what is missing.
    """
    items = load_items(answers)
    endpoint = Endpoint(model, base_url, temperature, timeout, retries)
    scores = score_answers(
        items, endpoint, cache_dir=cache, concurrency=concurrency, progress=bar("answers")
    )
    summary = {"model": model, "prompt_version": PROMPT_VERSION, **summarise(scores)}
    summary["groups"] = by_group(items, scores)
    if json:
        emit_json({**summary, "scores": [asdict(score) for score in scores]})
    else:
        out().print(_table(summary))
        for reason, count in Counter(s.reason for s in scores if s.reason).most_common(5):
            out().print(f"{count} x {reason}", markup=False, highlight=False, soft_wrap=True)
    if summary["failed"]:
        raise typer.Exit(1)


def _table(summary: dict) -> Table:
    columns = ("mean score", "95% interval", "scored", "unreadable", "failed")
    rows = []
    for name, row in {"all": summary, **summary["groups"]}.items():
        mean = row["mean"]
        shown = ("-", "-")
        if mean is not None:
            shown = (f"{mean['value']:.2f}", f"{mean['low']:.2f} to {mean['high']:.2f}")
        counts = (str(row[key]) for key in ("scored", "unreadable", "failed"))
        rows.append((summary["model"], name, *shown, *counts))
    return Table("", ("judge", "group", *columns), rows)
