"""Batches of questions under every method give the answers of one question at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_models import IMAGES, QUESTIONS, build

from rvelens import ARSProfile, HookedLVLM
from rvelens.benchmarks import Item
from rvelens.evaluate import Answer, Decoding, answer
from rvelens.evaluate.answering import (
    answer_each,
    answer_items,
    backing_off,
    batches,
    side_by_side,
)
from rvelens.hooks import rve_hooks
from rvelens.interventions import icd, vcd
from rvelens.interventions.methods import METHODS, make_method
from rvelens.model.yes_no import yes_margin

DECODING = Decoding(prompt="chat", max_new_tokens=4)
FAMILIES = ("llava", "llava_next", "instructblip", "qwen2_5_vl")


def item(n, image="a", load=lambda: IMAGES[0]):
    return Item(str(n), image, image, QUESTIONS[n % 3], True, None, "", load)


def hooked(name):
    hf_model, processor = build(name)
    return HookedLVLM.from_pretrained(hf_model, processor=processor, family=name)


@pytest.fixture(scope="module", params=FAMILIES)
def any_model(request):
    return hooked(request.param)


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_is_answered_as_its_questions_alone(any_model, name):
    model = any_model
    scores = torch.rand(model.n_layers, model.n_heads, generator=torch.Generator().manual_seed(0))
    method = make_method(name, model, ARSProfile.from_scores(scores))
    images = [IMAGES[0], IMAGES[1], IMAGES[0], IMAGES[1]]
    names = ["a", "b", "a", "b"]
    questions = [*QUESTIONS, QUESTIONS[0]]
    together = answer(model, method, images, questions, names, DECODING)
    assert model.query_rows == "last"
    assert not model.list_hooks()
    for n in range(4):
        text, logits = alone(model, method, images[n], questions[n], names[n])
        assert together[n][0] == text
        assert together[n][1] == pytest.approx(float(yes_margin(logits, model.processor)), abs=2e-4)


def alone(model, method, image, question, name):
    """One question through `prepare`, public hooks and processors; nothing shared or cached."""
    inputs = model.prepare(image, question)
    contrast, processors = method.contrast, []
    if name_of := contrast and contrast.kind:
        strength = {"alpha": contrast.alpha, "beta": contrast.beta}
        processors = [
            vcd(model, inputs, [name], step=contrast.step, seed=DECODING.seed, **strength)
            if name_of == "vcd"
            else icd(model, image, question, disturbance=contrast.disturbance, **strength)
        ]
    model.query_rows = method.query_rows
    with model.hooks(method.hooks):
        output = model.generate(
            **inputs, do_sample=False, max_new_tokens=DECODING.max_new_tokens,
            logits_processor=processors, output_scores=True, return_dict_in_generate=True,
        )  # fmt: skip
    model.query_rows = "last"
    (text,) = model.decode(output.sequences, inputs["input_ids"])
    return text, processors[0].first if processors else output.scores[0]


def test_every_method_changes_something(model, profile):
    seen = {
        name: answer(
            model, make_method(name, model, profile), IMAGES, QUESTIONS, list("abc"), DECODING
        )
        for name in METHODS
    }
    margins = {name: tuple(m for _, m in said) for name, said in seen.items()}
    assert len(set(margins.values())) == len(METHODS)


def test_without_names_noise_follows_the_picture_itself(model, tmp_path):
    method, files = make_method("vcd", model), [tmp_path / f"{n}.png" for n in range(2)]
    for image, file in zip(IMAGES[:2], files, strict=True):
        image.save(file)
    named = answer(model, method, files, QUESTIONS[:2], [str(f) for f in files], DECODING)
    assert answer(model, method, files, QUESTIONS[:2], decoding=DECODING) == named
    copies = [IMAGES[1].copy(), IMAGES[0].copy()]
    one = answer(model, method, IMAGES[:2], QUESTIONS[:2], decoding=DECODING)
    other = answer(model, method, copies, QUESTIONS[1::-1], decoding=DECODING)[::-1]
    for (text, margin), (same_text, same_margin) in zip(one, other, strict=True):
        assert (text, margin) == (same_text, pytest.approx(same_margin, abs=2e-4))
    called = answer(model, method, IMAGES[:2], QUESTIONS[:2], ["a", "b"], DECODING)
    assert abs(called[0][1] - one[0][1]) > 1e-3


@given(st.lists(st.sampled_from("abcd"), max_size=20), st.integers(1, 5))
def test_batches_hold_every_item_once_and_keep_images_together(images, size):
    items = [item(n, image) for n, image in enumerate(images)]
    made = batches(items, size)
    assert sorted(i.id for batch in made for i in batch) == sorted(i.id for i in items)
    assert all(0 < len(batch) <= size for batch in made)
    for image in set(images):
        holding = sum(any(i.image == image for i in batch) for batch in made)
        assert holding <= -(-images.count(image) // size)


def torn():
    raise ValueError("a.png cannot be read\nas an image.")


def test_an_image_that_cannot_be_read_is_an_answer_with_an_error(model, profile):
    items = [item(0, "a"), item(1, "b", torn), item(2, "a"), item(3, "b", torn)]
    method = make_method("vanilla", model)
    said = [one for (one,) in answer_items(model, [method], items, DECODING)]
    assert [one.id for one in said] == ["0", "1", "2", "3"]
    assert said[1] == Answer("1", error="a.png cannot be read as an image.")
    assert said[0].error is None
    assert said[0].text is not None
    assert answer_items(model, [method], items[1:2], DECODING)[0][0].error is not None


def test_a_question_that_cannot_be_asked_loses_no_other(model):
    bad = replace(item(1), text="is there a <image> dog ?")
    asked = [item(0), bad, item(2)]
    said = [one for (one,) in answer_items(model, [make_method("vanilla", model)], asked, DECODING)]
    assert [one.error is None for one in said] == [True, False, True]
    assert "a question holds '<image>'" in said[1].error


def test_an_image_is_loaded_once_a_batch(model, profile):
    loaded = []

    def load():
        loaded.append(None)
        return Image.new("RGB", (32, 32))

    answer_items(
        model, [make_method("vcd", model)], [item(n, "a", load) for n in range(3)], DECODING
    )
    assert len(loaded) == 1


@pytest.mark.parametrize("fits", [1, 2, 3])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_batches_shrink_when_memory_runs_out(fits, error):
    sizes = []

    def run(piece):
        if len(piece) > fits:
            raise error
        sizes.append(len(piece))
        return [[Answer(i.id)] for i in piece]

    items = [item(n) for n in range(7)]
    said, size = backing_off(run, items, 7)
    assert [one.id for (one,) in said] == [i.id for i in items]
    assert size <= fits
    assert max(sizes) == size


def test_one_question_that_does_not_fit_is_an_error():
    def run(piece):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError):
        backing_off(run, [item(0)], 4)


def test_other_errors_are_not_taken_for_memory():
    def run(piece):
        raise RuntimeError("shapes")

    with pytest.raises(RuntimeError, match="shapes"):
        backing_off(run, [item(0), item(1)], 2)


@pytest.mark.parametrize("name", ["llava", "llava_next", "idefics3"])
def test_methods_side_by_side_answer_as_each_alone(name):
    model = hooked(name)
    scores = torch.rand(model.n_layers, model.n_heads, generator=torch.Generator().manual_seed(0))
    ranked = ARSProfile.from_scores(scores)
    names = ["vanilla", "rve", "vcd", "pai", "devils", "vaf"]
    methods = [make_method(n, model, ranked) for n in names]
    groups = side_by_side(model, methods)
    assert [[m.name for m in g] for g in groups] == [
        ["vanilla", "rve", "pai", "devils"],
        ["vcd"],
        ["vaf"],
    ]
    items = [item(n, "ab"[n % 2]) for n in range(3)]
    together = answer_items(model, groups[0], items, DECODING)
    for n, method in enumerate(groups[0]):
        alone = answer_items(model, [method], items, DECODING)
        for (one,), each in zip(alone, together, strict=True):
            assert each[n].text == one.text
            assert each[n].margin == pytest.approx(one.margin, abs=1e-4)


def test_many_settings_take_turns_in_a_forward(model, profile, monkeypatch):
    settings = [rve_hooks(profile, [n % 3], 2, 0.1 * (n + 1)) for n in range(5)]
    pictures, texts = list(IMAGES), list(QUESTIONS)
    whole = answer_each(model, settings, pictures, texts, DECODING)
    monkeypatch.setattr("rvelens.evaluate.answering.MOST_SETTINGS", 2)
    for a, b in zip(whole, answer_each(model, settings, pictures, texts, DECODING), strict=True):
        assert [text for text, _ in a] == [text for text, _ in b]
        assert [m for _, m in a] == pytest.approx([m for _, m in b], abs=1e-5)


def test_settings_are_not_run_together_where_that_is_not_exact(model):
    methods = [make_method("vanilla", model), make_method("pai", model)]
    model.hf_model.generation_config.repetition_penalty = 1.1
    assert side_by_side(model, methods) == [[methods[0]], [methods[1]]]
