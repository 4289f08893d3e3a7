"""Object questions against action questions about the same photographs (Figure 10, Appendix A)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Real

from rvelens.benchmarks import Benchmark, Item
from rvelens.evaluate import Answer, evaluate
from rvelens.evaluate.store import stored_answers
from rvelens.files.wording import counted, too_few
from rvelens.plots import ScoreRow, dots
from rvelens.stats import FEW, bootstrap
from rvelens.studies.kit.base import Measured, Setup, Shown, Study
from rvelens.studies.kit.comparison import compare_with_paper
from rvelens.studies.kit.paper import lookup
from rvelens.studies.kit.work import work_of_all_questions
from rvelens.tables import Table

KINDS = ("object", "action")
# A question's kind, and the benchmark that it is of.
KindQuestion = tuple[str, Benchmark, Item]
Numbers = Bool[np.ndarray, " question"] | Real[np.ndarray, " question"]
_WORD = re.compile(r"[^\W_]+")


def _measure(setup: Setup) -> dict[str, Any]:
    """Accuracy on both kinds of questions under every method, and paired differences.

    Answers are kept below the study's parts as a run of `rvelens.evaluate`, which goes on.

    Raises:
        ValueError: benchmarks that do not ask about objects and about actions, or no photograph with
            questions of both kinds that could be asked.
    """
    kinds = by_kind(setup.benchmarks)
    photographs = _of_photographs(setup, kinds)
    by_benchmark = _answers(setup, photographs)
    every = [
        (kind, benchmark, item)
        for kind, (benchmark, items) in kinds.items()
        for item in items
        if item.source in photographs
    ]
    failed = {
        item.source
        for _, benchmark, item in every
        for answers in by_benchmark[benchmark.name].values()
        if answers[item.id].error is not None
    }
    questions = [question for question in every if question[2].source not in failed]
    if not questions:
        raise ValueError(
            f"none of the photographs ({len(photographs)}) could be asked about: "
            "expected readable images; "
            "run `rvelens data check`."
        )
    right = {
        m.name: np.array(
            [is_right(o, i, by_benchmark[o.name][m.name][i.id]) for _, o, i in questions]
        )
        for m in setup.methods
    }
    return _figures(questions, right, setup.seed) | {
        "model": setup.model.name,
        "left_out": len(failed),
    }


def _answers(setup: Setup, photographs: set[str]) -> dict[str, dict[str, dict[str, Answer]]]:
    """Answers to all questions about some photographs, by benchmark, method and question id."""
    benchmarks = [
        benchmark.keep([i for i in benchmark.items if i.source in photographs])
        for benchmark in setup.benchmarks
    ]
    folder = setup.parts.folder / "answers"
    evaluate(
        setup.model, benchmarks, setup.methods, folder,
        decoding=setup.decoding, batch_size=setup.batch_size, progress=setup.progress,
    )  # fmt: skip
    setup.parts.together()
    return {
        benchmark.name: {
            m.name: stored_answers(folder / benchmark.name / m.name, benchmark.items)
            for m in setup.methods
        }
        for benchmark in benchmarks
    }


def by_kind(benchmarks: Sequence[Benchmark]) -> dict[str, tuple[Benchmark, list[Item]]]:
    """The object questions and the action questions, with the benchmark that each are of.

    Args:
        benchmarks: one with the groups object and action, or two: objects first, actions second.

    Raises:
        ValueError: anything else.
    """
    if len(benchmarks) == 2:
        return {
            k: (benchmark, list(benchmark.items))
            for k, benchmark in zip(KINDS, benchmarks, strict=True)
        }
    (first, *_) = benchmarks
    by_group = {k: (first, [i for i in first.items if i.group == k]) for k in KINDS}
    if len(benchmarks) > 2 or not all(items for _, items in by_group.values()):
        names = ", ".join(benchmark.name for benchmark in benchmarks)
        raise ValueError(
            f"{names}: expected one benchmark with the groups object and action, or one about objects "
            "and one about actions, in this order; name action-scenes-open, or amber-existence and "
            "amber-relation."
        )
    return by_group


def _of_photographs(setup: Setup, kinds: Mapping[str, tuple[Benchmark, list[Item]]]) -> set[str]:
    """Photographs with questions of both kinds; a random part of them where there are more."""
    both = sorted(set.intersection(*({i.source for i in items} for _, items in kinds.values())))
    limit = setup.options["n_photographs"]
    if not both or limit < 1:
        names = " and ".join(dict.fromkeys(benchmark.name for benchmark, _ in kinds.values()))
        raise ValueError(
            f"{counted(len(both), 'photograph')} with object and action questions in {names}, and "
            f"n_photographs={limit}: expected at least one of each; name benchmarks of the same "
            "photographs, without --limit."
        )
    drawn = np.random.default_rng(setup.seed).permutation(len(both))[:limit]
    return {both[n] for n in drawn}


def is_right(benchmark: Benchmark, item: Item, answer: Answer) -> bool:
    """Whether an answer is right: by the benchmark's rule, or by its first word if open-ended."""
    text = answer.text or ""
    if item.truth is not None:
        return benchmark.rule(text) == item.truth
    return first_word(text) == first_word(item.reference or "") != ""


