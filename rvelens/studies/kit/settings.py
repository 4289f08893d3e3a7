"""Settings of RVE in a study: which they are, how they are scored, and rows of a table for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rvelens.heads.layers import format_layers, parse_layers
from rvelens.studies.kit.base import Measured, Setup
from rvelens.tables import Cell

CHANGE_COLUMNS = ("accuracy", "change", "F1", "AUC", "yes-ratio", "against vanilla")
SIGNED = frozenset({"change"})


def of_rve(setup: Setup) -> dict[str, Any]:
    """Keywords for `rve_hooks`, as the study's method rve has them.

    Raises:
        ValueError: rve is not among the study's methods.
    """
    method = next((m for m in setup.methods if m.name == "rve"), None)
    if method is None:
        raise ValueError(
            "a study of RVE without the method rve: expected rve among the methods; add it "
            "to methods (--method rve)."
        )
    parameters = {k: v for k, v in method.parameters.items() if k != "profile"}
    layers = parse_layers(str(parameters["layers"]), setup.profile, setup.model.n_layers)
    return {**parameters, "layers": layers}


def describe_setting(setting: Mapping[str, Any]) -> str:
    """ "layers 3-5, K 5, alpha 0.05, beta 1": a setting of RVE, or of a control of it, in words."""
    names = {"k": "K", "alpha": "alpha", "beta": "beta"}
    rest = (f"{label} {setting[name]:g}" for name, label in names.items() if name in setting)
    raw = () if setting.get("denoise", True) else ("no denoising",)
    return ", ".join((f"layers {format_layers(setting['layers'])}", *rest, *raw))


def row(result: Measured, name: str, before: str = "vanilla") -> Sequence[Cell]:
    """A setting's cells of `COLUMNS`, from `evaluate.scoring.score`, by the official rule."""
    scored = result["rules"]["official"]
    figures = scored["methods"][name]
    cells: list[Cell] = [figures["accuracy"], None]
    cells += [figures[key] and figures[key]["value"] for key in ("f1", "auc", "yes_ratio")]
    change = pair(result, name, before)
    if change is None:
        return [*cells, None]
    cells[1] = change["change"]["accuracy"]
    return [*cells, change["verdict"]]


def pair(result: Measured, name: str, before: str = "vanilla") -> Mapping[str, Any] | None:
    """The paired comparison of a setting with another; None with itself."""
    pairs = result["rules"]["official"]["pairs"]
    return next((p for p in pairs if (p["before"], p["after"]) == (before, name)), None)


def value(result: Measured, name: str, metric: str) -> Mapping[str, float] | None:
    """A setting's estimate of a metric, by the official rule."""
    return result["rules"]["official"]["methods"][name][metric]
