"""The `rvelens` command: one small file per subcommand."""

from __future__ import annotations

import ast
import difflib
import os
import re
import sys
from copy import copy
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import rvelens
from rvelens.cli.common import fail

# Name of a command: its module here, and what that module calls it.
COMMANDS = {
    "demo": ("demo", "demo"),
    "check": ("check", "check_command"),
    "ask": ("ask", "ask_command"),
    "scan": ("scan", "scan"),
    "eval": ("evaluate", "evaluate_command"),
    "capture": ("capture", "capture_command"),
    "study": ("study", "study"),
    "reproduce": ("reproduce", "reproduce_command"),
    "tune": ("tune", "tune"),
    "judge": ("judge", "judge_command"),
    "pairs": ("pairs", "pairs"),
    "data": ("data", "data"),
    "convert": ("convert", "convert"),
    "app": ("app", "explore"),
    "families": ("families", "families"),
    "bench": ("bench", "bench"),
}
_LISTS = ("eval", "study", "reproduce", "tune")  # take several values behind one option

# Click's UsageError: newer versions of typer bring a click of their own, so go by inheritance.
USAGE_ERROR: Any = typer.BadParameter.__bases__[0]


class Listing(TyperGroup):
    """The commands as the help lists them, without importing any."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command with its help and nothing else."""
        return TyperCommand(cmd_name, help=_first_line(cmd_name))


class Commands(Listing):
    """Imports a command when it is run: most bring libraries that take seconds to load."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name; None if there is none."""
        return _imported(cmd_name) if cmd_name in COMMANDS else None

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help of the program."""
        listing = copy(self)
        listing.__class__ = Listing  # type: ignore[assignment]
        TyperGroup.format_help(listing, ctx, formatter)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the arguments name, and its own arguments."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}" if near else ""
            raise USAGE_ERROR(f"No such command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)


def _first_line(name: str) -> str:
    """What the help says of a command, read off its source: importing its module takes seconds.

    The first line of its function's docstring, or `help` of its `typer.Typer`.
    """
    module, variable = COMMANDS[name]
    tree = ast.parse((Path(__file__).parent / f"{module}.py").read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == variable:
            return (ast.get_docstring(node) or "").partition("\n")[0]
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == variable:
            keywords = node.value.keywords if isinstance(node.value, ast.Call) else []
            texts = [ast.literal_eval(k.value) for k in keywords if k.arg == "help"]
            return "".join(texts)
    raise AssertionError(f"{module}.py does not define {variable}")


def _imported(name: str) -> Any:
    module, function = COMMANDS[name]
    command = getattr(import_module(f"rvelens.cli.{module}"), function)
    group = typer.Typer(callback=root)
    if isinstance(command, typer.Typer):
        group.add_typer(command, name=name)
    elif name in _LISTS:
        from rvelens.cli.methods import ListOptions

        group.command(name, cls=ListOptions)(command)
    else:
        group.command(name)(command)
    return typer.main.get_group(group).commands[name]


# Not `app`: that is a module of this package, and takes the name when it is imported.
program = typer.Typer(
    cls=Commands,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(is_set: bool | None) -> None:
    if is_set:
        typer.echo(f"rvelens {rvelens.__version__}")
        raise typer.Exit


@program.callback()
def root(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = None,
) -> None:
    """See and steer attention in vision-language models."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's mistake is one sentence on stderr and exit code 2.

    Args:
        arguments: in place of those of the process.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        _refuse_empty(arguments)
        code = program(args=arguments or ["--help"], prog_name="rvelens", standalone_mode=False)
        sys.stdout.flush()
    except USAGE_ERROR as error:
        command = error.ctx.command_path if error.ctx else "rvelens"
        reason = _of_value(error) or f"{_without_full_stop(_reason(error))}:"
        fail(f"{reason} see `{command} --help`.")
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:  # as in `rvelens eval ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        sentence = _sentence(error)
        if not sentence:  # a mistake of this program
            raise
        fail(sentence)
    sys.exit(code if isinstance(code, int) else 0)


