"""MMRel: which questions are of which part, and which of several images of one name is meant."""

from __future__ import annotations

import pytest
from published import write_array, write_image, write_lines

from rvelens.benchmarks import load_benchmark, rules


def row(id_, image, label="yes", text="Does a man talk a phone in the image?"):
    return {"question_id": id_, "image": image, "text": text, "label": label}


@pytest.fixture
def folder(tmp_path):
    write_lines(
        tmp_path / "json" / "Yes-No" / "real_action.json",
        [row("a1", "58.jpg"), row("a2", "59.jpg", "no")],
    )
    write_lines(tmp_path / "json" / "Yes-No" / "real_spatial.jsonl", [row("a3", "58.jpg")])
    write_lines(tmp_path / "json" / "Yes-No" / "Dall-E_action.json", [row("d1", "00010.png")])
    write_lines(tmp_path / "json" / "Yes-No" / "Dall-E_spatial.json", [row("d2", "00010.png")])
    write_lines(tmp_path / "json" / "Yes-No" / "SPEC_size.json", [row("s1", "1.png")])
    write_lines(
        tmp_path / "json" / "Open-ended" / "real_action.json",
        [row("o1", "58.jpg", "The man talks on a phone."), row("o2", "58.jpg", "")],
    )
    write_array(tmp_path / "json" / "Fine-tuning" / "real_action.json", [row("f1", "58.jpg")])
    write_array(tmp_path / "json" / "adversarial" / "Dall-E_action.json", [row("v1", "1.png")])
    write_lines(tmp_path / "pope" / "coco_pope_random.json", ["no JSON, and not read"])
    write_image(tmp_path / "vg" / "VG_100K_2" / "58.jpg", color=(1, 1, 1))
    write_image(tmp_path / "vg" / "VG_100K" / "59.jpg", color=(2, 2, 2))
    write_image(tmp_path / "Dall-E_generated" / "action" / "00010.png", color=(3, 3, 3))
    write_image(tmp_path / "Dall-E_generated" / "spatial" / "00010.png", color=(4, 4, 4))
    return tmp_path


def told(benchmark):
    return [(item.id, item.group, item.truth) for item in benchmark.items]


def test_real_and_dalle(folder):
    real = load_benchmark("mmrel-real", folder)
    assert told(real) == [("a1", "action", True), ("a2", "action", False), ("a3", "spatial", True)]
    assert real.rule is rules.mmrel
    assert real.problems == ()
    assert list(real.files) == [
        "json/Yes-No/real_action.json",
        "json/Yes-No/real_spatial.jsonl",
    ]
    dalle = load_benchmark("mmrel-dalle", folder)
    assert told(dalle) == [("d1", "action", True), ("d2", "spatial", True)]


def test_images_of_one_name_in_several_folders(folder):
    first, second = load_benchmark("mmrel-dalle", folder).items
    assert first.load().getpixel((0, 0)) == (3, 3, 3)
    assert second.load().getpixel((0, 0)) == (4, 4, 4)
    assert first.image == first.source == "Dall-E_generated/action/00010.png"
    assert first.image != second.image
    real = load_benchmark("mmrel-real", folder).items
    assert real[0].image == real[2].image == "vg/VG_100K_2/58.jpg"
    write_image(folder / "Dall-E_generated" / "action" / "b" / "00010.png")
    (problem,) = load_benchmark("mmrel-dalle", folder).problems
    assert "Dall-E_action.json line 1: image '00010.png' matches 2 different files" in problem


@pytest.mark.parametrize("relation", ["action", "spatial"])
@pytest.mark.parametrize(("part", "n"), [("real", 3), ("dalle", 2)])
def test_one_relation(folder, part, n, relation):
    chosen = load_benchmark(f"mmrel-{part}", folder, relation=relation)
    everything = load_benchmark(f"mmrel-{part}", folder)
    assert len(everything.items) == n
    assert told(chosen) == [one for one in told(everything) if one[1] == relation]


