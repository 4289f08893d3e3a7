"""The report of a check: lines, facts and times, on a terminal, as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rvelens.check.outcome import Status
from rvelens.check.speed import Speed
from rvelens.tables import Table

_COLUMNS = ("check", "result", "what was compared, or why not")
_STYLES = {"passed": "green", "failed": "bold red", "not applicable": "dim"}


@dataclass(frozen=True)
class CheckLine:
    """A named check and its result.

    Attributes:
        name: of the check.
        status: passed, failed or not applicable.
        reason: what was compared, or why it failed or does not apply.
        measured: the largest difference.
        limit: the largest difference that passes in the dtype of the model.
        usable: what can still be used; empty unless the check failed.
    """

    name: str
    status: Status
    reason: str
    measured: float | None = None
    limit: float | None = None
    usable: str = ""

    @property
    def text(self) -> str:
        """Reason and numbers in a sentence."""
        if self.measured is None:
            return self.reason
        return f"{self.reason}: {self.measured:.1e}, at most {self.limit:.1e}"


@dataclass(frozen=True)
class CheckReport:
    """What `check` reports.

    Attributes:
        facts: what is loaded, by name.
        lines: the checks in their order.
        attention: where the last row looks; see `rvelens.check.facts.attention_of`.
        speed: time and memory by setting.
    """

    facts: Mapping[str, str]
    lines: Sequence[CheckLine]
    attention: Mapping[str, float] = field(default_factory=dict)
    speed: Sequence[Speed] = ()

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> list[CheckLine]:
        """The checks that failed."""
        return [line for line in self.lines if line.status == "failed"]

    def line(self, name: str) -> CheckLine:
        """The line of a check.

        Raises:
            ValueError: no check has this name.
        """
        lines = {line.name: line for line in self.lines}
        if name not in lines:
            raise ValueError(
                f"unknown check {name!r}: expected one of {', '.join(lines)}; choose one of them."
            )
        return lines[name]

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "passed": self.passed,
            "facts": dict(self.facts),
            "lines": [asdict(line) for line in self.lines],
            "attention": dict(self.attention),
            "speed": [asdict(row) for row in self.speed],
        }

    def tables(self) -> list[Table]:
        """Facts, checks with their notes, and times."""
        facts = Table("", ("loaded", ""), [*self.facts.items(), *self._attention()])
        rows = [(line.name, line.status, line.text) for line in self.lines]
        checks = Table("", _COLUMNS, rows, notes=tuple(self.notes()), styles=_STYLES)
        return [facts, checks, *([self._speed()] if self.speed else [])]

    def notes(self) -> list[str]:
        """The verdict, and what can still be used where a check failed."""
        if self.passed:
            n = sum(line.status == "passed" for line in self.lines)
            return [f"{n} checks passed and none failed."]
        named = ", ".join(line.name for line in self.failed)
        notes = [f"Failed: {named}."]
        return notes + [f"{x.name}: still usable: {x.usable}." for x in self.failed if x.usable]

    def _attention(self) -> list[tuple[str, str]]:
        shown = [
            (f"attention, {name}", f"{value:.3f}")
            for name, value in self.attention.items()
            if name in ("first token", "image")
        ]
        return [(name, f"{value} of the last row, mean over heads") for name, value in shown]

    def _speed(self) -> Table:
        rows = [
            (row.setting, _ms(row.prefill), _ms(row.decode), _mib(row.peak)) for row in self.speed
        ]
        notes = tuple(f"{row.setting}: not applicable, because {row.reason}" for row in self.speed
                      if row.reason)  # fmt: skip
        return Table("", ("setting", "prompt ms", "token ms", "peak MiB"), rows, notes=notes)

    def to_markdown(self) -> str:
        """A block for an issue."""
        verdict = "passed" if self.passed else "failed"
        parts = [f"### rvelens check: {verdict}", "", *self.notes(), ""]
        for table in self.tables():
            parts += [table.to_markdown(), ""]
            parts += [f"- {note}" for note in table.notes if note not in self.notes()]
        return "\n".join(parts).rstrip() + "\n"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.1f}"


def _mib(n_bytes: int | None) -> str:
    return "-" if n_bytes is None else f"{n_bytes / 2**20:.1f}"
