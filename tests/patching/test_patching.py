"""Patches against one whole forward each, made with torch's own hooks, over all families."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from family_cases import CASES, IMAGES, QUESTIONS, hooked, profile_of
from PIL import Image, ImageOps
from transformer_lens import patching

from rvelens.hooks import head_mask_hooks, rve_hooks
from rvelens.model.hook_root import check_hook
from rvelens.patching import (
    Condition,
    pair_runs,
    patch_attention,
    patch_heads,
    patch_positions,
    patch_tokens,
)
from rvelens.patching.last_row import OF_HEADS
from rvelens.patching.positions import POINTS

FIRST = IMAGES[0].convert("RGB")
SECOND = ImageOps.mirror(ImageOps.invert(FIRST))


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5, equal_nan=True)


def decoded(output):
    """What the language model gave, which InstructBLIP hands out within its own output."""
    return getattr(output, "language_model_outputs", output)


def most_apart(logits):
    """The two tokens that two runs tell most apart."""
    apart = logits[0] - logits[1]
    return int(apart.argmax()), int(apart.argmin())


class Literal:
    """Two runs of a model on which nothing of rvelens is on, and patches by torch's hooks."""

    def __init__(self, name):
        self.model = hooked(name)
        self.layers = self.model.hf_model.get_decoder().layers
        self.clean, self.corrupted = (
            self.model.prepare(image, QUESTIONS[0]) for image in (FIRST, SECOND)
        )
        logits = torch.stack([self.logits(self.clean), self.logits(self.corrupted)])
        self.answers = most_apart(logits)
        self.ends = (logits[:, self.answers[0]] - logits[:, self.answers[1]]).double()

    def runs(self):
        return pair_runs(self.model, (FIRST, QUESTIONS[0]), (SECOND, QUESTIONS[0]), self.answers)

    @torch.no_grad()
    def logits(self, inputs):
        return decoded(self.model.hf_model(**inputs)).logits[0, -1]

    def effect(self):
        """The effect on the corrupted run, under whatever is on."""
        logits = self.logits(self.corrupted).double()
        first, second = self.answers
        difference = logits[first] - logits[second]
        return float((difference - self.ends[1]) / (self.ends[0] - self.ends[1]))

    def seen(self, modules, inputs):
        """The first argument of each module in a run."""
        kept = {}
        handles = [
            module.register_forward_pre_hook(
                lambda _, args, kwargs, n=n: kept.update(
                    {n: (args[0] if args else kwargs["hidden_states"]).clone()}
                ),
                with_kwargs=True,
            )
            for n, module in enumerate(modules)
        ]
        self.logits(inputs)
        for handle in handles:
            handle.remove()
        return kept

    @contextmanager
    def patched(self, module, edit):
        """`edit` at work on the first argument of a module."""

        def before(_, args, kwargs):
            x = (args[0] if args else kwargs["hidden_states"]).clone()
            edit(x)
            return ((x, *args[1:]), kwargs) if args else ((), {**kwargs, "hidden_states": x})

        handle = module.register_forward_pre_hook(before, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    @property
    def projections(self):
        return [layer.self_attn.o_proj for layer in self.layers]

    def heads(self, z):
        """Effects of outputs of heads in the last row, [layer head]."""
        values = np.full((len(self.layers), self.model.n_heads), np.nan)
        for layer in self.model.attention_layers:
            module = self.projections[layer]
            width = z[layer].shape[-1] // self.model.n_heads
            for head in range(self.model.n_heads):
                part = slice(head * width, (head + 1) * width)

                def edit(x, layer=layer, part=part):
                    x[0, -1, part] = z[layer][0, -1, part]

                with self.patched(module, edit):
                    values[layer, head] = self.effect()
        return torch.from_numpy(values).float()


@pytest.mark.parametrize("name", CASES)
def test_outputs_of_heads_and_attention_against_whole_forwards(name):
    literal = Literal(name)
    z = literal.seen(literal.projections, literal.clean)
    runs = literal.runs()
    if not literal.model.family.replays:
        literal.model.attention_layers = (1,)  # whole forwards take time
    assert runs.clean_difference == pytest.approx(float(literal.ends[0]), abs=1e-5)
    effects = patch_heads(runs)
    assert effects.axes == ("layer", "head")
    close(effects.values, literal.heads(z))
    attention = patch_attention(runs).values
    for layer in literal.model.attention_layers:

        def edit(x, layer=layer):
            x[0, -1] = z[layer][0, -1]

        with literal.patched(literal.projections[layer], edit):
            close(attention[layer], torch.tensor(literal.effect()))
    assert not literal.model.list_hooks()


@pytest.mark.parametrize("name", CASES)
def test_parts_of_heads_against_whole_forwards(name):
    """One hook on one head in a whole forward; keys and values by the outputs that they lead to."""
    literal = Literal(name)
    model, layer, head = literal.model, 1, 5
    runs = literal.runs()
    model.attention_layers = (layer,)  # the others' heads take time
    points = {
        what: [f"blocks.{n}.{OF_HEADS[what]}" for n in range(model.n_layers)] for what in "qkv"
    }
    points["pattern"] = [f"blocks.{n}.attn.hook_pattern" for n in range(model.n_layers)]
    with torch.no_grad():
        every = [point for some in points.values() for point in some]
        _, clean = model.run_with_cache(**literal.clean, names_filter=every)
    group = head * clean[points["k"][layer]].shape[2] // model.n_heads

    def pattern(x, hook):
        x[:, head, -1] = clean[hook.name][:, head, -1]
        return x

    def query(x, hook):
        x[:, -1, head] = clean[hook.name][:, -1, head]
        return x

    def keys(x, hook):
        x[:, :, group] = clean[hook.name][:, :, group]
        return x

    for what, hook in (("pattern", pattern), ("q", query)):
        with model.hooks([(points[what][layer], hook)]):
            expected = literal.effect()
        close(patch_heads(runs, what).values[layer, head], torch.tensor(expected))
    for what in "kv":
        with model.hooks([(points[what][layer], keys)]):
            z = literal.seen(literal.projections, literal.corrupted)
        width = z[layer].shape[-1] // model.n_heads
        part = slice(head * width, (head + 1) * width)

        def edit(x, z=z, part=part):
            x[0, -1, part] = z[layer][0, -1, part]

        with literal.patched(literal.projections[layer], edit):
            expected = literal.effect()
        close(patch_heads(runs, what).values[layer, head], torch.tensor(expected))


@pytest.mark.parametrize("name", CASES)
def test_the_residual_stream_against_whole_forwards(name):
    literal = Literal(name)
    runs = literal.runs()
    stream = literal.seen(literal.layers, literal.clean)
    effects = patch_positions(runs, batch_size=16)
    n = runs.tokens.n_keys
    assert effects.values.shape == (len(literal.layers), n)
    assert len(effects.tokens) == n
    image = runs.image_positions()
    image_token = int(image.nonzero()[len(image.nonzero()) // 2])
    for layer, position in ((0, image_token), (1, image_token), (2, n - 1), (1, n - 2)):

        def edit(x, layer=layer, position=position):
            x[0, position] = stream[layer][0, position]

        with literal.patched(literal.layers[layer], edit):
            close(effects.values[layer, position], torch.tensor(literal.effect()))
    together = patch_tokens(runs, image).values
    for layer, module in enumerate(literal.layers):

        def edit_all(x, layer=layer):
            x[0, image] = stream[layer][0, image]

        with literal.patched(module, edit_all):
            close(together[layer], torch.tensor(literal.effect()))


def test_outputs_of_attention_and_mlp_add_up_to_the_stream():
    """In the last row, a patch of all that a block adds up is a patch of the block's output."""
    literal = Literal("llava")
    runs, last = literal.runs(), torch.zeros(28, dtype=torch.bool)
    last[-1] = True
    every = {point: patch_positions(runs, point).values for point in POINTS}
    close(every["hook_attn_out"][:, -1], patch_attention(runs).values)
    for point in POINTS:
        close(patch_tokens(runs, last, point).values, every[point][:, -1])
    points = [f"blocks.1.{point}" for point in ("hook_resid_pre", "hook_attn_out", "hook_mlp_out")]
    with torch.no_grad():
        _, clean = literal.model.run_with_cache(**literal.clean, names_filter=points)

    def patch(x, hook):
        x[:, -1] = clean[hook.name][:, -1]
        return x

    with literal.model.hooks([(point, patch) for point in points]):
        close(every["hook_resid_post"][1, -1], torch.tensor(literal.effect()))


def test_the_helpers_of_transformer_lens_give_the_same():
    literal = Literal("llava")
    runs, ids = literal.runs(), literal.corrupted["input_ids"]
    with torch.no_grad(), literal.model.default_inputs(literal.corrupted):
        _, cache = literal.model.run_with_cache(**literal.clean)
        stream = patching.get_act_patch_resid_pre(
            literal.model, ids, cache, lambda logits: runs.effect(logits[:, -1])[0]
        )
    close(patch_positions(runs).values, stream)


@pytest.mark.parametrize(
    ("name", "steered"), [("llava", "clean"), ("llava", "corrupted"), ("instructblip", "clean")]
)
def test_between_a_plain_and_a_steered_run(name, steered):
    """Where RVE edits one layer, its outputs carry the whole difference."""
    model = hooked(name)
    hooks = rve_hooks(profile_of(model), layers=[1], k=3, alpha=0.3, beta=2.0)
    plain, other = Condition(FIRST, QUESTIONS[0]), Condition(FIRST, QUESTIONS[0], hooks)
    inputs = model.prepare(FIRST, QUESTIONS[0])
    with torch.no_grad():
        logits = [model(**inputs, logits_to_keep=1)[0, -1]]
        with model.hooks(hooks):
            logits.insert(steered == "corrupted", model(**inputs, logits_to_keep=1)[0, -1])
    first, second = most_apart(logits)
    sides = (other, plain) if steered == "clean" else (plain, other)
    runs = pair_runs(model, *sides, answers=(first, second))
    assert runs.clean_difference == pytest.approx(float(logits[0][first] - logits[0][second]))
    attention = patch_attention(runs).values
    close(attention[1], torch.tensor(1.0))
    close(attention[0], torch.tensor(0.0))
    # The steered pattern in the place of the plain one does the same, head by head.
    close(patch_heads(runs, "pattern").values[1], patch_heads(runs, "z").values[1])
    assert patch_heads(runs, "v").values[1].abs().max() < 1e-4  # the images are the same
    close(patch_positions(runs, "hook_resid_post").values[1, -1], torch.tensor(1.0))


def test_hooks_that_no_replay_can_run_get_whole_forwards():
    model = hooked("llava")
    masked = Condition(FIRST, QUESTIONS[0], head_mask_hooks({0: [1, 2]}))
    runs = pair_runs(model, (FIRST, QUESTIONS[0]), masked, answers=(7, 9))
    point = "blocks.1.attn.hook_z"
    with torch.no_grad():
        _, clean = model.run_with_cache(**runs.inputs("clean"), names_filter=point)

    def patch(z, hook):
        z[:, -1, 3] = clean[point][:, -1, 3]
        return z

    with model.hooks([*masked.hooks, (point, patch)]), torch.no_grad():
        logits = model(**runs.inputs("corrupted"))[:, -1]
    close(patch_heads(runs).values[1, 3], runs.effect(logits)[0])


def test_between_two_texts_and_by_the_likeliest_answers():
    model = hooked("llava")
    other = QUESTIONS[0].split()
    other[0], other[1] = other[1], other[0]
    texts = (FIRST, QUESTIONS[0]), (FIRST, " ".join(other))
    runs = pair_runs(model, *texts, answers=(7, 9))
    image = runs.image_positions()
    close(patch_tokens(runs, image).values[0], torch.tensor(0.0))  # the same image
    close(patch_tokens(runs, ~image).values[0], torch.tensor(1.0))
    ids = [int(model(**model.prepare(*text))[0, -1].argmax()) for text in texts]
    if ids[0] != ids[1]:
        assert pair_runs(model, *texts).answers == tuple(ids)


def test_effects_as_a_frame():
    runs = Literal("llava").runs()
    heads = patch_heads(runs)
    frame = heads.to_dataframe()
    assert list(frame.columns) == ["layer", "head", "effect"]
    row = frame[(frame.layer == 2) & (frame["head"] == 5)]
    assert float(row.effect.iloc[0]) == float(heads.values[2, 5])
    positions = patch_positions(runs)
    frame = positions.to_dataframe()
    assert list(frame.columns) == ["layer", "position", "token", "effect"]
    assert list(frame[frame.layer == 1].token) == list(positions.tokens)
    assert list(patch_attention(runs).to_dataframe().columns) == ["layer", "effect"]


def test_a_layer_without_attention_has_no_effect():
    runs = Literal("llava").runs()
    runs.model.attention_layers = (0, 2)
    assert patch_heads(runs).values[1].isnan().all()
    assert patch_positions(runs, "hook_attn_out", batch_size=28).values[1].isnan().all()
    assert not patch_attention(runs).values[[0, 2]].isnan().any()


def test_what_is_refused():
    model, same = hooked("llava"), (FIRST, QUESTIONS[0])
    other = (SECOND, QUESTIONS[0])
    with pytest.raises(ValueError, match=r"a clean prompt of \d+ tokens and a corrupted one of \d+: "
                       "expected prompts of one length"):  # fmt: skip
        pair_runs(model, same, (FIRST, QUESTIONS[0] + " yes"), (7, 9))
    with pytest.raises(ValueError, match=r"logits differ by .* in the clean run and by .* in the"):
        pair_runs(model, same, same, (7, 9))
    with pytest.raises(ValueError, match=r"both answers give the token .*: expected two different"):
        pair_runs(model, same, other, (7, 7))
    with pytest.raises(ValueError, match=r"both runs give the token .*: expected two different"):
        pair_runs(model, same, same)
    with pytest.raises(ValueError, match="answer 99999: expected the id of a token, from 0 to"):
        pair_runs(model, same, other, (7, 99999))
    with pytest.raises(ValueError, match="1 answer: expected two tokens"):
        pair_runs(model, same, other, ["yes"])
    with (
        model.hooks(head_mask_hooks({0: [1]})),
        pytest.raises(ValueError, match="hooks are on, and"),
    ):
        pair_runs(model, same, other, (7, 9))
    runs = pair_runs(model, same, other, (7, 9))
    with pytest.raises(ValueError, match="what='zz': expected one of z, pattern, q, k, v; use"):
        patch_heads(runs, "zz")
    with pytest.raises(
        ValueError, match=r"point='hook_z': expected one of hook_resid_pre, .*; use"
    ):
        patch_positions(runs, "hook_z")
    with pytest.raises(ValueError, match="batch_size=0: expected at least 1"):
        patch_positions(runs, batch_size=0)
    with pytest.raises(ValueError, match="0 of 28 positions for prompts of 28 tokens: expected at"):
        patch_tokens(runs, torch.zeros(28, dtype=torch.bool))
    with pytest.raises(ValueError, match="a region of 3 tokens for an image of 16: expected one"):
        runs.image_positions(torch.ones(3, dtype=torch.bool))


def test_images_of_another_grid_are_refused():
    model = hooked("qwen2_vl")
    wide, high = (Image.effect_noise(size, 90).convert("RGB") for size in ((48, 24), (24, 48)))
    with pytest.raises(
        ValueError, match="lie in other rows and columns: expected images of one grid"
    ):
        pair_runs(model, (wide, QUESTIONS[0]), (high, QUESTIONS[0]), (7, 9))


def test_image_tokens_at_other_positions_are_refused():
    """A larger image with a shorter question: prompts of one length."""
    model = hooked("qwen2_vl")
    small, large = (Image.effect_noise(size, 90).convert("RGB") for size in ((24, 24), (48, 24)))
    n_small, n_large = (model.prepare(x, "yes")["input_ids"].shape[1] for x in (small, large))
    assert n_large > n_small
    longer = "yes" + " yes" * (n_large - n_small)
    with pytest.raises(ValueError, match="is an image token in one prompt alone: expected image"):
        pair_runs(model, (large, "yes"), (small, longer), (7, 9))


def test_texts_that_the_tokenizer_does_not_know_are_no_answers():
    model = hooked("llava")
    with pytest.raises(ValueError, match="'Maybe' is not in the vocabulary: expected a text that"):
        model.to_single_token("Maybe")


@pytest.mark.parametrize("hook", ["h", ("hook_embed",), ("hook_embed", 3), (3, print)])
def test_what_is_no_pair_of_a_point_and_a_function_is_no_hook(hook):
    with pytest.raises(ValueError, match="expected a pair of a hook point, or a filter of names"):
        check_hook(hook)