def first_word(text: str) -> str:
    """The first word without case and punctuation; "" if there is none."""
    word = _WORD.search(text.casefold())
    return word[0] if word else ""


def _figures(
    questions: Sequence[KindQuestion],
    right: Mapping[str, Bool[np.ndarray, " question"]],
    seed: int = 55,
) -> dict[str, Any]:
    """Every number of the study, with 95% bootstrap intervals over photographs.

    Args:
        questions: of both kinds.
        right: which of them are answered right, by method; others are compared with the first.
        seed: of the bootstrap.

    Returns:
        JSON: "photographs", "kinds" (about the questions of each), "methods" (accuracy by kind and
        their "difference", object minus action) and "pairs" (changes by kind, after minus before).
    """
    is_object = np.array([kind == "object" for kind, _, _ in questions])
    _, cluster = np.unique([item.source for _, _, item in questions], return_inverse=True)

    def share(kind: str, values: Numbers) -> dict[str, float]:
        of = is_object == (kind == "object")
        return bootstrap(lambda i: float(values[i][of[i]].mean()), cluster, seed=seed).to_json()

    def gap(values: Numbers) -> dict[str, float]:
        return bootstrap(
            lambda i: float(values[i][is_object[i]].mean() - values[i][~is_object[i]].mean()),
            cluster,
            seed=seed,
        ).to_json()

    first, *others = right
    return {
        "photographs": int(cluster.max()) + 1,
        "kinds": {kind: _about([q for q in questions if q[0] == kind]) for kind in KINDS},
        "methods": {
            name: {**{kind: share(kind, correct) for kind in KINDS}, "difference": gap(correct)}
            for name, correct in right.items()
        },
        "pairs": [
            {
                "before": first,
                "after": name,
                **{kind: share(kind, right[name].astype(float) - right[first]) for kind in KINDS},
            }
            for name in others
        ],
    }


def _about(questions: Sequence[KindQuestion]) -> dict[str, Any]:
    """Of which benchmark the questions of a kind are, and how their answers are read."""
    truths = [item.truth for _, _, item in questions if item.truth is not None]
    return {
        "benchmark": questions[0][1].name,
        "questions": len(questions),
        "yes": sum(truths) / len(truths) if truths else None,
        "words": len({first_word(item.reference or "") for _, _, item in questions}),
    }


