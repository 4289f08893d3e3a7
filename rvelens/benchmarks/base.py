"""What a benchmark is: questions about pictures, with their answers and the rule that reads them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rvelens.benchmarks.rules import Rule, TextRule
from rvelens.tokens.grid import Box

# What `--relation` takes, beside everything.
RELATIONS = ("all", "action", "spatial")


@dataclass(frozen=True, eq=False)
class Item:
    """One question.

    Attributes:
        id: unique in the benchmark, as published.
        image: key of the picture; the same key means the same pixels.
        source: name of the photograph, by which questions are clustered.
        text: the question alone, without a prompt's suffix.
        truth: true for yes; None for a question with another answer than yes or no.
        reference: what such an answer is compared with, else None.
        group: subset such as "action" or "PC-yes"; "" if the benchmark has none.
        load: opens, and where asked draws on, the picture, in RGB; raises ValueError for a file
            that is missing or cannot be read.
        files: what `load` reads, there or not; none for a drawn scene.
        regions: gives boxes in pixels (x0, y0, x1, y1) of where the answer is to be seen, by what they
            show, as in `action_scenes.Question`; None where that is not known.
        extra: further cells of a row of one's own data, by column.
    """

    id: str
    image: str
    source: str
    text: str
    truth: bool | None
    reference: str | None
    group: str
    load: Callable[[], Image.Image] = field(repr=False)
    files: tuple[Path, ...] = field(default=(), repr=False)
    regions: Callable[[], Mapping[str, tuple[Box, ...]]] | None = field(default=None, repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def label(self) -> str | None:
        """The right answer as a text: yes, no or the reference; None where it is not known."""
        return self.reference if self.truth is None else ("yes" if self.truth else "no")


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Questions, and how their answers are read and counted.

    Attributes:
        name: one of `rvelens.benchmarks.BENCHMARKS`, or the name of one's own data.
        items: the questions, in the order of the files.
        problems: one line for each row that was left out, with its file and line or row.
        rule: from an answer to yes, no or None; the official rule of a published benchmark.
        files: name of each file that was read, with its SHA-256.
        subsets: lists of question ids that the official number is the mean over; {} if none are.
        positives: which answer counts as positive, the official one first; () if open-ended.
        published: questions in the published file; None where that is not known.
        relation: "action" or "spatial" where `of_relation` kept those alone, else "all".
        left_out: questions that a file of pairs holds, see `overlap.without_pairs`; None where no file
            was given.
        matches: from an answer and a reference to right, wrong or None, for labels that are texts; None
            for yes/no questions, and for open-ended ones, which a judge scores.
        rule_name: "official" for the published rule, else the name of the one that was chosen.
    """

    name: str
    items: tuple[Item, ...]
    problems: tuple[str, ...]
    rule: Rule
    files: Mapping[str, str]
    subsets: Mapping[str, Sequence[frozenset[str]]] = field(default_factory=dict)
    positives: tuple[str, ...] = ("yes",)
    published: int | None = None
    relation: str = "all"
    left_out: int | None = None
    matches: TextRule | None = None
    rule_name: str = "official"

    @property
    def is_scored(self) -> bool:
        """Whether a rule tells right answers from wrong ones, and no judge is needed."""
        return self.matches is not None or any(item.truth is not None for item in self.items)

    def keep(self, items: Sequence[Item]) -> Benchmark:
        """The same benchmark with some of its questions; subsets keep those ids alone."""
        ids = {item.id for item in items}
        subsets = {
            name: tuple(subset & ids for subset in many) for name, many in self.subsets.items()
        }
        return replace(self, items=tuple(items), subsets=subsets)

    def sample(self, limit: int, seed: int = 55) -> Benchmark:
        """A random `limit` of the questions, in their order; all of them if there are fewer.

        Never the head of the file: MMRel's has every yes before the first no. Yes and no, and the
        groups, keep their shares.

        Raises:
            ValueError: a limit below 1.
        """
        if limit < 1:
            raise ValueError(
                f"limit is {limit}: expected at least 1 question; pass a larger number."
            )
        if limit >= len(self.items):
            return self
        kinds: dict[tuple[str, bool | None], list[int]] = defaultdict(list)
        for n in np.random.default_rng(seed).permutation(len(self.items)).tolist():
            kinds[self.items[n].group, self.items[n].truth].append(n)
        # The k-th of n of a kind stands at its share (k + 1/2) / n among all of them.
        shares = [
            ((k + 0.5) / len(numbers), n)
            for numbers in kinds.values()
            for k, n in enumerate(numbers)
        ]
        return self.keep([self.items[n] for n in sorted(n for _, n in sorted(shares)[:limit])])

    def of_relation(self, relation: str) -> Benchmark:
        """The questions whose group is or ends in a relation; all of them for "all".

        Raises:
            ValueError: an unknown relation, or none of the questions has it.
        """
        if relation not in RELATIONS:
            raise ValueError(
                f"relation {relation!r}: expected one of {', '.join(RELATIONS)}; pass one of them."
            )
        if relation == "all":
            return self
        items = [item for item in self.items if item.group.split("-")[-1] == relation]
        if not items:
            groups = ", ".join(sorted(Counter(item.group for item in self.items)))
            raise ValueError(
                f"{self.name} has no question of relation {relation!r} here, only {groups}: "
                "expected at least one; check the files in the data folder."
            )
        return replace(self.keep(items), relation=relation)