def test_the_row_tells_where_the_file_does_not(folder):
    rows = [
        row("m1", "vg/VG_100K_2/58.jpg", "no"),
        row("m2", "Dall-E_generated/action/00010.png"),
        row("m3", "SPEC/size/1.png"),
    ]
    write_lines(folder / "mmrel.jsonl", rows)
    assert ("m1", "", False) in told(load_benchmark("mmrel-real", folder))
    dalle = {item.id: item for item in load_benchmark("mmrel-dalle", folder).items}
    assert dalle["m2"].group == "action"
    assert dalle["m2"].load().getpixel((0, 0)) == (3, 3, 3)
    assert not {"m1", "m3"} & set(dalle)


def test_open_ended(folder):
    benchmark = load_benchmark("mmrel-open", folder)
    (item,) = benchmark.items
    assert (item.id, item.truth, item.group) == ("o1", None, "real-action")
    assert item.reference == "The man talks on a phone."
    assert benchmark.positives == ()
    assert benchmark.rule is rules.judged
    assert "json/Open-ended/real_action.json line 2: 'label' is ''" in benchmark.problems[0]
    assert told(load_benchmark("mmrel-open", folder, relation="action")) == told(benchmark)
    with pytest.raises(
        ValueError, match="no question of relation 'spatial' here, only real-action"
    ):
        load_benchmark("mmrel-open", folder, relation="spatial")


def test_an_id_in_two_files(folder):
    write_lines(folder / "json" / "Yes-No" / "vg_spatial.json", [row("a3", "58.jpg")])
    (problem,) = load_benchmark("mmrel-real", folder).problems
    assert problem.startswith("json/Yes-No/vg_spatial.json line 1: id 'a3' occurs twice: expected")


def test_nothing_of_mmrel(tmp_path):
    write_lines(tmp_path / "questions.json", [row("a1", "58.jpg")])
    with pytest.raises(
        ValueError, match=r"no questions of mmrel-real below .*words real or Dall-E"
    ):
        load_benchmark("mmrel-real", tmp_path)


def test_a_sample_has_yes_and_no(tmp_path):
    rows = [row(f"y{n}", "58.jpg") for n in range(50)]
    write_lines(
        tmp_path / "real_action.json", rows + [row(f"n{n}", "58.jpg", "no") for n in range(50)]
    )
    sample = load_benchmark("mmrel-real", tmp_path, limit=20)
    truths = [item.truth for item in sample.items]
    assert len(truths) == 20
    assert 4 <= sum(truths) <= 16
    again = load_benchmark("mmrel-real", tmp_path, limit=20)
    assert told(again) == told(sample)
    order = [item.id for item in load_benchmark("mmrel-real", tmp_path).items]
    assert [item.id for item in sample.items] == [
        id_ for id_ in order if id_ in {item.id for item in sample.items}
    ]


def test_answers_of_a_run_are_no_annotations(folder):
    before = load_benchmark("mmrel-real", folder)
    run = folder / "RUN" / "mmrel-real" / "vanilla"
    write_lines(run / "answers.jsonl", [{**row("a2", "59.jpg"), "answer": "Yes"}])
    write_lines(run / "manifest.json", [{}])
    after = load_benchmark("mmrel-real", folder)
    assert told(after) == told(before)
    assert (after.files, after.problems) == (before.files, before.problems)


def test_a_picture_of_another_part_with_the_same_number_is_not_taken(folder):
    write_lines(folder / "json" / "Yes-No" / "Dall-E_action.json", [row("d1", "00011.png")])
    write_image(folder / "Dall-E_generated" / "spatial" / "00011.png", color=(5, 5, 5))
    first = load_benchmark("mmrel-dalle", folder).items[0]
    with pytest.raises(ValueError, match="no image at"):
        first.load()


def test_a_real_photograph_is_not_taken_for_a_generated_one_of_its_number(folder):
    """The path of the question says "action", and so does that of the generated picture."""
    write_image(folder / "Dall-E_generated" / "action" / "58.jpg", color=(6, 6, 6))
    first = load_benchmark("mmrel-real", folder).items[0]
    assert first.image == "vg/VG_100K_2/58.jpg"
