"""`rvelens reproduce`: the paper's tables and figures that the data allow, beside its numbers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rvelens.cli.common import (
    AnyText,
    BatchSize,
    DataOrHub,
    DeviceMap,
    Dtype,
    DtypeOption,
    FamilyName,
    Json,
    Limit,
    Model,
    Reviewed,
    Settings,
    WithoutPairs,
    bar,
    check_model_options,
    emit_json,
    open_model,
    out,
    status,
    warn,
)
from rvelens.cli.methods import parameters_by_method
from rvelens.cli.study import parse_study_options, refuse_missing, refuse_reviewed_alone
from rvelens.files.atomic import write_json, write_text
from rvelens.files.paths import check_new_folder, refuse_foreign
from rvelens.interventions.methods import METHODS, check_parameters
from rvelens.interventions.profiles import find_profile
from rvelens.pairs import load_pairs

if TYPE_CHECKING:
    from rvelens.heads.pair import ContrastivePair
    from rvelens.heads.profile import ARSProfile
    from rvelens.model.hooked_lvlm import HookedLVLM
    from rvelens.studies.kit.base import Work
    from rvelens.studies.reproduce.plan import PlannedRun, Request
    from rvelens.studies.reproduce.run import RunResult


class Wording(StrEnum):
    """Wordings of R-Bench's marked questions."""

    words = "words"
    published = "published"


class RBench(StrEnum):
    """Which questions of R-Bench are asked."""

    words = "words"
    all = "all"


