"""`rvelens scan`: ARS, or another score, of every head."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from rvelens.cli.common import (
    AnyText,
    DeviceMap,
    Dtype,
    DtypeOption,
    FamilyName,
    Json,
    Model,
    Prompt,
    Reviewed,
    Suffix,
    bar,
    check_model_options,
    emit_json,
    open_model,
    out,
    warn,
)
from rvelens.files.paths import slug
from rvelens.files.wording import counted
from rvelens.heads.pair import with_suffix
from rvelens.heads.profile import ARSProfile, check_profile_path
from rvelens.pairs import load_pairs
from rvelens.plots import ars_heatmap, check_figure_path, save_figure
from rvelens.scores import SCORES, find_score, score_heads
from rvelens.tables import Table

FEW_PAIRS = 30


def scan(
    model: Model,
    pairs: Annotated[
        Path, typer.Option(help='JSON lines: "image", "question", and "contrastive" or "answer".')
    ],
    images: Annotated[Path, typer.Option(help="The folder that holds the pairs' images.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The profile to write, a .safetensors file.")
    ],
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs per forward.")] = 8,
    prompt: Prompt = "chat",
    suffix: Suffix = "",
    score: Annotated[
        str,
        typer.Option(help=f"The head score: {', '.join(SCORES)}; the paper uses ars."),
    ] = "ars",
    reviewed: Reviewed = False,
    any_text: AnyText = False,
    heatmap: Annotated[Path | None, typer.Option(help="Draw the scores by layer and head.")] = None,
    family: FamilyName = None,
    dtype: DtypeOption = Dtype.auto,
    device_map: DeviceMap = None,
    json: Json = False,
) -> None:
    """Score every head by how much its attention changes with the verb (ARS), or by another score."""
    find_score(score)  # before the model is loaded
    check_profile_path(output)
    if heatmap is not None:
        check_figure_path(heatmap)
    check_model_options(model, family, device_map, prompt)
    contrastive = with_suffix(load_pairs(pairs, images, reviewed=reviewed), suffix)
    hooked = open_model(model, family=family, dtype=dtype, device_map=device_map)
    settings: dict[str, Any] = {
        "score": score,
        "batch_size": batch_size,
        "prompt": prompt,
        "any_text": any_text,
        "progress": bar("contrastive pairs"),
    }
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from rvelens.studies.kit.pairs import score_heads_together

        folder = output.with_name(f"{output.name}.parts") / slug(hooked.name)
        profile = score_heads_together(hooked, contrastive, folder, **settings)
        if profile is None:  # another process writes
            return
    else:
        profile = score_heads(hooked, contrastive, **settings)
    if suffix:
        profile.about["suffix"] = suffix
    profile.save(output)
    if len(contrastive) < FEW_PAIRS:
        warn(
            f"{counted(len(contrastive), 'pair')}: expected {FEW_PAIRS} or more; the "
            "ranking of so few depends "
            "on which they are, and other pairs would give another one."
        )
    if heatmap is not None:
        save_figure(ars_heatmap(profile, title=hooked.name), heatmap)
    if json:
        emit_json({**profile.about, "scores": profile.scores.tolist(), "profile": str(output)})
    else:
        out().print(_table(profile))
        out().print(f"{counted(len(contrastive), 'pair')}, profile in {output}", soft_wrap=True)


def _table(profile: ARSProfile) -> Table:
    name = profile.score_name
    rows = []
    for layer in range(profile.n_layers):
        heads = profile.top(layer, min(5, profile.n_heads))
        scores = profile.scores[layer]
        rows.append(
            (
                layer,
                f"{float(scores.mean()):.3g}",
                " ".join(map(str, heads)),
                " ".join(f"{float(scores[head]):.3g}" for head in heads),
            )
        )
    columns = ("layer", f"mean {name}", "heads that rank first", f"their {name}")
    return Table("", columns, rows)
