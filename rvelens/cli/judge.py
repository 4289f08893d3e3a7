"""`rvelens judge`: open-ended answers, scored by another model."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from rvelens.cli.common import Json, bar, emit_json, out, warn
from rvelens.files.atomic import write_json
from rvelens.files.paths import check_new_folder, refuse_foreign, slug
from rvelens.files.wording import counted
from rvelens.judge.endpoint import Endpoint, address_of, shown
from rvelens.judge.open_ended import PROMPT_VERSION, by_group, load_run, summarise
from rvelens.judge.open_ended import judge as score_answers
from rvelens.tables import Table


def judge_command(
    answers: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help='JSON lines with "id", "question", "reference", "answer", or the folder of a run.',
        ),
    ],
    model: Annotated[
        str, typer.Option(envvar="RVELENS_JUDGE_MODEL", help="The judge, such as gpt-5-mini.")
    ],
    base_url: Annotated[
        str | None,
        typer.Option(
            envvar="OPENAI_BASE_URL",
            help="An OpenAI-compatible endpoint; the key is read only from OPENAI_API_KEY.",
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at the same time.")] = 8,
    cache: Annotated[
        Path | None, typer.Option(help="A folder that stores replies, so that none is paid twice.")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help=("Sampling temperature; not sent by default, since some models refuse it."),
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds for a request, at most.")
    ] = 120.0,
    retries: Annotated[int, typer.Option(min=0, help="Retries of a failed request.")] = 5,
    json: Json = False,
) -> None:
    """Score open-ended answers from 0 to 10 against the ground truth.

    The criteria are those of the paper's Appendix D; the wording of the prompt is different. A run of
    several methods is scored method by method. A run's folder gets the result as a file.

    Exit code 1 if an answer has no score: a request failed in the end, or its reply could not be
    read. Run the command again with --cache to repeat only failed requests.
    """
    endpoint = Endpoint(model, base_url, temperature, timeout, retries)
    if cache is not None:
        check_new_folder(cache)
    run = load_run(answers)
    file = answers / f"judge-{slug(model)}.json" if answers.is_dir() else None
    if file is not None:
        refuse_foreign([file], file, "prompt_version")
    by_method = {}
    for name, items in run.items():
        scores = score_answers(
            items,
            endpoint,
            cache_dir=cache,
            concurrency=concurrency,
            progress=bar(name or "answers"),
        )
        by_method[name] = {
            **summarise(scores),
            "groups": by_group(items, scores),
            "scores": [asdict(score) for score in scores],
        }
    result = {"model": model, "prompt_version": PROMPT_VERSION, "answers": by_method}
    if file is not None:
        write_json(file, result)
    if json:
        emit_json(result)
    else:
        _print(result, file)
    if any(
        method_scores["failed"] or method_scores["unreadable"]
        for method_scores in by_method.values()
    ):
        _complain(by_method, base_url)
        raise typer.Exit(1)


def _complain(by_method: dict[str, Any], base_url: str | None) -> None:
    """One sentence on stderr: what there is no score for, and where the replies came from."""
    failed, unreadable, n = (
        sum(method_scores[key] for method_scores in by_method.values())
        for key in ("failed", "unreadable", "n")
    )
    warn(
        f"of {counted(n, 'answer')}, {failed} have no reply of "
        f"{shown(address_of(base_url))} and {unreadable} an "
        "unreadable one: expected a reply to each whose last line is 'Score: n'; check the address and "
        "the model, and run again with --cache."
    )


def _print(result: dict[str, Any], file: Path | None) -> None:
    out().print(_table(result))
    reasons = Counter(
        score["reason"] for answer in result["answers"].values() for score in answer["scores"]
    )
    del reasons[""]
    for reason, count in reasons.most_common(5):
        out().print(f"{count} x {reason}", soft_wrap=True)
    if file is not None:
        out().print(f"scores in {file}", soft_wrap=True)


def _table(result: dict[str, Any]) -> Table:
    columns = ("mean score", "95% interval", "scored", "unreadable", "failed")
    rows = []
    for method, summary in result["answers"].items():
        for name, row in {"all": summary, **summary["groups"]}.items():
            mean = row["mean"]
            shown = ("-", "-")
            if mean is not None:
                shown = (f"{mean['value']:.2f}", f"{mean['low']:.2f} to {mean['high']:.2f}")
            counts = (str(row[key]) for key in ("scored", "unreadable", "failed"))
            rows.append((method or "answers", name, *shown, *counts))
    return Table(f"Judge: {result['model']}", ("method", "group", *columns), rows)
