"""Every view against a literal reference in loops, over all families; what is refused."""

from __future__ import annotations

import pytest
import torch
from family_cases import CASES, IMAGES, QUESTIONS, hooked

from rvelens.views import VIEWS, find_view, view_images
from rvelens.views.base import ViewInput
from rvelens.views.lens import by_layer

TARGET = 7


def close(a, b):
    torch.testing.assert_close(a, b, rtol=2e-4, atol=1e-6)


def decoded(output):
    """What the language model gave, which InstructBLIP hands out within its own output."""
    return getattr(output, "language_model_outputs", output)


def eager_attention(name, target=None):
    """Attention of transformers' own eager forward and its gradients, by layer, and image positions."""
    model = hooked(name)
    model.hf_model.set_attn_implementation("eager")
    inputs = model.prepare(IMAGES[0], QUESTIONS[0])
    output = decoded(model.hf_model(**inputs, output_attentions=True))
    for weights in output.attentions:
        weights.retain_grad()
    logits = output.logits[0, -1]
    chosen = int(logits.argmax()) if target is None else target
    logits[chosen].backward()
    image = (inputs["input_ids"][0] == model.image_token_id).nonzero().flatten().tolist()
    return (
        [weights.detach()[0] for weights in output.attentions],
        [weights.grad[0] for weights in output.attentions],
        image,
    )


def literal_attention(patterns, gradients, image):
    values = [
        [float(layer[head, -1, i]) for layer in patterns for head in range(len(layer))]
        for i in image
    ]
    return [sum(each) / len(each) for each in values]


def literal_gradient_attention(patterns, gradients, image):
    products = [
        [
            float(a[head, -1, i]) * max(float(g[head, -1, i]), 0.0)
            for a, g in zip(patterns, gradients, strict=True)
            for head in range(len(a))
        ]
        for i in image
    ]
    return [sum(each) / len(each) for each in products]


def identity(n):
    return [[float(row == column) for column in range(n)] for row in range(n)]


def matmul(a, b):
    return (torch.tensor(a, dtype=torch.float64) @ torch.tensor(b, dtype=torch.float64)).tolist()


def literal_relevancy(patterns, gradients, image):
    """Equations 5 and 6, head by head and entry by entry."""
    n = patterns[0].shape[-1]
    r = identity(n)
    for a, g in zip(patterns, gradients, strict=True):
        a, g = a.tolist(), g.tolist()
        mean = [
            [
                sum(max(a[h][i][j] * g[h][i][j], 0.0) for h in range(len(a))) / len(a)
                for j in range(n)
            ]
            for i in range(n)
        ]
        passed = matmul(mean, r)
        r = [[r[i][j] + passed[i][j] for j in range(n)] for i in range(n)]
    return [r[-1][i] for i in image]


def literal_rollout(patterns, gradients, image):
    """Equation 1 and the recursion below it."""
    n = patterns[0].shape[-1]
    r = identity(n)
    for a in patterns:
        mean = a.double().mean(dim=0).tolist()
        mixed = [[0.5 * mean[i][j] + 0.5 * float(i == j) for j in range(n)] for i in range(n)]
        r = matmul(mixed, r)
    return [r[-1][i] for i in image]


LITERAL = {
    "attention": literal_attention,
    "gradient-attention": literal_gradient_attention,
    "relevancy": literal_relevancy,
    "rollout": literal_rollout,
}


@pytest.mark.parametrize("name", CASES)
def test_views_of_attention_against_loops(name):
    reference = eager_attention(name)
    model = hooked(name)
    for view, literal in LITERAL.items():
        (found,) = view_images(model, IMAGES[0], QUESTIONS[0], view)
        close(found, torch.tensor(literal(*reference), dtype=torch.float32))
    assert model.query_rows == "last"


@pytest.mark.parametrize("name", CASES)
def test_the_lens_against_loops(name):
    model = hooked(name)
    inputs = model.prepare(IMAGES[0], QUESTIONS[0])
    hf_model = model.hf_model
    with torch.no_grad():
        states = decoded(hf_model(**inputs, output_hidden_states=True))
    image = (inputs["input_ids"][0] == model.image_token_id).nonzero().flatten().tolist()
    target = int(states.logits[0, -1].argmax())
    norm = hf_model.get_decoder().norm
    expected = torch.zeros(model.n_layers, len(image))
    with torch.no_grad():
        for layer in range(model.n_layers):
            # The last of transformers' hidden states is behind the final norm already.
            last = layer == model.n_layers - 1
            x = states.hidden_states[layer + 1][0]
            for n, position in enumerate(image):
                vector = x[position] if last else norm(x[position][None, None])[0, 0]
                logits = hf_model.get_output_embeddings()(vector)
                expected[layer, n] = logits.softmax(dim=-1)[target]
    close(by_layer(ViewInput(model, inputs))[:, 0], expected)
    close(view_images(model, IMAGES[0], QUESTIONS[0], "logit-lens")[0], expected.amax(dim=0))


