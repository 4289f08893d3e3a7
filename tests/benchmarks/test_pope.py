"""POPE: three formats in circulation, labels with typos, rows that are left out."""

from __future__ import annotations

import json

import pytest
from published import REAL, needs_real, pope_row, write_array, write_image, write_lines

from rvelens.benchmarks import load_benchmark, rules

FILE = "coco_pope_random.json"


def test_questions_as_published(tmp_path):
    write_lines(tmp_path / FILE, [pope_row(1), pope_row(2, "no"), pope_row(3, image="b.jpg")])
    picture = write_image(tmp_path / "val2014" / "COCO_val2014_000000310196.jpg", color=(9, 9, 9))
    benchmark = load_benchmark("pope-random", tmp_path)
    first, second, third = benchmark.items
    assert [item.id for item in benchmark.items] == ["1", "2", "3"]
    assert [item.truth for item in benchmark.items] == [True, False, True]
    assert first.image == second.image == first.source == "COCO_val2014_000000310196.jpg"
    assert first.text == "Is there a car in the image?"
    assert (first.group, first.reference) == ("", None)
    assert first.files == (picture,)
    assert first.load().mode == "RGB"
    assert first.load().size == (60, 40)
    assert benchmark.rule is rules.pope
    assert benchmark.positives == ("yes",)
    assert benchmark.published == 3000
    assert list(benchmark.files) == [FILE]
    with pytest.raises(ValueError, match=r"no image at .*b\.jpg: expected a file"):
        third.load()


def test_arrays_and_byte_order_marks_give_the_same_questions(tmp_path):
    rows = [pope_row(1), pope_row(2, "no")]
    write_lines(tmp_path / "a" / FILE, rows)
    write_lines(tmp_path / "b" / FILE, rows, encoding="utf-8-sig")
    write_array(tmp_path / "c" / FILE, rows)
    write_lines(tmp_path / "d" / "coco" / "coco_pope_random.jsonl", ["", rows[0], "\r", rows[1]])
    for folder in "abcd":
        benchmark = load_benchmark("pope-random", tmp_path / folder)
        assert [(item.id, item.truth) for item in benchmark.items] == [("1", True), ("2", False)]
        assert benchmark.problems == ()


@pytest.mark.parametrize(
    ("label", "truth"),
    [("yes ", True), ("Yes", True), (" No", False), ("no.", False), ("NO", False), ("'yes'", True)],
)
def test_labels_with_typos(tmp_path, label, truth):
    write_lines(tmp_path / FILE, [pope_row(1, label)])
    assert load_benchmark("pope-random", tmp_path).items[0].truth is truth


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (pope_row(9, "maybe"), "'label' is 'maybe': expected yes or no"),
        (pope_row(9, "yes or no"), "'label' is 'yes or no': expected yes or no"),
        (pope_row(9, None), "'label' is None: expected yes or no"),
        (pope_row(9, True), "'label' is True: expected yes or no"),
        (pope_row(9, list(range(9))), "'label' is [0, 1, 2, 3, 4, 5, ...]: expected yes or no"),
        (pope_row(1), "id '1' occurs twice: expected unique ids"),
        (pope_row(True), "'question_id' is True: expected a string or a number"),
        ({**pope_row(9), "image": ""}, "'image' is '': expected a non-empty string"),
        ({**pope_row(9), "image": "/"}, "the image is '/': expected a file name"),
        ({**pope_row(9), "text": 3}, "'text' is 3: expected a non-empty string"),
        ("[", "not JSON"),
        ('{"question_id": 9', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("3", "an int: expected a JSON object"),
    ],
)
def test_a_malformed_row_is_named_and_left_out(tmp_path, row, says):
    write_lines(tmp_path / FILE, [pope_row(1), row, pope_row(2)])
    benchmark = load_benchmark("pope-random", tmp_path)
    assert [item.id for item in benchmark.items] == ["1", "2"]
    (problem,) = benchmark.problems
    assert problem.startswith(f"{FILE} line 2: {says}")
    assert "\n" not in problem