def _show(setup: Setup, measured: Sequence[Measured]) -> Shown:
    """Accuracy by kind and method, what methods change, and the paper's words beside."""
    (data,) = measured
    rows = [
        (n, *(row[key] for key in (*KINDS, "difference"))) for n, row in data["methods"].items()
    ]
    tables = {
        "": Table(
            f"{data['model']}: accuracy on object and action questions about the same "
            f"{counted(data['photographs'], 'photograph')}",
            ("method", *KINDS, "object minus action"),
            rows,
            frozenset({"object minus action"}),
            tuple(_notes(data)),
        )
    }
    if data["pairs"]:
        first = data["pairs"][0]["before"]
        tables["change"] = Table(
            f"Change against {first} on the same questions",
            ("method", "object", "action"),
            [(pair["after"], pair["object"], pair["action"]) for pair in data["pairs"]],
            frozenset(KINDS),
        )
    tables["paper"] = _paper()
    figure = dots(
        [
            ScoreRow(kind, **row[kind], group=name, role="control" if kind == "object" else "rve")
            for name, row in data["methods"].items()
            for kind in KINDS
        ],
        x_label="accuracy, with 95% intervals",
        title=f"Questions about the same images, {data['model']}",
    )
    return Shown(tables, {"": figure}, sentences=tuple(_conclude(data)))


def _notes(data: Measured) -> list[str]:
    notes = []
    for kind, about in data["kinds"].items():
        lead = f"{kind}: {counted(about['questions'], 'question')} of {about['benchmark']}, "
        if about["yes"] is None:
            notes.append(
                f"{lead}open-ended; an answer is right if its first word is the reference (one of "
                f"{about['words']} words), whatever its case and punctuation; no judge has read it."
            )
        else:
            notes.append(
                f"{lead}read by its official rule; yes is right for {about['yes']:.0%} of them."
            )
    if data["left_out"]:
        left_out = counted(data["left_out"], "photograph")
        notes.append(f"Left out, because nothing could be asked about them: {left_out}.")
    return notes


def _paper() -> Table:
    table = compare_with_paper(
        lookup("figures", figure="10"), {}, "What the paper says of R-Bench (Figure 10)"
    )
    note = (
        "Not measured here: the paper's paired questions about objects were not published, and the "
        "questions above are others."
    )
    return Table(table.title, table.columns, table.rows, table.signed, (*table.notes, note))


def _conclude(data: Measured) -> list[str]:
    """What intervals confirm, and where they confirm nothing."""
    if data["photographs"] < FEW:
        return [f"{too_few(data['photographs'], 'photograph')} to say anything."]
    sentences = []
    for name, row in data["methods"].items():
        gap = row["difference"]
        number = f"object minus action {gap['value']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]"
        claim = "no difference between the kinds that these photographs confirm"
        if not gap["low"] <= 0 <= gap["high"]:
            better, worse = KINDS if gap["low"] > 0 else KINDS[::-1]
            claim = f"{better} questions are answered right more often than {worse} questions"
        sentences.append(f"{name}: {claim} ({number}).")
    sentences += [
        f"Every right answer to the {kind} questions is {'yes' if about['yes'] else 'no'}: a model "
        "that says nothing else has them all right, so the kinds do not compare like with like."
        for kind, about in data["kinds"].items()
        if about["yes"] in (0, 1)
    ]
    for pair in data["pairs"]:
        changes = " and ".join(f"{_change(pair[kind])} on {kind} questions" for kind in KINDS)
        sentences.append(f"{pair['after']} against {pair['before']}: {changes}.")
    return sentences


def _change(number: Mapping[str, float]) -> str:
    if number["low"] > 0 or number["high"] < 0:
        verb = "rises" if number["low"] > 0 else "falls"
        return f"accuracy {verb} by {abs(number['value']):.3f}"
    return f"no change that these photographs confirm ({number['value']:+.3f})"


STUDY = Study(
    "object-vs-action",
    "Figure 10",
    "accuracy on object and on action questions about the same photographs",
    _measure,
    _show,
    benchmarks=("action-scenes-open",),
    methods=("vanilla", "rve"),
    options={"n_photographs": 500},
    work=work_of_all_questions,
)
