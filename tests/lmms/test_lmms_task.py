"""Task files read our benchmarks from a folder and score them by our rules."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from rvelens.benchmarks import Benchmark, Item, load_benchmark, rules
from rvelens.evaluate import Answer, score
from rvelens.lmms import TASKS

pytest.importorskip(
    "lmms_eval",
    reason="lmms-eval is not installed; see requirements-lmms.txt",
    exc_type=ImportError,
)
from lmms_eval.tasks import TaskManager

from rvelens.lmms.model import NAME
from rvelens.lmms.task import figure, read_benchmark

ALL = ("accuracy", "f1", "precision", "recall", "yes_ratio", "unparsed")
STRICT = ("strict_accuracy", "strict_f1", "strict_yes_ratio", "strict_unparsed")
OF_NO = ("f1_no", "precision_no", "recall_no")
OF_LISTS = ("lists_accuracy", "lists_f1", "lists_yes_ratio")


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10), (9, 9, 9)).save(path)


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), encoding="utf-8")


def question(n, image, label):
    text = "Is the man next to the woman?"
    things = {"subject": "man", "object": "woman", "sub_box": [0.1, 0.2, 0.4, 0.9]}
    return {
        "question_id": n, "qtype": "Positive", "image": image, "text": text, "label": label,
        **things, "obj_box": [0.5, 0.2, 0.9, 0.9],
    }  # fmt: skip


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A few questions of every benchmark, as published."""
    labels = ["yes"] * 12 + ["no"] * 12
    rows = [question(n, f"{n % 12}.jpg", label) for n, label in enumerate(labels)]
    for n in range(12):
        picture(tmp_path / "rbench" / f"{n}.jpg")
        picture(tmp_path / "amber" / f"AMBER_{n}.jpg")
        for domain in ("vg/VG_100K", "Dall-E_generated/action", "Dall-E_generated/spatial"):
            picture(tmp_path / "mmrel" / domain / f"m{n}.jpg")
    for n in range(24):
        mask = tmp_path / "rbench" / "instance_mask" / f"{n}.png"
        mask.parent.mkdir(exist_ok=True)
        Image.new("L", (20, 10), 1).save(mask)
    for level in ("image", "instance"):
        write(tmp_path / "rbench" / f"{level}-level_filterd.json", rows)
    write(tmp_path / "rbench" / "nocaps_image-level_rel_ids_1.json", [0, 1, 12])
    write(tmp_path / "rbench" / "nocaps_image-level_rel_ids_2.json", [2, 13, 14])
    for name in ("real_action", "real_spatial", "Dall-E_action", "Dall-E_spatial"):
        renamed = [{**row, "image": f"m{row['image']}", "question_id": f"{name}{row['question_id']}"}
                   for row in rows]  # fmt: skip
        write(tmp_path / "mmrel" / "yes-no" / f"{name}.json", renamed)
    queries = [{"id": n, "image": f"AMBER_{n % 12}.jpg", "query": "Contact?"} for n in range(24)]
    write(tmp_path / "amber" / "query_discriminative-relation.json", queries)
    truths = [{"id": n, "type": "x", "truth": label} for n, label in enumerate(labels)]
    write(tmp_path / "amber" / "annotations.json", truths)
    monkeypatch.setenv("RVELENS_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def manager():
    return TaskManager(include_path=str(TASKS), include_defaults=False)


def load(manager, name):
    return manager.load_task_or_group(name)[name]


def test_the_tasks_there_are(manager):
    (group,) = manager.all_groups
    assert group == "rvelens_mmrel"
    assert len(manager.all_tasks) == len(list(TASKS.glob("*.yaml"))) == 10


@pytest.mark.parametrize(
    "name",
    [
        "amber_relation", "rbench_image", "rbench_instance_box", "rbench_instance_mask",
        "mmrel_real_action", "mmrel_real_spatial", "mmrel_dalle_action", "mmrel_dalle_spatial",
    ],
)  # fmt: skip
def test_every_task_asks_the_questions_of_its_benchmark(manager, data, name):
    task = load(manager, f"rvelens_{name}")
    items = {item.id: item for item in task.benchmark.items}
    docs = list(task.test_docs())
    assert len(docs) == len(items) == 24
    for doc in docs:
        item = items[doc["id"]]
        assert task.doc_to_text(doc) == item.text
        assert task.doc_to_target(doc) == ("yes" if item.truth else "no")
        (shown,) = task.doc_to_visual(doc)
        assert np.array_equal(np.asarray(shown), np.asarray(item.load()))
        assert shown.info[NAME] == item.image
    task.build_all_requests()
    assert [one.args[0] for one in task.instances] == [items[doc["id"]].text for doc in docs]
    assert "no" in [doc["truth"] for doc in docs[:12]]
    assert "yes" in [doc["truth"] for doc in docs[12:]]


def test_mmrel_is_a_group_of_its_parts(manager, data):
    ((_, parts),) = manager.load_task_or_group("rvelens_mmrel").items()
    assert sorted(parts) == sorted(
        f"rvelens_mmrel_{d}_{r}" for d in ("real", "dalle") for r in ("action", "spatial")
    )


@pytest.mark.parametrize(
    ("name", "more"), [("amber_relation", OF_NO), ("rbench_image", OF_LISTS), ("mmrel_real_action", ())]
)  # fmt: skip
def test_metrics_are_those_of_evaluate(manager, data, name, more):
    task = load(manager, f"rvelens_{name}")
    says = ["Yes", "No", "yes, it is.", "No, it is not", "perhaps"]
    rows = [
        task.process_results(doc, [says[n % 5]]) for n, doc in enumerate(task.test_docs()) if n < 17
    ]
    found = {m: of([row[m] for row in rows]) for m, of in task.aggregation().items()}
    assert set(found) == {*ALL, *STRICT, *more}
    assert set(found) <= set(task.higher_is_better())
    answers = {one["accuracy"]["id"]: one["accuracy"]["answer"] for one in rows}
    kept = task.benchmark.keep([item for item in task.benchmark.items if item.id in answers])
    report = score(kept, {"m": {id_: Answer(id_, text) for id_, text in answers.items()}})["rules"]
    official, by_strict = (report[rule]["methods"]["m"] for rule in ("official", "strict"))
    for metric, value in found.items():
        if "unparsed" in metric:
            expected = (by_strict if "strict" in metric else official)["unparsed"] / 17
        elif metric in OF_NO:
            expected = official["positive_no"][metric.removesuffix("_no")]["value"]
        elif metric in OF_LISTS:
            expected = official["subsets"]["image-level"][metric.removeprefix("lists_")]
        elif metric in STRICT:
            expected = by_strict[metric.removeprefix("strict_")]["value"]
        else:
            expected = official[metric]["value"]
        assert value == pytest.approx(expected, abs=1e-6), metric
    score_mean = np.mean([row["accuracy"]["score"] for row in rows])
    assert score_mean == pytest.approx(found["accuracy"])
    assert "score" not in rows[0]["f1"]


def test_figures_counted_by_hand():
    truths = [True, True, True, False, False]
    items = [Item(str(n), "", "", "?", t, None, "", lambda: None) for n, t in enumerate(truths)]
    benchmark = Benchmark(
        "b", tuple(items), (), rules.amber, {}, {"l": (frozenset("01"), frozenset("34"))}
    )
    rows = [{"id": str(n), "answer": text} for n, text in enumerate(["Yes", "No", "", "No", "yes"])]
    assert figure("accuracy", benchmark, rows) == 2 / 5
    assert figure("unparsed", benchmark, rows) == 2 / 5
    assert figure("strict_unparsed", benchmark, rows) == 1 / 5
    assert figure("recall_no", benchmark, rows) == 1 / 2
    assert figure("precision_no", benchmark, rows) == 1 / 2
    assert figure("lists_accuracy", benchmark, rows) == 1 / 2
    assert figure("lists_accuracy", benchmark, rows[:2]) == 1 / 2
    assert np.isnan(figure("recall_no", benchmark, rows[:2]))


def test_pictures_in_random_order_with_their_questions_together(data):
    benchmark = read_benchmark("rbench-image", {})
    images = [item.image for item in benchmark.items]
    assert images[::2] == images[1::2]
    assert images[::2] != sorted(images[::2])
    again = read_benchmark("rbench-image", {})
    assert [item.id for item in again.items] == [item.id for item in benchmark.items]
    plain = load_benchmark("rbench-image", data)
    assert {item.id for item in plain.items} == {item.id for item in benchmark.items}


def test_no_folder(monkeypatch):
    monkeypatch.delenv("RVELENS_DATA", raising=False)
    message = "RVELENS_DATA is not set: expected the folder that holds the files of amber-relation"
    with pytest.raises(ValueError, match=message):
        read_benchmark("amber-relation", {})
    assert len(read_benchmark("action-scenes", {"n": 3}).items) == 3


def test_a_missing_picture_is_told_before_the_run(data):
    (data / "amber" / "AMBER_3.jpg").unlink()
    with pytest.raises(
        ValueError, match=r"amber-relation lacks 1 files, .*AMBER_3.jpg: .*data check"
    ):
        read_benchmark("amber-relation", {})


def test_a_picture_that_cannot_be_read_is_named(manager, data):
    (data / "amber" / "AMBER_3.jpg").write_bytes(b"no picture")
    task = load(manager, "rvelens_amber_relation")
    doc = next(doc for doc in task.test_docs() if doc["image"].endswith("AMBER_3.jpg"))
    with pytest.raises(ValueError, match=r"AMBER_3\.jpg cannot be read as an image"):
        task.doc_to_visual(doc)
