"""The disturbing instruction: where it goes, and the generation against a slow one."""

from __future__ import annotations

import pytest
import torch
from contrast_reference import assert_same, contrast, decode
from family_cases import CASES, IMAGES, QUESTIONS, batch, generate, hooked

from rvelens import HookedLVLM
from rvelens.families import FAMILIES, llava
from rvelens.interventions import icd, icd_negative
from rvelens.interventions.icd import DISTURBANCE, disturbed_prompt

# Words of the tiny models' vocabulary.
SHORT = "You are small horse"


def text_of(model, inputs, row):
    """Words of a prompt without padding and image tokens."""
    keep = inputs["attention_mask"][row].bool() & (inputs["input_ids"][row] != model.image_token_id)
    return model.processor.tokenizer.decode(inputs["input_ids"][row][keep])


@pytest.mark.parametrize("name", [name for name in CASES if name != "instructblip"])
def test_image_and_question_stay_and_the_instruction_is_added(name):
    model = hooked(name)
    plain, disturbed = batch(model), icd_negative(model, IMAGES, QUESTIONS, disturbance=SHORT)
    assert torch.equal(plain["pixel_values"], disturbed["pixel_values"])
    assert model.token_map(plain).n_image == model.token_map(disturbed).n_image
    for row, question in enumerate(QUESTIONS):
        ours, theirs = text_of(model, disturbed, row), text_of(model, plain, row)
        assert SHORT in ours
        assert question in ours
        assert SHORT not in theirs
        assert "helpful" not in ours  # What Qwen's and LLaVA's system prompts say.
        assert ours.split(question)[1] == theirs.split(question)[1]


def test_a_system_prompt_is_replaced(model):
    template = FAMILIES["llava"].prompts["llava_v1"]
    expected = template.replace(llava.SYSTEM, DISTURBANCE)
    assert expected.startswith("You are a confused objects detector")
    assert disturbed_prompt(model, "llava_v1", DISTURBANCE) == expected
    assert disturbed_prompt(model, "chat", "Hm.") == "Hm. " + llava.CHAT


def test_a_chat_template_that_writes_the_first_token_keeps_it_first(model):
    model.processor.chat_template = (
        "{{ bos_token }}{% for part in messages[0]['content'] %}"
        "{% if part['type'] == 'image' %}<image>{% else %} {{ part['text'] }}{% endif %}"
        "{% endfor %} ASSISTANT:"
    )
    assert disturbed_prompt(model, "chat", SHORT) == f"<s>{SHORT} {{image}} {{question}} ASSISTANT:"


def test_instructblip_disturbs_the_qformer_alone():
    model = hooked("instructblip")
    plain, disturbed = batch(model), icd_negative(model, IMAGES, QUESTIONS, disturbance=SHORT)
    changed = {name for name in plain if not torch.equal(plain[name], disturbed[name])}
    assert changed == {"qformer_input_ids", "qformer_attention_mask"}
    assert set(disturbed) == set(plain)
    for ids in disturbed["qformer_input_ids"]:
        assert model.processor.qformer_tokenizer.decode(ids) == SHORT


@pytest.mark.parametrize("name", ["llava", "sharegpt4v", "instructblip", "qwen2_5_vl"])
def test_generation_matches_both_branches_from_scratch(name):
    model = hooked(name)
    inputs = batch(model)
    negative = icd_negative(model, IMAGES, QUESTIONS, disturbance=SHORT)
    processor = icd(model, IMAGES, QUESTIONS, alpha=2.0, beta=0.01, disturbance=SHORT)
    output = generate(model, inputs, logits_processor=[processor], output_scores=True)
    assert_same(output, decode(model, inputs, negative, contrast(2.0, 0.01)))
    assert not torch.equal(output.sequences, generate(model, inputs).sequences)


def test_embedded_model_keeps_its_chat_template():
    model = HookedLVLM.from_pretrained("rvelens/tiny")
    inputs = icd_negative(model, IMAGES[0], "Does a man hold a ball?", disturbance="man")
    assert text_of(model, inputs, 0).split()[:2] == ["man", "USER"]


def test_an_empty_instruction_is_refused(model):
    with pytest.raises(ValueError, match=r"disturbance=' ': expected a non-empty"):
        icd_negative(model, IMAGES, QUESTIONS, disturbance=" ")
