"""`rvelens study NAME`: a result of the paper, measured on any model."""

from __future__ import annotations

import json as json_format
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from rvelens.benchmarks import BENCHMARKS, Benchmark, load_benchmark
from rvelens.benchmarks.action_scenes import contrastive_pairs
from rvelens.cli.common import (
    AnyText,
    BatchSize,
    DataFolder,
    DeviceMap,
    Dtype,
    DtypeOption,
    FamilyName,
    Json,
    Limit,
    Prompt,
    Relation,
    Reviewed,
    Settings,
    Suffix,
    bar,
    check_images,
    check_model_options,
    emit_json,
    open_model,
    out,
    status,
    warn,
)
from rvelens.cli.methods import known_methods, parameters_by_method, parse_names
from rvelens.cli.questions import (
    Columns,
    Questions,
    RuleName,
    own_questions,
    print_sources,
    refuse_without_benchmark,
)
from rvelens.files.paths import check_new_folder, refuse_foreign
from rvelens.files.wording import counted
from rvelens.heads.pair import ContrastivePair
from rvelens.interventions.methods import METHODS, check_parameters, make_method, needs_profile
from rvelens.interventions.profiles import find_profile
from rvelens.pairs import load_pairs

if TYPE_CHECKING:
    from rvelens.studies import Study

N_PAIRS = 128
# The benchmarks that are drawn, with contrastive pairs of their own.
SCENES = frozenset(name for name in BENCHMARKS if name.startswith("action-scenes"))


def study(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The study; `rvelens study list` lists them.")
    ],
    output: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the study's files.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A name on the Hub, a folder, or rvelens/tiny; some studies take several.",
            show_default="rvelens/tiny",
        ),
    ] = None,
    benchmark: Annotated[
        list[str] | None,
        typer.Option(help=f"Of {', '.join(BENCHMARKS)}.", show_default="the study's"),
    ] = None,
    data: DataFolder = None,
    questions: Questions = None,
    column: Columns = None,
    rule: RuleName = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(
            help="A file of `rvelens scan`, or `published`; one for each model, in the same order."
        ),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="Contrastive pairs, as for `rvelens scan`.",
            show_default="those of action scenes, where the model or every --benchmark is of them",
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="The folder of the images of --pairs and --questions.")
    ] = None,
    reviewed: Reviewed = False,
    any_text: AnyText = False,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Of {', '.join(METHODS)}, or FILE.py:FUNCTION.", show_default="the study's"
        ),
    ] = None,
    setting: Settings = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE, an option of the study; repeatable."),
    ] = None,
    relation: Relation = None,
    limit: Limit = None,
    prompt: Prompt = "chat",
    suffix: Suffix = "",
    batch_size: BatchSize = 8,
    seed: Annotated[int, typer.Option(min=0, help="Seed of draws and intervals.")] = 55,
    family: FamilyName = None,
    dtype: DtypeOption = Dtype.auto,
    device_map: DeviceMap = None,
    json: Json = False,
) -> None:
    """Measure a result of the paper: tables (CSV, JSON, Markdown) and figures (PNG, SVG).

    The default model is the embedded one, on its action scenes. Run the same command again to resume.
    """
    # They bring scipy along, which no other command waits for.
    from rvelens import studies
    from rvelens.evaluate import Decoding
    from rvelens.studies.kit.run import run_study
    from rvelens.studies.kit.write import render_study, write_study

    if name == "list":
        _list()
        return
    chosen = studies.find_study(name)
    if output is None:
        raise ValueError(
            f"study {name} without --out: expected a folder for its files; choose one."
        )
    models = model or ["rvelens/tiny"]
    if len(models) > 1 and not chosen.several:
        raise ValueError(
            f"study {name} with {counted(len(models), 'model')}: expected one model; run "
            "the study once for each."
        )
    if profile and len(profile) != len(models):
        raise ValueError(
            f"{counted(len(profile), 'profile')} for {counted(len(models), 'model')}: "
            "expected one for each model, in "
            "the same order; pass as many."
        )
    options = chosen.settled(parse_study_options(option or [], chosen.options))
    names = known_methods(method or chosen.methods)
    parameters = parameters_by_method(setting or [], names)
    of_relation = {} if relation is None else {"relation": relation}
    own = own_questions(questions, None if questions is None else images, column, rule, limit)
    if own:
        refuse_without_benchmark(benchmark, data=data, relation=relation)
    chosen_names = parse_names(
        benchmark or (() if own else chosen.benchmarks), BENCHMARKS, "benchmark"
    )
    benchmarks = [
        load_benchmark(set_name, data, limit=limit, **of_relation) for set_name in chosen_names
    ] + own
    check_images(benchmarks)
    for model_name in models:
        check_model_options(model_name, family, device_map, prompt)
    _refuse_files(output, chosen.name)
    if chosen.name == "tune":
        _warn_of_few(benchmarks, float(options["share"]))
    is_ranked = bool(profile) or "profile" in chosen.needs or any(map(needs_profile, names))
    rankings = [
        find_profile(profile[n] if profile else None, model_name) if is_ranked else None
        for n, model_name in enumerate(models)
    ]
    for n in names:
        check_parameters(n, parameters[n], rankings[0])
    of_scenes = models == ["rvelens/tiny"] or (
        bool(benchmark) and set(chosen_names) <= SCENES and not own
    )
    of_pairs = images if pairs is not None or questions is None else None
    contrastive = _pairs(chosen, pairs, of_pairs, limit, of_scenes=of_scenes, reviewed=reviewed)
    print_sources(own)
    made_with, measured, setup = [], [], None
    for model_name, ranking in zip(models, rankings, strict=True):
        setup = done = None  # lets go of the model before
        hooked = open_model(model_name, family=family, dtype=dtype, device_map=device_map)
        done = run_study(
            chosen, hooked, benchmarks, output,
            profile=ranking, pairs=contrastive,
            methods=[make_method(n, hooked, ranking, **parameters[n]) for n in names],
            decoding=Decoding(prompt, suffix, None, seed), options=options,
            batch_size=batch_size, seed=seed, any_text=any_text,
            progress=lambda items, label: bar(label)(items),
        )  # fmt: skip
        if done is not None:
            setup, made, data_of_model = done
            made_with.append(made)
            measured.append(data_of_model)
    if setup is None:  # another process writes
        return
    with status("drawing tables and figures"):
        shown = chosen.show(setup, measured)
        files = write_study(output, chosen, made_with, measured, shown)
    if json:
        emit_json({"study": chosen.name, "measured": measured, "says": shown.sentences})
    else:
        out().print(render_study(shown), highlight=False)
        endings = ", ".join(file.name for file in files)
        out().print(f"in {output}: {endings}", highlight=False, markup=False)


