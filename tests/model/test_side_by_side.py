"""How much work settings side by side share: rows of each layer, operations, forwards."""

from __future__ import annotations

import pytest
import torch
from family_cases import batch, hooked, profile_of
from tiny_models import IMAGES, QUESTIONS

from rvelens.hooks import rve_hooks
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.prefix import REPLAYS, prepare_shared
from rvelens.model.replay import prefill
from rvelens.model.side_by_side import SHARING
from rvelens.speed import sharing
from rvelens.speed.counts import count_arithmetic, count_operations
from rvelens.speed.shapes import Shape, build_random

pytestmark = pytest.mark.slow


class Rows:
    """Counts the rows that each layer of a decoder runs, forward by forward."""

    def __init__(self, model):
        self.counts = []
        self.model = model

    def __enter__(self):
        layers = self.model.hf_model.get_decoder().layers
        self.counts = [[] for _ in layers]

        def note(number):
            return lambda module, args, output: self.counts[number].append(output.shape[1])

        self.handles = [x.register_forward_hook(note(n)) for n, x in enumerate(layers)]
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()


def settings_of(model, n, first):
    """The plain model, and RVE in all layers from `first` on."""
    layers = range(first, model.n_layers)
    alphas = [0.05 + 0.9 * i / n for i in range(n - 1)]
    return [[], *(rve_hooks(profile_of(model), layers, 3, alpha, 4.0) for alpha in alphas)]


def test_settings_share_a_row_below_their_first_hook(model, inputs):
    prefix = prefill(model, inputs)
    last = model.n_layers - 1
    settings = [*settings_of(model, 6, last), *settings_of(model, 3, 1)]
    prefix.replay_each(settings)  # the self-check runs once
    with Rows(model) as rows:
        prefix.replay_each(settings)
    # Two settings begin in layer 1 and five in the last one; the two plain ones stay together.
    assert [x for (x,) in rows.counts] == [1, *[3] * (last - 1), 8]


def test_rows_below_the_first_hook_are_as_many_as_there_are_answers(model, inputs):
    prefix = prefill(model, inputs)
    settings = settings_of(model, 8, model.n_layers - 1)
    prefix.replay_each(settings)
    with Rows(model) as rows:
        ids, _ = prefix.generate_each(settings, max_new_tokens=4)
    answers = [
        max(len({tuple(said[:n].tolist()) for said in sample}) for sample in ids) for n in range(4)
    ]
    assert rows.counts[0] == answers
    assert rows.counts[-1] == [8] * 4
    assert answers[0] == 1 < answers[-1]


def test_settings_take_no_operations_of_their_own(model, inputs):
    prefix = prefill(model, inputs)
    few, many = (settings_of(model, n, 1) for n in (3, 32))
    prefix.replay_each(few)  # the self-check runs once
    of_few = count_operations(lambda: prefix.replay_each(few))
    of_many = count_operations(lambda: prefix.replay_each(many))
    assert of_many <= of_few + 4 * model.n_layers


@torch.no_grad()
def test_a_replay_of_many_settings_takes_little_more_operations_than_one(model, inputs):
    prefix = prefill(model, inputs)
    settings = settings_of(model, 32, 1)
    prefix.replay_each(settings)
    with model.hooks(settings[1]):
        alone = count_operations(prefix.replay)
    assert count_operations(lambda: prefix.replay_each(settings)) <= 2 * alone


def test_a_prefill_ends_before_the_attention_of_the_last_layer(model, inputs):
    with Rows(model) as rows:
        prefill(model, inputs)
        prefill(model, prepare_shared(model, IMAGES, QUESTIONS))
    assert all(len(counts) == 3 for counts in rows.counts[:-1])  # whole; head and tail
    assert rows.counts[-1] == []


def test_six_questions_take_three_forwards(model):
    with Rows(model) as rows:
        shared = prepare_shared(model, IMAGES[0], [*QUESTIONS, *QUESTIONS])
        model.generate(**shared, max_new_tokens=2, min_new_tokens=2, do_sample=False)
    tail = shared["input_ids"].shape[1] - rows.counts[0][0]
    assert rows.counts[0][1:] == [tail, 1]  # behind the image: the questions, one token
    assert rows.counts[-1] == [tail, 1]


def test_six_questions_take_a_fifth_of_the_arithmetic_of_one_at_a_time():
    model = HookedLVLM(build_random(Shape(4, 128, 4, 344, 1, 64, torch.float32), "cpu"))
    result = sharing.sharing(model, 1, "cpu")
    assert result["same_answers"]
    assert result["arithmetic"] > 5.5


def test_arithmetic_is_that_of_products_and_attention():
    a, b = torch.ones(3, 4), torch.ones(4, 5)
    assert count_arithmetic(lambda: a @ b + 1) == 3 * 4 * 5
    q, k = torch.ones(1, 2, 3, 8), torch.ones(1, 2, 7, 8)
    attend = torch.nn.functional.scaled_dot_product_attention
    assert count_arithmetic(lambda: attend(q, k, k)) == 2 * (2 * 3 * 7 * 8)


@pytest.mark.parametrize("name", REPLAYS)
def test_the_decoders_of_all_families_that_replay_share_rows(name):
    assert type(hooked(name).hf_model.get_decoder()).__name__ in SHARING


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("shares", [True, False])
def test_each_setting_is_that_of_the_setting_alone(model, attention, shares, monkeypatch):
    """With settings that begin in every layer, with and without shared rows."""
    if not shares:
        monkeypatch.setattr("rvelens.model.side_by_side.SHARING", frozenset())
    model.hf_model.set_attn_implementation(attention)
    # In float64: batches of other sizes round differently, in float32 by 1.2e-5 on one machine. Eager
    # attention computes its softmax in float32, so the self-check refuses it in float64, and
    # padded rows are NaN in transformers itself; its prompts have no padding here.
    model = HookedLVLM.from_pretrained(
        model.hf_model.double(), processor=model.processor, self_check=False
    )
    padded = attention == "sdpa"
    inputs = batch(model) if padded else model.prepare(IMAGES, [QUESTIONS[0]] * len(IMAGES))
    prefix = prefill(model, inputs)
    settings = [s for first in range(model.n_layers) for s in settings_of(model, 4, first)]
    together = prefix.replay_each(settings)
    ids, first = prefix.generate_each(settings, max_new_tokens=5)
    torch.testing.assert_close(first, together, rtol=0, atol=0)
    for n, hooks in enumerate(settings):
        with model.hooks(hooks):
            torch.testing.assert_close(together[:, n], prefix.replay(), rtol=0, atol=1e-5)
            alone = model.generate(**inputs, do_sample=False, max_new_tokens=5)
        assert torch.equal(ids[:, n], alone[:, inputs["input_ids"].shape[1] :])
    assert len({tuple(row.tolist()) for row in ids[0]}) > 2
