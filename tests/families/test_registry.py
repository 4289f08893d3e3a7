"""Which family a model belongs to, what it claims, and what is refused with which reason."""

from __future__ import annotations

import pytest
import test_families
import test_families_grid
import test_families_rve
import torch
import transformers as tf
from family_cases import CASES, CLAIMS, batch, family_of_case, hooked
from tiny_inputs import IMAGES, QUESTIONS, TEXT, tokenizer
from tiny_models import build
from tokenizers.processors import TemplateProcessing

from rvelens import HookedLVLM
from rvelens.families import FAMILIES, Family, family_of, register
from rvelens.families.base import ALL_CHECKS
from rvelens.model.prefix import can_share, prepare_shared
from rvelens.model.prompts import render_prompt

BUILT_IN = ["llava", "llava_next", "sharegpt4v", "instructblip", "llava_onevision", "qwen2_5_vl"]
BUILT_IN += ["qwen3_vl", "internvl", "gemma3", "idefics3", "paligemma"]


def test_what_families_claim_is_what_tests_run():
    assert {test_families, test_families_rve, test_families_grid}, "the claims are made there"
    assert set(CLAIMS) == set(ALL_CHECKS)
    for family in FAMILIES.values():
        cases = {name for name in CASES if family_of_case(name) is family}
        assert {family_of_case(name).name for name in cases} == {family.name}
        types = {build(name)[0].config.model_type for name in cases}
        assert family.model_types == () or types == set(family.model_types)
        run = {claim for claim, names in CLAIMS.items() if cases <= names}
        assert run == set(family.verified), family.name


def test_the_families_of_the_readme():
    assert list(FAMILIES) == BUILT_IN
    alphas = {family.name: family.alpha for family in FAMILIES.values()}
    assert alphas.pop("instructblip") == 0.5
    assert set(alphas.values()) == {0.05}


def test_sharegpt4v_is_told_by_name():
    config = tf.LlavaConfig()
    assert family_of(config).name == "llava"
    config.name_or_path = "somewhere/ShareGPT4V-7b-hf"
    assert family_of(config).name == "sharegpt4v"
    other = tf.LlavaNextConfig()
    other.name_or_path = "trained-on-sharegpt4v"
    assert family_of(other).name == "llava_next"


def test_unknown_names_and_models():
    with pytest.raises(ValueError, match=r"unknown family 'lava'.*did you mean 'llava'"):
        family_of("lava")
    with pytest.raises(ValueError, match=r"llama model has no image_token_id"):
        family_of(tf.LlamaConfig())
    with pytest.raises(ValueError, match=r"mllama cannot be hooked.*cross-attention"):
        family_of(tf.MllamaConfig())
    generic = family_of(tf.VipLlavaConfig())
    assert generic.name == "vipllava"
    assert generic.verified == ()


@pytest.fixture
def own():
    """A family of one's own, forgotten after the test."""
    yield Family("mine", ("vipllava",), prompts={"chat": "USER: {image} {question}"}, replays=True)
    FAMILIES.pop("mine", None)


def test_a_family_of_ones_own_is_found_once_it_is_registered(own):
    assert family_of(tf.VipLlavaConfig()).name == "vipllava"
    register(own)
    assert family_of("mine") is own
    assert family_of(tf.VipLlavaConfig()) is own
    with pytest.raises(ValueError, match="the name 'mine' of a new family: expected what"):
        register(own)
    with pytest.raises(ValueError, match="the model types llava of a new family: expected what"):
        register(Family("other", ("llava",)))
    assert list(FAMILIES) == [*BUILT_IN, "mine"]


def test_a_family_is_given_as_it_is_and_may_replay(own):
    hf_model, processor = build("llava")
    model = HookedLVLM.from_pretrained(hf_model, processor=processor, family=own)
    assert model.family is own
    assert can_share(model, "chat")
    sharing = prepare_shared(model, IMAGES[0], QUESTIONS[0])
    options = {"max_new_tokens": 4, "do_sample": False}
    shared = model.generate(**sharing, **options)[:, -4:]
    assert torch.equal(
        shared, model.generate(**model.prepare(IMAGES[0], QUESTIONS[0]), **options)[:, -4:]
    )
    model.family = Family("mine", ())
    assert not can_share(model, "chat")


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_family_says_who_it_is_in_a_line(family):
    said = repr(family)
    assert said.startswith(f"Family(name={family.name!r}, model_types=")
    assert "<" not in said
    assert len(said) < 350


