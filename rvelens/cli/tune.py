"""`rvelens tune`: RVE's settings chosen on some photographs and reported on others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from rvelens.benchmarks import BENCHMARKS
from rvelens.cli.common import (
    BatchSize,
    DataFolder,
    DeviceMap,
    Dtype,
    DtypeOption,
    FamilyName,
    Json,
    Limit,
    Model,
    Prompt,
    Relation,
    Suffix,
)
from rvelens.cli.questions import Columns, ImagesFolder, Questions, RuleName
from rvelens.cli.study import study
from rvelens.evaluate.tuned import By


def tune(
    model: Model,
    output: Annotated[Path, typer.Option("--out", "-o", help="Folder of the result.")],
    benchmark: Annotated[
        list[str] | None,
        typer.Option(
            help="One benchmark, whose photographs are split, or one to tune on and one to report "
            f"on: {', '.join(BENCHMARKS)}.",
            show_default="action-scenes",
        ),
    ] = None,
    data: DataFolder = None,
    questions: Questions = None,
    images: ImagesFolder = None,
    column: Columns = None,
    rule: RuleName = None,
    profile: Annotated[
        str | None, typer.Option(help="A file that `rvelens scan` wrote, or `published`.")
    ] = None,
    by: Annotated[
        str, typer.Option(help="balanced_accuracy, accuracy, f1, or auc of the first token.")
    ] = "balanced_accuracy",
    share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the photographs to tune on.")
    ] = 0.3,
    relation: Relation = None,
    limit: Limit = None,
    prompt: Prompt = "chat",
    suffix: Suffix = "",
    batch_size: BatchSize = 8,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split and of intervals.")] = 55,
    family: FamilyName = None,
    dtype: DtypeOption = Dtype.auto,
    device_map: DeviceMap = None,
    json: Json = False,
) -> None:
    """Choose layers, K, alpha and beta of RVE on validation photographs, and report on the others.

    `rvelens eval --tuned DIR` uses the result, and refuses photographs that were used for tuning.
    """
    if by not in get_args(By):
        raise ValueError(
            f"tuning by {by!r}: expected one of {', '.join(get_args(By))}; choose one."
        )
    study(
        "tune", output, [model], benchmark, data, profile=None if profile is None else [profile],
        questions=questions, images=images, column=column, rule=rule,
        option=[f"by={by}", f"share={share}"], relation=relation, limit=limit, prompt=prompt,
        suffix=suffix, batch_size=batch_size, seed=seed, family=family, dtype=dtype,
        device_map=device_map, json=json,
    )  # fmt: skip
