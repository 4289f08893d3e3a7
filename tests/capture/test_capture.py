"""Captured tensors are those of run_with_cache, to the bit; runs go on, and are read back lazily."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from rvelens import HookedLVLM
from rvelens.benchmarks import load_benchmark, load_questions
from rvelens.cli import main
from rvelens.evaluate.answering import batches
from rvelens.evaluate.capture import CaptureRequest, capture, estimate_size, open_capture
from rvelens.evaluate.capture.points import matching_points, rounded
from rvelens.evaluate.capture.run import Captured, check_disk_space
from rvelens.evaluate.processes import Processes
from rvelens.model.hooked_lvlm import TINY

POINTS = (
    "hook_resid_post",
    "attn.hook_pattern",
    "attn.hook_attn_scores",
    "attn.hook_z",
    "hook_embed",
)


@pytest.fixture(scope="module")
def tiny():
    return HookedLVLM.from_pretrained(TINY)


@pytest.fixture(scope="module")
def scenes():
    """Five questions of different lengths, two of them about one picture."""
    items = load_benchmark("action-scenes", n=5).items
    texts = ["Is it?", *(item.text for item in items[1:4]), f"{items[4].text} Really?"]
    same = {"image": items[0].image, "load": items[0].load}
    changed = [replace(item, text=text) for item, text in zip(items, texts, strict=True)]
    changed[3] = replace(changed[3], **same)
    return load_benchmark("action-scenes", n=5).keep(changed)


def literal(model, items, rows):
    """By id and point, from run_with_cache of one batch and a loop over what is no padding."""
    inputs = model.prepare([item.load() for item in items], [item.text for item in items])
    model.query_rows = rows
    with torch.no_grad():
        _, cache = model.run_with_cache(**inputs, logits_to_keep=1)
    model.query_rows = "last"
    found = {}
    for n, item in enumerate(items):
        mask = inputs["attention_mask"][n].tolist()
        own = [k for k, real in enumerate(mask) if real]
        found[item.id, "input_ids"] = inputs["input_ids"][n, own]
        for name in cache:
            x = cache[name][n]
            if name.endswith(("hook_pattern", "hook_attn_scores")):
                picked = x[:, 0] if rows == "last" else x[:, own]
                found[item.id, name] = picked[..., own]
            else:
                found[item.id, name] = x[own[-1]] if rows == "last" else x[own]
    return found


@pytest.mark.parametrize("rows", ["last", "all"])
def test_every_tensor_is_that_of_run_with_cache(tiny, scenes, tmp_path, rows):
    wanted = CaptureRequest(POINTS, (1, 3), rows)
    index = capture(tiny, scenes, wanted, tmp_path, batch_size=3)
    found = open_capture(tmp_path)
    assert list(found) == [item.id for batch in batches(scenes.items, 3) for item in batch]
    assert found.points == matching_points(tiny, POINTS, (1, 3))
    assert len(found.points) == 9
    for short, name in (("pattern", "attn.hook_pattern"), ("resid_post", "hook_resid_post")):
        for given in (short, name, name.rpartition(".")[2]):
            assert matching_points(tiny, [given], (1, 3)) == [f"blocks.{n}.{name}" for n in (1, 3)]
    assert matching_points(tiny, ["embed"]) == ["hook_embed"]
    n_bytes = 0
    for batch in batches(scenes.items, 3):
        expected = literal(tiny, batch, rows)
        for item in batch:
            assert torch.equal(found.input_ids(item.id), expected[item.id, "input_ids"])
            is_image = found.input_ids(item.id) == tiny.image_token_id
            assert torch.equal(found.is_image(item.id), is_image)
            n_bytes += 9 * len(is_image)
            for point in found.points:
                ours = found.tensor(item.id, point)
                assert ours.dtype == expected[item.id, point].dtype
                assert torch.equal(ours, expected[item.id, point]), (item.id, point)
                n_bytes += ours.numel() * ours.element_size()
    frame = found.questions
    assert list(frame["n_tokens"]) == [len(found.input_ids(name)) for name in found]
    stored = pd.read_parquet(index) if index.suffix == ".parquet" else pd.read_csv(index)
    assert list(stored["id"]) == list(frame["id"])
    about = estimate_size(tiny, scenes, wanted, 5)
    assert about == Captured(5, 1, about.n_bytes, 9)
    assert about.n_bytes == pytest.approx(n_bytes, rel=0.01)


def test_a_run_goes_on_and_refuses_other_settings(tiny, scenes, tmp_path, monkeypatch):
    wanted = CaptureRequest(("hook_resid_post",))
    capture(tiny, scenes, wanted, tmp_path, batch_size=2)
    paths = sorted(tmp_path.glob("shard-*"))
    before = {path.name: path.read_bytes() for path in paths}
    assert len(before) == 3
    paths[1].unlink()
    assert len(list(open_capture(tmp_path))) == 3
    calls = []
    run_with_cache = HookedLVLM.run_with_cache

    def counted(*args, **options):
        calls.append(1)
        return run_with_cache(*args, **options)

    monkeypatch.setattr(HookedLVLM, "run_with_cache", counted)
    capture(tiny, scenes, wanted, tmp_path, batch_size=2)
    assert calls == [1]
    assert {path.name: path.read_bytes() for path in paths} == before
    with pytest.raises(ValueError, match=r"capture\.rows was \"last\" and is \"all\""):
        capture(tiny, scenes, replace(wanted, rows="all"), tmp_path, batch_size=2)
    paths[0].write_bytes(b"torn")
    with pytest.raises(ValueError, match="is not a shard of captured tensors"):
        open_capture(tmp_path)


def test_questions_that_cannot_be_asked_are_named_and_tried_again(tiny, scenes, tmp_path):
    def missing():
        raise ValueError("no image yet")

    late = scenes.keep([replace(scenes.items[0], image="x", load=missing), *scenes.items[1:]])
    wanted = CaptureRequest(("hook_resid_post",), (2,))
    capture(tiny, late, wanted, tmp_path)
    found = open_capture(tmp_path)
    assert len(list(found)) == 4
    first = scenes.items[0].id
    assert found.questions.set_index("id").loc[first, "error"] == "no image yet"
    with pytest.raises(ValueError, match=rf"nothing was captured of '{first}' \(no image yet\)"):
        found.tensor(first, found.points[0])
    there = scenes.keep([replace(scenes.items[0], image="x"), *scenes.items[1:]])
    capture(tiny, there, wanted, tmp_path)
    assert len(list(open_capture(tmp_path))) == 5
    nothing = scenes.keep([replace(item, load=missing) for item in scenes.items])
    with pytest.raises(ValueError, match=r"none of the first 5 questions .* can be asked"):
        estimate_size(tiny, nothing, wanted)


def test_precision(tiny, scenes, tmp_path):
    capture(tiny, scenes, CaptureRequest(("hook_resid_post",), (1,)), tmp_path / "auto")
    capture(
        tiny, scenes, CaptureRequest(("hook_resid_post",), (1,), dtype="float16"), tmp_path / "half"
    )
    whole, half = open_capture(tmp_path / "auto"), open_capture(tmp_path / "half")
    for name in whole:
        x, y = (one.tensor(name, "blocks.1.hook_resid_post") for one in (whole, half))
        assert torch.equal(x.half(), y)
    with pytest.raises(ValueError, match=r"p holds 1e\+05, which torch.float16 cannot: expected"):
        rounded("p", torch.tensor([1.0, -1e5]), torch.float16)
    hidden = rounded("p", torch.tensor([1.0, torch.finfo(torch.float32).min]), torch.float16)
    assert hidden.tolist() == [1.0, -torch.inf]


def test_reading_is_lazy(tiny, scenes, tmp_path, monkeypatch):
    capture(tiny, scenes, CaptureRequest(("hook_resid_*",)), tmp_path)
    found, read = open_capture(tmp_path), []

    class Noted:
        def __init__(self, *args, **options):
            self.opened = safe_open(*args, **options)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def get_tensor(self, name):
            read.append(name)
            return self.opened.get_tensor(name)

    monkeypatch.setattr("rvelens.evaluate.capture.read.safe_open", Noted)
    found.tensor(next(iter(found)), "blocks.0.hook_resid_post")
    assert len(read) == 1


def test_without_pyarrow_the_index_is_csv(tiny, scenes, tmp_path, monkeypatch):
    monkeypatch.setattr("rvelens.evaluate.capture.run.find_spec", lambda name: None)
    index = capture(tiny, scenes, CaptureRequest(("hook_embed",)), tmp_path)
    assert index is not None
    assert list(pd.read_csv(index)["id"]) == list(open_capture(tmp_path))


def test_refusals(tiny, scenes, tmp_path):
    for points, said in (
        (("hook_nowhere",), "points 'hook_nowhere' match none of the"),
        (("hook_image_features",), "has rows of images and not of questions"),
        (("vision.blocks.0.hook_resid_post",), "has rows of images and not of questions"),
    ):
        with pytest.raises(ValueError, match=said):
            capture(tiny, scenes, CaptureRequest(points), tmp_path / "none")
    for options, said in (
        ({"rows": "first"}, "rows='first': expected one of last, all"),
        ({"dtype": "int8"}, "dtype='int8': expected one of auto, float32"),
    ):
        with pytest.raises(ValueError, match=said):
            CaptureRequest(("hook_embed",), **options)
    with pytest.raises(ValueError, match=r"points 'a b': expected names of hook points"):
        CaptureRequest(("a b",))
    with (
        tiny.hooks([("blocks.0.hook_resid_post", lambda x, hook: x)]),
        pytest.raises(
            ValueError, match="hooks are on, and the manifest of a capture does not record them"
        ),
    ):
        capture(tiny, scenes, CaptureRequest(("hook_embed",)), tmp_path / "none")
    outside = CaptureRequest(("hook_resid_post",), layers=(2, 9))
    with pytest.raises(
        ValueError,
        match=r"layers \[9\] for a model of 6 layers: expected layers from 0 to 5; choose",
    ):
        capture(tiny, scenes, outside, tmp_path / "none")
    with pytest.raises(ValueError, match="no capture in"):
        open_capture(tmp_path / "none")
    with pytest.raises(ValueError, match=r"about 1e\+06 TB in 1 shard, and .* GB free"):
        check_disk_space(tmp_path, Captured(1, 1, 10**18, 1))
    capture(tiny, scenes, CaptureRequest(("hook_embed",)), tmp_path / "some")
    found = open_capture(tmp_path / "some")
    with pytest.raises(ValueError, match=r"no point 'x' in .*: expected one of hook_embed"):
        found.tensor(next(iter(found)), "x")
    with pytest.raises(ValueError, match=r"no question 'x' in .*: expected one of its 5 ids"):
        found.tensor("x", "hook_embed")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for n in range(3):
        Image.new("RGB", (32, 32), (50 * n, 0, 0)).save(tmp_path / f"{n}.png")
    rows = [{"image": f"{n}.png", "question": "Is it?", "label": "no"} for n in (0, 1, 2)]
    pd.DataFrame([*rows, {"image": "4.png"}]).to_csv("my.csv", index=False)
    return tmp_path


COMMAND = ("capture", "rvelens/tiny", "--points", "hook_resid_post", "--questions", "my.csv")


def test_the_command_prints_the_size_first(folder, capsys):
    with pytest.raises(SystemExit) as end:
        main([*COMMAND, "--layers", "1-2", "--out", "kept", "--store-dtype", "bfloat16"])
    said = capsys.readouterr()
    assert end.value.code in (None, 0), said.err
    lines = said.err.splitlines()
    assert lines[0].startswith("rvelens: my: 3 questions about 3 images")
    assert "left out: my.csv line 5: no image '4.png'" in lines[1]
    assert lines[2].startswith("rvelens: 2 hook points of 3 questions: about ")
    assert lines[2].endswith("kB in 1 shard")
    assert "tensors in kept, index in kept/index" in said.out
    found = open_capture(folder / "kept")
    assert found.tensor("2", "blocks.1.hook_resid_post").dtype == torch.bfloat16
    assert json.loads((folder / "kept" / "manifest.json").read_text())["capture"]["layers"] == [
        1,
        2,
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--benchmark", "action-scenes"), "capture with 2 sets of questions: expected one"),
        (("--layers", "2-1"), "layers '2-1': the range"),
        (("--layers", "99"), "expected layers from 0 to"),
        (("--rows", "first"), "rows='first': expected one of last, all"),
    ],
)
def test_mistakes_are_one_sentence(folder, capsys, words, said):
    with pytest.raises(SystemExit) as end:
        main([*COMMAND, *words, "--out", "kept"])
    err = capsys.readouterr().err
    assert end.value.code == 2
    assert said in err.splitlines()[-1]


def test_two_processes_share_the_batches(tiny, scenes, tmp_path, monkeypatch):
    """The second one first, since they run here one after the other."""
    wanted, together, written = (
        CaptureRequest(("hook_resid_post",), (1,)),
        tmp_path / "together",
        [],
    )
    monkeypatch.setattr("rvelens.evaluate.capture.run.meet", lambda here: None)
    for rank in (1, 0):
        monkeypatch.setattr("rvelens.evaluate.capture.run.processes", partial(Processes, rank, 2))
        index = capture(tiny, scenes, wanted, together, batch_size=2)
        written.append(len(list(together.glob("shard-*"))))
        assert (index is None) == (rank == 1)
    assert written == [1, 3]
    monkeypatch.undo()
    capture(tiny, scenes, wanted, tmp_path / "alone", batch_size=2)
    here, there = open_capture(together), open_capture(tmp_path / "alone")
    assert list(here) == list(there)
    for name in there:
        x, y = (one.tensor(name, "blocks.1.hook_resid_post") for one in (here, there))
        assert torch.equal(x, y)


def test_own_questions_go_in(tiny, folder):
    with pytest.warns(UserWarning, match="1 row left out"):
        found = load_questions(folder / "my.csv")
    capture(tiny, found, CaptureRequest(("ln_final.hook_scale",)), folder / "kept")
    assert len(open_capture(folder / "kept")) == 3
