"""`rvelens ask`: one question, answered without and with RVE, a region, or a saved intervention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer

from rvelens.cli.common import (
    DeviceMap,
    Dtype,
    DtypeOption,
    FamilyName,
    Json,
    Model,
    check_model_options,
    emit_json,
    err,
    open_model,
    out,
    status,
)
from rvelens.heads.hub import check_folder
from rvelens.heads.layers import format_layers, parse_layers
from rvelens.hooks import region_hooks
from rvelens.interventions.profiles import find_profile
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.prompts import load_image
from rvelens.model.weights import check_profile_of
from rvelens.tables import Table
from rvelens.tokens.grid import ImageGrid

if TYPE_CHECKING:
    from rvelens.evaluate.intervention import Intervention
    from rvelens.interventions.methods import Method

# Of RVE alone; a region takes layers and beta.
_RVE_ONLY = ("profile", "k", "alpha", "scope", "denoise", "max_entropy")


def ask_command(
    model: Model,
    image: Annotated[Path, typer.Argument(help="A PNG, JPEG or other image file.")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    profile: Annotated[
        str | None,
        typer.Option(
            help="A file that `rvelens scan` wrote, its folder or OWNER/NAME on the Hugging Face Hub, "
            "or `published` (LLaVA-1.5-7B)."
        ),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            help="'14-31', '3,5,7-9', auto (high ARS), or preset (the last 18/32).",
            show_default="preset",
        ),
    ] = None,
    k: Annotated[
        int | None, typer.Option("--k", help="Heads per mask.", show_default="5, at most half")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Share of image tokens.", show_default="the family's")
    ] = None,
    beta: Annotated[float | None, typer.Option(help="Strength.", show_default="1.0")] = None,
    scope: Annotated[
        str | None, typer.Option(help="'all' heads or the 'sensitive' half.", show_default="all")
    ] = None,
    denoise: Annotated[
        bool | None,
        typer.Option(
            "--denoise/--no-denoise",
            help="Leave out tokens that insensitive heads look at.",
            show_default="denoise",
        ),
    ] = None,
    max_entropy: Annotated[
        float | None,
        typer.Option(
            help="Enhance only if the entropy of sensitive heads is at most this share, in (0, 1].",
            show_default="1.0, everywhere",
        ),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            metavar="X0,Y0,X1,Y1",
            help="Raise the attention to this rectangle instead of RVE; in pixels of the image.",
        ),
    ] = None,
    manifest: Annotated[
        str | None,
        typer.Option(
            help="Use an intervention of --save-manifest: a folder, a file, or OWNER/NAME on the "
            "Hugging Face Hub; or a run of `rvelens eval`, with its --profile."
        ),
    ] = None,
    save_manifest: Annotated[
        Path | None, typer.Option(help="Write this intervention to a folder, for --manifest.")
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="A preset of the family, or a template with {image} and {question}.",
            show_default="chat",
        ),
    ] = None,
    suffix: Annotated[str | None, typer.Option(help="Text after the question.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of an answer, at most.", show_default="16")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Draw the enhanced tokens to a .png, .pdf or .svg file.")
    ] = None,
    family: FamilyName = None,
    dtype: DtypeOption = Dtype.auto,
    device_map: DeviceMap = None,
    json: Json = False,
) -> None:
    """Ask about an image and print the plain and the RVE answer side by side."""
    parameters = _drop_missing(
        layers=layers, k=k, alpha=alpha, beta=beta, scope=scope, denoise=denoise,
        max_entropy=max_entropy,
    )  # fmt: skip
    wording = _drop_missing(prompt=prompt, suffix=suffix, max_new_tokens=max_new_tokens)
    size = load_image(image).size
    _check(parameters, profile, region, manifest, save, save_manifest)
    check_model_options(model, family, device_map, prompt or "chat")
    if not question.strip():
        raise ValueError(
            f"a question is {question!r}: expected a sentence; pass a non-empty string."
        )
    # Below what is refused at once, since they bring along what only answering needs.
    from rvelens.cli.steering import answer_question, draw, same_wording
    from rvelens.evaluate.answering import Decoding
    from rvelens.evaluate.intervention import Intervention
    from rvelens.interventions.methods import check_parameters, make_method
    from rvelens.interventions.region import parse_region, region_method

    box = None if region is None else parse_region(region, size)
    steer = ranking = None
    if manifest is not None:
        steer = Intervention.load(
            manifest, None if profile is None else find_profile(profile, model)
        )
        decoding, ranking = same_wording(steer.decoding, wording), steer.profile
        dtype = _dtype_of(steer) if dtype is Dtype.auto else dtype
    else:
        decoding = replace(Decoding(max_new_tokens=16), **wording)
        ranking = find_profile(profile, model) if box is None else None
        if ranking is not None:
            check_parameters("rve", parameters, ranking)
        elif beta is not None:
            region_hooks(torch.ones(1, 1, dtype=torch.bool), [], beta)  # refuses what cannot be
    hooked = open_model(model, family=family, dtype=dtype, device_map=device_map)
    grid = _grid(hooked, image, save, region)
    if steer is not None:
        method = steer.method(hooked)
        _warn(steer)
    elif box is not None and grid is not None:
        method = region_method(hooked, grid, box, size, **parameters)
    else:
        assert ranking is not None
        check_profile_of(hooked, ranking)
        method = make_method("rve", hooked, ranking, **parameters)
    with status("answering"):
        plain = answer_question(hooked, make_method("vanilla", hooked), image, question, decoding)
        steered = answer_question(hooked, method, image, question, decoding)
    if save is not None and grid is not None:
        draw(hooked, method, image, question, decoding, grid, save)
    if save_manifest is not None:
        Intervention.of(hooked, method, ranking, decoding).save(save_manifest)
    result = {
        "model": hooked.name,
        "image": str(image),
        "question": question,
        "prompt": decoding.prompt,
        "suffix": decoding.suffix,
        "method": method.name,
        **_settings(method, hooked.n_layers),
        "profile": None if ranking is None else profile or manifest or "shipped",
        "plain": plain,
        method.name: steered,
        "overlay": None if save is None else str(save),
        "manifest": None if save_manifest is None else str(save_manifest),
    }
    if json:
        emit_json(result)
    else:
        _print(result, method, hooked.n_layers)


def _dtype_of(steer: Intervention) -> Dtype:
    """The precision that an intervention was made in."""
    name = steer.model["dtype"]
    if name not in list(Dtype):
        raise ValueError(
            f"the manifest is of a model in {name}: expected one of {', '.join(Dtype)}; name one with "
            "--dtype."
        )
    return Dtype(name)


def _drop_missing(**options: Any) -> dict[str, Any]:
    """Options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def _check(
    parameters: Mapping[str, Any],
    profile: str | None,
    region: str | None,
    manifest: str | None,
    save: Path | None,
    save_manifest: Path | None,
) -> None:
    """Raise ValueError for options that exclude one another, and for files that cannot be written."""
    if save is not None:
        from rvelens.plots import check_figure_path  # brings matplotlib along

        check_figure_path(save)
    if save_manifest is not None:
        check_folder(save_manifest)
    settings = [*parameters, *(["region"] if region is not None else [])]
    if manifest is not None and settings:
        raise ValueError(
            f"--{settings[0].replace('_', '-')} with --manifest, which holds these settings: "
            "expected only one of both; leave one out."
        )
    options = {**parameters, **({} if profile is None else {"profile": profile})}
    extra = [name for name in _RVE_ONLY if name in options]
    if region is not None and extra:
        raise ValueError(
            f"--{extra[0].replace('_', '-')} with --region, which replaces RVE: expected at most "
            "--layers and --beta; leave it out."
        )
    if region is not None and save_manifest is not None:
        raise ValueError(
            "--save-manifest with --region, which holds for one image: expected settings for any "
            "image; leave --save-manifest out."
        )


