"""Questions that share their image's prefix get the answers that they get alone."""

from __future__ import annotations

import pytest
import torch
from tiny_models import IMAGES, QUESTIONS, build

from rvelens import ARSProfile, HookedLVLM
from rvelens.hooks import rve_hooks
from rvelens.model.prefix import REPLAYS, ends_in_question, prepare_shared

OPTIONS = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}


def hooked(name):
    hf_model, processor = build(name)
    return HookedLVLM.from_pretrained(
        hf_model, processor=processor, family=None if name == "smolvlm" else name
    )


def one_by_one(model, images, questions):
    rows = []
    for image, question in zip(images, questions, strict=True):
        inputs = model.prepare(image, question)
        rows.append(model.generate(**inputs, **OPTIONS)[0, inputs["input_ids"].shape[1] :])
    return torch.stack(rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*REPLAYS, "smolvlm"])
@pytest.mark.parametrize("steered", [False, True])
def test_shared_answers_are_those_of_one_question_at_a_time(name, steered):
    model = hooked(name)
    images = [IMAGES[i] for i in (0, 1, 0, 1, 2, 0)]
    questions = [*QUESTIONS, *QUESTIONS[::-1]]
    scores = torch.rand(model.n_layers, model.n_heads, generator=torch.Generator().manual_seed(1))
    hooks = rve_hooks(ARSProfile.from_scores(scores), range(model.n_layers), k=3, alpha=0.3)
    shared = prepare_shared(model, images, questions)
    with model.hooks(hooks if steered else []):
        got = model.generate(**shared, **OPTIONS)[:, shared["input_ids"].shape[1] :]
        tokens = model.tokens
        expected = one_by_one(model, images, questions)
    assert torch.equal(got, expected)
    assert tokens.n_image == model.token_map(model.prepare(images, questions)).n_image


def test_each_image_is_seen_once(model):
    seen = []
    tower = model.hf_model.model.vision_tower
    handle = tower.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    prepare_shared(model, [IMAGES[0]] * 4 + [IMAGES[1]] * 2, [*QUESTIONS, *QUESTIONS])
    handle.remove()
    assert seen == [2]


def test_logits_under_a_shared_prefix(model, profile):
    """Left padding at the start and in the middle moves no logit."""
    images, questions = [IMAGES[0], IMAGES[1], IMAGES[0]], QUESTIONS
    with torch.no_grad():
        shared = prepare_shared(model, images, questions)
        n_past = shared["past_key_values"].get_seq_length()
        got = model(
            input_ids=shared["input_ids"][:, n_past:],
            position_ids=shared["position_ids"][:, n_past:],
            attention_mask=shared["attention_mask"], past_key_values=shared["past_key_values"],
        )[:, -1]  # fmt: skip
        for row, (image, question) in enumerate(zip(images, questions, strict=True)):
            alone = model(**model.prepare(image, question))[0, -1]
            torch.testing.assert_close(got[row], alone, rtol=0, atol=1e-5)


def test_the_inputs_that_are_run_can_be_edited(model):
    def grey(inputs, samples):
        return {**inputs, "pixel_values": torch.zeros_like(inputs["pixel_values"])}

    plain, edited = (
        prepare_shared(model, IMAGES[0], QUESTIONS[0], edit=edit)["past_key_values"].layers[0].keys
        for edit in (lambda inputs, samples: inputs, grey)
    )
    assert not torch.equal(plain, edited)


BEFORE = "you are helpful assistant . {question} {image} answer"
BOTH = "{question} {image} {question} answer"


@pytest.mark.parametrize("prompt", [BEFORE, BOTH, "you are {image} {question} answer"])
def test_text_before_the_image_belongs_to_its_question(model, prompt):
    images = [IMAGES[0], IMAGES[0], IMAGES[1]]
    shared = prepare_shared(model, images, QUESTIONS, prompt)
    got = model.generate(**shared, **OPTIONS)[:, -5:]
    for row, (image, question) in enumerate(zip(images, QUESTIONS, strict=True)):
        inputs = model.prepare(image, question, prompt)
        assert torch.equal(got[row], model.generate(**inputs, **OPTIONS)[0, -5:])
    assert ends_in_question(model, prompt) == (prompt not in (BEFORE, BOTH))


def test_what_is_prepared_is_for_one_generation(model):
    shared = prepare_shared(model, IMAGES[0], QUESTIONS)
    with pytest.raises(ValueError, match="expected only the tokens behind the cache"):
        model(**shared)
    for option in ({"num_beams": 3}, {"num_return_sequences": 2, "do_sample": True}):
        with pytest.raises(
            ValueError, match=f"{next(iter(option))} with a filled cache: expected greedy"
        ):
            model.generate(**shared, max_new_tokens=2, **option)
    with pytest.raises(ValueError, match="use_cache=False with a filled cache: expected greedy"):
        model.generate(**shared, max_new_tokens=2, use_cache=False)
    model.generate(**shared, **OPTIONS)
    with pytest.raises(ValueError, match="prepare the prompt again for each generation"):
        model.generate(**shared, **OPTIONS)


def test_mistakes(model, profile):
    with pytest.raises(ValueError, match="no text behind its image"):
        prepare_shared(model, IMAGES[0], QUESTIONS, "{question} {image}")
    with pytest.raises(ValueError, match="a question holds '<image>', a special token of"):
        prepare_shared(model, IMAGES[0], [QUESTIONS[0], "does a man hold <image> ?"])
    with (
        pytest.raises(ValueError, match="hooks are on during prefill"),
        model.hooks([("blocks.0.attn.hook_z", lambda z, hook: None)]),
    ):
        prepare_shared(model, IMAGES[0], QUESTIONS)
    other = hooked("qwen2_5_vl")
    with pytest.raises(ValueError, match="qwen2_5_vl cannot be replayed alone"):
        prepare_shared(other, IMAGES[0], QUESTIONS[0])
    with (
        pytest.raises(ValueError, match="hooks are on during prefill"),
        model.hooks(rve_hooks(profile, [0], k=3)),
    ):
        prepare_shared(model, IMAGES[0], QUESTIONS[0])
    with pytest.raises(ValueError, match="2 images and 3 questions"):
        prepare_shared(model, IMAGES[:2], QUESTIONS)