# With fewer questions, chance decides which setting is best.
_FEW_QUESTIONS = 100


def _warn_of_few(benchmarks: Sequence[Benchmark], share: float) -> None:
    """One sentence on stderr where there are few questions to tune on."""
    n = len(benchmarks[0].items)
    few = n if len(benchmarks) > 1 else round(share * n)
    if few < _FEW_QUESTIONS:
        warn(
            f"about {counted(few, 'question')} to tune on: expected {_FEW_QUESTIONS} or "
            "more; of so few, chance "
            "decides which setting is best."
        )


def _refuse_files(output: Path, name: str) -> None:
    """Raise ValueError where a file of the study's names is in the folder and is not the study's."""
    check_new_folder(output)
    marker = output / f"{name}.json"
    others = sorted(output.glob(f"{name}[.-]*")) if output.is_dir() else []
    endings = (".json", ".csv", ".md", ".png", ".svg", ".html")
    refuse_foreign([path for path in others if path.suffix in endings], marker, "study")


def _list() -> None:
    from rvelens import studies

    out().print("Options with their defaults; -1, [] and an empty text are the study's own choice.")
    for entry in map(studies.find_study, studies.NAMES):
        out().print(
            f"{entry.name:17} {entry.paper:14} {entry.about}",
            highlight=False,
            markup=False,
        )
        for name, value in entry.options.items():
            line = f"{'':33}--option {name}={json_format.dumps(value)}"
            out().print(line, highlight=False, markup=False)


def parse_study_options(texts: Sequence[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """NAME=VALUE as in JSON, or text; where the default is a text, text that may look like a number."""
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ValueError(f"--option {text}: expected NAME=VALUE; write it as in n_random=20.")
        options[name] = value
        if not isinstance(defaults.get(name), str):
            with suppress(json_format.JSONDecodeError):
                options[name] = json_format.loads(value)
    return options


def _pairs(
    study: Study,
    pairs: Path | None,
    images: Path | None,
    limit: int | None,
    *,
    of_scenes: bool,
    reviewed: bool = False,
) -> list[ContrastivePair]:
    """The pairs of a study that needs some; with none named, those of action scenes, if of them."""
    if "pairs" not in study.needs:
        refuse_missing(pairs, images)
        return []
    if pairs is not None and images is not None:
        loaded = load_pairs(pairs, images, reviewed=reviewed)
        drawn = np.random.default_rng(55).permutation(len(loaded))[:limit]
        return [loaded[n] for n in sorted(drawn)]
    refuse_reviewed_alone(reviewed, pairs)
    if pairs is None and images is None and of_scenes:
        return contrastive_pairs("validation", min(N_PAIRS, limit or N_PAIRS))
    raise ValueError(
        f"study {study.name} without contrastive pairs: expected --pairs FILE and --images DIR, as "
        "for `rvelens scan`, or --benchmark action-scenes, which makes its own pairs; pass one of "
        "these."
    )


def refuse_reviewed_alone(reviewed: bool, pairs: Path | None) -> None:
    """Raise ValueError for --reviewed where no file of pairs is given."""
    if reviewed and pairs is None:
        raise ValueError(
            "--reviewed without --pairs: expected a file of reviewed pairs; pass it as --pairs."
        )


def refuse_missing(pairs: Path | None, images: Path | None) -> None:
    """Raise ValueError for files that are not there, though the study needs none of them."""
    if pairs is not None and not pairs.is_file():
        raise ValueError(
            f"no pairs at {pairs}: expected a file with one JSON object per line; check the path."
        )
    if images is not None and not images.is_dir():
        raise ValueError(
            f"no folder {images}: expected the folder with the pairs' images; check the path."
        )
