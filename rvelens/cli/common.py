"""What the subcommands share: consoles, progress, loading a model, option types."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from rvelens.files.wording import counted

if TYPE_CHECKING:
    from rvelens.benchmarks import Benchmark
    from rvelens.model.hooked_lvlm import HookedLVLM


class Dtype(StrEnum):
    """Precisions that weights can be loaded in."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A name on the Hub, a folder, or rvelens/tiny.")
]
Prompt = Annotated[
    str, typer.Option(help="A preset of the family, or a template with {image} and {question}.")
]
FamilyName = Annotated[
    str | None,
    typer.Option(
        "--family",
        help="The model family, if the configuration does not show it; see `rvelens families`.",
    ),
]
# Problems and files that are listed before the rest is counted.
SHOWN = 5
DtypeOption = Annotated[Dtype, typer.Option(help="Precision of the weights.")]
DeviceMap = Annotated[
    str | None,
    typer.Option(help="Devices, as in transformers.", show_default="auto with a GPU, else the CPU"),
]
# Of commands that ask a benchmark's questions.
DataFolder = Annotated[Path | None, typer.Option(help="Folder that holds the benchmarks' files.")]
DataOrHub = Annotated[
    str | None,
    typer.Option(
        "--data", help="Folder that holds the benchmarks' files, or hub for copies there."
    ),
]
Relation = Annotated[
    str | None, typer.Option(help="Only 'action' or 'spatial' questions (MMRel, R-Bench).")
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Use a random sample of this many questions.")
]
Suffix = Annotated[
    str, typer.Option(help="Text after each question, such as 'Please answer with one word.'")
]
# Of commands that take contrastive pairs.
Reviewed = Annotated[
    bool, typer.Option("--reviewed", help="Use only pairs that were accepted or edited.")
]
WithoutPairs = Annotated[
    Path | None,
    typer.Option(
        "--without-pairs",
        metavar="FILE",
        help="Leave out questions that are in a file of pairs.",
    ),
]
AnyText = Annotated[
    bool, typer.Option("--any-text", help="Also use texts that differ in more than one word.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Questions per forward.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="METHOD.PARAMETER=VALUE, such as rve.alpha=0.1; repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print only JSON to stdout.")]


def out() -> Console:
    """Where results go; tables that go to a file or a pipe are wide enough for their names.

    What is printed is text: square brackets in an answer or a path are no markup.
    """
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=200 if piped else None, markup=False, highlight=False, emoji=False)


def err() -> Console:
    """Where progress and errors go."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def warn(message: str) -> None:
    """One line on stderr."""
    err().print(f"rvelens: {' '.join(message.split())}", soft_wrap=True)


def fail(message: str) -> NoReturn:
    """One line on stderr, exit code 2."""
    warn(message)
    sys.exit(2)


def emit_json(data: Any) -> None:
    """JSON alone on stdout."""
    sys.stdout.write(json.dumps(data, indent=2) + "\n")


def bar(description: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """A wrapper of iterables that shows a progress bar on stderr while they run."""
    console = err()
    # In a file or a pipe it would leave its blank lines.
    hidden = not console.is_terminal
    return lambda items: track(
        items, escape(description), console=console, transient=True, disable=hidden
    )


@contextlib.contextmanager
def status(message: str) -> Iterator[None]:
    """A spinner on stderr; what the libraries print meanwhile goes there too."""
    with contextlib.redirect_stdout(sys.stderr), err().status(escape(message)):
        yield


def open_model(
    name: str, *, family: str | None = None, dtype: str = "auto", device_map: str | None = None
) -> HookedLVLM:
    """`rvelens.model.loading.load_model` behind a spinner."""
    from rvelens.model.loading import load_model as load

    check_model_options(name, family, device_map)
    with status(f"loading {name}"):
        return load(name, family=family, dtype=dtype, device_map=device_map)


def check_model_options(
    name: str, family: str | None = None, device_map: str | None = None, prompt: str = "chat"
) -> None:
    """Raise ValueError for what no model can be loaded or asked with, before one is loaded."""
    from rvelens.families.registry import FAMILIES, family_of
    from rvelens.heads.hub import check_name
    from rvelens.model.loading import check_device_map
    from rvelens.model.prompts import check_template

    check_name(name)
    check_device_map(device_map)
    families = list(FAMILIES.values()) if family is None else [family_of(family)]
    check_template(
        prompt,
        {"chat": "", **{k: v for registered in families for k, v in registered.prompts.items()}},
    )


def check_images(benchmarks: Iterable[Benchmark]) -> None:
    """Raise ValueError for a benchmark of whose image files none is there."""
    for benchmark in benchmarks:
        files = dict.fromkeys(path for item in benchmark.items for path in item.files)
        if files and not any(path.is_file() for path in files):
            first = next(iter(files))
            raise ValueError(
                f"no image of {benchmark.name} exists ({counted(len(files), 'file')}, such as "
                f"{first}): expected the published images below --data; put them there, and run "
                f"`rvelens data check --benchmark {benchmark.name}`."
            )