def reproduce_command(
    model: Model,
    output: Annotated[Path, typer.Option("--out", "-o", help="Folder of everything.")],
    data: DataOrHub = None,
    table: Annotated[
        list[str] | None,
        typer.Option(help="Numbers of tables, such as 1 3 4.", show_default="all"),
    ] = None,
    figure: Annotated[
        list[str] | None,
        typer.Option(help="Numbers of figures, such as 3 9a.", show_default="all"),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print questions, forwards and hours; measure nothing.")
    ] = False,
    profile: Annotated[
        str | None,
        typer.Option(
            help="A file that `rvelens scan` wrote, or `published`.",
            show_default="published, for LLaVA-1.5-7B",
        ),
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="Contrastive pairs, as for `rvelens scan`; for figure 5.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="The folder of the pairs' images.")] = None,
    reviewed: Reviewed = False,
    any_text: AnyText = False,
    pairs_left_out: WithoutPairs = None,
    setting: Settings = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="STUDY.NAME=VALUE, such as masking.layers=all; repeatable."),
    ] = None,
    rbench: Annotated[
        RBench, typer.Option(help="R-Bench's questions of a relation by their words, or all.")
    ] = RBench.words,
    wording: Annotated[
        Wording, typer.Option(help="Wording of R-Bench's marked questions.")
    ] = Wording.words,
    limit: Limit = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="Prompt of yes/no questions.", show_default="llava_v1, or chat and a suffix"
        ),
    ] = None,
    suffix: Annotated[
        str | None,
        typer.Option(help="Text after yes/no questions.", show_default="asks chat for one word"),
    ] = None,
    open_prompt: Annotated[
        str | None,
        typer.Option(help="Prompt of open-ended questions.", show_default="llava_v1 for sentences"),
    ] = None,
    batch_size: BatchSize = 8,
    seed: Annotated[int, typer.Option(min=0, help="Seed of draws, noise and intervals.")] = 55,
    family: FamilyName = None,
    dtype: DtypeOption = Dtype.auto,
    device_map: DeviceMap = None,
    json: Json = False,
) -> None:
    """Measure every table and figure of the paper that the data allow, beside its numbers.

    The cheapest come first. Run the same command again to resume. It lists what is missing, and where
    that is published. Exit code 1 where something failed or nothing ran.
    """
    from rvelens.studies.reproduce.plan import Request, make_rows
    from rvelens.studies.reproduce.targets import TARGETS, choose_targets

    if plan and int(n := os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(f"--plan in {n} processes: expected one; run it without a launcher.")
    targets = choose_targets(_split(table), _split(figure))
    for text in (prompt, open_prompt):
        check_model_options(model, family, device_map, text or "chat")
    check_new_folder(output)
    files = [output / "reproduce.json", output / "reproduce.md"]
    refuse_foreign(files, files[0], "reproduce")
    ranking, no_profile = _profile(profile, model)
    settings = parameters_by_method(setting or [], list(METHODS))
    check_parameters("rve", settings["rve"], ranking)
    request = Request(
        model=model,
        data=data,
        profile=ranking,
        no_profile=no_profile,
        pairs=_pairs(pairs, images, reviewed),
        pairs_left_out=pairs_left_out,
        prompt=prompt,
        suffix=suffix,
        open_prompt=open_prompt,
        settings=settings,
        options=_options(option or []),
        rbench=str(rbench),
        wording=str(wording),
        limit=limit,
        batch_size=batch_size,
        seed=seed,
        any_text=any_text,
    )
    for target in TARGETS:  # a mistake in an option of any study
        request.options_of(target)
    _refuse_missing(request)
    with status("looking for the files"):
        rows = make_rows(targets, request)
    able, lacking = [row for row in rows if not row.reason], [row for row in rows if row.reason]
    if not able:
        _print_lacking(lacking, json)
        raise typer.Exit(1)
    hooked = open_model(model, family=family, dtype=dtype, device_map=device_map)
    if plan:
        _print_plan(able, lacking, hooked, request, output, json)
        return
    _run(able, lacking, hooked, request, output, json)


def _refuse_missing(request: Request) -> None:
    """Raise ValueError for files that are named and not there, whatever is asked."""
    if request.data not in (None, "hub") and not Path(request.data).is_dir():
        raise ValueError(
            f"no folder {request.data}: expected the folder with the benchmarks' files; check the "
            "path."
        )
    refuse_missing(request.pairs_left_out, None)


def _split(numbers: Sequence[str] | None) -> list[str]:
    return [word for text in numbers or () for word in text.split(",") if word]


def _profile(profile: str | None, model: str) -> tuple[ARSProfile | None, str]:
    """The profile that is named or ships with the model; without one, why there is none."""
    try:
        return find_profile(profile, model), ""
    except ValueError as error:
        if profile is not None:
            raise
        reason = str(error)
    try:
        return find_profile("published", model), ""
    except ValueError:
        return None, reason


def _pairs(pairs: Path | None, images: Path | None, reviewed: bool) -> tuple[ContrastivePair, ...]:
    if (pairs is None) != (images is None):
        raise ValueError("--pairs and --images go together: expected both or none; name the other.")
    refuse_reviewed_alone(reviewed, pairs)
    if pairs is None or images is None:
        return ()
    return tuple(load_pairs(pairs, images, reviewed=reviewed))


def _options(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """STUDY.NAME=VALUE as options by study."""
    from rvelens.studies import find_study

    by_study: dict[str, list[str]] = {}
    for text in texts:
        study, dot, rest = text.partition(".")
        if not dot:
            raise ValueError(
                f"--option {text}: expected STUDY.NAME=VALUE; write it as in masking.layers=all."
            )
        by_study.setdefault(study, []).append(rest)
    return {
        name: parse_study_options(values, find_study(name).options)
        for name, values in by_study.items()
    }


def _say(lines: Sequence[str]) -> None:
    out().print("\n".join(lines), soft_wrap=True)


def _print_lacking(lacking: Sequence[PlannedRun], json: bool) -> None:
    from rvelens.studies.reproduce.report import lacks

    if json:
        emit_json({"lacking": lacks(lacking)})
    else:
        _say(lacks(lacking))
    warn("nothing can be run: expected some benchmark's files below --data; see the list.")


def _print_plan(
    able: Sequence[PlannedRun],
    lacking: Sequence[PlannedRun],
    model: HookedLVLM,
    request: Request,
    output: Path,
    json: bool,
) -> None:
    from rvelens.studies.reproduce.pace import measure_pace, pair_items
    from rvelens.studies.reproduce.report import lacks, open_points, plan_table
    from rvelens.studies.reproduce.run import by_cost

    counted: list[tuple[PlannedRun, Work]] = by_cost(able, model, request, output)
    row = next((row for row in able if row.benchmarks), able[0])
    items = row.benchmarks[0].items if row.benchmarks else pair_items(request.pairs)
    with status("timing a few questions"):
        decoding = request.decoding(row.target, model.family)
        pace = measure_pace(model, items, decoding, request.batch_size)
    table, hours = plan_table(counted, pace, {row: row.is_done(output) for row in able})
    points, lines = open_points(able), lacks(lacking)
    if json:
        cost = [dict(zip(table.columns, line, strict=True)) for line in table.rows]
        emit_json({"rows": cost, "hours": round(hours, 4), "lacking": lines, "open": points})
        return
    out().print(table, highlight=False)
    _say([f"about {hours:.2g} hours are left", "", *lines, "", *points])


def _run(
    able: Sequence[PlannedRun],
    lacking: Sequence[PlannedRun],
    model: HookedLVLM,
    request: Request,
    output: Path,
    json: bool,
) -> None:
    from rvelens.studies.reproduce.report import (
        lacks,
        open_points,
        reproduction_to_markdown,
        tables_of,
        to_json,
    )
    from rvelens.studies.reproduce.run import by_cost, reproduce

    rows = [row for row, _ in by_cost(able, model, request, output)]
    results: list[RunResult] = []
    for number, result in enumerate(
        reproduce(rows, model, request, output, progress=lambda items, label: bar(label)(items))
    ):
        place = f"{number + 1} of {len(rows)}: {result.row.target.name}, {result.row.label}"
        warn(f"{place}: {result.reason or 'done'}")
        results.append(result)
        write_json(output / "reproduce.json", to_json(results, lacking, request.model))
        write_text(
            output / "reproduce.md", reproduction_to_markdown(results, lacking, request.model)
        )
    if not results:  # another process writes
        return
    if json:
        emit_json(to_json(results, lacking, request.model))
    else:
        for table in tables_of(results, request.model):
            out().print(table, "", highlight=False)
        points = open_points(rows)
        _say([*lacks(lacking), "", *points, "", f"everything is in {output}"])
    if any(result.reason for result in results):
        raise typer.Exit(1)
