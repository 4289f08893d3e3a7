"""What counts in a run's folder: code that changed, methods that ran before, files and pictures."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
from PIL import Image

from rvelens.benchmarks import load_benchmark
from rvelens.benchmarks.files import photograph
from rvelens.evaluate import Decoding, evaluate, load_answers
from rvelens.evaluate.manifest import about_model
from rvelens.interventions.methods import Method, make_method
from rvelens.model.hooked_lvlm import TINY, HookedLVLM

SCORES = "blocks.3.attn.hook_attn_scores"


@pytest.fixture(scope="module")
def tiny():
    return HookedLVLM.from_pretrained(TINY)


@pytest.fixture(scope="module")
def scenes():
    return load_benchmark("action-scenes", limit=4)


def run(model, benchmarks, out, *names, methods=(), **decoding):
    made = [*(make_method(name, model) for name in names), *methods]
    settings = Decoding(**{"max_new_tokens": 2} | decoding)
    benchmarks = benchmarks if isinstance(benchmarks, list) else [benchmarks]
    return evaluate(model, benchmarks, made, out, decoding=settings, batch_size=4)


def own(factor, version=None):
    def scaled(scores, hook):
        return scores * factor

    return Method("own", {}, ((SCORES, scaled),), version=version)


def test_a_hook_that_changed_does_not_get_its_old_answers(tiny, scenes, tmp_path):
    first = run(tiny, scenes, tmp_path, methods=[own(4.0)])
    assert run(tiny, scenes, tmp_path, methods=[own(4.0)]) == first
    with pytest.raises(ValueError, match=r"method\.code was [0-9a-f.]+ and is"):
        run(tiny, scenes, tmp_path, methods=[own(400.0)])
    run(tiny, scenes, tmp_path / "b", methods=[own(4.0, version="1")])
    run(tiny, scenes, tmp_path / "b", methods=[own(400.0, version="1")])  # as its author says
    with pytest.raises(ValueError, match=r'method\.version was "1" and is "2"'):
        run(tiny, scenes, tmp_path / "b", methods=[own(4.0, version="2")])


def test_a_processor_that_changed_is_another_run(tiny, scenes, tmp_path):
    before = about_model(tiny)
    assert about_model(tiny) == before
    tiny.prepare(scenes.items[0].load(), ["a", "a much longer one"])  # pads, and leaves a trace
    assert about_model(tiny) == before
    images = tiny.processor.image_processor
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "image_mean", [0.1, 0.2, 0.3])
        assert about_model(tiny) != before
    tokenizer = HookedLVLM.from_pretrained(TINY)
    tokenizer.processor.tokenizer.add_tokens(["zebra"])
    assert about_model(tokenizer)["processor"] != before["processor"]


def test_methods_of_earlier_commands_stay_in_the_report(tiny, scenes, tmp_path):
    run(tiny, scenes, tmp_path, "vanilla")
    run(tiny, scenes, tmp_path, "pai")
    both = run(tiny, scenes, tmp_path, "devils")
    assert json.loads((tmp_path / "report.json").read_text()) == both
    assert list(both["methods"]) == ["vanilla", "pai", "devils"]
    rules = both["benchmarks"]["action-scenes"]["rules"]
    assert list(rules["official"]["methods"]) == ["vanilla", "pai", "devils"]
    assert [(p["before"], p["after"]) for p in rules["official"]["pairs"]][:2] == [
        ("vanilla", "pai"),
        ("vanilla", "devils"),
    ]
    assert "| devils |" in (tmp_path / "report.md").read_text()
    alone = run(tiny, scenes, tmp_path / "alone", "vanilla", "pai", "devils")
    assert both["methods"] == alone["methods"]
    # A command that names the first one says what comes first.
    again = run(tiny, scenes, tmp_path, "devils", "vanilla")
    assert list(again["methods"]) == ["devils", "vanilla", "pai"]


def test_benchmarks_of_earlier_commands_stay_in_the_report(tiny, scenes, tmp_path):
    one = run(tiny, scenes, tmp_path, "vanilla", "pai")
    other = load_benchmark("action-scenes-turns", limit=3)
    both = run(tiny, other, tmp_path, "vanilla")
    assert both["benchmarks"]["action-scenes"] == one["benchmarks"]["action-scenes"]
    assert list(both["benchmarks"]) == list(both["decoding"]) == list(both["input"])
    assert "action-scenes-turns, 3 questions" in (tmp_path / "report.md").read_text()
    with pytest.raises(ValueError, match=r"reports pai with other parameters \(alpha was 0.2 and"):
        run(tiny, other, tmp_path, methods=[make_method("pai", tiny, alpha=0.3)])


def test_what_cannot_stand_beside_what_is_reported_is_refused_before_it_runs(
    tiny, scenes, tmp_path
):
    run(tiny, scenes, tmp_path, "vanilla")
    before = (tmp_path / "report.json").read_bytes()
    fewer = scenes.keep(scenes.items[:2])
    with pytest.raises(ValueError, match=r"vanilla holds .*benchmark\.questions was 4 and is 2"):
        run(tiny, fewer, tmp_path, "pai")
    with pytest.raises(ValueError, match=r"vanilla holds .*decoding\.suffix was"):
        run(tiny, scenes, tmp_path, "pai", suffix="Please.")
    changed = HookedLVLM.from_pretrained(TINY)
    changed.hf_model.get_input_embeddings().weight.data[0] += 1
    with pytest.raises(ValueError, match=r"holds a run with .*model\.weights was"):
        run(changed, load_benchmark("action-scenes-turns", limit=2), tmp_path, "pai")
    assert not (tmp_path / "action-scenes" / "pai").exists()
    assert (tmp_path / "report.json").read_bytes() == before
    (tmp_path / "report.json").write_text('{"mine": 1}')
    with pytest.raises(ValueError, match=r"report\.json cannot be read \(model: Field required\)"):
        run(tiny, scenes, tmp_path, "pai")
    assert (tmp_path / "report.json").read_text() == '{"mine": 1}'


def test_answers_that_an_earlier_method_lost_are_missed(tiny, scenes, tmp_path):
    run(tiny, scenes, tmp_path, "vanilla")
    (tmp_path / "action-scenes" / "vanilla" / "answers.jsonl").unlink()
    with pytest.raises(ValueError, match=r"vanilla lacks 4 of 4 answers: expected all of them"):
        run(tiny, scenes, tmp_path, "pai")


def test_a_stray_file_of_answers_does_not_count(tiny, scenes, tmp_path):
    first = run(tiny, scenes, tmp_path, "vanilla")
    folder = tmp_path / "action-scenes" / "vanilla"
    rows = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    wrong = "".join(json.dumps(row | {"answer": "No"}) + "\n" for row in rows)
    for name in ("answers-0.jsonl", "answers-1.jsonl", "answers copy.jsonl", "answers.old.jsonl"):
        (folder / name).write_text(wrong)
    assert run(tiny, scenes, tmp_path, "vanilla") == first
    said = load_answers(tmp_path, "action-scenes", "vanilla")
    assert [one.text for one in said.values()] == [row["answer"] for row in rows]


def test_more_processes_do_not_take_up_a_stray_file(tiny, scenes, tmp_path):
    from rvelens.evaluate.manifest import check_manifest

    run(tiny, scenes, tmp_path, "vanilla")
    folder = tmp_path / "action-scenes" / "vanilla"
    made_with = json.loads((folder / "manifest.json").read_text())
    names = made_with.pop("answers")
    assert names == ["answers.jsonl"]
    (folder / "answers-1.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"answers-1\.jsonl is there, and the run's manifest does"):
        check_manifest(folder, made_with, ["answers.jsonl", "answers-1.jsonl"])
    (folder / "answers-1.jsonl").unlink()
    check_manifest(folder, made_with, ["answers.jsonl", "answers-1.jsonl"])
    check_manifest(
        folder, made_with, ["answers.jsonl"]
    )  # one process again: the second's answers count
    now = json.loads((folder / "manifest.json").read_text())
    assert now["answers"] == ["answers.jsonl", "answers-1.jsonl"]


def test_a_picture_that_changed_under_its_name_is_noticed(tiny, scenes, tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (64, 64), "red").save(path)
    rest = {"image": "a.png", "source": "a.png", "reference": None, "group": ""}
    items = [
        photograph(path, id=str(n), text=f"Is {n} there?", truth=True, **rest) for n in range(2)
    ]
    photos = replace(scenes, name="photos", items=tuple(items))
    out = tmp_path / "run"
    first = run(tiny, photos, out, "vanilla")
    rows = (out / "photos" / "vanilla" / "answers.jsonl").read_text().splitlines()
    assert all(len(json.loads(row)["files"]) == 64 for row in rows)
    os.utime(path, (1, 1))
    assert run(tiny, photos, out, "vanilla") == first
    content = path.read_bytes()
    Image.new("RGB", (64, 64), "blue").save(path)
    for name in ("vanilla", "pai"):
        with pytest.raises(ValueError, match=r"holds an answer about .*a\.png, which was changed"):
            run(tiny, photos, out, name)
    path.unlink()
    assert run(tiny, photos, out, "vanilla") == first  # what was answered stands
    path.write_bytes(content)
    assert run(tiny, photos, out, "vanilla") == first


@pytest.mark.parametrize("name", ["", ".", "..", "../out", "a/b", "a\\b", "a\0b", "/tmp/x"])
def test_a_name_that_is_no_folder_is_refused(tiny, scenes, tmp_path, name):
    with pytest.raises(ValueError, match="expected a name that a folder can have"):
        run(tiny, scenes, tmp_path, methods=[Method(name, {})])


def test_two_methods_of_one_name_are_refused(tiny, scenes, tmp_path):
    with pytest.raises(ValueError, match="two methods are named 'own'"):
        run(tiny, scenes, tmp_path, methods=[own(1.0), own(2.0)])
