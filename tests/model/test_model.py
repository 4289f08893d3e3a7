"""HookedLVLM: TransformerLens semantics, mistakes answered, nothing left behind."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_models import IMAGES, QUESTIONS, build
from transformers import GenerationConfig

from rvelens import HookedLVLM
from rvelens.hooks import head_mask_hooks, rve_hooks

SCORES = "blocks.1.attn.hook_attn_scores"
PATTERN = "blocks.1.attn.hook_pattern"
Z = "blocks.1.attn.hook_z"


def no_hooks(model):
    return not model.list_hooks() and all(
        not point._forward_hooks and not point._backward_hooks for point in model.hook_points()
    )


def test_unhooked_is_bit_identical(model, plain, inputs):
    with torch.no_grad():
        assert torch.equal(model(**inputs), plain(**inputs).logits)
    options = {"max_new_tokens": 5, "do_sample": False}
    assert torch.equal(model.generate(**inputs, **options), plain.generate(**inputs, **options))


def test_cache_has_the_documented_shapes(model, inputs):
    logits, cache = model.run_with_cache(**inputs)
    batch, key = inputs["input_ids"].shape
    assert logits.shape[:2] == (batch, key)
    decoder = {name for name in model.hook_dict if not name.startswith("vision.")}
    assert set(cache) == {name for name in decoder if not name.endswith("hook_result")}
    assert cache[SCORES].shape == cache[PATTERN].shape == (batch, model.n_heads, 1, key)
    assert cache[Z].shape[:3] == (batch, key, model.n_heads)
    torch.testing.assert_close(cache[PATTERN].sum(-1), torch.ones(batch, model.n_heads, 1))
    model.query_rows = "all"
    _, cache = model.run_with_cache(**inputs, names_filter=PATTERN)
    assert list(cache) == [PATTERN]
    assert cache[PATTERN].shape == (batch, model.n_heads, key, key)


def test_last_row_is_the_last_real_token_under_right_padding(model, inputs):
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    shift = [int((row == 0).sum()) for row in mask]
    right = {
        "input_ids": torch.stack([r.roll(-s) for r, s in zip(ids, shift, strict=True)]),
        "attention_mask": torch.stack([r.roll(-s) for r, s in zip(mask, shift, strict=True)]),
        "pixel_values": inputs["pixel_values"],
    }
    _, left_cache = model.run_with_cache(**inputs, names_filter=PATTERN)
    _, right_cache = model.run_with_cache(**right, names_filter=PATTERN)
    assert len(set(shift)) > 1
    for row, s in enumerate(shift):
        n = ids.shape[1] - s
        torch.testing.assert_close(
            right_cache[PATTERN][row, :, 0, :n], left_cache[PATTERN][row, :, 0, s:]
        )


def test_an_edit_reaches_the_logits_and_its_context_ends_it(model, inputs):
    with torch.no_grad():
        before = model(**inputs)
        with model.hooks([(SCORES, lambda scores, hook: scores * 2)]):
            during = model(**inputs)
        assert not torch.allclose(before[:, -1], during[:, -1])
        assert torch.equal(before, model(**inputs))
    assert no_hooks(model)


def test_last_row_and_all_rows_agree(model, inputs, profile):
    hooks = rve_hooks(profile, range(model.n_layers), k=3, alpha=0.3)
    with torch.no_grad(), model.hooks(hooks):
        last = model(**inputs)[:, -1]
        model.query_rows = "all"
        torch.testing.assert_close(model(**inputs)[:, -1], last, rtol=0, atol=1e-5)


def test_hooks_nest_and_each_context_removes_only_its_own(model, inputs):
    seen = []
    with model.hooks([(SCORES, lambda scores, hook: seen.append("outer"))]):
        with model.hooks([(SCORES, lambda scores, hook: seen.append("inner"))]):
            model(**inputs)
        model(**inputs)
    model(**inputs)
    assert seen == ["outer", "inner", "outer"]


def test_an_exception_inside_leaves_nothing_behind(model, inputs):
    with pytest.raises(RuntimeError, match="mine"), model.hooks([(SCORES, lambda s, hook: s)]):
        raise RuntimeError("mine")
    assert no_hooks(model)

    def failing(scores, hook):
        raise RuntimeError("in the hook")

    with pytest.raises(RuntimeError, match="in the hook"), model.hooks([(SCORES, failing)]):
        model(**inputs)
    assert no_hooks(model)
    assert torch.isfinite(model(**inputs)).all()


def test_a_hook_that_fails_to_register_takes_the_others_with_it(model):
    good = (SCORES, lambda scores, hook: scores)
    with (
        pytest.raises(ValueError, match=r"unknown hook name 'blocks.1.attn.hook_score'.*did you"),
        model.hooks([good, ("blocks.1.attn.hook_score", good[1])]),
    ):
        pass
    assert no_hooks(model)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("blocks.9.attn.hook_z", "blocks.0.attn.hook_z"),
        ("blocks.1.attn.hook_patern", PATTERN),
        ("blocks.1.hook_pattern", PATTERN),
    ],
)
def test_unknown_names_raise_with_the_nearest(model, inputs, name, nearest):
    for add in (
        lambda: model.add_hook(name, lambda x, hook: x),
        lambda: model.run_with_cache(**inputs, names_filter=name),
        lambda: model.run_with_cache(**inputs, names_filter=[Z, name]),
        lambda: model.add_caching_hooks(name),
        lambda: model.run_with_hooks(**inputs, fwd_hooks=[(name, lambda x, hook: x)]),
    ):
        with pytest.raises(ValueError, match="unknown hook name") as error:
            add()
        if "9" not in name:
            assert f"did you mean {nearest!r}" in str(error.value)
        assert "with a layer of 0-2 and a point of hook_resid_pre, hook_resid_mid" in str(
            error.value
        )
    assert no_hooks(model)


def test_a_filter_that_matches_nothing_raises(model, inputs):
    with pytest.raises(ValueError, match="matches none of the"):
        model.run_with_cache(**inputs, names_filter=lambda name: "mlp_pre" in name)
    with pytest.raises(ValueError, match="matches none of the"):
        model.add_hook(lambda name: "mlp_pre" in name, lambda x, hook: x)
    assert no_hooks(model)


def test_a_message_does_not_hold_what_a_hook_holds(model, inputs):
    def added(x, hook, by):
        return (x + by)[..., :1]

    hook = functools.partial(added, by=torch.linspace(0, 1, inputs["input_ids"].shape[1]))
    with pytest.raises(ValueError, match=r"functools\.partial\(.* \.\.\. matches none") as error:
        model.add_hook(lambda name: False, hook)
    assert len(str(error.value)) < 250
    with (
        pytest.raises(ValueError, match=r"functools\.partial\(.* \.\.\.\) returned") as error,
        model.hooks([(SCORES, hook)]),
    ):
        model(**inputs)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("name", [SCORES, PATTERN, Z])
@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (lambda x, hook: x[:, :1], r"returned \(3, "),
        (lambda x, hook: x.double(), "returned .* torch.float64"),
        (lambda x, hook: "text", "returned str"),
    ],
)
def test_a_wrong_return_names_the_layer_and_the_hook(model, inputs, name, wrong, got):
    with pytest.raises(ValueError, match=got) as error, model.hooks([(name, wrong)]):
        model(**inputs)
    assert f"a hook on {name} (<lambda>)" in str(error.value)
    assert no_hooks(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", [SCORES, PATTERN])
def test_non_finite_returns_name_the_first_layer(model, inputs, name, value):
    def poison(x, hook):
        x = x.clone()
        x[0, 0, 0, -1] = value  # of a key that the mask leaves
        return x

    for run in (lambda: model(**inputs), lambda: model.generate(**inputs, max_new_tokens=2)):
        with (
            pytest.raises(ValueError, match=r"blocks\.1\.attn is not finite"),
            model.hooks([(name, poison), ("blocks.2.attn.hook_pattern", lambda x, hook: x)]),
        ):
            run()
    assert torch.isfinite(model(**inputs)).all()


def test_masking_a_key_with_minus_infinity_is_allowed(model, inputs):
    def mask_first_image_token(scores, hook):
        scores = scores.clone()
        scores[..., 10] = float("-inf")
        return scores

    with model.hooks([(SCORES, mask_first_image_token)]):
        _, cache = model.run_with_cache(**inputs, names_filter=PATTERN)
    assert (cache[PATTERN][..., 10] == 0).all()


def test_a_model_wrapped_twice_shares_its_hooks(model, inputs):
    again = HookedLVLM.from_pretrained(model.hf_model, processor=model.processor)
    seen = []
    with model.hooks([(SCORES, lambda scores, hook: seen.append(1))]):
        again(**inputs)
    assert seen == [1]


def test_wrappers_share_contexts_and_rows(model, inputs):
    model.query_rows = "all"
    again = HookedLVLM.from_pretrained(model.hf_model, processor=model.processor)
    assert again.query_rows == "all"
    seen = []
    with model.hooks([(SCORES, lambda scores, hook: seen.append("outer"))]):
        with again.hooks([(SCORES, lambda scores, hook: seen.append("inner"))]):
            pass
        model(**inputs)
    assert seen == ["outer"]
    assert no_hooks(model)


def test_wrapping_again_switches_the_attention_back(model, inputs):
    model.hf_model.set_attn_implementation("eager")
    again = HookedLVLM.from_pretrained(model.hf_model)
    seen = []
    with again.hooks([(SCORES, lambda scores, hook: seen.append(1))]):
        again(**inputs)
    assert seen == [1]


def test_copying_a_wrapper_is_refused(model):
    with pytest.raises(TypeError, match="a HookedLVLM cannot be copied"):
        copy.deepcopy(model)


def test_the_wrapped_model_is_a_module_with_its_own_weights(model):
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for p in model.hf_model.parameters()
    )
    assert not hasattr(next(model.hf_model.children()), "name")


def test_query_rows_refuses_anything_else(model):
    with pytest.raises(ValueError, match="query_rows is 'first': expected 'last' or 'all'"):
        model.query_rows = "first"
    assert model.query_rows == "last"


def test_ask_answers_one_or_many(model):
    many = model.ask(IMAGES, QUESTIONS, max_new_tokens=3, batch_size=2)
    assert len(many) == 3
    assert all(isinstance(answer, str) for answer in many)
    assert len(model.ask(IMAGES[0], QUESTIONS, max_new_tokens=2)) == 3
    assert len(model.ask(IMAGES, QUESTIONS[0], max_new_tokens=2)) == 3
    assert len(model.ask(IMAGES[0], QUESTIONS[0], max_new_tokens=2)) == 1


def test_answers_do_not_depend_on_the_batch(model, profile):
    with model.hooks(rve_hooks(profile, range(model.n_layers), k=3, alpha=0.3)):
        together = model.ask(IMAGES, QUESTIONS, max_new_tokens=4)
        alone = [
            model.ask(image, question, max_new_tokens=4)[0]
            for image, question in zip(IMAGES, QUESTIONS, strict=True)
        ]
    assert together == alone


def test_decoding_several_rows_a_step_is_refused_under_hooks(model, inputs, profile):
    model.generate(**inputs, max_new_tokens=1)
    with (
        pytest.raises(ValueError, match="prompt_lookup_num_tokens runs several rows in a step"),
        model.hooks(rve_hooks(profile, [1], k=3)),
    ):
        model.generate(**inputs, max_new_tokens=2, prompt_lookup_num_tokens=2)
    config = GenerationConfig(max_new_tokens=2, prefill_chunk_size=4)
    with (
        pytest.raises(ValueError, match="prefill_chunk_size runs several rows in a step"),
        model.hooks(rve_hooks(profile, [1], k=3)),
    ):
        model.generate(**inputs, generation_config=config)
    assert no_hooks(model)


def test_half_precision_hides_the_same_keys(plain, inputs, profile):
    """Scores are float32 whatever the model computes in, and padding gets no attention."""
    half = HookedLVLM.from_pretrained(copy.deepcopy(plain).to(torch.bfloat16))
    batch = {**inputs, "pixel_values": inputs["pixel_values"].to(torch.bfloat16)}
    with half.hooks(rve_hooks(profile, [1], k=3, alpha=0.3)):
        logits, cache = half.run_with_cache(**batch, names_filter=[SCORES, PATTERN])
    assert logits.dtype == torch.bfloat16
    assert cache[SCORES].dtype == cache[PATTERN].dtype == torch.float32
    padding = (inputs["attention_mask"] == 0)[:, None, None].expand_as(cache[PATTERN])
    assert padding.any()
    assert (cache[PATTERN][padding] == 0).all()


def test_generation_without_a_cache_is_refused_under_hooks(model, inputs, profile):
    """Every step would run the whole sequence, whose earlier rows are then unedited."""
    options = {"max_new_tokens": 3, "do_sample": False}
    with (
        pytest.raises(ValueError, match="use_cache=False runs several rows in a step"),
        model.hooks(rve_hooks(profile, range(model.n_layers), k=3, alpha=0.3)),
    ):
        model.generate(**inputs, **options, use_cache=False)
    cached = model.generate(**inputs, **options)
    assert torch.equal(model.generate(**inputs, **options, use_cache=False), cached)


def test_a_model_switched_to_other_attention_is_hooked_as_exactly(model, inputs, profile):
    with torch.no_grad(), model.hooks(rve_hooks(profile, [0], k=3)):
        expected = model(**inputs)
        model.hf_model.set_attn_implementation("eager")
        # Rows of padding see no key, and eager attention fills them otherwise than SDPA.
        torch.testing.assert_close(model(**inputs)[:, -1], expected[:, -1], rtol=0, atol=1e-5)


def test_padding_rows_survive_a_hook_that_scales(model, inputs):
    """Scores of a row that sees nothing are the lowest number: times 1.5 they would be infinite."""
    model.query_rows = "all"
    with torch.no_grad(), model.hooks([(SCORES, lambda scores, hook: scores * 1.5)]):
        every = model(**inputs)[:, -1]
        model.query_rows = "last"
    alone = {k: v[:1] for k, v in inputs.items()}
    width = int(inputs["attention_mask"][0].sum())
    alone = {k: v[:, -width:] if k != "pixel_values" else v for k, v in alone.items()}
    model.query_rows = "all"
    with torch.no_grad(), model.hooks([(SCORES, lambda scores, hook: scores * 1.5)]):
        torch.testing.assert_close(every[:1], model(**alone)[:, -1], rtol=0, atol=1e-5)


def test_hooks_of_the_wrong_shape_are_refused_before_any_compute(model, profile):
    from rvelens import ARSProfile

    other = ARSProfile.from_scores(torch.rand(model.n_layers, 12))
    with (
        pytest.raises(ValueError, match="a profile of 3 layers x 12 heads for a model of 3 x 8"),
        model.hooks(rve_hooks(other, [1], k=2)),
    ):
        pass
    deeper = ARSProfile.from_scores(torch.rand(40, 8))
    with (
        pytest.raises(ValueError, match=r"unknown hook name 'blocks\.39"),
        model.hooks(rve_hooks(deeper, [39], k=2)),
    ):
        pass
    with (
        pytest.raises(ValueError, match=r"heads \[8\] of 8 are masked: expected heads from 0 to 7"),
        model.hooks(head_mask_hooks({1: [0, 8]})),
    ):
        pass
    assert no_hooks(model)


def test_bad_inputs_are_one_clear_sentence(model, tmp_path: Path):
    with pytest.raises(ValueError, match=r"no image at .*nowhere\.png"):
        model.ask(tmp_path / "nowhere.png", "?")
    torn = tmp_path / "torn.png"
    IMAGES[0].save(torn)
    torn.write_bytes(torn.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"torn\.png cannot be read as an image"):
        model.ask(torn, "?")
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(ValueError, match="cannot be read as an image"):
        model.ask(tmp_path / "text.png", "?")
    with pytest.raises(ValueError, match="cannot be read as an image"):
        model.ask(tmp_path, "?")
    with pytest.raises(ValueError, match="2 images and 3 questions"):
        model.ask(IMAGES[:2], QUESTIONS)
    with pytest.raises(ValueError, match="0 images and 0 questions"):
        model.ask([], [])
    with pytest.raises(ValueError, match="a question is '  '"):
        model.ask(IMAGES[0], "  ")
    with pytest.raises(ValueError, match="expected valid UTF-8"):
        model.ask(IMAGES[0], "caf\udce9 ?")
    with pytest.raises(ValueError, match="did you mean 'llava_v1'"):
        model.ask(IMAGES[0], "?", prompt="llava_v2")
    with pytest.raises(ValueError, match="has no image slot"):
        model.ask(IMAGES[0], "?", prompt="USER: {question}")


def test_a_model_without_a_processor_says_so(plain):
    bare = HookedLVLM.from_pretrained(copy.deepcopy(plain))
    with pytest.raises(ValueError, match="this model has no processor"):
        bare.ask(IMAGES[0], "?")


def test_loading_mistakes(plain):
    with pytest.raises(ValueError, match="dtype given with a loaded model"):
        HookedLVLM.from_pretrained(plain, dtype="auto")
    with pytest.raises(ValueError, match=r"unknown family 'lava'.*did you mean 'llava'"):
        HookedLVLM.from_pretrained(plain, family="lava")


def test_saved_models_load_by_folder(model, tmp_path: Path, inputs):
    model.hf_model.save_pretrained(tmp_path)
    model.processor.save_pretrained(tmp_path)
    loaded = HookedLVLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(**inputs), model(**inputs))
    image = Image.new("RGB", (40, 40))
    assert loaded.ask(image, QUESTIONS[0]) == model.ask(image, QUESTIONS[0])


def test_build_gives_fresh_weights_each_time():
    assert build("llava")[0] is not build("llava")[0]
