"""POPE from the Hub: local parquet files, a stand-in for the Hub, and the cache without a network."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import datasets
import pytest
from hub_server import COMMIT, serving
from PIL import Image

from rvelens.benchmarks import BENCHMARKS, hub, load_benchmark
from rvelens.cli import main

COPY = hub.Copy("lmms-lab/POPE", COMMIT, "Full/random*.parquet")
COLORS = ("red", "green", "blue")


def png(color):
    file = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(file, "PNG")
    return file.getvalue()


def rows(n=6, **changes):
    """Rows in the columns that the copy of POPE has."""
    return [
        {
            "id": str(k), "question_id": str(k + 1), "question": f"Is there a car {k} in the image?",
            "answer": ("yes", "no")[k % 2], "image_source": f"COCO_val2014_{k // 2:012}",
            "image": {"bytes": png(COLORS[k // 2 % 3]), "path": None}, "category": "random",
            **changes,
        }
        for k in range(n)
    ]  # fmt: skip


def write(path, some):
    """Parquet with an image column, as a data set that was pushed has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = datasets.Dataset.from_list(some)
    if "image" in table.column_names:
        table = table.cast_column("image", datasets.Image())
    table.to_parquet(path)
    return path


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def test_rows_are_popes_questions_with_their_images(tmp_path):
    path = write(tmp_path / "random.parquet", rows())
    found = hub.read_copy("pope-random", COPY, [path])
    assert found.problems == ()
    first = found.items[0]
    assert (first.id, first.text, first.truth) == ("1", "Is there a car 0 in the image?", True)
    assert first.image == first.source == "COCO_val2014_000000000000.jpg"
    assert [item.truth for item in found.items] == [True, False] * 3
    assert first.load().getpixel((0, 0)) == (255, 0, 0)
    assert found.items[5].load().getpixel((0, 0)) == (0, 0, 255)
    assert found.published == 3000
    ((name, digest),) = found.files.items()
    assert name == f"lmms-lab/POPE@{COMMIT}/random.parquet"
    assert len(digest) == 64


def test_the_questions_are_those_of_the_published_file(tmp_path):
    """The same ids, texts, truths and names of images as from a folder."""
    found = hub.read_copy("pope-random", COPY, [write(tmp_path / "r.parquet", rows())])
    lines = [
        {
            "question_id": int(i.id),
            "image": i.image,
            "text": i.text,
            "label": "yes" if i.truth else "no",
        }
        for i in found.items
    ]
    (tmp_path / "coco_pope_random.json").write_text("".join(json.dumps(x) + "\n" for x in lines))
    other = load_benchmark("pope-random", tmp_path)
    for one, two in zip(found.items, other.items, strict=True):
        assert (one.id, one.image, one.text, one.truth) == (two.id, two.image, two.text, two.truth)


def test_malformed_rows_and_pictures_are_named(tmp_path):
    some = [*rows(2), *rows(1, question_id="9", answer="perhaps")]
    some += rows(1, question_id="7", image={"bytes": b"no image", "path": None})
    path = tmp_path / "random.parquet"
    datasets.Dataset.from_list(some).to_parquet(path)
    found = hub.read_copy("pope-random", COPY, [path])
    assert found.problems == (
        "lmms-lab/POPE row 3: 'answer' is 'perhaps': expected yes or no; correct the row.",
    )
    with pytest.raises(ValueError, match=r"row 4: COCO_val2014_0+\.jpg cannot be read as an image"):
        found.items[-1].load()


def test_other_columns_and_files_are_refused(tmp_path):
    some = [{k: v for k, v in row.items() if k != "answer"} for row in rows()]
    path = write(tmp_path / "random.parquet", some)
    with pytest.raises(ValueError, match=r"lmms-lab/POPE has no column answer, only .*question"):
        hub.read_copy("pope-random", COPY, [path])
    path.write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"random\.parquet cannot be read as parquet: expected"):
        hub.read_copy("pope-random", COPY, [path])


def test_all_numbered_files_must_be_there(tmp_path):
    for name in ("random-00000-of-00002.parquet", "random-00001-of-00002.parquet"):
        assert hub._whole(tmp_path, COPY) == []
        (tmp_path / "Full").mkdir(exist_ok=True)
        (tmp_path / "Full" / name).touch()
    assert len(hub._whole(tmp_path, COPY)) == 2


