"""Last-token replay against whole forwards under the same hooks."""

from __future__ import annotations

import pytest
import torch
from tiny_models import IMAGES, QUESTIONS, build

from rvelens import ARSProfile, HookedLVLM
from rvelens.hooks import ars_caching_hooks, dilution_hooks, region_hooks, rve_hooks
from rvelens.prefix import REPLAYS, prefill


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
