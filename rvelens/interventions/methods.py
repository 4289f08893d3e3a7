"""The methods that are compared, each with its published defaults: one registry for every harness.

A method is hooks that are on, rows that they need, and a second branch to contrast with; vanilla
has none of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from rvelens.families.base import Family
from rvelens.files.arguments import refuse_wrong_types
from rvelens.heads.layers import chosen_layers, format_layers, parse_layers
from rvelens.heads.profile import ARSProfile
from rvelens.hooks import devils_hooks, pai_hooks, rve_hooks, vaf_hooks
from rvelens.interventions.contrast import check_contrast
from rvelens.interventions.icd import DISTURBANCE, check_disturbance
from rvelens.interventions.method import Contrast, Method
from rvelens.interventions.options import Option, check_options, read_options, settled
from rvelens.interventions.own import (
    is_own,
    make_own,
    own_function,
    takes_profile,
)
from rvelens.interventions.pai import check_gamma
from rvelens.interventions.vcd import signal_left
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.weights import check_profile_of

Layers = str | int | Sequence[int]


@runtime_checkable
class Shaped(Protocol):
    """What a method takes from a model: its shape, and the default of its family."""

    @property
    def n_layers(self) -> int:
        """Layers of the decoder."""
        ...

    @property
    def n_heads(self) -> int:
        """Query heads of each layer."""
        ...

    @property
    def attention_layers(self) -> Sequence[int]:
        """Numbers of the layers that have attention."""
        ...

    @property
    def family(self) -> Family:
        """Whose default alpha serves."""
        ...


def _vanilla(model: Shaped, profile: ARSProfile | None) -> Method:
    return Method("vanilla", {})


# Defaults of the paper, Section 4: K 5 and beta 1.0 for every model; alpha is the family's.
def _rve(
    model: Shaped,
    profile: ARSProfile | None,
    *,
    layers: Layers = "preset",
    k: int | None = None,
    alpha: float | None = None,
    beta: float = 1.0,
    scope: str = "all",
    denoise: bool = True,
    max_entropy: float = 1.0,
    steps: str = "all",
) -> Method:
    if profile is None:
        raise ValueError(
            "method 'rve' without a head profile: expected a profile of this model; measure it "
            "with `rvelens scan` or score_heads."
        )
    if isinstance(model, HookedLVLM):  # else its shape is that of the profile
        check_profile_of(model, profile)
    chosen = _layers(layers, model, profile)
    settled = {
        "k": min(5, model.n_heads // 2) if k is None else k,
        "alpha": model.family.alpha if alpha is None else alpha,
        "beta": beta,
        "scope": scope,
        "denoise": denoise,
    }
    if max_entropy != 1:  # left out at its default, so that runs made before there was one go on
        settled["max_entropy"] = max_entropy
    settled |= _if_restricted(steps)
    hooks = rve_hooks(profile, chosen, **settled)
    parameters = {"layers": format_layers(chosen), **settled, "profile": profile.digest()}
    return Method("rve", parameters, tuple(hooks))


# Defaults of the authors' parser; their script for LLaVA-1.5 on POPE passes cd_beta 0.2.
# https://github.com/DAMO-NLP-SG/VCD/blob/d6568ff81b8fd306a49e630df44f2db5c2300191/experiments/eval/object_hallucination_vqa_llava.py#L115-L118
def _vcd(
    model: Shaped,
    profile: ARSProfile | None,
    *,
    alpha: float = 1.0,
    beta: float = 0.1,
    step: int = 500,
) -> Method:
    check_contrast(alpha, beta)
    signal_left(step)
    parameters = {"alpha": alpha, "beta": beta, "step": step}
    return Method("vcd", parameters, contrast=Contrast("vcd", alpha, beta, step=step))


# https://github.com/p1k0pan/ICD/blob/2fa44c5786a14dd902d8966303b7df073ac110ab/experiments/gen_scripts/icd_llava_pope.py#L27-L28
def _icd(
    model: Shaped,
    profile: ARSProfile | None,
    *,
    alpha: float = 1.0,
    beta: float = 0.1,
    disturbance: str = DISTURBANCE,
) -> Method:
    check_contrast(alpha, beta)
    check_disturbance(disturbance)
    parameters = {"alpha": alpha, "beta": beta, "disturbance": disturbance}
    return Method("icd", parameters, contrast=Contrast("icd", alpha, beta, disturbance=disturbance))


# https://github.com/ustc-hyin/ClearSight/blob/5466c945be8cbd69ecc08b09455d8ed11f37ce67/visaug/inference/infer_pope.sh#L7-L8
def _vaf(
    model: Shaped,
    profile: ARSProfile | None,
    *,
    layers: Layers = "preset",
    enhance: float = 1.15,
    suppress: float = 0.95,
    steps: str = "all",
) -> Method:
    # https://github.com/ustc-hyin/ClearSight/blob/5466c945be8cbd69ecc08b09455d8ed11f37ce67/visaug/inference/infer_pope.py#L54
    chosen = _layers(layers, model, profile, (9, 14))
    hooks = vaf_hooks(model.n_layers, chosen, enhance, suppress, steps=steps)
    parameters = {"layers": format_layers(chosen), "enhance": enhance, "suppress": suppress}
    parameters |= _if_restricted(steps)
    return Method("vaf", parameters, tuple(hooks), query_rows="all")


# Defaults of the authors' parser. Its gamma is 2, and 1.1 in their README's commands: here 1, off.
# https://github.com/LALBJ/PAI/blob/9bbd8bd57a0b0923f996197e4bd3e02cc10b8d58/chair_eval.py#L50-L55
def _pai(
    model: Shaped,
    profile: ARSProfile | None,
    *,
    layers: Layers = "preset",
    alpha: float = 0.2,
    gamma: float = 1.0,
    beta: float = 0.1,
    as_published: bool = False,
    steps: str = "all",
) -> Method:
    check_gamma(gamma)
    check_contrast(gamma - 1, beta)
    chosen = _layers(layers, model, profile, (2, 31))
    first = not as_published or gamma == 1
    hooks = pai_hooks(model.n_layers, chosen, alpha, first_token=first, steps=steps)
    parameters = {"layers": format_layers(chosen), "alpha": alpha, "gamma": gamma, "beta": beta}
    parameters |= _if_restricted(steps)
    if as_published:  # left out at its default, so that runs made before there was one go on
        parameters["as_published"] = True
    guidance = Contrast("text", gamma - 1, beta) if gamma > 1 else None
    return Method("pai", parameters, tuple(hooks), contrast=guidance)


# https://github.com/ZhangqiJiang07/middle_layers_indicating_hallucinations/blob/a0622a9dfcd10428f5bcdbf992105fff49c2ec85/chair_eval.py#L44-L47
def _devils(
    model: Shaped,
    profile: ARSProfile | None,
    *,
    layers: Layers = "preset",
    alpha: float = 0.5,
    steps: str = "all",
) -> Method:
    chosen = _layers(layers, model, profile, (5, 18))
    hooks = devils_hooks(model.n_layers, chosen, alpha, steps=steps)
    parameters = {"layers": format_layers(chosen), "alpha": alpha, **_if_restricted(steps)}
    return Method("devils", parameters, tuple(hooks))


def _if_restricted(steps: str) -> dict[str, str]:
    """The steps among a method's parameters; left out at their default, so that earlier runs go on."""
    return {} if steps == "all" else {"steps": steps}