@pytest.mark.parametrize("name", [n for n in BENCHMARKS if not n.startswith(("pope", "action"))])
def test_where_no_copy_is_read_the_archives_are_named(name):
    with pytest.raises(ValueError, match=r"has no copy on the Hub that is read") as error:
        load_benchmark(name, "hub")
    assert "into DATA/" in str(error.value)
    assert "https://" in str(error.value)
    assert ("qgallouedec/amber" in str(error.value)) is name.startswith("amber")


def test_every_copy_is_pinned_to_a_commit():
    for name, copy in hub.COPIES.items():
        assert len(copy.revision) == 40
        assert name in BENCHMARKS


def test_drawn_scenes_need_no_hub():
    assert load_benchmark("action-scenes", "hub", n=4).items


CODE = """
import json
from rvelens.benchmarks import hub, load_benchmark
hub.COPIES = {"pope-random": hub.Copy("lmms-lab/POPE", "a" * 40, "Full/random*.parquet")}
try:
    found = load_benchmark("pope-random", "hub", limit=4)
    print(json.dumps([[i.id, i.load().size] for i in found.items]))
except ValueError as error:
    print(error)
"""


def in_a_process(home, endpoint, **environment):
    settings = {
        "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=False,
        env={**os.environ, **settings, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_a_copy_is_fetched_once_and_then_read_without_a_network(tmp_path):
    content = write(tmp_path / "random.parquet", rows()).read_bytes()
    with serving() as server:
        server.repos["lmms-lab/POPE"] = {
            "Full/random-00000-of-00001.parquet": content,
            "Full/popular-00000-of-00001.parquet": b"not asked for",
        }
        first = in_a_process(tmp_path / "home", server.address)
        asked = [path for _, path, _ in server.asked]
    assert len(json.loads(first)) == 4
    assert any(path.endswith("Full/random-00000-of-00001.parquet") for path in asked)
    assert not any("popular" in path for path in asked)
    closed = "http://127.0.0.1:9"  # nobody answers there
    assert in_a_process(tmp_path / "home", closed) == first


def test_without_a_network_and_a_cache_it_is_one_sentence(monkeypatch):
    def refused(*args, **options):
        raise OSError("no route to host.\nmore")

    monkeypatch.setattr(hub.huggingface_hub, "snapshot_download", refused)
    with pytest.raises(
        ValueError, match=r"POPE cannot be fetched from the Hub \(no route to host\):"
    ):
        load_benchmark("pope-random", "hub")


def test_a_snapshot_that_lacks_a_file_is_fetched_again(tmp_path, monkeypatch):
    (tmp_path / "Full").mkdir()
    (tmp_path / "Full" / "random-00000-of-00002.parquet").touch()
    calls = []

    def snapshot(local_files_only=False, **options):
        calls.append((local_files_only, options["revision"], options["allow_patterns"]))
        return str(tmp_path)

    monkeypatch.setattr(hub.huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(ValueError, match=r"at aaaaaaa has no whole Full/random\*\.parquet"):
        hub.fetch(COPY)
    assert calls == [(True, COMMIT, [COPY.files]), (False, COMMIT, [COPY.files])]
    (tmp_path / "Full" / "random-00001-of-00002.parquet").touch()
    assert len(hub.fetch(COPY)) == 2
    assert calls[2:] == [(True, COMMIT, [COPY.files])]


def test_eval_and_reproduce_take_the_copy(tmp_path, monkeypatch, capsys):
    path = write(tmp_path / "random.parquet", rows())

    def fetch(copy):
        if "random" in copy.files:
            return [path]
        raise ValueError("no network.")

    monkeypatch.setattr(hub, "fetch", fetch)
    monkeypatch.chdir(tmp_path)
    model = ("rvelens/tiny", "--data", "hub", "--prompt", "chat", "--json")
    with pytest.raises(SystemExit) as end:
        main(["eval", *model, "--benchmark", "pope-random", "--out", "run"])
    assert end.value.code in (None, 0)
    report = json.loads(capsys.readouterr().out)
    assert report["benchmarks"]["pope-random"]["questions"] == 6
    with pytest.raises(SystemExit) as end:
        main(["reproduce", *model, "--table", "3", "4", "--out", "out"])
    assert end.value.code in (None, 0)
    whole = json.loads(capsys.readouterr().out)
    reasons = {row["of"]: row["reason"] for row in whole["rows"]}
    assert reasons["pope-random"] == ""
    assert reasons["pope-popular"] == "no network."
    assert "into DATA/mmrel/vg" in reasons["mmrel-real"]
