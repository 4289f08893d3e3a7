"""What is loaded: family, layers, heads, visual tokens, precision, places, hook points, attention."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
import transformers
from jaxtyping import Float
from torch import Tensor, nn

import rvelens
from rvelens.check.subject import Subject
from rvelens.heads.layers import format_layers
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.seam.call import Call
from rvelens.seam.marks import visual_ids
from rvelens.tokens.token_map import tokens_of


def facts_of(subject: Subject) -> dict[str, str]:
    """What is loaded, by name."""
    model = subject.model
    hf_model: Any = model.hf_model
    text = hf_model.config.get_text_config(decoder=True)
    presets = ", ".join(dict.fromkeys(("chat", *model.family.prompts)))
    return {
        "model": f"{model.name or 'no name'} ({type(hf_model).__name__})",
        "family": f"{model.family.name}; alpha {model.family.alpha}",
        "layers": _layers(model),
        "heads": f"{model.n_heads} query heads, {_key_heads(text)} key heads a layer",
        "visual tokens": _visual(subject),
        "prompt presets": presets,
        "processor": "none" if model.processor is None else type(model.processor).__name__,
        "dtype": _dtypes(hf_model),
        "device": _devices(hf_model),
        "attention": _implementations(hf_model),
        "hook points": _points(model),
        "versions": (
            f"rvelens {rvelens.__version__}, transformers {transformers.__version__}, torch "
            f"{torch.__version__}, Python {platform.python_version()}"
        ),
    }


def _layers(model: HookedLVLM) -> str:
    attention = model.attention_layers
    if len(attention) == model.n_layers:
        return f"{model.n_layers}, all with attention"
    return f"{model.n_layers}; attention in {format_layers(attention)}"


def _key_heads(text_config: Any) -> str:
    """Key heads a layer; configurations of layers that differ refuse to name a number."""
    try:
        n_heads = text_config.num_key_value_heads
    except Exception as error:  # transformers' own class for it is not public
        return "as many" if isinstance(error, AttributeError) else "varying"
    return "as many" if n_heads is None else str(n_heads)


def _visual(subject: Subject) -> str:
    """How many there are, and which entries of the configuration name them."""
    ids = subject.inputs["input_ids"]
    counts = subject.image_keys(subject.inputs).sum(dim=1).tolist()
    named = ", ".join(map(str, visual_ids(subject.model.hf_model.config)))
    picture = "" if subject.image is None else f" for {subject.image.width}x{subject.image.height}"
    return f"{counts[0]} of {ids.shape[1]} tokens{picture}; ids {named} of the configuration"


def _dtypes(hf_model: nn.Module) -> str:
    """Precisions of the weights, the most frequent first, with the parts of the others."""
    counts: Counter[str] = Counter()
    parts: dict[str, set[str]] = {}
    for path, weight in hf_model.named_parameters():
        kind = str(weight.dtype).removeprefix("torch.")
        counts[kind] += weight.numel()
        part = ".".join([p for p in path.split(".") if not p.isdigit()][:2])
        parts.setdefault(kind, set()).add(part)
    (first, _), *others = counts.most_common()
    rest = "; ".join(f"{kind} in {', '.join(sorted(parts[kind]))}" for kind, _ in others)
    return f"{first}; {rest}" if rest else first


def _devices(hf_model: Any) -> str:
    placed = getattr(hf_model, "hf_device_map", None)
    if placed:
        counts = Counter(str(device) for device in placed.values())
        return ", ".join(f"{n} parts on {device}" for device, n in counts.items())
    return ", ".join(sorted({str(x.device) for x in hf_model.parameters()}))


def _implementations(hf_model: Any) -> str:
    decoder = str(hf_model.get_decoder().config._attn_implementation)
    vision = getattr(hf_model.config, "vision_config", None)
    tower = getattr(vision, "_attn_implementation", None)
    return f"{decoder} in the decoder" + (f", {tower} in the vision tower" if tower else "")


def _points(model: HookedLVLM) -> str:
    """Kinds of points that can be hooked, and those that cannot in some layer."""
    seam, decoder = model._seam, model.hf_model.get_decoder()
    usable: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for name in model.hook_dict:
        if name.startswith("vision."):
            continue
        kind = name.split(".", 2)[2] if name.startswith("blocks.") else name
        (refused if _reason(seam, decoder, name) else usable)[kind] += 1
    text = f"{usable.total()} of {len(usable)} kinds"
    if refused:
        text += f"; refused: {', '.join(sorted(refused))}"
    return text + (f"; vision tower: {'yes' if seam.tower is not None else 'none'}")


def _reason(seam: Any, decoder: Any, name: str) -> str | None:
    try:
        return seam.reason(decoder, name)
    except ValueError as error:  # the self-check could not run; the line on layers says why
        return str(error)


def attention_of(subject: Subject) -> dict[str, float]:
    """Where the last row looks, as means over heads and layers.

    Returns:
        "first token": attention on the first real token; "first token, most": in the layer with the
        most; "image": on the image; "largest score": the largest score that is not masked;
        "rounded masks": share of image tokens whose place in RVE's masks stays when scores are rounded
        to the model's dtype.
    """
    first: list[float] = []
    image: list[float] = []
    largest: list[float] = []
    rounded: list[float] = []

    def look_at(pattern: Float[Tensor, "batch head query key"], hook: Any) -> None:
        tokens = tokens_of(hook)
        start = int(tokens.real[0].float().argmax())
        row = pattern[0, :, -1]
        first.append(float(row[:, start].mean()))
        keys = tokens.image_keys(row.shape[-1], row.device)[0]
        image.append(float(row[:, keys].sum(dim=-1).mean()))

    def record_scores(hooks: Any, call: Call) -> tuple[Tensor, Any]:
        scores, _ = call.scores(False, None)
        row = scores[:, :, 0]
        largest.append(float(row[row > -1e30].abs().max()))
        if hooks.layer in rve:
            rounded.append(_same_masks(rve[hooks.layer], row, call.query.dtype, subject))
        return hooks.attend(call)

    rve = {hook.layer: hook for _, hook in subject.rve()} if subject.k and subject.layers else {}
    points = [(f"blocks.{layer}.attn.hook_pattern", look_at) for layer in subject.layers]
    with torch.no_grad(), subject.model.hooks(points), subject.looking(record_scores):
        subject.model(**subject.inputs)
    if not first:
        return {}
    return {
        "first token": mean(first),
        "first token, most": max(first),
        "image": mean(image),
        "largest score": max(largest),
        **({"rounded masks": mean(rounded)} if rounded else {}),
    }


def _same_masks(
    hook: Any, row: Float[Tensor, "batch head key"], dtype: torch.dtype, subject: Subject
) -> float:
    """Share of the enhanced image tokens that rounded scores enhance as well (Jaccard)."""
    tokens = subject.model.tokens
    assert tokens is not None  # a forward is in progress
    exact, coarse = (hook.target(x, tokens) for x in (row, row.to(dtype).float()))
    either = int((exact | coarse).sum())
    return int((exact & coarse).sum()) / either if either else 1.0


def mean(x: Iterable[float]) -> float:
    """The mean of some numbers."""
    values = list(x)
    return sum(values) / len(values)