# What makes each method, by the names that `--method` takes.
METHODS: dict[str, Callable[..., Method]] = {
    "vanilla": _vanilla,
    "rve": _rve,
    "vcd": _vcd,
    "icd": _icd,
    "vaf": _vaf,
    "pai": _pai,
    "devils": _devils,
}


@refuse_wrong_types
def make_method(
    name: str, model: Shaped, profile: ARSProfile | None = None, **parameters: Any
) -> Method:
    """A method for one model, with published defaults for what is not given.

    - vanilla
    - rve: layers="preset", k=5 (at most half of the heads), alpha (of the family), beta=1.0,
      scope="all", denoise=True, max_entropy=1.0 (every input)
    - vcd: alpha=1.0, beta=0.1, step=500
    - icd: alpha=1.0, beta=0.1, disturbance (the authors')
    - vaf: layers 9-14 of 32, enhance=1.15, suppress=0.95
    - pai: layers 2-31 of 32, alpha=0.2, gamma=1.0 (above 1: text-only guidance, cut off at
      beta=0.1; the authors' scripts have 2 as default and 1.1 in the README's commands),
      as_published=False (True: with guidance, no edit at the first token, as in their script)
    - devils: layers 5-18 of 32, alpha=0.5

    rve, vaf, pai and devils also take steps="all": the new tokens at which they edit, as in
    `rvelens.hooks.restrict`.

    Args:
        name: one of `METHODS`; FILE.py:FUNCTION, or an entry point of the group
            `rvelens.interventions`, for a method of one's own (`rvelens.interventions.own`).
        model: the hooked model, or what has its shape.
        profile: head sensitivities, for rve and for layers="auto".
        **parameters: as listed; layers as `parse_layers` reads them or as numbers.

    Raises:
        ValueError: an unknown method or parameter, a value of another type or outside its range, or
            rve without a profile of this model.
    """
    settings = checked_parameters(name, parameters)
    if name in METHODS:
        return METHODS[name](model, profile, **settings)
    if not isinstance(model, HookedLVLM):
        raise ValueError(f"method {name!r} without a model: expected a HookedLVLM; load one.")
    return make_own(name, model, profile, settled(name, options_of(name), settings))


