"""Traces under methods: hooks of all rows, and second branches, whose attention is not recorded."""

from __future__ import annotations

import pytest
import torch
from family_cases import IMAGES, QUESTIONS, hooked, profile_of, reference_logits
from reference import PATTERNS
from tiny_inputs import SPECIAL_IDS

from rvelens.evaluate.answering import Decoding, answer
from rvelens.evaluate.tracing import trace_methods
from rvelens.interventions import vcd_negative
from rvelens.interventions.contrast import combine
from rvelens.interventions.methods import make_method

N = 4
DECODING = Decoding(max_new_tokens=N, suffix="a dog")


@pytest.mark.parametrize("name", ["llava", "instructblip"])
def test_of_vcd_the_first_branch_is_recorded_and_the_contrast_is_where_tokens_come_from(name):
    model = hooked(name)
    made = make_method("vcd", model)
    traced = trace_methods(model, {"vcd": made}, IMAGES[0], QUESTIONS[0], DECODING)["vcd"]
    inputs = model.prepare(IMAGES[0], f"{QUESTIONS[0]} a dog")
    noisy = vcd_negative(inputs, [digest(IMAGES[0])])
    image = (inputs["input_ids"][0] == model.image_token_id).nonzero().flatten().tolist()
    n_prompt = inputs["input_ids"].shape[1]
    branches = []
    for branch in (noisy, inputs):  # the plain one last: its patterns stay
        logits = reference_logits(name, branch, traced.ids[None], None)[0].clone()
        logits[:, SPECIAL_IDS] = -torch.inf
        branches.append(logits)
    rows = slice(n_prompt - 1, n_prompt - 1 + N)
    for layer in range(model.n_layers):
        expected = PATTERNS[layer][0][:, rows][..., image].transpose(0, 1)
        torch.testing.assert_close(traced.attention[:, layer], expected, rtol=1e-5, atol=1e-5)
    seen = [i for i in range(branches[0].shape[1]) if i not in SPECIAL_IDS]
    negative, positive = (logits[:, seen] for logits in branches)
    log_probs = combine(positive, negative, 1.0, 0.1).log_softmax(dim=-1)
    places = [seen.index(token) for token in traced.ids.tolist()]
    torch.testing.assert_close(traced.log_probs, log_probs[range(N), places], rtol=1e-4, atol=1e-4)


def digest(image):
    import hashlib

    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def test_every_method_gives_the_answer_that_an_evaluation_gets():
    model = hooked("llava")
    profile = profile_of(model)
    names = ("vanilla", "rve", "vcd", "icd", "vaf", "pai", "devils")
    made = {name: make_method(name, model, profile if name == "rve" else None) for name in names}
    traced = trace_methods(model, made, IMAGES[0], QUESTIONS[0], DECODING)
    for name, method in made.items():
        ((text, _),) = answer(model, method, [IMAGES[0]], [f"{QUESTIONS[0]} a dog"], None, DECODING)
        assert traced[name].text == text, name
        assert traced[name].attention.shape == (N, model.n_layers, model.n_heads, 16)
    assert model.query_rows == "last"


def test_what_cannot_be_traced():
    model = hooked("llava")
    with pytest.raises(ValueError, match="no methods to trace: expected at least one"):
        trace_methods(model, {}, IMAGES[0], QUESTIONS[0])
    made = {"a": make_method("vanilla", model)}
    with (
        model.hooks([("blocks.0.attn.hook_z", lambda z, hook: None)]),
        pytest.raises(ValueError, match="hooks are on, and settings are given"),
    ):
        trace_methods(model, made, IMAGES[0], QUESTIONS[0])
