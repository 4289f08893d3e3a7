"""Pictures, lengths and texts out of bounds are refused before the work, and cost a run one row."""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tiny_models import IMAGES, QUESTIONS, build

from rvelens import HookedLVLM
from rvelens.benchmarks import load_benchmark
from rvelens.benchmarks.files import photograph
from rvelens.evaluate import Decoding, evaluate
from rvelens.evaluate.answering import answer_items, backing_off
from rvelens.interventions.methods import METHODS, make_method
from rvelens.model.hooked_lvlm import TINY
from rvelens.model.limits import UnaskableError, check_length, n_positions
from rvelens.model.prompts import load_image

DECODING = Decoding(max_new_tokens=2)


@pytest.fixture(scope="module")
def tiny():
    return HookedLVLM.from_pretrained(TINY)


def png(path, width, height):
    """A PNG of one colour, whose pixels are nothing but zeros."""

    def chunk(kind, data):
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((width + 1) * min(height, 1000)), 9)
    data = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("size", "match"),
    [
        ((1, 400_000), r"1 x 400000 pixels: expected 1 to 32768 on each side"),
        ((400_000, 1), r"400000 x 1 pixels: expected 1 to 32768 on each side"),
        ((1, 30_000), r"1 x 30000 pixels: expected the longer side to be at most 200 times"),
        ((201, 1), r"201 x 1 pixels: expected the longer side to be at most 200 times"),
        ((30_000, 30_000), r"exceeds limit"),  # as Pillow says by itself
        ((12_000, 12_000), r"and at most 89478485 in all"),  # and warns of this one
    ],
)
def test_pictures_out_of_bounds(tmp_path, size, match):
    path = png(tmp_path / "a.png", *size)
    with pytest.raises(UnaskableError, match=match):
        load_image(path)
    if size[0] * size[1] < 10**7:
        with pytest.raises(UnaskableError, match=match):
            load_image(Image.new("L", size))


def test_pictures_within_bounds(tmp_path):
    for size in ((1, 1), (200, 1), (1, 200), (3, 600)):
        assert load_image(png(tmp_path / "a.png", *size)).size == size


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_a_pipe_or_a_device_is_not_read(tmp_path, make):
    path = tmp_path / "a.png"
    make(path)
    with pytest.raises(
        ValueError, match="is a pipe, a device or a socket: expected a regular file"
    ):
        load_image(path)


def test_want_of_memory_is_said_of_the_picture(monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr("rvelens.model.prompts._decoded", full)
    with pytest.raises(UnaskableError, match="needs more memory than there is"):
        load_image(IMAGES[0])


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ({"max_position_embeddings": 512}, 512),
        ({}, None),
        ({"max_position_embeddings": None}, None),
        ({"max_position_embeddings": 512, "rope_parameters": {"rope_type": "default"}}, 512),
        (
            {
                "max_position_embeddings": 512,
                "rope_parameters": {"rope_type": "linear", "factor": 4.0},
            },
            2048,
        ),
        (
            {
                "max_position_embeddings": 2048,
                "rope_scaling": {
                    "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512,
                },
            },
            2048,
        ),
        (
            {
                "max_position_embeddings": 512,
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "factor": 8.0},
                    "sliding_attention": {"rope_type": "default"},
                },
            },
            4096,
        ),
    ],
)  # fmt: skip
def test_positions_of_a_configuration(text, limit):
    config = SimpleNamespace(get_text_config=lambda decoder: SimpleNamespace(**text))
    assert n_positions(config) == limit


def test_padding_is_no_length(tiny):
    mask = torch.zeros(2, 600, dtype=torch.long)
    mask[:, -500:] = 1
    config = tiny.hf_model.config
    check_length(config, {"input_ids": mask, "attention_mask": mask}, 12)
    with pytest.raises(
        UnaskableError, match="500 tokens and 13 to generate, and the model 512 posi"
    ):
        check_length(config, {"input_ids": mask, "attention_mask": mask}, 13)
    with pytest.raises(
        UnaskableError, match="a prompt has 600 tokens, and the model 512 positions"
    ):
        check_length(config, {"input_ids": mask})


LONG = "does a man hold a bat " * 250 + "?"


def test_a_question_longer_than_the_positions_is_refused_everywhere(tiny):
    image = IMAGES[0]
    for ask in (tiny.prepare, tiny.ask, partial(tiny.ask, max_new_tokens=2)):
        with pytest.raises(UnaskableError, match=r"tokens.*, and the model 512 positions"):
            ask(image, LONG)
    with pytest.raises(UnaskableError, match="and 500 to generate, and the model 512 positions"):
        tiny.ask(image, "does a man hold a bat ?", max_new_tokens=500)


def test_the_q_former_has_positions_of_its_own():
    hf_model, processor = build("instructblip")
    model = HookedLVLM.from_pretrained(hf_model, processor=processor, family="instructblip")
    limit = hf_model.config.qformer_config.max_position_embeddings
    ones = torch.ones(1, limit + 1, dtype=torch.long)
    inputs = {"input_ids": ones[:, :3], "qformer_attention_mask": ones}
    with pytest.raises(
        UnaskableError, match=f"{limit + 1} tokens, and the Q-Former {limit} positi"
    ):
        check_length(model.hf_model.config, inputs)


