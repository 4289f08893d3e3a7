"""The `rvelens` command: one small file per subcommand."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

import rvelens
from rvelens.cli.app import explore
from rvelens.cli.ask import ask
from rvelens.cli.bench import bench
from rvelens.cli.common import fail
from rvelens.cli.convert import convert
from rvelens.cli.data import data
from rvelens.cli.demo import demo
from rvelens.cli.evaluate import ListOptions, evaluate
from rvelens.cli.families import families
from rvelens.cli.judge import judge
from rvelens.cli.pairs import pairs
from rvelens.cli.scan import scan
from rvelens.cli.study import study
from rvelens.cli.tune import tune

# Click's UsageError: newer versions of typer bring a click of their own, so go by inheritance.
USAGE_ERROR: Any = typer.BadParameter.__bases__[0]

app = typer.Typer(
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, ask, scan, judge, families, bench):
    app.command()(command)
app.command("app")(explore)
app.command("eval", cls=ListOptions)(evaluate)
for command in (study, tune):
    app.command(cls=ListOptions)(command)
app.add_typer(data, name="data")
app.add_typer(convert, name="convert")
app.add_typer(pairs, name="pairs")


def _version(wanted: bool | None) -> None:
    if wanted:
        typer.echo(f"rvelens {rvelens.__version__}")
        raise typer.Exit


@app.callback()
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
        code = app(args=arguments or ["--help"], prog_name="rvelens", standalone_mode=False)
    except USAGE_ERROR as error:
        fail(f"{_without_full_stop(error.format_message())}: see `rvelens --help`.")
    except typer.Abort:
        sys.exit(130)
    except (ValueError, OSError) as error:
        # The library's ValueErrors are written for the user; an OSError names its file itself.
        fail(str(error))
    sys.exit(code if isinstance(code, int) else 0)


def _without_full_stop(text: str) -> str:
    return text.strip().removesuffix(".")