@pytest.mark.parametrize("view", VIEWS)
def test_a_batch_gives_what_each_question_gives_alone(view):
    """Prompts of different lengths, padded on the left; images of different sizes."""
    model = hooked("llava_next")
    together = view_images(model, IMAGES, QUESTIONS, view)
    for row, image, question in zip(together, IMAGES, QUESTIONS, strict=True):
        (alone,) = view_images(model, image, question, view)
        close(row[: len(alone)], alone)
        assert not row[len(alone) :].any()


def test_a_target_is_a_text_or_an_id():
    model = hooked("llava")
    patterns, gradients, image = eager_attention("llava", TARGET)
    word = model.tokenizer.decode([TARGET])
    for view in ("gradient-attention", "relevancy"):
        expected = torch.tensor(LITERAL[view](patterns, gradients, image), dtype=torch.float32)
        for target in (TARGET, word):
            (found,) = view_images(model, IMAGES[0], QUESTIONS[0], view, targets=[target])
            close(found, expected)


def test_a_frozen_model_has_gradients_of_its_attention_too():
    model = hooked("llava")
    before = view_images(model, IMAGES[0], QUESTIONS[0], "relevancy")
    model.hf_model.requires_grad_(False)
    close(view_images(model, IMAGES[0], QUESTIONS[0], "relevancy"), before)


def test_under_hooks_it_is_the_edited_model():
    model = hooked("llava")
    plain = view_images(model, IMAGES[0], QUESTIONS[0], "attention")
    with model.hooks([("blocks.1.attn.hook_attn_scores", lambda s, hook: s * 0.5)]):
        assert not torch.allclose(plain, view_images(model, IMAGES[0], QUESTIONS[0]))


def test_what_is_refused():
    model = hooked("llava")
    with pytest.raises(
        ValueError, match=r"view 'relevance': expected one of attention, .*'relevancy'"
    ):
        find_view("relevance")
    with pytest.raises(
        ValueError, match="2 targets for 1 question: expected a list with one token"
    ):
        view_images(model, IMAGES[0], QUESTIONS[0], targets=[1, 2])
    with pytest.raises(ValueError, match="target 99999: expected the id of a token, from 0 to"):
        view_images(model, IMAGES[0], QUESTIONS[0], targets=[99999])
    model.hf_model.config.text_config.final_logit_softcapping = 30.0
    with pytest.raises(NotImplementedError, match=r"has final_logit_softcapping=30\.0: expected"):
        view_images(model, IMAGES[0], QUESTIONS[0], "logit-lens")


@pytest.mark.parametrize("view", ["relevancy", "rollout"])
def test_layers_without_attention_are_refused_where_a_rule_needs_them(view):
    model = hooked("llava")
    model.attention_layers = (0, 2)
    with pytest.raises(
        ValueError, match=rf"{view} of .*only layers 0,2 of 3 have attention: expected"
    ):
        view_images(model, IMAGES[0], QUESTIONS[0], view)


def test_every_view_names_its_source():
    assert all("http" in view.source or "paper" in view.source for view in VIEWS.values())


@pytest.mark.parametrize("name", CASES)
def test_the_cache_of_transformer_lens_has_a_logit_lens(name):
    """Behind the last layer it is the model's own logits, at every layer that of loops."""
    model = hooked(name)
    with torch.no_grad():
        logits, cache = model.run_with_cache(**model.prepare(IMAGES[0], QUESTIONS[0]))
        lens = cache.logit_lens(positions=-1)
        torch.testing.assert_close(lens.values[-1].flatten(), logits[0, -1], rtol=1e-5, atol=1e-5)
        x = cache["blocks.1.hook_resid_pre"][0, -1]
        expected = model.unembed(model.ln_final(x[None, None]))[0, 0]
    torch.testing.assert_close(lens.values[1].flatten(), expected, rtol=1e-5, atol=1e-5)