@pytest.mark.parametrize("text", ["<image>", "a <image> b", "</s>", "is <image><image> it?"])
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3", "idefics3", "instructblip"])
def test_a_question_that_holds_a_token_of_the_prompt(family, text):
    hf_model, processor = build(family)
    model = HookedLVLM.from_pretrained(hf_model, processor=processor, family=family)
    from rvelens.model.prompts import image_text

    text = text.replace("<image>", image_text(model.family, processor) or "<image>")
    if text == "</s>" and "</s>" not in processor.tokenizer.all_special_tokens:
        text = processor.tokenizer.eos_token
    with pytest.raises(
        UnaskableError, match=r"a question holds .*, a special token of the model: expected"
    ):
        model.prepare(IMAGES[0], text)


# -- one row does not end a run ---------------------------------------------------------------------


def photographs(folder):
    """Questions about files, good and bad, by what is wrong."""
    IMAGES[0].save(folder / "good.png")
    png(folder / "tall.png", 1, 400_000)
    png(folder / "thin.png", 1, 30_000)
    png(folder / "bomb.png", 30_000, 30_000)
    os.mkfifo(folder / "pipe.png")
    (folder / "torn.png").write_bytes((folder / "good.png").read_bytes()[:60])
    (folder / "folder.png").mkdir()
    made = {}
    for name in ("good", "tall", "thin", "bomb", "pipe", "torn", "folder", "gone"):
        path, rest = folder / f"{name}.png", {"source": name, "reference": None, "group": ""}
        made[name] = photograph(
            path, id=name, image=name, text="Does a man hold a bat?", truth=True, **rest
        )
    made["long"] = replace(made["good"], id="long", text=LONG)
    made["token"] = replace(made["good"], id="token", text="Is there an <image> here?")
    made["other"] = replace(made["good"], id="other", text="Does a man kick a bat?")
    return made


@pytest.mark.parametrize("name", METHODS)
def test_rows_that_cannot_be_asked_are_counted_and_the_others_go_on(tiny, tmp_path, name):
    from rvelens import ARSProfile

    items = photographs(tmp_path)
    scenes = load_benchmark("action-scenes", limit=1)
    photos = replace(scenes, name="photos", items=tuple(items.values()))
    method = make_method(name, tiny, ARSProfile.load("rvelens/tiny"))
    out = tmp_path / "run"
    report = evaluate(tiny, [photos], [method], out, decoding=DECODING, batch_size=4)
    result = report["benchmarks"]["photos"]
    assert (result["questions"], result["left_out"]) == (2, len(items) - 2)
    reasons = "\n".join(report["input"]["photos"]["unreadable"])
    for part in (
        "400000 pixels", "1 x 30000 pixels", "a pipe", "torn.png", "folder.png", "no image at",
        "512 positions", "a question holds '<image>'", "bomb.png",
    ):  # fmt: skip
        assert part in reasons
    again = evaluate(tiny, [photos], [method], out, decoding=DECODING, batch_size=4)
    assert again == report
    assert "reasons why questions could not be asked" in (out / "report.md").read_text()


class NeedsMemory:
    """Replaces `answer`; raises `error` for more than `holds` questions."""

    def __init__(self, holds, error):
        self.holds, self.error, self.sizes = holds, error, []

    def __call__(self, model, method, images, questions, *_):
        self.sizes.append(len(questions))
        if len(questions) > self.holds or QUESTIONS[0] in questions[0]:
            raise self.error
        return [("Yes", 0.0) for _ in questions]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
)
def test_want_of_memory_halves_the_batch_and_then_costs_one_row(tiny, monkeypatch, error):
    needs = NeedsMemory(2, error)
    monkeypatch.setattr("rvelens.evaluate.answering.answer", needs)
    scenes = load_benchmark("action-scenes", limit=4).items
    items = [replace(scenes[0], text=QUESTIONS[0]), *scenes[1:]]
    ask = partial(answer_items, tiny, [make_method("vanilla", tiny)], decoding=DECODING)
    said, size = backing_off(ask, items, 4)
    assert [one.error is None for (one,) in said] == [False, True, True, True]
    assert said[0][0].error == "there is not enough memory for this question alone"
    assert size == 1
    assert needs.sizes[:3] == [4, 2, 1]


def test_an_error_of_a_hook_still_ends_a_run(tiny):
    def broken(scores, hook):
        raise TypeError("a mistake in a hook")

    from rvelens.interventions.methods import Method

    method = Method("own", {}, (("blocks.3.attn.hook_attn_scores", broken),))
    items = load_benchmark("action-scenes", limit=2).items
    with pytest.raises(TypeError, match="a mistake in a hook"):
        answer_items(tiny, [method], items, DECODING)
