"""What the data allow: rows that can be run, and why others cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from rvelens.benchmarks import Benchmark, load_benchmark
from rvelens.evaluate.answering import Decoding
from rvelens.families import Family
from rvelens.files.atomic import one_line
from rvelens.files.wording import counted
from rvelens.heads.pair import ContrastivePair
from rvelens.heads.profile import ARSProfile
from rvelens.pairs.overlap import without_pairs
from rvelens.studies import find_study
from rvelens.studies.kit.base import Study
from rvelens.studies.kit.paper import model_key
from rvelens.studies.open_ended.study import refuse_without_judge
from rvelens.studies.reproduce.targets import Target

ONE_WORD = "Please answer this question with one word."
# Benchmarks that are divided by relation.
_DIVIDED = ("mmrel", "rbench")
RBENCH = ("words", "all")


@dataclass(frozen=True)
class Request:
    """What a reproduction is made with.

    Attributes:
        model: name of the model, which tells the paper's.
        data: folder with the benchmarks' files, or "hub".
        profile: head ranking; None where there is none.
        no_profile: why there is none.
        pairs: contrastive pairs, for Figure 5.
        pairs_left_out: a file of pairs whose questions are not asked.
        prompt, suffix: of yes/no questions; None for the prompt of the paper's code where the family
            has it, else "chat" and a sentence that asks for one word.
        open_prompt: of open-ended questions; None for the same without that sentence.
        settings: parameters of methods, by method.
        options: of studies, by study.
        rbench: "words" for R-Bench's questions of the relation by a rule, "all" for all of them.
        wording: of R-Bench's marked questions, see `rvelens.benchmarks.rbench.load_rbench`.
        limit: questions of a run at most; None for those of its target.
        batch_size: questions per forward.
        seed: of draws, noise and intervals.
        any_text: take pairs whose texts differ in more than one word.
    """

    model: str
    data: str | None = None
    profile: ARSProfile | None = None
    no_profile: str = ""
    pairs: tuple[ContrastivePair, ...] = ()
    pairs_left_out: Path | None = None
    prompt: str | None = None
    suffix: str | None = None
    open_prompt: str | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rbench: str = "words"
    wording: str = "words"
    limit: int | None = None
    batch_size: int = 8
    seed: int = 55
    any_text: bool = False

    def decoding(self, target: Target, family: Family) -> Decoding:
        """How a target's questions are asked of a model of a family."""
        as_published = family.prompts.get("llava_v1", "")
        if target.open_ended:
            prompt = self.open_prompt or as_published.replace(f" {ONE_WORD}", "") or "chat"
            return Decoding(prompt, "", None, self.seed)
        prompt = self.prompt or ("llava_v1" if as_published else "chat")
        asks_for_one_word = self.prompt is not None or bool(as_published)
        suffix = ("" if asks_for_one_word else ONE_WORD) if self.suffix is None else self.suffix
        return Decoding(prompt, suffix, None, self.seed)

    def options_of(self, target: Target) -> dict[str, Any]:
        """A target's options of its study.

        Raises:
            ValueError: an option that the study has not.
        """
        study = find_study(target.study)
        of_model = target.of_model.get(model_key(self.model) or "", {})
        options = study.settled({**target.options, **of_model})
        if target.limit_option and self.limit is not None:
            options[target.limit_option] = min(self.limit, options[target.limit_option])
        return study.settled({**options, **self.options.get(target.study, {})})


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One run of a study.

    Attributes:
        target: what it is a part of.
        names: of its benchmarks.
        benchmarks: their questions.
        n_questions: questions, or pairs, that are asked.
        reason: why it cannot be run; "" where it can.
        lacks_files: whether that is for want of files.
    """

    target: Target
    names: tuple[str, ...]
    benchmarks: tuple[Benchmark, ...] = ()
    n_questions: int = 0
    reason: str = ""
    lacks_files: bool = False

    @property
    def study(self) -> Study:
        """The study that is run."""
        return find_study(self.target.study)

    @property
    def label(self) -> str:
        """Names of its benchmarks; "pairs" where it asks contrastive pairs."""
        return "+".join(self.names) or "pairs"

    def folder(self, out: Path) -> Path:
        """Where its files are."""
        return out / self.target.name / self.label

    def is_done(self, out: Path) -> bool:
        """Whether its tables have been written."""
        return (self.folder(out) / f"{self.target.study}.json").is_file()


def make_rows(targets: Sequence[Target], request: Request) -> list[PlannedRun]:
    """Every run of some targets, in their order.

    What lacks is no error: the row says it.
    """

    @cache  # of hundred thousand files below a folder, each benchmark lists all
    def load(name: str, relation: str) -> Benchmark:
        options: dict[str, Any] = {"relation": relation} if relation != "all" else {}
        if name.startswith("rbench-instance"):
            options["wording"] = request.wording
        benchmark = load_benchmark(name, request.data, **options)
        left_out = request.pairs_left_out
        return benchmark if left_out is None else without_pairs(benchmark, left_out)

    return [_row(target, names, request, load) for target in targets for names in target.runs]


def _row(
    target: Target,
    names: tuple[str, ...],
    request: Request,
    load: Callable[[str, str], Benchmark],
) -> PlannedRun:
    try:
        whole = [load(name, _relation(target, name, request)) for name in names]
        benchmarks = tuple(_limited(target, benchmark, request.limit) for benchmark in whole)
        for benchmark in benchmarks:
            _refuse_missing_images(benchmark)
    except ValueError as error:
        return PlannedRun(target, names, reason=one_line(error), lacks_files=True)
    if lack := _lack(target, benchmarks, request):
        return PlannedRun(target, names, benchmarks, reason=lack)
    n_questions = (
        sum(len(benchmark.items) for benchmark in benchmarks) if names else len(request.pairs)
    )
    if target.limit_option == "n_questions":
        n_questions = min(n_questions, request.options_of(target)["n_questions"])
    return PlannedRun(target, names, benchmarks, n_questions)


def _relation(target: Target, name: str, request: Request) -> str:
    if name.startswith("rbench") and request.rbench == "all":
        return "all"
    return target.relation if name.startswith(_DIVIDED) else "all"


def _limited(target: Target, benchmark: Benchmark, limit: int | None) -> Benchmark:
    limit = limit or target.limit
    return benchmark if limit is None or target.limit_option else benchmark.sample(limit)


def _lack(target: Target, benchmarks: Sequence[Benchmark], request: Request) -> str:
    """What a study of these questions lacks beside them, in a sentence; "" for nothing."""
    study = find_study(target.study)
    if request.profile is None and ("profile" in study.needs or "rve" in target.methods):
        return request.no_profile
    if "pairs" in study.needs and not request.pairs:
        return "no contrastive pairs: expected --pairs FILE and --images DIR; name them."
    try:
        for benchmark in benchmarks if target.open_ended else ():
            refuse_without_judge(benchmark, request.options_of(target)["judge_model"])
    except ValueError as error:
        return one_line(error)
    return ""


def _refuse_missing_images(benchmark: Benchmark) -> None:
    needed = dict.fromkeys(path for item in benchmark.items for path in item.files)
    missing = [path for path in needed if not path.is_file()]
    if missing:
        raise ValueError(
            f"{len(missing)} of {counted(len(needed), 'image file')} of {benchmark.name} "
            "are missing, such as "
            f"{missing[0].name}: expected all of them below --data; put them there."
        )
