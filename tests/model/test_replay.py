"""Last-token replay against whole forwards under the same hooks."""

from __future__ import annotations

import pytest
import torch
from family_cases import profile_of
from tiny_models import IMAGES, QUESTIONS, build
from transformers import DynamicCache

from rvelens import ARSProfile, HookedLVLM
from rvelens.hooks import (
    ars_caching_hooks,
    devils_hooks,
    dilution_hooks,
    pai_hooks,
    region_hooks,
    rve_hooks,
    tokens_of,
)
from rvelens.model.prefix import REPLAYS, prepare_shared
from rvelens.model.replay import can_replay, prefill

pytestmark = pytest.mark.slow


def test_replay_equals_a_whole_forward_under_every_setting(model, inputs, profile):
    prefix = prefill(model, inputs)
    region = torch.rand(3, max(model.token_map(inputs).n_image)) > 0.5
    everywhere = range(model.n_layers)
    settings = [
        [],
        rve_hooks(profile, everywhere, k=3, alpha=0.3),
        rve_hooks(profile, [1], k=2, alpha=0.1, beta=3.0, scope="sensitive", denoise=False),
        dilution_hooks(everywhere, 0.3, -1.0) + rve_hooks(profile, [0, 2], k=3),
        region_hooks(region, [0, 1]),
        [],
    ]
    for hooks in settings:
        with torch.no_grad(), model.hooks(hooks):
            torch.testing.assert_close(prefix.replay(), model(**inputs)[:, -1], rtol=0, atol=1e-5)


def test_recording_agrees(model, inputs):
    prefix = prefill(model, inputs)
    whole, replayed = {}, {}
    with torch.no_grad(), model.hooks(ars_caching_hooks(range(model.n_layers), whole)):
        model(**inputs)
    with model.hooks(ars_caching_hooks(range(model.n_layers), replayed)):
        prefix.replay()
    for layer in range(model.n_layers):
        torch.testing.assert_close(replayed[layer], whole[layer], rtol=0, atol=1e-6)


def test_a_replay_that_fails_leaves_the_prefix_usable(model, inputs):
    prefix = prefill(model, inputs)
    before = prefix.replay()

    def fail(scores, hook):
        raise RuntimeError("midway")

    failing = [("blocks.1.attn.hook_attn_scores", fail)]
    with pytest.raises(RuntimeError, match="midway"), model.hooks(failing):
        prefix.replay()
    assert torch.equal(prefix.replay(), before)


def hooked(name):
    hf_model, processor = build(name)
    return HookedLVLM.from_pretrained(
        hf_model, processor=processor, family=None if name == "smolvlm" else name
    )