def test_rows_of_an_array_are_counted_from_one(tmp_path):
    write_array(tmp_path / FILE, [pope_row(1), pope_row(2, ""), 7])
    benchmark = load_benchmark("pope-random", tmp_path)
    assert benchmark.problems == (
        f"{FILE} row 2: 'label' is '': expected yes or no; correct the row.",
        f"{FILE} row 3: an int: expected a JSON object; correct it.",
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty: expected JSON lines or an array"),
        (b"[]", "is empty: expected JSON lines or an array"),
        (b'[{"question_id": 1},', r"is not JSON \(.*column 21\): expected an array of rows"),
        (b"\xff\xfe", "is not UTF-8 text: expected JSON lines or an array"),
        (b"{\n", f"no usable question below .*{FILE} line 1: not JSON"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path, content, says):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ValueError, match=says):
        load_benchmark("pope-random", tmp_path)


def test_which_of_several_files(tmp_path):
    write_lines(tmp_path / "coco" / FILE, [pope_row(1)])
    write_lines(tmp_path / "copy" / FILE, [pope_row(1)])
    assert list(load_benchmark("pope-random", tmp_path).files) == [f"coco/{FILE}"]
    write_lines(tmp_path / "gqa" / FILE, [pope_row(2)])
    with pytest.raises(ValueError, match=rf"3 different files {FILE} below .*expected only one"):
        load_benchmark("pope-random", tmp_path)


def test_an_image_that_is_there_twice(tmp_path):
    write_lines(tmp_path / FILE, [pope_row(1, image="a.png"), pope_row(2, image="x/b.png")])
    for folder in "xy":
        write_image(tmp_path / folder / "a.png")
        write_image(tmp_path / folder / "b.png", color=(ord(folder), 0, 0))
    first, second = load_benchmark("pope-random", tmp_path).items
    assert first.files == (tmp_path / "x" / "a.png",)  # the same picture twice
    assert second.files == (tmp_path / "x" / "b.png",)  # the row says which
    write_lines(tmp_path / FILE, [pope_row(1, image="a.png"), pope_row(2, image="b.png")])
    (problem,) = load_benchmark("pope-random", tmp_path).problems
    assert "image 'b.png' matches 2 different files (x/b.png, y/b.png)" in problem


def test_links_within_the_folder_are_followed_once(tmp_path):
    write_lines(tmp_path / "data" / FILE, [pope_row(1, image="a.png")])
    write_image(tmp_path / "data" / "there" / "a.png")
    (tmp_path / "data" / "images").symlink_to(tmp_path / "data" / "there")
    (tmp_path / "data" / "there" / "up").symlink_to(tmp_path / "data")
    (tmp_path / "linked").symlink_to(tmp_path / "data")
    for data in ("data", "linked"):  # the folder may be a link itself
        (item,) = load_benchmark("pope-random", tmp_path / data).items
        assert item.load().size == (60, 40)


def test_links_that_leave_the_folder_are_not_read(tmp_path):
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    write_lines(data / FILE, [pope_row(1, image="a.png"), pope_row(2, image="b.png")])
    write_image(elsewhere / "a.png")
    write_image(data / "b.png")
    (data / "images").symlink_to(elsewhere)
    (data / "b").mkdir()
    (data / "b" / "b.png").symlink_to(elsewhere / "a.png")
    benchmark = load_benchmark("pope-random", data)
    (item,) = benchmark.items  # b.png is there too
    assert item.files == (data / "b.png",)
    (problem,) = benchmark.problems
    assert f"images/a.png is a link to a file outside of {data}: expected files below" in problem
    (data / FILE).rename(elsewhere / FILE)
    with pytest.raises(ValueError, match="is a link to a file outside of"):
        load_benchmark("pope-random", data)


def test_an_image_name_never_leads_out_of_the_folder(tmp_path):
    write_lines(tmp_path / "data" / FILE, [pope_row(1, image="../secret.png")])
    write_image(tmp_path / "secret.png")
    (item,) = load_benchmark("pope-random", tmp_path / "data").items
    assert item.files == (tmp_path / "data" / "secret.png",)


@needs_real
@pytest.mark.parametrize("split", ["random", "popular"])
def test_the_published_file(split):
    if not list(REAL.rglob(f"coco_pope_{split}.json")):
        pytest.skip("this split is not here")
    benchmark = load_benchmark(f"pope-{split}", REAL)
    assert benchmark.problems == ()
    assert len(benchmark.items) == benchmark.published == 3000
    assert sum(bool(item.truth) for item in benchmark.items) == 1500
    assert len({item.image for item in benchmark.items}) == 500
    (path,) = REAL.rglob(f"coco_pope_{split}.json")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [item.text for item in benchmark.items] == [row["text"] for row in rows]
