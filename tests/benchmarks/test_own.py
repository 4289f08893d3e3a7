"""One's own questions: every source gives the same benchmark, and malformed rows are named by line."""

from __future__ import annotations

import json
from io import BytesIO

import pandas as pd
import pytest
from PIL import Image

from rvelens.benchmarks import load_questions
from rvelens.benchmarks.own import describe_source
from rvelens.benchmarks.rules import ChoiceRule, contains, exact, text_words

ROWS = [
    {"image": "a.png", "question": "Is it red?", "label": "yes", "group": "red"},
    {"image": "b.png", "question": "Is it red?", "label": "no", "group": "blue"},
    {"image": "a.png", "question": "Is it blue?", "label": "No.", "group": "blue"},
]
COLOURS = {"a.png": "red", "b.png": "blue"}

pytestmark = pytest.mark.filterwarnings("ignore:.* left out, the first for this reason:UserWarning")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images" / "deep").mkdir(parents=True)
    for name, colour in COLOURS.items():
        Image.new("RGB", (8, 8), colour).save(tmp_path / "images" / "deep" / name)
    return tmp_path


def written(folder, kind, rows=ROWS):
    """The rows in a file of a kind."""
    path = folder / f"my.{kind}"
    if kind == "csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    elif kind == "tsv":
        pd.DataFrame(rows).to_csv(path, index=False, sep="\t")
    elif kind == "parquet":
        pytest.importorskip("pyarrow")
        pd.DataFrame(rows).to_parquet(path)
    elif kind == "json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts(benchmark):
    return [(i.text, i.truth, i.label, i.group, i.load().getpixel((0, 0))) for i in benchmark.items]


EXPECTED = [
    ("Is it red?", True, "yes", "red", (255, 0, 0)),
    ("Is it red?", False, "no", "blue", (0, 0, 255)),
    ("Is it blue?", False, "no", "blue", (255, 0, 0)),
]


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_every_kind_of_file(folder, kind):
    found = load_questions(written(folder, kind), folder / "images")
    assert texts(found) == EXPECTED
    assert (found.name, found.rule_name, found.positives) == ("my", "strict", ("yes",))
    assert found.problems == ()
    assert list(found.files) == [f"my.{kind}"]
    assert found.items[0].source == found.items[2].source == "deep/a.png"


def test_a_frame_and_a_dataset_hold_their_pictures(folder):
    datasets = pytest.importorskip("datasets")
    pictures = {name: Image.open(folder / "images" / "deep" / name) for name in COLOURS}
    rows = [{**row, "image": pictures[row["image"]]} for row in ROWS]
    frame = load_questions(pd.DataFrame(rows))
    assert texts(frame) == EXPECTED
    assert frame.name == "questions"
    assert frame.items[0].image == frame.items[2].image != frame.items[1].image

    data = []
    for picture in pictures.values():
        opened = BytesIO()
        picture.save(opened, "PNG")
        data.append(opened.getvalue())
    cells = [{"bytes": data[0], "path": None}, {"bytes": data[1], "path": None}]
    whole = datasets.Dataset.from_list(
        [{**row, "image": cells[0 if row["image"] == "a.png" else 1]} for row in ROWS]
    ).cast_column("image", datasets.Image())
    assert texts(load_questions(whole)) == EXPECTED
    assert texts(load_questions(datasets.DatasetDict(test=whole), name="x")) == EXPECTED
    with pytest.raises(ValueError, match="has the splits test, train: expected one of them"):
        load_questions(datasets.DatasetDict(test=whole, train=whole))
    whole.save_to_disk(str(folder / "kept"))
    assert texts(load_questions(folder / "kept")) == EXPECTED


def test_frames_name_files_too(folder, monkeypatch):
    frame = pd.DataFrame(ROWS)
    assert texts(load_questions(frame, folder / "images")) == EXPECTED
    monkeypatch.chdir(folder / "images" / "deep")
    assert texts(load_questions(frame)) == EXPECTED
    other = load_questions(frame.assign(label=["no", "no", "no"]))
    assert other.files != load_questions(frame).files


