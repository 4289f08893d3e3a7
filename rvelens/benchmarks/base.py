"""Benchmarks: questions about pictures, with their answers and the rule that reads answers."""

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
        id: the published id, unique in the benchmark.
        image: a key of the picture; the same key means the same pixels.
        source: the name of the photograph, which groups questions for intervals.
        text: the question without the suffix of a prompt.
        truth: true for yes; None for a question with another answer than yes or no.
        reference: the text that such an answer is compared with, else None.
        group: subset such as "action" or "PC-yes"; "" if the benchmark has none.
        load: opens the picture in RGB, with its marks drawn; raises ValueError for a file that is
            missing or cannot be read.
        files: the files that `load` reads, whether they exist or not; none for a drawn scene.
        regions: a function that returns the boxes (x0, y0, x1, y1) in pixels of the region that shows
            the answer, by their content, as in `action_scenes.Question`; None if unknown.
        extra: other cells of a row of your own data, by column.
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
        """The correct answer as a text: yes, no or the reference; None if it is not known."""
        return self.reference if self.truth is None else ("yes" if self.truth else "no")


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Questions, with the rules to read and count their answers.

    Attributes:
        name: one of `rvelens.benchmarks.BENCHMARKS`, or the name of your own data.
        items: the questions, in the order of the files.
        problems: one message for each row that was left out, with its file and line or row.
        rule: a function from an answer to yes, no or None; for a published benchmark, its official
            rule.
        files: the name of each file that was read, with its SHA-256.
        subsets: lists of question ids; the official number is the mean over them. {} if there are none.
        positives: which answer counts as positive, the official one first; () if open-ended.
        published: the number of questions in the published file; None if unknown.
        relation: "action" or "spatial" if `of_relation` kept only these questions, else "all".
        left_out: the number of questions removed because a file of pairs has them, see
            `overlap.without_pairs`; None without such a file.
        matches: a function from an answer and a reference to right, wrong or None, for labels that are
            texts. None for yes/no questions, and for open-ended questions, which a judge scores.
        rule_name: "official" for the published rule, else the name of the chosen rule.
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
        """Whether a rule scores the answers, so that no judge is needed."""
        return self.matches is not None or any(item.truth is not None for item in self.items)

    def keep(self, items: Sequence[Item]) -> Benchmark:
        """The same benchmark with some of its questions; subsets keep only their ids."""
        ids = {item.id for item in items}
        subsets = {
            name: tuple(subset & ids for subset in many) for name, many in self.subsets.items()
        }
        return replace(self, items=tuple(items), subsets=subsets)

    def sample(self, limit: int, seed: int = 55) -> Benchmark:
        """A random sample of `limit` questions, in their order; all if there are fewer.

        It does not take the first questions, because MMRel's file has every yes before the first no.
        Yes and no, and the groups, keep their shares.

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
        """The questions whose group is a relation or ends in one; all questions for "all".

        Raises:
            ValueError: an unknown relation, or a relation that no question has.
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
