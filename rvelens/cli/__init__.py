"""The `rvelens` command: one small file per subcommand."""

from __future__ import annotations

import ast
import difflib
import re
import sys
from copy import copy
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import rvelens
from rvelens.cli.common import fail

# Name of a command: its module here, and what that module calls it.
COMMANDS = {
    "demo": ("demo", "demo"),
    "check": ("check", "check"),
    "ask": ("ask", "ask"),
    "scan": ("scan", "scan"),
    "eval": ("evaluate", "evaluate"),
    "study": ("study", "study"),
    "tune": ("tune", "tune"),
    "judge": ("judge", "judge"),
    "pairs": ("pairs", "pairs"),
    "data": ("data", "data"),
    "convert": ("convert", "convert"),
    "app": ("app", "explore"),
    "families": ("families", "families"),
    "bench": ("bench", "bench"),
}
_LISTS = ("eval", "study", "tune")  # take several values behind one option

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
    found = getattr(import_module(f"rvelens.cli.{module}"), function)
    group = typer.Typer(callback=root)
    if isinstance(found, typer.Typer):
        group.add_typer(found, name=name)
    elif name in _LISTS:
        from rvelens.cli.evaluate import ListOptions

        group.command(name, cls=ListOptions)(found)
    else:
        group.command(name)(found)
    return typer.main.get_group(group).commands[name]


# Not `app`: that is a module of this package, and takes the name when it is imported.
program = typer.Typer(
    cls=Commands,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool | None) -> None:
    if wanted:
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
        code = program(args=arguments or ["--help"], prog_name="rvelens", standalone_mode=False)
    except USAGE_ERROR as error:
        command = error.ctx.command_path if error.ctx else "rvelens"
        fail(f"{_without_full_stop(_reason(error))}: see `{command} --help`.")
    except typer.Abort:
        sys.exit(130)
    except (ValueError, OSError) as error:
        # The library's ValueErrors are written for the user; an OSError names its file itself.
        fail(str(error))
    sys.exit(code if isinstance(code, int) else 0)


def _reason(error: Any) -> str:
    """Typer's message; of a value of the wrong type, without the words of its parser."""
    return re.sub(
        r"Input should be a valid (\w)(\w*)(, unable to.*)?$",
        lambda found: f"expected {'an' if found[1] in 'aeiou' else 'a'} {found[1]}{found[2]}",
        error.format_message(),
    )


def _without_full_stop(text: str) -> str:
    return text.strip().removesuffix(".")