@pytest.mark.parametrize("name", [*REPLAYS, "smolvlm"])
def test_replay_in_every_family_that_has_it(name):
    model = hooked(name)
    inputs = model.prepare(IMAGES, QUESTIONS)
    scores = torch.rand(model.n_layers, model.n_heads)
    prefix = prefill(model, inputs)
    with (
        torch.no_grad(),
        model.hooks(rve_hooks(ARSProfile.from_scores(scores), range(model.n_layers), 3, 0.3)),
    ):
        torch.testing.assert_close(prefix.replay(), model(**inputs)[:, -1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["paligemma", "instructblip", "qwen2_5_vl", "gemma3"])
def test_families_whose_last_token_cannot_be_replayed(name):
    model = hooked(name)
    with pytest.raises(ValueError, match=f"the last token of {name} cannot be replayed alone"):
        prefill(model, model.prepare(IMAGES[0], QUESTIONS[0]))


def test_misuse(model, inputs):
    right = dict(inputs)
    right["attention_mask"] = inputs["attention_mask"].flip(1)
    with pytest.raises(ValueError, match="some prompts end in padding"):
        prefill(model, right)
    with (
        pytest.raises(ValueError, match="hooks are on during prefill"),
        model.hooks([("blocks.0.attn.hook_z", lambda z, hook: z)]),
    ):
        prefill(model, inputs)


# -- settings side by side -------------------------------------------------------------------------


class LastHeadOut:
    """Zeroes a head's output of the last token, in a whole forward and in a replay."""

    row_local = True

    def __call__(self, z, hook):
        z = z.clone()
        z[:, -1, 1] = 0.0
        return z


def settings_of(model, profile, inputs):
    everywhere = range(model.n_layers)
    region = torch.rand(3, max(model.token_map(inputs).n_image)) > 0.5
    k = model.n_heads // 2
    return [
        [],
        rve_hooks(profile, everywhere, k=k, alpha=0.3),
        rve_hooks(profile, [1], k=1, alpha=0.1, beta=3.0, scope="sensitive", denoise=False),
        dilution_hooks(everywhere, 0.3, -1.0) + rve_hooks(profile, [0, 1], k=k, beta=2.0),
        region_hooks(region, [0, 1]),
        [("blocks.1.attn.hook_pattern", lambda x, hook: x * 0.5)],
        [("blocks.0.attn.hook_z", LastHeadOut())],
        [
            (
                lambda name: name.startswith("blocks.") and name.endswith("scores"),
                lambda x, hook: x * 1.5,
            )
        ],
        [],
    ]


@pytest.mark.parametrize(
    "point", ["hook_resid_mid", "hook_mlp_out", "ln1.hook_scale", "attn.hook_q", "attn.hook_rot_k"]
)
def test_points_that_show_every_row_are_not_replayed(model, inputs, point):
    prefix = prefill(model, inputs)
    hooks = [(f"blocks.1.{point}", lambda x, hook: x * 0.5)]
    with pytest.raises(ValueError, match=rf"on blocks\.1\.{point} sees every row of a prompt"):
        prefix.replay_each([hooks])
    with (
        model.hooks(hooks),
        pytest.raises(ValueError, match=rf"on blocks\.1\.{point} sees every row of a prompt"),
    ):
        prefix.replay()
    assert not can_replay(model, hooks)


def test_settings_side_by_side_equal_each_alone(model, inputs, profile):
    prefix = prefill(model, inputs)
    settings = settings_of(model, profile, inputs)
    together = prefix.replay_each(settings)
    for n, hooks in enumerate(settings):
        with model.hooks(hooks):
            torch.testing.assert_close(together[:, n], prefix.replay(), rtol=0, atol=1e-5)
    assert not torch.allclose(together[:, 0], together[:, 1], atol=1e-3)
    assert model.query_rows == "last"
    assert not model.list_hooks()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*REPLAYS, "smolvlm"])
def test_generations_side_by_side_equal_generate_alone(name):
    model = hooked(name)
    shared = prepare_shared(model, IMAGES, QUESTIONS)
    inputs = model.prepare(IMAGES, QUESTIONS)
    scores = torch.rand(model.n_layers, model.n_heads, generator=torch.Generator().manual_seed(1))
    settings = settings_of(model, ARSProfile.from_scores(scores), inputs)
    for start in (inputs, shared):
        prefix = prefill(model, start)
        ids, first = prefix.generate_each(settings, max_new_tokens=5)
        for n, hooks in enumerate(settings):
            with model.hooks(hooks):
                alone = model.generate(**inputs, do_sample=False, max_new_tokens=5)
                torch.testing.assert_close(first[:, n], prefix.replay(), rtol=0, atol=1e-4)
            alone = alone[:, inputs["input_ids"].shape[1] :]
            assert torch.equal(ids[:, n, : alone.shape[1]], alone)


def test_a_setting_that_ends_early_is_filled_up(model, inputs):
    config = model.hf_model.generation_config
    plain, _ = prefill(model, inputs).generate_each([[]], max_new_tokens=4)
    config.eos_token_id, config.pad_token_id = [int(plain[0, 0, 1]), 7], 3
    ids, _ = prefill(model, inputs).generate_each([[], []], max_new_tokens=4)
    alone = model.generate(**inputs, do_sample=False, max_new_tokens=4)
    assert torch.equal(ids[:, 1], alone[:, inputs["input_ids"].shape[1] :])
    said = plain[0, 0].tolist()
    kept = next(n for n, one in enumerate(said) if one in config.eos_token_id) + 1
    assert ids[0, 0].tolist() == [*said[:kept], *[3] * 4][: ids.shape[2]]


