"""`rvelens ask`: one question, answered without and with RVE."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from rvelens.answers import yes_no_probabilities
from rvelens.ars import PUBLISHED, ARSProfile
from rvelens.cli.common import (
    DeviceMap,
    Dtype,
    DtypeOption,
    FamilyName,
    Json,
    Model,
    Prompt,
    emit_json,
    load_model,
    out,
    status,
)
from rvelens.hooks import mask_recording_hooks, rve_hooks
from rvelens.hooks.enhanced import Masks
from rvelens.layers import format_layers, parse_layers
from rvelens.model import TINY, HookedLVLM
from rvelens.plots import check_figure_path, overlay_enhanced, save_figure
from rvelens.prompts import load_image

PAPER_K = 5


def ask(
    model: Model,
    image: Annotated[Path, typer.Argument(help="A PNG, JPEG or other image file.")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    profile: Annotated[
        str | None,
        typer.Option(help="A file that `rvelens scan` wrote, or `published` (LLaVA-1.5-7B)."),
    ] = None,
    layers: Annotated[
        str, typer.Option(help="'14-31', '3,5,7-9', auto (high ARS), or preset (the last 18/32).")
    ] = "preset",
    k: Annotated[
        int | None, typer.Option("--k", help="Heads per mask.", show_default="5, at most half")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Share of image tokens.", show_default="the family's")
    ] = None,
    beta: Annotated[float, typer.Option(help="Strength.")] = 1.0,
    scope: Annotated[str, typer.Option(help="'all' heads or the 'sensitive' half.")] = "all",
    denoise: Annotated[bool, typer.Option(help="Leave out what insensitive heads look at.")] = True,
    prompt: Prompt = "chat",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Length of the answers.")] = 16,
    save: Annotated[
        Path | None, typer.Option(help="Draw what was enhanced, to a .png, .pdf or .svg.")
    ] = None,
    family: FamilyName = None,
    dtype: DtypeOption = Dtype.auto,
    device_map: DeviceMap = None,
    json: Json = False,
) -> None:
    """Ask about an image and print the plain and the RVE answer side by side."""
    load_image(image)
    if save is not None:
        check_figure_path(save)
    ranking = find_profile(profile, model)
    hooked = load_model(model, family=family, dtype=dtype, device_map=device_map)
    check_shape(ranking, hooked)
    settings = {
        "layers": parse_layers(layers, ranking, hooked.n_layers),
        "k": k if k is not None else min(PAPER_K, hooked.n_heads // 2),
        "alpha": alpha if alpha is not None else hooked.family.alpha,
        "beta": beta,
        "scope": scope,
        "denoise": denoise,
    }
    masks: dict[int, Masks] = {}
    hooks = mask_recording_hooks(rve_hooks(ranking, **settings), masks)
    grid = hooked.image_grid(image) if save is not None else None
    if save is not None and grid is None:
        raise ValueError(
            f"the image tokens of {hooked.family.name} have no place in the image: expected a model "
            "with a patch grid for --save; leave it out."
        )
    with status("answering"):
        plain = answer(hooked, image, question, prompt, max_new_tokens)
        with hooked.hooks(hooks):
            steered = answer(hooked, image, question, prompt, max_new_tokens)
    if save is not None and grid is not None:
        save_figure(overlay_enhanced(image, masks, grid, title=question), save)
    result = {
        "model": hooked.name,
        "image": str(image),
        "question": question,
        "prompt": prompt,
        "profile": profile or "shipped",
        **settings,
        "plain": plain,
        "rve": steered,
        "overlay": None if save is None else str(save),
    }
    if json:
        emit_json(result)
    else:
        _print(result, hooked.n_layers)


def find_profile(profile: str | None, model: str) -> ARSProfile:
    """The profile that was asked for, or the one that ships with the model.

    Raises:
        ValueError: no such profile, or none was named and none ships with this model.
    """
    shipped = TINY / "profile.safetensors"
    if profile is None and model == "rvelens/tiny" and shipped.is_file():
        return ARSProfile.load(shipped)
    if profile is None:
        raise ValueError(
            f"no head profile for {model}: expected --profile, a file or `published`; make one with "
            "`rvelens scan MODEL --pairs PAIRS.jsonl --images DIR -o PROFILE.safetensors`."
        )
    if profile.partition(":")[0] != "published":
        return ARSProfile.load(profile)
    # A ranking of other weights of the same shape would be taken without a word; so go by the name.
    wanted = profile.partition(":")[2] or next((n for n in PUBLISHED if n in model.lower()), None)
    if wanted is None:
        raise ValueError(
            f"no ranking was published for {model!r}: expected one of {', '.join(PUBLISHED)} in the "
            f"model's name; if these are its weights, say --profile published:{next(iter(PUBLISHED))}."
        )
    return ARSProfile.published(wanted)


def check_shape(profile: ARSProfile, model: HookedLVLM) -> None:
    """Raise ValueError for the profile of a model with other layers or heads."""
    have, want = (profile.n_layers, profile.n_heads), (model.n_layers, model.n_heads)
    if have != want:
        raise ValueError(
            f"the profile is of {have[0]} layers with {have[1]} heads, the model has {want[0]} with "
            f"{want[1]}: expected a profile of this model; make one with `rvelens scan`."
        )


@torch.no_grad()
def answer(
    model: HookedLVLM, image: Path, question: str, prompt: str, max_new_tokens: int
) -> dict[str, Any]:
    """The greedy answer and the first token's probabilities of yes and no, under the hooks on now."""
    inputs = model.prepare(image, question, prompt)
    output = model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)
    # Afterwards, so that what mask recorders keep is of the prompt and not of the last word.
    logits = model(**inputs, logits_to_keep=1)[:, -1]
    try:
        yes, no = yes_no_probabilities(logits, model.processor)[0].tolist()
    except ValueError:  # The tokenizer has no single token for yes or no.
        yes = no = None
    assert isinstance(output, torch.Tensor)  # a report of it was not asked for
    return {"answer": model.decode(output, inputs["input_ids"])[0], "yes": yes, "no": no}


def _print(result: dict[str, Any], n_layers: int) -> None:
    table = Table("", "answer", "P(yes)", "P(no)", box=None)
    for name, label in (("plain", "plain"), ("rve", "RVE")):
        row = result[name]
        shown = ["-" if row[x] is None else f"{row[x]:.3f}" for x in ("yes", "no")]
        table.add_row(label, row["answer"] or "(nothing)", *shown)
    console = out()
    console.print(table)
    layers = result["layers"]
    console.print(
        f"RVE in layers {format_layers(layers)} ({len(layers)} of {n_layers}), K {result['k']}, alpha "
        f"{result['alpha']:g}, beta {result['beta']:g}, scope {result['scope']}, denoising "
        f"{'on' if result['denoise'] else 'off'}, profile {result['profile']}",
        highlight=False,
    )
    if result["overlay"]:
        console.print(f"overlay in {result['overlay']}", highlight=False)