def _sentence(error: Exception) -> str:
    """The message to print for an error, or "" if the error is a defect of this program."""
    if isinstance(error, (MemoryError, RecursionError)):
        return _of_memory(error)
    if getattr(error, "__notes__", ()):
        from rvelens.interventions.method import method_notes

        if notes := method_notes(error):
            text = " ".join(str(error).split()).removesuffix(".")
            kind = "" if text and isinstance(error, ValueError) else type(error).__name__
            return f"{': '.join(filter(None, (kind, text)))}, {notes[0]}"
    if isinstance(error, OSError):
        return _of_file(error)
    if isinstance(error, ValueError):  # the library's are written for the user
        return str(error) or type(error).__name__
    return _of_memory(error) if isinstance(error, RuntimeError) else ""


def _of_file(error: OSError) -> str:
    """What went wrong with a file; without a name it is what the program prints to."""
    if error.filename is not None or error.errno is None:
        return str(error)
    return (
        f"the output cannot be written ({error.strerror}): expected a terminal, a pipe or a file with "
        "room; free some, or name another file."
    )


def _of_memory(error: Exception) -> str:
    """A sentence where memory, Python's stack or the device gave out."""
    if isinstance(error, RecursionError):
        return "what was given is nested too deeply: expected less depth; simplify it."
    if isinstance(error, MemoryError):
        return "there is not enough memory: expected more, or less to do; lower --batch-size."
    # Of torch: memory of a device that ends, for example, in the words of the device.
    return f"{type(error).__name__}: {error}: expected none; try a smaller --batch-size or model."


# Options whose value may be empty.
_MAY_BE_EMPTY = ("--suffix",)


def _refuse_empty(arguments: list[str]) -> None:
    """An empty path would be the working folder, and an empty name nothing."""
    for before, argument in pairwise(["", *arguments]):
        option, equals, value = argument.partition("=")
        is_option = argument.startswith("--") and bool(equals)
        named = option if is_option else before
        if (value if is_option else argument) == "" and named not in _MAY_BE_EMPTY:
            place = f"{named} ''" if named.startswith("-") else f"an argument '' after {named!r}"
            raise ValueError(f"{place}: expected a non-empty value; pass one.")


def _elsewhere(option: str) -> str:
    """Which commands have an option that this one has not, read off their sources."""
    name = option.removeprefix("--").replace("-", "_")
    with_it = []
    for command, (module, _) in COMMANDS.items():
        source = (Path(__file__).parent / f"{module}.py").read_text("utf-8")
        if f'"{option}"' in source or re.search(rf"^    {re.escape(name)}: ", source, re.MULTILINE):
            with_it.append(command)
    return f"; {', '.join(f'`rvelens {c}`' for c in with_it)} would take it" if with_it else ""


# What is expected, by the kind of error that pydantic reports; {} is the bound.
_EXPECTED = {
    "greater_than_equal": "at least {}", "greater_than": "more than {}",
    "less_than_equal": "at most {}",
    "less_than": "less than {}", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "float_parsing": "a number", "finite_number": "a finite number", "bool_parsing": "true or false",
}  # fmt: skip


def _of_value(error: Any) -> str:
    """What was given for an option and what was expected; "" where the error is of another kind."""
    cause, parameter = error.__cause__, getattr(error, "param", None)
    if parameter is None or not hasattr(cause, "errors"):
        return ""
    first = cause.errors(include_url=False)[0]
    expected = _EXPECTED.get(first["type"], "")
    if expected:
        expected = expected.format(next(iter(first.get("ctx", {"": ""}).values())))
    elif " is not one of " in first["msg"]:
        expected = f"one of {_without_full_stop(first['msg']).partition(' is not one of ')[2]}"
    if not expected:
        return ""
    option = max(parameter.opts, key=len)
    name = option if option.startswith("-") else option.upper()
    return f"{name} {first['input']}: expected {expected}; correct it, or"


def _reason(error: Any) -> str:
    """Typer's message; of a value of the wrong type, without the words of its parser."""
    option = getattr(error, "option_name", None)
    if option and not getattr(error, "possibilities", None):
        return f"{_without_full_stop(error.format_message())}{_elsewhere(option)}"
    return re.sub(
        r"Input should be a valid (\w)(\w*)(, unable to.*)?$",
        lambda match: f"expected {'an' if match[1] in 'aeiou' else 'a'} {match[1]}{match[2]}",
        error.format_message(),
    )


def _without_full_stop(text: str) -> str:
    return text.strip().removesuffix(".")