def test_malformed_rows_are_named_by_line_and_the_rest_goes_on(folder):
    path = folder / "my.csv"
    path.write_text(
        "image,question,label,id,box\n"
        "a.png,Is it red?,yes,q1,\n"
        'b.png,"Is it\nblue?",yes,q2,\n'
        "a.png,Is it?,perhaps,q3,\n"
        "\n"
        "c.png,Is it?,yes,q4,\n"
        "a.png,Is it?,yes,q1,\n"
        "a.png,,yes,q5,\n"
        "a.png,Is it?\n"
        'a.png,Is it?,no,q6,"0,0,4,4"\n'
        'a.png,Is it?,no,q7,"4,0,0,4"\n'
        "a.png,Is it square?,no,,\n"
    )
    with pytest.warns(UserWarning, match="6 rows left out") as warned:
        found = load_questions(path, folder / "images", rule="strict")
    assert [str(warning.message) for warning in warned] == [
        "my: 6 rows left out, the first for this reason: my.csv line 5: 'label' is 'perhaps': "
        "expected yes or no; correct the row; `problems` of the benchmark lists all."
    ]
    assert [item.id for item in found.items] == ["q1", "q2", "q6", "13"]
    assert found.problems == (
        "my.csv line 5: 'label' is 'perhaps': expected yes or no; correct the row.",
        f"my.csv line 7: no image 'c.png' below {folder / 'images'}: expected a file there; "
        "correct the row.",
        "my.csv line 8: id 'q1' occurs twice: expected unique ids; remove one of the rows.",
        "my.csv line 9: 'question' is '': expected a non-empty string; correct the row.",
        "my.csv line 10: 2 fields: expected 5, as in the first line; correct the line.",
        "my.csv line 12: 'box' is '4,0,0,4': expected 0 <= x0 < x1 and 0 <= y0 < y1; correct the row.",
    )
    regions = found.items[2].regions
    assert regions is not None
    assert regions() == {"box": ((0.0, 0.0, 4.0, 4.0),)}


def test_columns_by_other_names_and_further_ones(folder):
    rows = [{"photo": "a.png", "text": "Is it?", "truth": "yes", "word": "red", "n": 3}]
    names = {"image": "photo", "question": "text", "label": "truth"}
    found = load_questions(pd.DataFrame(rows), folder / "images", columns=names)
    assert found.items[0].extra == {"word": "red", "n": 3}
    with pytest.raises(
        ValueError, match="no column 'image': expected the image there, and it has n"
    ):
        load_questions(pd.DataFrame(rows), folder / "images")
    with pytest.raises(
        ValueError, match=r"column 'lable': expected one of .* did you mean 'label'"
    ):
        load_questions(pd.DataFrame(rows), columns={"lable": "truth"})
    with pytest.raises(ValueError, match="no column 'kind': expected the group there"):
        load_questions(pd.DataFrame(rows), columns={**names, "group": "kind"})
    unlabelled = {"image": "photo", "question": "text"}
    with pytest.raises(ValueError, match="without labels, pass rule='judge'"):
        load_questions(pd.DataFrame(rows), folder / "images", columns=unlabelled)
    open_ended = load_questions(
        pd.DataFrame(rows), folder / "images", columns=unlabelled, rule="judge"
    )
    assert (open_ended.is_scored, open_ended.items[0].label) == (False, None)


def labelled(folder, labels, **options):
    rows = [{"image": "a.png", "question": "What?", "label": label} for label in labels]
    return load_questions(pd.DataFrame(rows), folder / "images", **options)


@pytest.mark.parametrize(
    ("labels", "rule"),
    [
        (["yes"] * 9 + ["perhaps"], "strict"),
        ([True, False], "strict"),
        (["yes", "no", "red"], "contains"),
        (["red", "blue"] * 3, "choice"),
        (["A", "B", "C", "A", "B", "A"], "choice"),
        ([1, 2, 1, 2], "choice"),
        (["a dog", "two cats", "a red ball"], "contains"),
        (["red"] * 4, "contains"),
    ],
)
def test_labels_tell_the_rule(folder, labels, rule):
    found = labelled(folder, labels)
    assert found.rule_name == rule
    assert f"rule {rule}: " in describe_source(found)


def test_the_description_counts(folder):
    assert describe_source(labelled(folder, ["red", "blue"] * 3)) == (
        "questions: 6 questions about 1 image (3 red, 3 blue); rule choice: The answer names one "
        "label of the choices and no other one; single letters must come first."
    )


