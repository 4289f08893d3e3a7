"""What is taken as an image, as a pair and as a conversation; what a family cannot do is refused."""

from __future__ import annotations

import copy
import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from family_cases import CASES, IMAGES, QUESTIONS, hooked
from PIL import Image

from rvelens import ContrastivePair, score_heads
from rvelens.evaluate.answering import answer
from rvelens.interventions.methods import make_method
from rvelens.model.prompts import image_text, load_image
from rvelens.scores.heads import pairs_of

pytestmark = pytest.mark.slow

PICTURE = IMAGES[0]


def unchecked(function):
    """The function without the type check of the tests, as users have it."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function


ARRAY = np.asarray(PICTURE)


def as_file(image=PICTURE):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file


FORMS = {
    "array": ARRAY,
    "real array": ARRAY / 255,
    "tensor": torch.from_numpy(ARRAY.copy()).permute(2, 0, 1),
    "real tensor": torch.from_numpy(ARRAY.copy()).permute(2, 0, 1).float() / 255,
    "file": as_file(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_picture(form):
    assert np.array_equal(np.asarray(load_image(FORMS[form])), ARRAY)
    assert np.array_equal(np.asarray(load_image(FORMS[form])), ARRAY)  # a file is read again


def test_grey_and_transparent_pictures():
    grey = np.asarray(PICTURE.convert("L"))
    expected = np.asarray(PICTURE.convert("L").convert("RGB"))
    for form in (grey, grey[..., None], torch.from_numpy(grey.copy()), torch.tensor(grey[None])):
        assert np.array_equal(np.asarray(load_image(form)), expected)
    clear = np.dstack([ARRAY, np.zeros(ARRAY.shape[:2], np.uint8)])
    assert np.array_equal(np.asarray(load_image(clear)), ARRAY)


MISTAKES = {
    "channels first": (
        np.zeros((3, 32, 40), np.uint8),
        r"a ndarray of shape \(3, 32, 40\): expected",
    ),
    "channels last": (
        torch.zeros(32, 40, 3),
        r"\(32, 40, 3\): expected \[height width\] or \[channel",
    ),
    "a batch": (
        torch.zeros(1, 3, 32, 32),
        "with 1, 3 or 4 channels; move its axes, or give images one",
    ),
    "normalised": (
        torch.full((3, 8, 8), -1.5),
        "Tensor of float32 from -1.5 to -1.5: expected uint8",
    ),
    "integers": (
        np.zeros((8, 8), np.int64),
        "ndarray of int64 from 0 to 0: expected uint8, or real",
    ),
    "nan": (np.full((8, 8), np.nan), "ndarray of float64 from nan to nan: expected uint8"),
    "text": (io.BytesIO(b"no picture"), "an image cannot be read as an image"),
    "text file": (
        io.StringIO("no picture"),
        "a file that gives str: expected a binary one; open it",
    ),
    "a number": (
        3,
        "an image is an int: expected a path, a PIL image, an open file, an array or a tensor",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_no_picture(mistake):
    image, said = MISTAKES[mistake]
    with pytest.raises(ValueError, match=said):
        unchecked(load_image)(image)


@pytest.mark.parametrize("name", CASES)
def test_ask_takes_every_form(name):
    model = hooked(name)
    (expected,) = model.ask(PICTURE, QUESTIONS[0], max_new_tokens=3)
    forms = list(FORMS.values())
    assert model.ask(forms, QUESTIONS[0], max_new_tokens=3) == [expected] * len(forms)
    assert model.ask(ARRAY, [QUESTIONS[0]] * 2, max_new_tokens=3) == [expected] * 2


def test_of_equal_pictures_vcd_makes_equal_noise_in_any_form():
    model = hooked("llava")
    made = make_method("vcd", model)
    margins = [answer(model, made, [x], [QUESTIONS[0]])[0] for x in (PICTURE, ARRAY, as_file())]
    assert margins[0] == margins[1] == margins[2]


# Pairs ----------------------------------------------------------------------------------------------

TEXTS = ("does the man hold a ball?", "does the man kick a ball?")


def test_pairs_are_tuples_too():
    model = hooked("llava")
    expected = score_heads(model, [ContrastivePair(PICTURE, *TEXTS)] * 2)
    for image in (PICTURE, ARRAY, as_file()):
        found = score_heads(model, [(image, *TEXTS)] * 2)
        torch.testing.assert_close(found.per_pair, expected.per_pair)


def test_the_same_array_stays_the_same_picture():
    first, second, named = pairs_of([(ARRAY, *TEXTS), (ARRAY, *TEXTS), ("a.png", *TEXTS)])
    assert first.image is second.image
    assert [first.id, second.id, named.id] == ["0", "1", "2"]
    assert named.image == "a.png"


def test_what_is_no_pair():
    wrongs: list[Any] = [[(PICTURE, "a")], ["abc"], [3]]
    for wrong in wrongs:
        with pytest.raises(
            ValueError, match=r"pair 0 is an? .*: expected a ContrastivePair, or a tuple"
        ):
            unchecked(pairs_of)(wrong)
    with pytest.raises(ValueError, match="pair '0': both texts are"):
        pairs_of([(PICTURE, "a", "a")])


# Conversations --------------------------------------------------------------------------------------

TEMPLATE = (
    "{% for message in messages %}{{ message.role }} {% for part in message.content %}"
    "{% if part.type == 'image' %}IMAGE {% else %}{{ part.text }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)
TURNS = [
    {"role": "system", "content": "a man"},
    {
        "role": "user",
        "content": [{"type": "image", "image": IMAGES[0]}, {"type": "text", "text": "is"}],
    },
    {"role": "assistant", "content": "the dog"},
    {
        "role": "user",
        "content": [{"type": "text", "text": "on"}, {"type": "image", "image": ARRAY}],
    },
]


def with_template(name):
    model = hooked(name)
    slot = image_text(model.family, model.processor)
    model.processor = copy.copy(model.processor)  # which other tests share
    model.processor.video_processor = SimpleNamespace(num_frames=1, fps=1, video_sampling={})
    model.processor.chat_template = TEMPLATE.replace("IMAGE", slot)
    return model, slot


@pytest.mark.parametrize("name", [name for name in CASES if name != "instructblip"])
def test_turns_and_images_against_transformers_alone(name):
    model, slot = with_template(name)
    text = f"system a man user {slot} is assistant the dog user on {slot} assistant "
    inputs = model.processor(
        images=[[PICTURE, PICTURE]], text=[text], return_tensors="pt", add_special_tokens=True
    )
    inputs.pop("labels", None)
    with torch.no_grad():
        ids = model.hf_model.generate(**inputs, max_new_tokens=4, do_sample=False)
    n_prompt = inputs["input_ids"].shape[1]
    expected = model.processor.batch_decode(ids[:, n_prompt:], skip_special_tokens=True)[0].strip()
    pieces = []
    assert model.chat(TURNS, max_new_tokens=4, stream=pieces.append) == expected
    assert "".join(pieces).strip() == expected
    assert model.tokens is not None
    alone = model.token_map(model.prepare(PICTURE, "is")).n_image[0]
    assert model.tokens.n_image[0] >= 2 * min(alone, 16)


@pytest.mark.parametrize("name", CASES)
def test_one_question_is_what_ask_answers(name):
    """By the family's preset, since these processors have no chat template."""
    model = hooked(name)
    content = [{"type": "image", "image": PICTURE}, {"type": "text", "text": QUESTIONS[0]}]
    said = model.chat([{"role": "user", "content": content}], max_new_tokens=4)
    assert said == model.ask(PICTURE, QUESTIONS[0], max_new_tokens=4)[0]
    with pytest.raises(
        ValueError, match=r"4 messages with 2 images.*no chat template|2 images for"
    ):
        model.chat(TURNS)


