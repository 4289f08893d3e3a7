"""PAI and Devils against literal loops over the eager scores."""

from __future__ import annotations

import pytest
import reference
import torch
from family_cases import batch, generate, hooked, reference_logits
from reference import HIDDEN, RVE

from rvelens.heads.layers import scaled_layers
from rvelens.hooks import devils_hooks, pai_hooks

# Eight query heads share four of keys in each; gemma3's window cuts through its images.
NAMES = ["llava", "instructblip", "gemma3", "qwen2_5_vl"]
LAYERS = [0, 2]


def pai_row(method, layer, row, image):
    scores = row.tolist()
    for h in range(len(scores)):
        for i in image:
            if scores[h][i] > HIDDEN:
                scores[h][i] = scores[h][i] + 0.7 * abs(scores[h][i])
    row.copy_(torch.tensor(scores))


def devils_row(method, layer, row, image):
    scores = row.tolist()
    n_heads = len(scores)
    for i in image:
        if scores[0][i] > HIDDEN:
            size = sum(abs(scores[h][i]) for h in range(n_heads)) / n_heads
            for h in range(n_heads):
                scores[h][i] = scores[h][i] + 0.7 * size
    row.copy_(torch.tensor(scores))


CASES = {"pai": (pai_hooks, pai_row), "devils": (devils_hooks, devils_row)}


def where(model, inputs):
    """What the reference needs to know of a prompt."""
    image = [torch.nonzero(r == model.image_token_id).flatten().tolist() for r in inputs.input_ids]
    last = [int(torch.nonzero(row).max()) for row in inputs.attention_mask]
    return RVE([], LAYERS, image, last)


@pytest.mark.parametrize("rows", ["last", "all"])
@pytest.mark.parametrize("method", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_each_step_of_a_generation(name, method, rows, monkeypatch):
    hooks, literal = CASES[method]
    model = hooked(name)
    model.query_rows = rows
    inputs = batch(model)
    with torch.no_grad():
        plain = model(**inputs)[:, -1]
    with model.hooks(hooks(model.n_layers, LAYERS, alpha=0.7)):
        output = generate(model, inputs, output_logits=True)
    monkeypatch.setattr(reference, "edit_row", literal)
    expected = reference_logits(name, inputs, output.sequences[:, -6:], where(model, inputs))
    ours = torch.stack(output.logits, dim=1)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=2e-5)
    assert (ours[:, 0] - plain).abs().max() > 1e-2


@pytest.mark.parametrize("how", [{}, {"cache_implementation": "static", "disable_compile": True}])
def test_without_the_first_token_the_others_are_edited_as_ever(how, monkeypatch):
    """The authors' script with guidance: the prompt's last row is not edited, later rows are."""
    model = hooked("llava")
    inputs = batch(model)
    with torch.no_grad():
        plain = model(**inputs)[:, -1]
    with model.hooks(pai_hooks(model.n_layers, LAYERS, alpha=0.7, first_token=False)):
        output = generate(model, inputs, output_logits=True, **how)
    later = where(model, inputs)
    later.last = [n + 1 for n in later.last]  # from the first generated token on
    monkeypatch.setattr(reference, "edit_row", pai_row)
    expected = reference_logits("llava", inputs, output.sequences[:, -6:], later)
    ours = torch.stack(output.logits, dim=1)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(ours[:, 0], plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", CASES)
def test_strength_zero_changes_nothing(model, inputs, method):
    hooks = CASES[method][0]
    with torch.no_grad():
        plain = model(**inputs)
        with model.hooks(hooks(model.n_layers, [0, 1, 2], alpha=0.0)):
            edited = model(**inputs)
    torch.testing.assert_close(edited, plain, rtol=1e-5, atol=1e-5)


def test_a_prompt_without_an_image_is_left_alone(model):
    ids = torch.randint(30, 50, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = model(input_ids=ids)
        for hooks in (pai_hooks(3, [0, 1, 2]), devils_hooks(3, [0, 1, 2])):
            with model.hooks(hooks):
                torch.testing.assert_close(model(input_ids=ids), plain, rtol=1e-5, atol=1e-5)


def test_published_layers_are_scaled_to_the_depth():
    def layers(hooks):
        return [int(name.split(".")[1]) for name, _ in hooks]

    assert layers(pai_hooks(32)) == list(range(2, 32))
    assert layers(devils_hooks(32)) == list(range(5, 19))
    assert layers(devils_hooks(40)) == list(range(6, 24))
    assert layers(pai_hooks(32, [4, 2, 4])) == [2, 4]


@pytest.mark.parametrize("n_layers", [1, 2, 3, 6, 28, 40, 64])
@pytest.mark.parametrize(("first", "last"), [(2, 31), (5, 18), (9, 14), (31, 31)])
def test_scaled_layers_are_layers_of_the_model(n_layers, first, last):
    layers = scaled_layers(first, last, n_layers)
    assert layers == list(range(layers[0], layers[-1] + 1))
    assert layers[0] >= 0
    assert layers[-1] < n_layers


def test_arguments_out_of_range():
    for hooks in (pai_hooks, devils_hooks):
        with pytest.raises(ValueError, match=r"alpha=-0\.1: expected a finite strength"):
            hooks(32, alpha=-0.1)
        with pytest.raises(ValueError, match=r"alpha=inf"):
            hooks(32, alpha=float("inf"))
        with pytest.raises(ValueError, match=r"layers \[32\] for a model of 32 layers"):
            hooks(32, [3, 32])
        with pytest.raises(ValueError, match=r"layers \[\] for a model of 32 layers"):
            hooks(32, [])
