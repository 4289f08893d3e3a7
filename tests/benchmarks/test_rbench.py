"""R-Bench: marked questions and pictures, id lists, and the rule for kinds of relation."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from published import instance_row, write_array, write_image

from rvelens.benchmarks import load_benchmark, rules
from rvelens.benchmarks.rbench import draw_boxes, draw_masks, mark_as_published, mark_question
from rvelens.benchmarks.relation import relation_of

RED, GREEN = (255, 0, 0), (0, 128, 0)
GREY = (128, 128, 128)


@pytest.fixture
def folder(tmp_path):
    rows = [
        instance_row(0),
        instance_row(1, label="No", text="Is the woman wearing a hat?", object="hat"),
        instance_row(2, label="no", text="Is the man a woman?"),
    ]
    write_array(tmp_path / "data_filterd" / "instance-level_filterd.json", rows)
    write_array(tmp_path / "data_filterd" / "image-level_filterd.json", rows)
    write_image(tmp_path / "images" / "0013ea2087020901.jpg", size=(100, 50))
    return tmp_path


def test_image_level(folder):
    benchmark = load_benchmark("rbench-image", folder)
    assert [item.truth for item in benchmark.items] == [True, False, False]
    assert [item.group for item in benchmark.items] == ["spatial", "action", "other"]
    assert {item.image for item in benchmark.items} == {"0013ea2087020901.jpg"}
    assert benchmark.items[0].text == "Is the man next to the woman?"
    assert benchmark.rule is rules.rbench
    assert benchmark.subsets == {}
    assert benchmark.published == 7883


def test_the_five_published_lists(folder):
    for n in range(1, 6):
        write_array(folder / f"data_filterd/nocaps_image-level_rel_ids_{n}.json", [0, n % 3, 77])
    benchmark = load_benchmark("rbench-image", folder)
    (lists,) = benchmark.subsets.values()
    assert lists == tuple(frozenset({"0", str(n % 3)}) for n in range(1, 6))
    assert len(benchmark.files) == 6
    action = load_benchmark("rbench-image", folder, relation="action")
    assert action.subsets["image-level"][0] == {"1"}
    assert action.subsets["image-level"][1] == set()
    write_array(folder / "data_filterd/nocaps_image-level_rel_ids_1.json", {"ids": []})
    with pytest.raises(ValueError, match="holds a dict: expected an array of ids"):
        load_benchmark("rbench-image", folder)


def test_instance_items_have_a_picture_of_their_own(folder):
    benchmark = load_benchmark("rbench-instance-box", folder)
    assert len({item.image for item in benchmark.items}) == 3
    assert {item.source for item in benchmark.items} == {"0013ea2087020901.jpg"}
    assert benchmark.items[0].text == (
        "Is the man in red bounding box next to the woman in green bounding box?"
    )
    assert benchmark.published == 3768
    masks = load_benchmark("rbench-instance-mask", folder)
    assert masks.items[0].text == "Is the man in red mask next to the woman in green mask?"
    assert not {item.image for item in masks.items} & {item.image for item in benchmark.items}


def test_boxes_are_drawn_where_they_are(folder):
    picture = load_benchmark("rbench-instance-box", folder).items[0].load()
    pixels = np.asarray(picture)
    expected = np.broadcast_to(np.array(GREY), (50, 100, 3)).copy()
    for (x0, y0, x1, y1), color in (((10, 10, 40, 45), RED), ((50, 10, 90, 45), GREEN)):
        inside = np.zeros((50, 100), dtype=bool)
        inside[y0 : y1 + 1, x0 : x1 + 1] = True
        inside[y0 + 4 : y1 - 3, x0 + 4 : x1 - 3] = False
        expected[inside] = color
    # JPEG keeps a grey of one colour exactly; the boxes are drawn after it is read.
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("mode", ["L", "P"])
def test_masks_tint_what_they_name(folder, mode):
    values = np.zeros((5, 10), dtype=np.uint8)
    values[:, 1:3], values[:, 6:9], values[0, 0] = 1, 2, 3
    mask = Image.fromarray(values)
    if mode == "P":
        mask.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0, 9, 9, 9])
    path = folder / "data_filterd" / "instance_mask" / "0.png"
    path.parent.mkdir()
    mask.save(path)
    write_image(folder / "images" / "0.png")  # of the same name, and no mask
    item = load_benchmark("rbench-instance-mask", folder).items[0]
    assert item.files[1] == path
    pixels = np.asarray(item.load()).astype(int)
    for columns, color in ((slice(10, 30), (250, 0, 45)), (slice(60, 90), (100, 250, 0))):
        tinted = [g + (c - g) * 120 / 255 for g, c in zip(GREY, color, strict=True)]
        assert np.abs(pixels[:, columns] - tinted).max() <= 1
    for columns in (slice(0, 10), slice(30, 60), slice(90, 100)):
        assert (pixels[:, columns] == 128).all()


@pytest.mark.parametrize("id_", ["../x", "/tmp/x", "a/../../x", "a\\x", "a/x", "x\0"])
def test_a_mask_is_never_read_from_elsewhere(folder, id_):
    write_image(folder / "x.png")
    rows = [instance_row(id_), instance_row(1)]
    write_array(folder / "data_filterd" / "instance-level_filterd.json", rows)
    benchmark = load_benchmark("rbench-instance-mask", folder)
    (item,) = benchmark.items
    assert item.id == "1"
    (problem,) = benchmark.problems
    assert "row 1: 'question_id' is" in problem
    assert "expected the name of the mask's file" in problem


def test_missing_and_broken_pictures(folder):
    item = load_benchmark("rbench-instance-mask", folder).items[0]
    with pytest.raises(ValueError, match=r"no image at .*instance_mask/0\.png"):
        item.load()
    (folder / "images" / "0013ea2087020901.jpg").write_bytes(b"no JPEG")
    with pytest.raises(ValueError, match="cannot be read as an image"):
        load_benchmark("rbench-instance-box", folder).items[0].load()
    with pytest.raises(ValueError, match="no image at"):
        draw_boxes(folder / "x.jpg", (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="no image at"):
        draw_masks(folder / "x.jpg", folder / "y.png")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sub_box": [0.4, 0.2, 0.1, 0.9]}, r"'sub_box' is \[0.4.*as shares of width and height"),
        ({"obj_box": [10, 20, 30, 40]}, "'obj_box' is"),
        ({"obj_box": None}, "'obj_box' is None"),
        ({"obj_box": [0.1, 0.2, 0.3]}, "'obj_box' is"),
        ({"subject": ""}, "'subject' is ''"),
        ({"label": "Neither"}, "'label' is 'Neither'"),
    ],
)
def test_a_malformed_row_is_left_out(folder, changes, says):
    path = folder / "data_filterd" / "instance-level_filterd.json"
    write_array(path, [instance_row(0), instance_row(1, **changes)])
    benchmark = load_benchmark("rbench-instance-box", folder)
    assert [item.id for item in benchmark.items] == ["0"]
    assert re.search(f"row 2: {says}", benchmark.problems[0])


@pytest.mark.parametrize(
    ("text", "subject", "thing", "expected"),
    [
        ("Is the woman beside the man?", "man", "woman", "Is the woman@G beside the man@R?"),
        ("Is the Man's hat on the man?", "man", "hat", "Is the Man's hat@G on the man@R?"),
        ("Are the boats on the water?", "boat", "water", "Are the boats@R on the water@G?"),
        ("Are dresses on a dress?", "dress", "x", "Are dresses@R on a dress@R?"),
        (
            "Is a coffee table by a table?",
            "table",
            "coffee table",
            "Is a coffee table@G by a table@R?",
        ),
        ("Is the man near the man?", "man", "The man", "Is the man@R near the man@G?"),
        ("Is the dog asleep?", "cat", "mat", "Is the dog asleep?"),
        ("Is a c++ book by the man?", "a man", "c++ book", "Is a c++ book@G by the man@R?"),
    ],
)
def test_marked_questions(text, subject, thing, expected):
    expected = expected.replace("@R", " in red mask").replace("@G", " in green mask")
    assert mark_question(text, subject, thing, "mask") == expected


NAMES = st.sampled_from(["man", "woman", "bus", "hat", "the man", "red mask"]) | st.text(min_size=1)


@given(st.lists(NAMES | st.sampled_from([" ", "s ", "?"])).map(" ".join), NAMES, NAMES)
def test_marking_only_ever_adds_marks(text, subject, thing):
    marked = mark_question(text, subject, thing, "#")
    assert re.sub(r" in (red|green) #", "", marked) == re.sub(r" in (red|green) #", "", text)


@pytest.mark.parametrize(
    ("question", "relation"),
    [
        ("Is the child wearing a diaper?", "action"),
        ("Does the man ride a horse in the image?", "action"),
        ("Is the hat worn by the man on the left?", "action"),
        ("Is the man sitting on the bench?", "spatial"),
        ("Is the man sitting in the image?", "action"),
        ("Is the man holding a bat while standing on the grass?", "action"),
        ("Is the building behind the tree?", "spatial"),
        ("Are the boats next to the swimming pool?", "spatial"),
        ("Is the boat in the swimming pool?", "spatial"),
        ("Is the drink on the table?", "spatial"),
        ("Is the dog a pet in this picture?", "other"),
        ("Is the tall building old?", "other"),
        ("", "other"),
    ],
)
def test_kinds_of_relation(question, relation):
    assert relation_of(question) == relation


@pytest.mark.parametrize(
    ("text", "subject", "thing", "expected"),
    [
        ("Is the man next to the woman?", "man", "woman",
         "Is the man in red mask next to the woman in green mask in red mask?"),
        ("Is the Man near a cat?", "Man", "Cat", "Is the Man near a cat in green mask?"),
        ("Is the cat on the bed?", "the cat", "the bed",
         "Is the cat in red mask on the bed in green mask?"),
    ],
)  # fmt: skip
def test_the_published_wording_marks_inside_words_too(text, subject, thing, expected):
    """By hand, from two calls of `replace`: the object's comes second."""
    assert mark_as_published(text, subject, thing, "mask") == expected


def test_the_published_wording_is_an_option(folder):
    benchmark = load_benchmark("rbench-instance-box", folder, wording="published")
    assert benchmark.items[0].text == (
        "Is the man in red bounding box next to the woman in green bounding box in red bounding box?"
    )
    with pytest.raises(ValueError, match="wording 'official': expected one of words, published"):
        load_benchmark("rbench-instance-box", folder, wording="official")
    with pytest.raises(ValueError, match="mmrel-real has no option 'wording'"):
        load_benchmark("mmrel-real", folder, wording="published")