def user(*content):
    return [{"role": "user", "content": list(content)}]


IMAGE, WORDS = {"type": "image", "image": PICTURE}, {"type": "text", "text": "is"}
REFUSED = {
    "nothing": ([], "no list of messages: expected"),
    "no role": ([{"content": "a"}], "message 0 has the role None: expected a mapping with `role`"),
    "no answer": (
        [*user(IMAGE), {"role": "assistant", "content": "a"}],
        "the last message is of the",
    ),
    "address": (
        user({"type": "image_url", "image_url": "x"}),
        "'image_url': expected .*nothing is down",
    ),
    "no image": (user(WORDS), "no message has an image: expected a part"),
    "token": (user(IMAGE, {"type": "text", "text": "a <image> b"}), "a question holds '<image>'"),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_what_is_no_conversation(mistake):
    messages, said = REFUSED[mistake]
    with pytest.raises(ValueError, match=said):
        hooked("llava").chat(messages)


def test_a_template_that_drops_an_image():
    model = hooked("llava")
    model.processor = copy.copy(model.processor)
    model.processor.chat_template = "{{ messages[0].content[0].text }}"
    with pytest.raises(ValueError, match="wrote 0 image tokens for 1 image: expected one for each"):
        model.chat(user(WORDS, IMAGE))


def test_a_family_of_one_image_says_so():
    model, _ = with_template("instructblip")
    with pytest.raises(
        ValueError, match="2 images for instructblip, whose processor puts one image"
    ):
        model.chat(TURNS)
    assert isinstance(model.chat(user(IMAGE, WORDS), max_new_tokens=2), str)


def test_an_image_of_no_pixels_is_refused():
    with pytest.raises(ValueError, match=r"shape \(0, 4\): expected"):
        load_image(np.zeros((0, 4), np.uint8))
    assert load_image(Image.new("RGB", (2, 2))).size == (2, 2)
