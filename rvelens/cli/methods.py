"""Methods on the command line: several behind one option, their parameters, and the help on these."""

from __future__ import annotations

import difflib
import json as json_format
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from typer.core import TyperCommand

from rvelens.cli.common import out
from rvelens.files.atomic import parse_json
from rvelens.interventions.methods import METHODS, checked_parameters, options_of
from rvelens.interventions.own import is_own, method_name
from rvelens.tables import Table

# Of the command line at hand, in typer's context.
_METHODS = "rvelens.methods"
_LISTS = ("--benchmark", "--method", "--model", "--profile", "--table", "--figure")


class ListOptions(TyperCommand):
    """Lets `--method vanilla rve vcd` stand for `--method vanilla --method rve --method vcd`."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help, and below it the parameters of the methods that the command line names."""
        super().format_help(ctx, formatter)
        methods = known_methods(ctx.meta.get(_METHODS, []))
        for name in methods:
            out().print(parameters_table(name))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat a list option's name before each of its further values."""
        spread: list[str] = []
        current = ""
        for position, arg in enumerate(args):
            if arg.startswith("-"):
                current = arg if arg in _LISTS else ""
            elif current and args[position - 1] != current:
                spread.append(current)
            spread.append(arg)
        pairs = pairwise(spread)
        ctx.meta[_METHODS] = [value for option, value in pairs if option == "--method"]
        return super().parse_args(ctx, spread)


def parameters_table(method: str) -> Table:
    """The parameters of a method, their types and defaults."""
    rows = [
        (
            f"{method_name(method)}.{name}",
            "any" if option.hint is Any else getattr(option.hint, "__name__", str(option.hint)),
            "must be given"
            if option.is_required
            else json_format.dumps(option.default, default=str),
        )
        for name, option in options_of(method).items()
    ]
    return Table(f"{method}: what --set takes", ("parameter", "type", "default"), rows)


def parse_names(
    names: Sequence[str],
    among: Any,
    kind: str,
    is_another: Callable[[str], bool] = lambda name: False,
) -> list[str]:
    """Names in the order given, also separated by commas, without repetition.

    Args:
        names: what was given.
        among: the known names.
        kind: what they are names of.
        is_another: whether a name that is not among them is right too.
    """
    split = [name for text in names for name in text.split(",") if name]
    for name in split:
        if name not in among and not is_another(name):
            near = difflib.get_close_matches(name, among, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"{kind} {name!r}: expected one or several of {', '.join(among)}; "
                f"did you mean {near!r}?"
            )
    if names and not split:
        raise ValueError(
            f"no {kind} in {','.join(names)!r}: expected one or several of {', '.join(among)}; "
            "choose one."
        )
    return list(dict.fromkeys(split))


def known_methods(names: Sequence[str]) -> list[str]:
    """As `parse_names`, of methods: of `METHODS` and of one's own, each with its own name."""
    methods = parse_names(names, METHODS, "method", is_own)
    called = [method_name(name) for name in methods]
    for name in methods:
        options_of(name)  # one's own code is loaded before a model is
        if called.count(method_name(name)) > 1:
            raise ValueError(
                f"two methods are named {method_name(name)!r}: expected different names; rename one."
            )
    return methods


def parameters_by_method(
    settings: Sequence[str], methods: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """`--set METHOD.PARAMETER=VALUE` as keywords by method; values as in JSON, or text.

    A method of one's own is called as its function is: make.factor=2 of my.py:make.
    """
    by_method: dict[str, dict[str, Any]] = {name: {} for name in methods}
    called = {method_name(name): name for name in methods}
    for text in settings:
        name, dot, rest = text.partition(".")
        parameter, equals, value = rest.partition("=")
        if not (dot and equals and parameter):
            raise ValueError(
                f"--set {text}: expected METHOD.PARAMETER=VALUE; write it as in rve.alpha=0.1."
            )
        if name not in called:
            raise ValueError(
                f"--set {text}: {name!r} is not among the methods {', '.join(called)}: expected a "
                "method of this run; add it to --method."
            )
        try:
            by_method[called[name]][parameter] = parse_json(value)
        except ValueError:
            by_method[called[name]][parameter] = value
    for name, parameters in by_method.items():
        checked_parameters(name, parameters)  # before the model is loaded
    return by_method