def test_misuse_side_by_side(model, inputs, profile):
    prefix = prefill(model, inputs)
    with pytest.raises(ValueError, match=r"no settings: expected at least one list of hooks"):
        prefix.replay_each([])
    with (
        model.hooks(rve_hooks(profile, [0], 1)),
        pytest.raises(ValueError, match="hooks are on, and each setting has its own"),
    ):
        prefix.replay_each([[]])
    with pytest.raises(ValueError, match="max_new_tokens=0: expected at least 1"):
        prefix.generate_each([[]], 0)
    wrong = [("blocks.0.attn.hook_attn_scores", lambda x, hook: x[..., :1])]
    with pytest.raises(ValueError, match=r"a hook on blocks.0.attn.hook_attn_scores .* returned"):
        prefix.replay_each([[], wrong])
    with pytest.raises(ValueError, match=r"unknown hook name 'blocks\.9"):
        prefix.replay_each([[("blocks.9.attn.hook_z", lambda x, hook: None)]])
    other = ARSProfile.from_scores(torch.rand(7, model.n_heads))
    with pytest.raises(ValueError, match="hooks of a profile of 7 layers"):
        prefix.replay_each([rve_hooks(other, [0], 1)])
    before = prefix.replay_each([[]])
    model.hf_model.generation_config.repetition_penalty = 1.2
    with pytest.raises(ValueError, match=r"has repetition_penalty=1.2: expected plain greedy"):
        prefix.generate_each([[]])
    assert torch.equal(prefix.replay_each([[]]), before)


def test_an_image_token_that_the_model_says_is_no_image():
    model = HookedLVLM.from_pretrained(build("llava")[0], processor=build("llava")[1])
    inputs = model.prepare(IMAGES[:2], QUESTIONS[:2])
    cache, seen = DynamicCache(), []

    def look(pattern, hook):
        seen.append(tokens_of(hook).n_image)

    said = torch.full((2, 3), model.image_token_id)
    mask = torch.nn.functional.pad(inputs["attention_mask"], (0, 3), value=1)
    with torch.no_grad(), model.hooks([("blocks.0.attn.hook_pattern", look)]):
        model(**inputs, past_key_values=cache, use_cache=True)
        model(input_ids=said, attention_mask=mask, past_key_values=cache, use_cache=True)
    assert seen[0] == seen[1] == model.token_map(inputs).n_image


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("shift", [-torch.inf, -3.4e38, -1e4])
def test_keys_that_an_earlier_hook_of_a_setting_hid_stay_hidden(model, inputs, shift, attention):
    model.hf_model.set_attn_implementation(attention)
    prefix = prefill(model, inputs)
    hide, profile = dilution_hooks([1], shift=shift), profile_of(model)
    later = [
        rve_hooks(profile, [1], k=2, alpha=0.3, beta=3.0),
        rve_hooks(profile, [1], k=2, alpha=0.3, max_entropy=0.99),
        pai_hooks(model.n_layers, [1], alpha=2.0),
        devils_hooks(model.n_layers, [1], alpha=1.0),
    ]
    settings = [s for hooks in later for s in ([*hide, *hooks], hooks)]
    together = prefix.replay_each(settings)
    # Near -1e4, float32 rounds a score to 1e-3; at the other shifts the scores are gone.
    atol = 1e-3 if shift == -1e4 else 2e-5
    for n, hooks in enumerate(settings):
        with model.hooks(hooks), torch.no_grad():
            alone = model(**inputs)[:, -1]
        torch.testing.assert_close(together[:, n], alone, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("names", "point"),
    [
        (lambda name: name.endswith("hook_pattern"), "vision.blocks.0.attn.hook_pattern"),
        ("hook_image_features", "hook_image_features"),
    ],
)
@pytest.mark.parametrize("hook", [lambda x, hook: x * 1.5, LastHeadOut()])
def test_hooks_that_run_while_the_image_is_read_are_refused(model, inputs, names, point, hook):
    prefix = prefill(model, inputs)
    assert not can_replay(model, [(names, hook)])
    for run in (prefix.replay_each, prefix.generate_each):
        with pytest.raises(ValueError, match=rf"on {point} runs while the image is read"):
            run([[], [(names, hook)]])
    with (
        model.hooks([(names, lambda x, hook: x)]),
        pytest.raises(ValueError, match="runs while the image is read"),
    ):
        prefix.replay()
