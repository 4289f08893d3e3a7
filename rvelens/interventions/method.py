"""What a method is: hooks that are on, rows that they need, and a second branch to contrast with."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from reprlib import repr as brief
from typing import Any, Literal, Protocol, runtime_checkable

from rvelens.benchmarks import Item
from rvelens.model.hook_root import is_hook_pair
from rvelens.model.hooked_lvlm import HookedLVLM


@runtime_checkable
class QuestionHooks(Protocol):
    """An edit that depends on the question, such as on a box or a word."""

    def hooks(
        self, model: HookedLVLM, question: Item
    ) -> Sequence[tuple[str | Callable[[str], bool], Any]]:
        """The hooks for one question, which is asked in a batch of its own.

        Args:
            model: the model that will answer.
            question: its text, picture, boxes (`regions`) and further cells (`extra`).

        Raises:
            ValueError: the question cannot be asked under this method, with the reason.
        """
        ...


@dataclass(frozen=True)
class Contrast:
    """A second branch: which one, and how it is combined with the first.

    Attributes:
        kind: "vcd" (`decoding.vcd_negative`), "icd" (`icd_negative`) or "text" (`text_negative`).
        alpha, beta: of `decoding.ContrastProcessor`.
        step: of the diffusion; "vcd" only.
        disturbance: the instruction; "icd" only.
    """

    kind: Literal["vcd", "icd", "text"]
    alpha: float
    beta: float
    step: int | None = None
    disturbance: str | None = None


@dataclass(frozen=True)
class Method:
    """A method with all of its parameters settled for one model.

    Attributes:
        name: one of `rvelens.interventions.methods.METHODS`, or of a method of one's own.
        parameters: everything that determines it, as JSON can hold it, for a manifest.
        hooks: for `model.hooks(...)`.
        query_rows: what `model.query_rows` must be.
        contrast: the second branch, if there is one.
        version: of hooks of your own, a text that changes whenever they do. Without one, a run
            identifies them by a fingerprint of their code, constants and state
            (`rvelens.evaluate.fingerprint`).
        of_question: gives the hooks of each question, in place of `hooks`; see `QuestionHooks`.
    """

    name: str
    parameters: Mapping[str, Any]
    hooks: tuple[tuple[str | Callable[[str], bool], Any], ...] = field(default=(), repr=False)
    query_rows: Literal["last", "all"] = "last"
    contrast: Contrast | None = None
    version: str | None = None
    of_question: QuestionHooks | None = field(default=None, repr=False)

    def for_question(self, model: HookedLVLM, question: Item) -> Method:
        """The method with the hooks that one question gets.

        Raises:
            ValueError: something else than hooks.
        """
        if self.of_question is None:
            return self
        with naming(self.name, [question.id]):
            made = self.of_question.hooks(model, question)
        hooks = checked_hooks(made, self.name)
        return replace(self, hooks=hooks, query_rows=query_rows_of(hooks), of_question=None)


_RAISED = "raised in the method "


@contextmanager
def naming(method: str, questions: Sequence[str] = ()) -> Iterator[None]:
    """Add to an error of the block a note that names the method, its line and the questions.

    Args:
        method: its name.
        questions: ids of those that were asked, if any were.
    """
    try:
        yield
    except Exception as error:
        if not method_notes(error):
            ids = ", ".join(map(repr, questions[:3])) + ", ..." * (len(questions) > 3)
            asked_for = f", for the question {ids}" if questions else ""
            error.add_note(
                f"{_RAISED}{method!r}{_own_line(error)}{asked_for}: expected hooks without an error; "
                "correct the method."
            )
        raise


def method_notes(error: BaseException) -> list[str]:
    """The notes of an error that `naming` added."""
    return [note for note in getattr(error, "__notes__", ()) if note.startswith(_RAISED)]


def _own_line(error: BaseException) -> str:
    """ " (FILE line N)" of the last call that is of no library; "" where there is none."""
    own = [
        f"{Path(frame.f_code.co_filename).name} line {line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not _is_of_library(frame.f_globals.get("__name__", ""), frame.f_code.co_filename)
    ]
    return f" ({own[-1]})" if own else ""


def _is_of_library(module: str, file: str) -> bool:
    root = module.partition(".")[0]
    return root == "rvelens" or root in sys.stdlib_module_names or "site-packages" in file


def checked_hooks(made: Any, name: str) -> tuple[tuple[Any, Any], ...]:
    """Hooks as a method holds them.

    Raises:
        ValueError: something else than (hook name, hook) pairs.
    """
    pairs = tuple(made) if isinstance(made, list | tuple) else None
    for pair in pairs if pairs is not None else [made]:
        if not (isinstance(pair, tuple) and is_hook_pair(pair)):
            raise ValueError(
                f"method {name!r} gave {brief(pair)} for a hook: expected a list of (hook name, hook); "
                "return one, as rvelens.hooks.rve_hooks does."
            )
    return pairs or ()


def query_rows_of(hooks: tuple[tuple[Any, Any], ...]) -> Literal["last", "all"]:
    """The rows that hooks need to see, as their classes declare it."""
    return (
        "all" if any(getattr(hook, "query_rows", "last") == "all" for _, hook in hooks) else "last"
    )