def test_a_model_of_no_family_runs_with_a_template_of_the_users():
    text = tf.LlamaConfig(**TEXT)
    vision = build("llava")[0].config.vision_config
    processor = build("llava")[1]
    config = tf.VipLlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=processor.image_token_id,
        vision_feature_layers=[-2, -1],
        image_seq_length=16,
    )
    model = HookedLVLM(tf.VipLlavaForConditionalGeneration(config).eval(), processor)
    inputs = model.prepare(IMAGES, QUESTIONS, prompt="{image} {question}")
    assert model(**inputs).shape[0] == 3
    assert model.tokens is not None
    assert model.tokens.n_image == (16, 16, 16)


def _instructblip(text: tf.PreTrainedConfig) -> tf.InstructBlipConfig:
    config = build("instructblip")[0].config
    return tf.InstructBlipConfig(
        vision_config=config.vision_config.to_dict(),
        qformer_config=config.qformer_config.to_dict(),
        text_config=text.to_dict(),
        image_token_index=4,
    )


def _paligemma_2() -> tf.PaliGemmaConfig:
    text = TEXT | {"model_type": "gemma2"}
    return tf.PaliGemmaConfig(
        vision_config=build("paligemma")[0].config.vision_config.to_dict(),
        text_config=text,
        image_token_id=4,
        projection_dim=64,
        hidden_size=64,
    )


REFUSED = {
    r"instructblip .*t5 \(flan-T5\) is an encoder-decoder": lambda: _instructblip(tf.T5Config()),
    r"instructblip .*language model is opt, only Vicuna's llama": lambda: _instructblip(
        tf.OPTConfig()
    ),
    r"paligemma .*PaliGemma 2's language model gemma2 caps attention scores": _paligemma_2,
    r"gemma3 .*caps attention scores with tanh": lambda: tf.Gemma3Config(
        text_config=TEXT | {"attn_logit_softcapping": 50.0}
    ),
    r"llava .*gpt_oss has attention sinks": lambda: tf.LlavaConfig(text_config=tf.GptOssConfig()),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused_by_name_and_with_the_reason(message):
    config = REFUSED[message]()
    with pytest.raises(ValueError, match=message):
        family_of(config).refuse_if_inexact(config)


def test_a_refused_model_is_refused_before_it_is_touched():
    hf_model = tf.PaliGemmaForConditionalGeneration(_paligemma_2())
    before = hf_model.config.get_text_config()._attn_implementation
    with pytest.raises(ValueError, match="PaliGemma 2"):
        HookedLVLM(hf_model)
    assert hf_model.config.get_text_config()._attn_implementation == before


PRESETS = [(n, preset) for n in CASES for preset in family_of_case(n).prompts]


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_every_preset_makes_a_prompt(name, preset):
    model = hooked(name)
    text = render_prompt(model.family, model.processor, "does a man hold a ball ?", preset)
    assert "does a man hold a ball ?" in text
    assert "{" not in text
    inputs = model.prepare(IMAGES, QUESTIONS, prompt=preset)
    assert min(model.token_map(inputs).n_image) > 0


@pytest.mark.parametrize("name", CASES)
def test_ask(name):
    model = hooked(name)
    answers = model.ask(IMAGES, QUESTIONS, max_new_tokens=4, batch_size=3)
    new = model.generate(**batch(model), max_new_tokens=4, do_sample=False)[:, -4:]
    expected = [text.strip() for text in model.processor.batch_decode(new, True)]
    assert answers == expected
    assert any(answers)


def test_a_template_that_begins_with_bos_gives_one():
    """As Gemma's and Llama 3's: both the chat template and the tokenizer write it."""
    hf_model, processor = build("gemma3")
    names = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tok = tokenizer(**names, image_token="<image_soft_token>")
    tok.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    processor = tf.Gemma3Processor(processor.image_processor, tok, image_seq_length=16)
    model = HookedLVLM(hf_model, processor)
    assert int((model.prepare(IMAGES[0], QUESTIONS[0])["input_ids"] == 1).sum()) == 1
    processor.chat_template = "<s>{% for m in messages %}{% for c in m['content'] %}" + (
        "{% if c['type'] == 'image' %}<start_of_image>{% else %}{{ c['text'] }}{% endif %}"
        "{% endfor %}{% endfor %}"
    )
    inputs = model.prepare(IMAGES[0], QUESTIONS[0])
    assert int((inputs["input_ids"] == 1).sum()) == 1
    assert model.token_map(inputs).n_image == (16,)
    assert torch.equal(inputs["attention_mask"], torch.ones_like(inputs["input_ids"]))