def _check_name(name: str) -> str:
    """The name of a method; ValueError where there is none of that name."""
    if name not in METHODS and not is_own(name):
        near = difflib.get_close_matches(name, METHODS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"unknown method {name!r}: expected one of {', '.join(METHODS)}, or FILE.py:FUNCTION; did "
            f"you mean {near!r}?"
        )
    return name


@refuse_wrong_types
def options_of(name: str) -> dict[str, Option]:
    """The parameters of a method by name, in their order.

    Raises:
        ValueError: an unknown method, or code of one's own that cannot be loaded.
    """
    return read_options(name, METHODS[name] if _check_name(name) in METHODS else own_function(name))


@refuse_wrong_types
def needs_profile(name: str) -> bool:
    """Whether a method cannot be made without a head profile."""
    return name == "rve" or (name not in METHODS and takes_profile(name))


def checked_parameters(name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as a method takes them, before there is a model.

    Raises:
        ValueError: an unknown method or parameter, or a value of another type.
    """
    return check_options(name, options_of(name), parameters)


def check_parameters(
    name: str, parameters: Mapping[str, Any], profile: ARSProfile | None = None
) -> None:
    """Raise what `make_method` would raise, as far as that is known without a model.

    Layers and heads are those of the profile; without one, layers are not looked at. A method of one's
    own is not made.
    """
    if name not in METHODS:
        settled(name, options_of(name), checked_parameters(name, parameters))
        return
    known = dict(parameters)
    if profile is None:
        known.pop("layers", None)
    depth, heads = (32, 32) if profile is None else (profile.n_layers, profile.n_heads)
    model = _Shape(
        depth, heads, range(depth) if profile is None else profile.attention_layers, _NO_FAMILY
    )
    if name != "rve" or profile is not None:
        make_method(name, model, profile, **known)


_NO_FAMILY = Family("unknown", ())


@dataclass(frozen=True)
class _Shape:
    """What a method takes from a model, without the model."""

    n_layers: int
    n_heads: int
    attention_layers: Sequence[int]
    family: Family


def _layers(
    layers: Layers,
    model: Shaped,
    profile: ARSProfile | None,
    published: tuple[int, int] | None = None,
) -> list[int]:
    """The layers as numbers; "preset" is the method's own published range, where it has one."""
    if not isinstance(layers, str):
        layers = ",".join(map(str, [layers] if isinstance(layers, int) else layers))
    if layers.strip() == "preset" and published is not None:
        return chosen_layers(None, *published, model.n_layers, model.attention_layers)
    return parse_layers(layers, profile, model.n_layers, model.attention_layers)