def test_choices_that_no_label_has(folder):
    found = labelled(folder, ["red", "blue"] * 3, rule="choice:red, blue, green")
    assert found.matches is not None
    assert found.matches("It is green.", "red") is False
    assert labelled(folder, ["red", "blue"] * 3).matches("It is green.", "red") is None


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("It is dark red.", ("dark", "red")), ("RED!", ("red",)), ("blue or red", None),
        ("reddish", None), ("", None), ("dark red and red", None),
    ],
)  # fmt: skip
def test_an_answer_names_one_choice(answer, read):
    assert ChoiceRule(("red", "Dark red", "blue")).read(answer) == read


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("A", "a"), ("b)", "b"), ("(C) a dog", "c"), ("A man is there", None), ("B: no", "b"),
        ("The answer is B", None), ("D", None),
    ],
)  # fmt: skip
def test_letters_come_first(answer, read):
    found = ChoiceRule(("A", "B", "C")).read(answer)
    assert found == (None if read is None else (read,))


def test_words_of_labels():
    assert text_words("The red Ball, -3.5!") == ("red", "ball", "-3.5")
    assert text_words("A") == ("a",)
    assert exact("A dog.", "dog") is True
    assert exact("a brown dog", "dog") is False
    assert exact(" ... ", "dog") is None
    assert contains("a big brown dog", "brown dog") is True
    assert contains("-1", "1") is False
    assert contains("hotdog", "dog") is False


def test_refusals(folder, monkeypatch):
    images = folder / "images"
    for questions, said in (
        (folder / "nowhere.csv", "no questions at .*: expected a file"),
        (folder, "is a folder: expected a file"),
        (3, "questions are an int: expected a path, the name of a dataset, a pandas frame"),
    ):
        with pytest.raises(ValueError, match=said):
            load_questions(questions, images)
    (folder / "x.txt").write_text("a")
    with pytest.raises(ValueError, match=r"ends in '.txt': expected one of .csv"):
        load_questions(folder / "x.txt", images)
    (folder / "x.csv").write_text('image,question,label\na.png,"open,yes\n')
    with pytest.raises(ValueError, match=r"is not a table .* look at its quotation marks"):
        load_questions(folder / "x.csv", images)
    (folder / "x.csv").write_text("image,image\n")
    with pytest.raises(ValueError, match="expected a different name for each column"):
        load_questions(folder / "x.csv", images)
    (folder / "x.csv").write_text("image,question,label\n")
    with pytest.raises(
        ValueError, match="x has no usable question: expected at least one; it has no rows"
    ):
        load_questions(folder / "x.csv", images)
    (folder / "x.parquet").write_bytes(b"no")
    with pytest.raises(ValueError, match="is not parquet"):
        load_questions(folder / "x.parquet", images)
    with pytest.raises(ValueError, match="rule 'non': expected one of auto, strict"):
        labelled(folder, ["yes"], rule="non")
    with pytest.raises(ValueError, match="rule 'strict:a': expected one of"):
        labelled(folder, ["yes"], rule="strict:a")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"no library pyarrow: .*pip install 'rvelens\[data\]'"):
        load_questions(folder / "x.parquet", images)


def test_a_dataset_that_cannot_be_loaded(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def refuse(name, split=None):
        raise RuntimeError(f"{name} {split}\nis not there")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(
        ValueError, match=r"no dataset that can be loaded \(a/b test is not there\)"
    ):
        load_questions("a/b:test")


@pytest.mark.parametrize("kind", ["EPS", "TGA"])
def test_pictures_in_cells_are_of_the_formats_of_files(kind):
    """Pillow hands EPS to Ghostscript."""
    content = BytesIO()
    Image.new("RGB", (8, 8)).save(content, kind)
    row = {"image": content.getvalue(), "question": "Is it?", "label": "yes"}
    with pytest.raises(ValueError, match=r"cannot be read as an image .* expected PNG, JPEG"):
        load_questions(pd.DataFrame([row])).items[0].load()


@pytest.mark.parametrize(
    "labels", [["1", "0"] * 4, ["true", "false"] * 4, ["1"] * 8, ["N", "y"] * 4]
)
def test_names_of_yes_and_no_that_no_answer_matches_are_refused(folder, labels):
    with pytest.raises(
        ValueError, match="expected yes and no where these are meant; write the words"
    ):
        labelled(folder, labels)
    assert labelled(folder, labels, rule="choice").items
