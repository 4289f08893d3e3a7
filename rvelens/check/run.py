"""`check`: load, wrap, compare, measure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rvelens.check import picture, prompts, rows, whole
from rvelens.check.facts import attention_of, facts_of
from rvelens.check.outcome import Outcome, describe_error, failed
from rvelens.check.report import CheckLine, CheckReport
from rvelens.check.speed import measure_speed
from rvelens.check.subject import QUESTIONS, Subject
from rvelens.families import Family, family_of
from rvelens.files.arguments import refuse_wrong_types
from rvelens.model.hooked_lvlm import HookedLVLM, check_loaded
from rvelens.model.loading import load_parts
from rvelens.model.prompts import ImageLike, load_image, prepare
from rvelens.seam.arguments import ModelInputs
from rvelens.seam.device import execution_device
from rvelens.seam.seam import is_wrapped
from rvelens.speed.clock import Tracker

# Where there is no other picture: a random one with structure at the scale of a patch.
_SIZE = (448, 336)


@dataclass(frozen=True)
class NamedCheck:
    """A check by name.

    Attributes:
        run: the check.
        usable: what can still be used where it fails.
        alone: it says something even where no forward of the model runs.
    """

    run: Callable[[Subject], Outcome]
    usable: str
    alone: bool = False


CHECKS: Mapping[str, NamedCheck] = {
    "image tokens": NamedCheck(
        prompts.check_image_tokens,
        "hooks that ask for no image: head masks in all rows, caches of activations",
        alone=True,
    ),
    "prompt": NamedCheck(
        prompts.check_prompt_tokens, "tensors that you make yourself: model(**inputs)", alone=True
    ),
    "layers": NamedCheck(
        rows.check_layers, "hooks in the other layers, and the model without hooks", alone=True
    ),
    "forward": NamedCheck(whole.check_forward, "what does not run the model"),
    "unhooked logits": NamedCheck(
        whole.check_unhooked_logits, "the model in transformers, unwrapped"
    ),
    "unhooked generation": NamedCheck(
        whole.check_unhooked_generation, "forwards, if the unhooked logits are equal"
    ),
    "causal rows": NamedCheck(whole.check_causal, "whole forwards of a prompt by itself"),
    "hidden states": NamedCheck(whole.check_hidden_states, "hooks on attention"),
    "range": NamedCheck(whole.check_range, "the same weights in bfloat16 or float32"),
    "pattern": NamedCheck(rows.check_pattern, "hooks on hook_z and on the residual stream"),
    "z": NamedCheck(rows.check_z, "hooks on scores and pattern, for reading"),
    "RVE": NamedCheck(rows.check_rve, "the model without RVE; hooks on hook_z"),
    "head masks": NamedCheck(rows.check_head_masks, "hooks on scores and pattern"),
    "edits": NamedCheck(rows.check_edits, "reading of scores and pattern"),
    "left padding": NamedCheck(whole.check_left_padding, "one prompt at a time: batch_size=1"),
    "batch": NamedCheck(whole.check_batch, "one prompt at a time: batch_size=1"),
    "cache": NamedCheck(whole.check_cache, "single forwards: head scores, first tokens"),
    "second turn": NamedCheck(whole.check_second_turn, "prompts of one turn, or whole prompts"),
    "replay": NamedCheck(whole.check_replay, "model.generate under each setting by itself"),
    "shared prefix": NamedCheck(
        whole.check_shared_prefix, "model.prepare instead of prepare_shared"
    ),
    "patch grid": NamedCheck(picture.check_grid, "all but overlays, regions and localisation"),
}


@refuse_wrong_types
def check(
    model: str | Path | HookedLVLM | Any,
    *,
    image: ImageLike | None = None,
    question: str = QUESTIONS[0],
    inputs: ModelInputs | None = None,
    processor: Any = None,
    family: str | Family | None = None,
    dtype: str = "auto",
    device_map: str | None = None,
    speed: bool = True,
    compiled: bool | None = None,
    only: Sequence[str] | None = None,
    progress: Tracker = iter,
) -> CheckReport:
    """Whether rvelens is exact on this very model, and how fast.

    A check that raises an error counts as failed, with the error as its reason; the others go on.

    Args:
        model: a hub name, a folder, a loaded Hugging Face model, or one that is wrapped.
        image: a path or a PIL image; by default a random one.
        question: the question about it.
        inputs: tensors of prompts without padding, for a model without a processor.
        processor, family: as in `HookedLVLM.from_pretrained`.
        dtype, device_map: as in `rvelens.model.loading.load_model`, for a name or a folder.
        speed: measure time and memory too.
        compiled: measure compiled steps behind a static cache; by default on a GPU alone.
        only: names of `CHECKS` to run; by default all.
        progress: wraps the list of checks, for a progress bar.

    Returns:
        the report; `report.passed` is False if a check failed.

    Raises:
        ValueError: the model cannot be loaded, an image cannot be read, there is neither a processor
            nor tensors, or no check has a name that was given.
    """
    names = _names(only)
    image = None if inputs is not None else load_image(random_image() if image is None else image)
    hf_model, processor, wrapper = _parts(model, processor, dtype, device_map)
    if inputs is None and processor is None:
        raise ValueError(
            "no processor and no inputs are given: expected one of them; pass processor= or "
            "inputs=."
        )
    stage, plain = "wrapping", {}
    try:
        kind = _family(hf_model, wrapper, family)
        stage = "prompt"
        prompt = inputs
        if prompt is None:
            assert image is not None  # loaded where no tensors were given
            prompt = _prompt(hf_model, processor, kind, image, question)
        plain = whole.plain_results(_unwrapped(hf_model), prompt)
        stage = "wrapping"
        wrapped = wrapper or HookedLVLM.from_pretrained(hf_model, processor=processor, family=kind)
    except Exception as error:  # whatever it is, it is the result of this check
        return _stopped(stage, error, hf_model)
    subject = Subject(wrapped, prompt, image, question, plain)
    return _report(subject, progress(names), speed, compiled)


def random_image() -> Image.Image:
    """A random picture with structure at the scale of a patch."""
    small = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(_SIZE, Image.Resampling.BICUBIC)


def _parts(
    model: Any, processor: Any, dtype: str, device_map: str | None
) -> tuple[Any, Any, HookedLVLM | None]:
    """The Hugging Face model, its processor, and its wrapper where it came with it."""
    if isinstance(model, str | Path):
        hf_model, loaded = load_parts(str(model), dtype=dtype, device_map=device_map)
        return hf_model, processor or loaded, None
    if not isinstance(model, HookedLVLM):
        check_loaded(model, {})
        return model, processor, None
    if model.list_hooks():
        raise ValueError(
            "hooks are on, and a check needs the model without hooks: expected none; call "
            "model.reset_hooks() first."
        )
    return model.hf_model, processor or model.processor, model


def _family(hf_model: Any, wrapper: HookedLVLM | None, family: str | Family | None) -> Family:
    if isinstance(family, Family) or (family is None and wrapper is not None):
        kind = family or wrapper.family  # type: ignore[union-attr]  # one of the two is there
    else:
        kind = family_of(family or hf_model.config)
    kind.refuse_if_inexact(hf_model.config)
    return kind


def _unwrapped(hf_model: Any) -> Any:
    """The model, or a copy without hook points where it was wrapped before."""
    return whole._twin(hf_model) if is_wrapped(hf_model) else hf_model


def _prompt(
    hf_model: Any, processor: Any, family: Family, image: ImageLike, question: str
) -> dict[str, Any]:
    batch = prepare(family, processor, image, question)
    return dict(batch.to(execution_device(hf_model), hf_model.dtype))


def _stopped(name: str, error: Exception, hf_model: Any) -> CheckReport:
    """The report where a model comes to no forward under rvelens."""
    reason = describe_error(error)
    usable = "the model in transformers, without rvelens" if name == "wrapping" else ""
    lines = [CheckLine(name, "failed", reason, usable=usable or CHECKS[name].usable)]
    lines += [
        CheckLine(other, "not applicable", f"{name} failed") for other in CHECKS if other != name
    ]
    return CheckReport({"model": type(hf_model).__name__}, lines)


def _names(only: Sequence[str] | None) -> list[str]:
    """The checks to run, in their order."""
    unknown = [name for name in only or () if name not in CHECKS]
    if unknown:
        raise ValueError(
            f"unknown check {unknown[0]!r}: expected some of {', '.join(CHECKS)}; choose from them."
        )
    return [name for name in CHECKS if only is None or name in only]


def _report(
    subject: Subject, names: Iterable[Any], speed: bool, compiled: bool | None
) -> CheckReport:
    kind = type(subject.model.hf_model).__name__
    lines = [CheckLine("wrapping", "passed", f"{kind} as {subject.model.family.name}")]
    runs = True
    for name in names:
        if not runs and not CHECKS[name].alone:
            lines.append(CheckLine(name, "not applicable", "no forward runs"))
            continue
        lines.append(_line(name, subject))
        if name == "forward" and isinstance(subject.plain["logits"], Exception):
            runs = False
    if compiled is None:
        compiled = subject.model.device.type == "cuda"
    attention, rows = {}, []
    if runs:
        attention = _or_nothing(lambda: attention_of(subject), {})
        rows = measure_speed(subject, compiled) if speed else []
    return CheckReport(facts_of(subject), lines, attention, rows)


def _line(name: str, subject: Subject) -> CheckLine:
    """Run a check; an error is its failure."""
    try:
        outcome = CHECKS[name].run(subject)
    except Exception as error:  # a check that crashes has failed, and the others go on
        outcome = failed(describe_error(error))
    usable = CHECKS[name].usable if outcome.status == "failed" else ""
    return CheckLine(name, outcome.status, outcome.reason, outcome.measured, outcome.limit, usable)


def _or_nothing(run: Callable[[], Any], nothing: Any) -> Any:
    """What `run` returns, or nothing where a check has failed already for the same reason."""
    try:
        return run()
    except Exception:  # the lines on layers and pattern name it
        return nothing
