"""What a study is: what it is given, what it measures, and how it is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from rvelens.benchmarks import Benchmark, Item
from rvelens.evaluate.answering import Answer, Decoding, answer, answer_each, backing_off, batches
from rvelens.evaluate.run import Progress
from rvelens.files.atomic import one_line
from rvelens.heads.pair import ContrastivePair
from rvelens.heads.profile import ARSProfile
from rvelens.interventions.methods import Method
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.limits import UnaskableError
from rvelens.model.replay import Hooks, can_replay, replays_exactly
from rvelens.stats import Estimate
from rvelens.studies.kit.paper import PaperCell
from rvelens.studies.kit.parts import Parts
from rvelens.tables import Table


@dataclass(frozen=True, eq=False)
class Shown:
    """A study for readers.

    Attributes:
        tables, figures, pages: by a short name that their files' names end in; "" for the main one.
            Pages are HTML.
        sentences: what it means; they claim only what the numbers confirm.
        measured: the measured value of each cell of the paper, in the paper's unit.
    """

    tables: Mapping[str, Table]
    figures: Mapping[str, Figure] = field(default_factory=dict)
    pages: Mapping[str, str] = field(default_factory=dict)
    sentences: tuple[str, ...] = ()
    measured: Mapping[PaperCell, Estimate] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """How much a study runs through its model and stores, counted before it is measured.

    Attributes:
        prompts: forwards of a whole prompt, at most: questions about one image may share its part.
        answers: generated answers, each one row a token.
        tokens: length of each answer; None where the model ends it.
        stored: bytes of what is computed, about; figures come on top.
    """

    prompts: int
    answers: int = 0
    tokens: int | None = None
    stored: int = 0


@dataclass(frozen=True, eq=False)
class Batch:
    """Items whose pictures could be read, as a model is asked about them."""

    items: list[Item]
    images: list[Image.Image]
    texts: list[str]


class LeftToFirst(Exception):  # noqa: N818
    """In a process that has done its share of a study, whose rest the first process does alone."""


HooksOf = Callable[[Batch], Hooks]
# What a study measured of a model, as its JSON has it: values by name, whose keys `measure` documents.
Measured = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Setup:
    """One model, and what a study of it is made with.

    Attributes:
        profile: head ranking of the model; None if the study does not need one.
        benchmarks: questions, at least one benchmark.
        pairs: contrastive pairs; empty if the study does not need them.
        methods: settled for the model.
        options: the study's own options, with defaults filled in.
        parts: where what was computed is kept.
        unreadable: pictures that could not be read and questions that could not be asked, with the
            reason; filled while the study runs.
    """

    model: HookedLVLM
    profile: ARSProfile | None
    benchmarks: tuple[Benchmark, ...]
    pairs: tuple[ContrastivePair, ...]
    methods: tuple[Method, ...]
    decoding: Decoding
    options: Mapping[str, Any]
    parts: Parts
    batch_size: int = 8
    seed: int = 55
    progress: Progress = lambda items, label: items
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def benchmark(self) -> Benchmark:
        """The first benchmark, which most studies are about."""
        return self.benchmarks[0]

    def leave_to_first(self) -> None:
        """End measuring in all processes but the first: what follows is not shared."""
        if not self.parts.here.is_first:
            raise LeftToFirst

    @property
    def ranking(self) -> ARSProfile:
        """The profile of a study that needs one.

        Raises:
            ValueError: there is none.
        """
        if self.profile is None:
            raise ValueError(
                "this study needs a head profile: expected one of this model; make it with "
                "`rvelens scan`."
            )
        return self.profile

    def map_items(
        self, label: str, items: Sequence[Item], compute: Callable[[Batch], Sequence[Any]]
    ) -> dict[str, Any]:
        """What `compute` finds for each item (as JSON), by id; kept batch by batch.

        Items that cannot be asked are left out and named in `unreadable`.

        Args:
            label: names what is computed; a file's name.
            items: questions.
            compute: a batch to one value for each of its items.
        """

        def run(piece: Sequence[Item]) -> list[Any]:
            batch = self._load(piece)
            try:
                values = compute(batch)
            except UnaskableError as error:
                if len(piece) > 1:  # one question that cannot be asked must not lose the others
                    return [value for item in piece for value in run([item])]
                self.unreadable[piece[0].id] = one_line(error)
                return [None]
            by_id = dict(zip((i.id for i in batch.items), values, strict=True))
            return [by_id.get(item.id) for item in piece]

        def of_batch(batch: Sequence[Item]) -> list[Any]:
            return backing_off(run, batch, self.batch_size)[0]

        groups = batches(items, self.batch_size)
        by_item = self.parts.by_item(
            label, groups, of_batch, lambda pending: self.progress(pending, label)
        )
        return {name: value for name, value in by_item.items() if value is not None}

    def answers(
        self, label: str, benchmark: Benchmark, settings: Mapping[str, Hooks | HooksOf]
    ) -> dict[str, dict[str, Answer]]:
        """Answers under each setting by its name, then by question id.

        Settings edit the last row alone, so they run behind one prefill wherever the model allows
        it; elsewhere each runs alone. A setting that differs from question to question is a function
        of the batch.
        """
        decoding = self.decoding.settled(benchmark.items)

        def compute(batch: Batch) -> list[Any]:
            if not batch.items:
                return []
            hooks_of = {name: s(batch) if callable(s) else s for name, s in settings.items()}
            hooks = list(hooks_of.values())
            if replays_exactly(self.model) and all(can_replay(self.model, h) for h in hooks):
                return answer_each(self.model, hooks, batch.images, batch.texts, decoding)
            names = [item.image for item in batch.items]
            rows = [
                answer(
                    self.model, Method(name, {}, tuple(hooks)), batch.images, batch.texts, names,
                    decoding,
                )
                for name, hooks in hooks_of.items()
            ]  # fmt: skip
            return [list(of_item) for of_item in zip(*rows, strict=True)]

        by_item = self.map_items(label, benchmark.items, compute)
        return {
            name: {item: Answer(item, *fields[n]) for item, fields in by_item.items()}
            for n, name in enumerate(settings)
        }

    def _load(self, items: Sequence[Item]) -> Batch:
        images: dict[str, Image.Image] = {}
        for item in items:
            if item.image not in images and item.image not in self.unreadable:
                try:
                    images[item.image] = item.load()
                except ValueError as error:
                    self.unreadable[item.image] = one_line(error)
        readable = [item for item in items if item.image in images]
        texts = [self.decoding.question(item) for item in readable]
        return Batch(readable, [images[item.image] for item in readable], texts)


@dataclass(frozen=True)
class Study:
    """One of the paper's results, or one beyond it.

    Attributes:
        name: as in `rvelens study NAME`.
        paper: where the paper has it, such as "Figure 5"; "" if it has not.
        about: one line.
        measure: everything that takes a model, to JSON.
        show: the JSON of each model (one, unless `several`) to tables, figures and sentences.
        needs: among "profile", "pairs" and "judge".
        benchmarks: what is asked where no benchmark is named.
        methods: what is compared where no method is named; () where methods play no part.
        options: defaults of its own options; a value must be of its default's type.
        several: whether it compares models.
        work: what `measure` will run, counted; None where nothing counts it.
    """

    name: str
    paper: str
    about: str
    measure: Callable[[Setup], dict[str, Any]]
    show: Callable[[Setup, Sequence[Measured]], Shown]
    needs: frozenset[str] = frozenset()
    benchmarks: tuple[str, ...] = ("action-scenes",)
    methods: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    several: bool = False
    work: Callable[[Setup], Work] | None = None

    def settled(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The study's options, as given or by default.

        Raises:
            ValueError: an unknown option, or a value of another type.
        """
        for name, value in options.items():
            if name not in self.options:
                names = ", ".join(self.options) or "none"
                raise ValueError(
                    f"study {self.name!r} has no option {name!r}: expected {names}; leave it out."
                )
            default = self.options[name]
            if not _like(value, default):
                raise ValueError(
                    f"study {self.name!r}: {name}={value!r}: expected a value like "
                    f"{default!r}; correct it."
                )
        return {**self.options, **options}


def _like(value: Any, default: Any) -> bool:
    if isinstance(default, list):
        if not default:  # what may be in it, the study says
            return isinstance(value, list)
        return isinstance(value, list) and all(_like(x, default[0]) for x in value) and bool(value)
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


def iterate(progress: Progress, label: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """A study's progress for functions that take one without a label."""
    return lambda items: progress(items, label)
