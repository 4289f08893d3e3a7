from __future__ import annotations

import json

import pytest
from PIL import Image
from tiny_models import IMAGES

from rvelens.pairs import load_pairs, replace_verb

# The published pairs (question, verb), as they were published, ungrammatical ones included.
PUBLISHED = [
    line.split("|")
    for line in """\
woman|hold|a bread|eat
person|hold|a rifle|see
child|eat|an apple|see
child|wear|a bib|hold
person|ride|a surfboard|see
zebra|eat|a grass|smell
man|point|a food|look
person|ride|a skateboard|grab
woman|hold|a kite|look
cat|sit|a chair|touch
airplane|fly|a ground|touch
woman|talk|a phone|hold
woman|pet|a dog|see
man|swing|a bat|see
man|wear|a helmet|hold
person|ride|a motorcycle|steer
man|sit|a bed|touch
man|lead|a horse|see
giraffe|stand|a ground|see
person|hold|a pole|kick
person|balance|a surfboard|grips
elephant|stand|a grass|grasp
bird|stand|a branch|peck
dog|wear|a collar|bite
boy|hold|a toothbrush|bite
man|smoke|a cigar|hold
player|catch|a ball|kick
person|bite|a pizza|hold
airplane|park|a ground|touch
zebra|lie|a ground|paw
man|climb|a mound|see
person|walk|a snow|see
person|repair|a motorcycle|see
man|adjust|a helmet|wear
person|run|a road|build
person|kick|a ball|throw
cat|chew|a tie|scratch
dog|eat|a food|sniff
woman|hug|a dog|kiss
person|ride|a bicycle|grip""".splitlines()
]


@pytest.fixture
def folder(tmp_path):
    IMAGES[2].save(tmp_path / "1.png")
    return tmp_path


def write(folder, *rows):
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n")
    return path


ROW = {"image": "1.png", "question": "Does a man hold a bat in the image ?"}


@pytest.mark.parametrize(("subject", "verb", "rest", "other"), PUBLISHED)
@pytest.mark.parametrize("end", [" in the image ?", " in the image?"])
def test_the_published_questions(subject, verb, rest, other, end):
    article = "an" if subject[0] in "aeiou" else "a"
    question = f"Does {article} {subject} {verb} {rest}{end}"
    assert replace_verb(question, other) == f"Does {article} {subject} {other} {rest}{end}"


@pytest.mark.parametrize(
    "question",
    [
        "Does a young man hold a bat in the image?",
        "Does a man look at a bat in the image?",
        "Is the man holding a bat?",
        "Does a man sit in the image?",
        "What is this?",
    ],
)
def test_a_verb_that_cannot_be_placed_is_refused(question):
    with pytest.raises(ValueError, match="cannot be located"):
        replace_verb(question, "see")


def test_both_formats_and_empty_lines(folder):
    own = {**ROW, "contrastive": "Does a man see a bat in the image ?"}
    published = {**ROW, "question_id": "ars000", "label": "yes", "answer": "kick"}
    first, second = load_pairs(write(folder, own, "", published), folder)
    assert first.contrastive == own["contrastive"]
    assert first.id == "line 1"
    assert second.contrastive == "Does a man kick a bat in the image ?"
    assert second.id == "ars000"
    assert second.image == folder / "1.png"


