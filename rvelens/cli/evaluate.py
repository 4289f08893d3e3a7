"""`rvelens eval`: benchmarks under methods, resumable, with every answer kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rvelens.benchmarks import BENCHMARKS, Benchmark, load_benchmark
from rvelens.cli.common import (
    BatchSize,
    DataOrHub,
    DeviceMap,
    Dtype,
    DtypeOption,
    FamilyName,
    Json,
    Limit,
    Model,
    Prompt,
    Relation,
    Settings,
    Suffix,
    WithoutPairs,
    bar,
    check_images,
    check_model_options,
    emit_json,
    open_model,
    out,
)
from rvelens.cli.methods import known_methods, parameters_by_method, parse_names
from rvelens.cli.questions import (
    Columns,
    ImagesFolder,
    Questions,
    RuleName,
    own_questions,
    print_sources,
    refuse_without_benchmark,
)
from rvelens.evaluate.tuned import Tuned
from rvelens.files.paths import check_new_folder, refuse_foreign
from rvelens.interventions.methods import METHODS, check_parameters, make_method, needs_profile
from rvelens.interventions.profiles import find_profile
from rvelens.pairs.overlap import without_pairs


def evaluate_command(
    model: Model,
    output: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")],
    benchmark: Annotated[
        list[str] | None, typer.Option(help=f"One or several of {', '.join(BENCHMARKS)}.")
    ] = None,
    questions: Questions = None,
    images: ImagesFolder = None,
    column: Columns = None,
    rule: RuleName = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help=f"One or several of {', '.join(METHODS)}, and FILE.py:FUNCTION for your own; with "
            "--help, their parameters are listed.",
            show_default="vanilla",
        ),
    ] = None,
    data: DataOrHub = None,
    profile: Annotated[
        str | None, typer.Option(help="A file that `rvelens scan` wrote, or `published`; for rve.")
    ] = None,
    setting: Settings = None,
    tuned: Annotated[
        Path | None,
        typer.Option(help="The result of `rvelens tune`, for rve on other photographs."),
    ] = None,
    relation: Relation = None,
    wording: Annotated[
        str | None,
        typer.Option(
            help="Wording of R-Bench's marked questions: words or published.", show_default="words"
        ),
    ] = None,
    pairs_left_out: WithoutPairs = None,
    limit: Limit = None,
    prompt: Prompt = "chat",
    suffix: Suffix = "",
    max_new_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens of an answer, at most.", show_default="16, open-ended 64"),
    ] = None,
    batch_size: BatchSize = 8,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise that methods add.")] = 55,
    family: FamilyName = None,
    dtype: DtypeOption = Dtype.auto,
    device_map: DeviceMap = None,
    json: Json = False,
) -> None:
    """Ask questions under several methods, and compare the answers.

    The questions are of benchmarks, or your own.

    Run the same command again to resume. With `accelerate launch -m rvelens eval ...`, several
    processes share the work.
    """
    from rvelens import evaluate as harness  # Brings scipy along, which no other command waits for.

    options = {"relation": relation, "wording": wording}
    methods = known_methods(method or ["vanilla"])
    loaded = [
        _questions(name, data, limit, pairs_left_out, options)
        for name in parse_names(benchmark or [], BENCHMARKS, "benchmark")
    ]
    own = [
        _narrowed(own_set, limit, pairs_left_out)
        for own_set in own_questions(questions, images, column, rule)
    ]
    if own:
        refuse_without_benchmark(benchmark, data=data, **options)
    loaded += own
    if not loaded:
        raise ValueError(
            "eval without questions: expected a benchmark or your own; add --benchmark NAME or "
            "--questions FILE."
        )
    parameters = parameters_by_method(setting or [], methods)
    check_model_options(model, family, device_map, prompt)
    is_ranked = profile is not None or any(map(needs_profile, methods))
    ranking = find_profile(profile, model) if is_ranked else None
    for name in methods:
        check_parameters(name, parameters[name], ranking)
    check_images(loaded)
    check_new_folder(output)
    reports = [output / "report.json", output / "report.md"]
    refuse_foreign(reports, reports[0], "methods")
    tuned_settings = None if tuned is None else _tuned(tuned, parameters, loaded)
    print_sources(own)
    hooked = open_model(model, family=family, dtype=dtype, device_map=device_map)
    if tuned_settings is not None and ranking is not None:
        tuned_settings.refuse_other(hooked.name, ranking.digest())
    made = [make_method(name, hooked, ranking, **parameters[name]) for name in methods]
    decoding = harness.Decoding(prompt, suffix, max_new_tokens, seed)
    report = harness.evaluate(
        hooked, loaded, made, output,
        decoding=decoding, batch_size=batch_size, progress=lambda items, label: bar(label)(items),
    )  # fmt: skip
    if report is None:  # another process reports
        return
    if json:
        emit_json(report)
    else:
        out().print(harness.render_report(report), highlight=False)
        out().print(f"answers and report in {output}", soft_wrap=True)
    counts = [scores["questions"] for scores in report["benchmarks"].values()]
    if counts and not any(counts):
        raise typer.Exit(1)


def _questions(
    name: str,
    data: str | None,
    limit: int | None,
    pairs: Path | None,
    options: dict[str, str | None],
) -> Benchmark:
    """A benchmark with the options that were given, without the questions that pairs hold."""
    keywords: dict[str, Any] = {
        option: value for option, value in options.items() if value is not None
    }
    return _narrowed(load_benchmark(name, data, **keywords), limit, pairs)


def _narrowed(benchmark: Benchmark, limit: int | None, pairs: Path | None) -> Benchmark:
    """A random sample of a benchmark, without the questions that pairs hold."""
    if pairs is not None:
        benchmark = without_pairs(benchmark, pairs)
    return benchmark if limit is None else benchmark.sample(limit)


def _tuned(
    path: Path, parameters: dict[str, dict[str, Any]], benchmarks: Sequence[Benchmark]
) -> Tuned:
    """What tuning found, put in place of RVE's defaults; `--set` goes before it.

    Raises:
        ValueError: rve does not run, or some questions are about what it was tuned on.
    """
    tuned = Tuned.load(path)
    if "rve" not in parameters:
        raise ValueError(
            "--tuned without the method rve: expected rve among the methods; add --method rve."
        )
    for benchmark in benchmarks:
        tuned.refuse_report_on(benchmark)
    parameters["rve"] = {**tuned.setting, **parameters["rve"]}
    return tuned