def _warn(steer: Intervention) -> None:
    """One sentence on stderr where libraries are others than the intervention was made with."""
    others = steer.other_versions()
    if others:
        err().print(
            f"rvelens: the manifest was made with other versions ({'; '.join(others)}): answers may "
            "differ from its own.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _grid(
    model: HookedLVLM, image: Path, save: Path | None, region: str | None
) -> ImageGrid | None:
    """Where image tokens lie, if that is needed."""
    if save is None and region is None:
        return None
    grid = model.image_grid(image)
    if grid is None:
        option = "--save" if region is None else "--region"
        raise ValueError(
            f"the image tokens of {model.family.name} have no position in the image: expected a "
            f"model with a patch grid for {option}; leave it out."
        )
    return grid


def _settings(method: Method, n_layers: int) -> dict[str, Any]:
    """A method's parameters with its layers as numbers."""
    settings = {name: v for name, v in method.parameters.items() if name != "profile"}
    if "layers" in settings:
        settings["layers"] = parse_layers(settings["layers"], None, n_layers)
    return settings


def _print(result: dict[str, Any], method: Method, n_layers: int) -> None:
    rows = []
    label = "RVE" if method.name == "rve" else method.name
    for name, shown in (("plain", "plain"), (method.name, label)):
        row = result[name]
        shares = ["-" if row[x] is None else f"{row[x]:.3f}" for x in ("yes", "no")]
        rows.append((shown, row["answer"] or "(nothing)", *shares))
    console = out()
    console.print(Table("", ("", "answer", "P(yes)", "P(no)"), rows))
    console.print(_described(result, method, label, n_layers), highlight=False)
    for name in ("overlay", "manifest"):
        if result[name]:
            console.print(f"{name} in {result[name]}", soft_wrap=True)


def _described(result: dict[str, Any], method: Method, label: str, n_layers: int) -> str:
    """A line that says what the method did."""
    layers = result.get("layers", [])
    where = f" in layers {format_layers(layers)} ({len(layers)} of {n_layers})" if layers else ""
    if method.name != "rve":
        rest = {k: v for k, v in method.parameters.items() if k not in ("layers", "profile")}
        return ", ".join([f"{label}{where}", *(f"{k} {v}" for k, v in rest.items())])
    limit = f", max entropy {result['max_entropy']:g}" if "max_entropy" in result else ""
    return (
        f"RVE{where}, K {result['k']}, alpha {result['alpha']:g}, beta {result['beta']:g}, scope "
        f"{result['scope']}, denoising {'on' if result['denoise'] else 'off'}{limit}, profile "
        f"{result['profile']}"
    )