def test_what_editors_leave_in_files(folder):
    """A byte order mark at the start, Windows' line ends, and a line separator inside a text."""
    rows = [{**ROW, "contrastive": f"Does a man {verb}\u2028 a bat ?"} for verb in ("see", "kick")]
    text = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (folder / "p.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [pair.contrastive for pair in load_pairs(folder / "p.jsonl", folder)] == [
        row["contrastive"] for row in rows
    ]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{", "is not JSON"),
        ("[1]", "a list: expected a JSON object"),
        ({"question": ROW["question"], "answer": "see"}, "'image' is None"),
        ({**ROW, "image": 3, "answer": "see"}, "'image' is 3"),
        ({"image": "1.png", "answer": "see"}, "'question' is None"),
        ({**ROW, "question": " ", "answer": "see"}, "'question' is ' '"),
        (ROW, "neither 'contrastive' nor 'answer' among image, question"),
        ({**ROW, "answer": ""}, "'answer' is ''"),
        ({**ROW, "question": "What is it?", "answer": "see"}, "cannot be located"),
        ({**ROW, "answer": "hold"}, "expected texts that differ in the verb"),
        ({**ROW, "contrastive": ROW["question"]}, "expected texts that differ in the verb"),
        ({**ROW, "image": "2.png", "answer": "see"}, r"no image at .*2\.png"),
    ],
)
def test_a_malformed_line_is_named(folder, row, says):
    path = write(folder, {**ROW, "answer": "see"}, row)
    with pytest.raises(ValueError, match=rf"pairs\.jsonl line 2.*{says}"):
        load_pairs(path, folder)


@pytest.mark.parametrize("name", ["../secret.png", "a/../../secret.png", "..\\secret.png", "/"])
def test_an_image_is_never_read_from_elsewhere(tmp_path, name):
    folder = tmp_path / "images"
    folder.mkdir()
    IMAGES[2].save(folder / "1.png")
    Image.new("RGB", (8, 8)).save(folder.parent / "secret.png")
    absolute = str(folder.parent / "secret.png")
    (folder / "link.png").symlink_to(absolute)
    (folder / "within.png").symlink_to(folder / "1.png")
    for image in (name, absolute):
        path = write(folder, {**ROW, "image": image, "answer": "see"})
        with pytest.raises(ValueError, match=r"line 1: .* does not name a"):
            load_pairs(path, folder)
    path = write(folder, {**ROW, "image": "link.png", "answer": "see"})
    with pytest.raises(ValueError, match=r"line 1: .*link\.png is a link to a file outside of"):
        load_pairs(path, folder)
    path = write(folder, {**ROW, "image": "within.png", "answer": "see"})
    assert [pair.image for pair in load_pairs(path, folder)] == [folder / "within.png"]


def test_missing_files(folder):
    path = write(folder, "")
    with pytest.raises(ValueError, match="is empty"):
        load_pairs(path, folder)
    with pytest.raises(ValueError, match="no pairs at"):
        load_pairs(folder / "other.jsonl", folder)
    with pytest.raises(ValueError, match="no folder"):
        load_pairs(path, folder / "other")
    (folder / "pairs.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        load_pairs(path, folder)


def test_decisions(folder):
    """Rejected pairs never count; those that nobody looked at count unless reviewed ones are wanted."""
    rows = [
        {**ROW, "id": str(decision), "answer": "see", "decision": decision}
        for decision in ("accepted", "rejected", "edited", None)
    ]
    path = write(folder, *rows, {**ROW, "id": "new", "answer": "see"})
    assert [pair.id for pair in load_pairs(path, folder)] == ["accepted", "edited", "None", "new"]
    reviewed = load_pairs(path, folder, reviewed=True)
    assert [pair.id for pair in reviewed] == ["accepted", "edited"]


def test_nothing_but_rejected_or_waiting_pairs(folder):
    path = write(folder, {**ROW, "answer": "see", "decision": "rejected"})
    with pytest.raises(ValueError, match="holds 1 pair, none of them not rejected: expected at"):
        load_pairs(path, folder)
    path = write(folder, {**ROW, "answer": "see"})
    with pytest.raises(ValueError, match="none of them accepted or edited: expected at"):
        load_pairs(path, folder, reviewed=True)
    path = write(folder, {**ROW, "answer": "see", "decision": "maybe"})
    with pytest.raises(
        ValueError, match="line 1: 'decision' is 'maybe': expected accepted, edited"
    ):
        load_pairs(path, folder)
