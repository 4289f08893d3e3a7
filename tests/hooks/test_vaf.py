"""VAF against literal loops over the eager scores."""

from __future__ import annotations

import pytest
import reference
import torch
from family_cases import batch, generate, hooked, reference_forward, reference_logits
from hypothesis import given
from hypothesis import strategies as st
from reference import HIDDEN, RVE
from transformers import DynamicCache

from rvelens import TokenMap
from rvelens.hooks import vaf_hooks
from rvelens.hooks.vaf import before_image, behind_image

# Eight query heads share four of keys in each; gemma3's window cuts through its images.
NAMES = ["llava", "llava_next", "instructblip", "gemma3", "qwen2_5_vl"]
LAYERS = [0, 2]
FACTORS = {"enhance": 1.6, "suppress": 0.4}


def vaf_row(method, layer, row, image):
    scores = row.tolist()
    for h in range(len(scores)):
        for i in range(image[0]):
            if scores[h][i] > HIDDEN:
                scores[h][i] = scores[h][i] * 0.4
        for i in image:
            if scores[h][i] > HIDDEN:
                scores[h][i] = scores[h][i] * 1.6
    row.copy_(torch.tensor(scores))


def where(model, inputs):
    """What the reference needs to know of a prompt; all rows behind the image are edited."""
    ids = inputs["input_ids"]
    image = [torch.nonzero(row == model.image_token_id).flatten().tolist() for row in ids]
    return RVE([], LAYERS, image, [positions[-1] + 1 for positions in image])


@pytest.mark.parametrize("name", NAMES)
def test_each_step_of_a_generation(name, monkeypatch):
    model = hooked(name)
    model.query_rows = "all"
    inputs = batch(model)
    with torch.no_grad():
        plain = model(**inputs)[:, -1]
    with model.hooks(vaf_hooks(model.n_layers, LAYERS, **FACTORS)):
        output = generate(model, inputs, output_logits=True)
    monkeypatch.setattr(reference, "edit_row", vaf_row)
    expected = reference_logits(name, inputs, output.sequences[:, -6:], where(model, inputs))
    ours = torch.stack(output.logits, dim=1)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=2e-5)
    assert (ours[:, 0] - plain).abs().max() > 1e-2


def test_a_right_padded_forward(model, inputs, monkeypatch):
    model.query_rows = "all"
    order = inputs["attention_mask"].argsort(dim=1, stable=True, descending=True)
    inputs = {n: v.gather(1, order) if n != "pixel_values" else v for n, v in inputs.items()}
    with torch.no_grad(), model.hooks(vaf_hooks(3, LAYERS, **FACTORS)):
        logits = model(**inputs)
    monkeypatch.setattr(reference, "edit_row", vaf_row)
    expected = reference_forward("llava", inputs, where(model, inputs))
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(logits[real], expected[real], rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("n_left", [1, 4])
@torch.no_grad()
def test_a_prefill_behind_a_cached_prefix(model, inputs, n_left):
    """In two pieces, cut behind every image, a prompt gives what it gives in one."""
    model.query_rows = "all"
    mask = inputs["attention_mask"]
    with model.hooks(vaf_hooks(3, LAYERS, **FACTORS)):
        whole = model(**inputs)[:, -1]
        first = {n: v[:, :-n_left] if n != "pixel_values" else v for n, v in inputs.items()}
        cache = DynamicCache(config=model.hf_model.config.get_text_config())
        model(**first, past_key_values=cache, use_cache=True)
        rest = inputs["input_ids"][:, -n_left:]
        pieces = model(input_ids=rest, attention_mask=mask, past_key_values=cache)[:, -1]
    torch.testing.assert_close(pieces, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["llava", "gemma3"])
def test_hidden_keys_stay_hidden_and_other_rows_stay_as_they_are(name):
    """Layer 1 of gemma3 has a window that hides image tokens from the text behind them."""
    model = hooked(name)
    model.query_rows = "all"
    inputs, seen = batch(model), []

    def look(scores, hook):
        seen.append(scores.clone())

    point = "blocks.1.attn.hook_attn_scores"
    hooks = vaf_hooks(3, [1], enhance=50.0, suppress=0.5)
    with torch.no_grad(), model.hooks([(point, look), *hooks, (point, look)]):
        model(**inputs)
    before, after = seen
    hidden = before == torch.finfo(before.dtype).min
    assert (after[hidden] < -1e30).all()  # and the mask hides them again
    with torch.no_grad(), model.hooks(hooks):
        _, cache = model.run_with_cache(**inputs, names_filter="blocks.1.attn.hook_pattern")
    sees_some = ~hidden.all(dim=-1, keepdim=True)
    assert (cache["blocks.1.attn.hook_pattern"][hidden & sees_some] == 0).all()
    image = inputs["input_ids"] == model.image_token_id
    for b in range(3):
        positions = torch.nonzero(image[b]).flatten().tolist()
        expected = ~hidden[b].clone()
        expected[:, : positions[-1] + 1] = False
        edited = [k for k in range(positions[-1] + 1) if k < positions[0] or k in positions]
        others = [k for k in range(image.shape[1]) if k not in edited]
        expected[:, :, others] = False
        assert torch.equal((before[b] != after[b]) & ~hidden[b], expected)
        assert expected.any()


def test_one_row_of_a_prompt_is_refused(model, inputs):
    hooks = vaf_hooks(3, LAYERS)
    assert {hook.query_rows for _, hook in hooks} == {"all"}
    match = r'shows one of the prompt\'s \d+ rows: .* set model.query_rows = "all"'
    with pytest.raises(ValueError, match=match), model.hooks(hooks), torch.no_grad():
        model(**inputs)
    model.query_rows = "all"
    with torch.no_grad(), model.hooks(hooks):
        model(**inputs)


def test_a_prompt_without_an_image_is_left_alone(model):
    model.query_rows = "all"
    ids = torch.randint(30, 50, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = model(input_ids=ids)
        with model.hooks(vaf_hooks(3, LAYERS, enhance=3.0)):
            torch.testing.assert_close(model(input_ids=ids), plain, rtol=1e-5, atol=1e-5)


@given(st.lists(st.sampled_from("pti"), min_size=1, max_size=12), st.integers(0, 4), st.data())
def test_roles_match_a_loop(prompt, n_new, data):
    """p: padding, t: text, i: image; then tokens that were generated."""
    image = torch.tensor([[role == "i" for role in prompt]])
    real = torch.tensor([[role != "p" for role in prompt]])
    tokens = TokenMap.from_masks(image, real).extend(n_new)
    roles = prompt + ["t"] * n_new
    n_query = data.draw(st.integers(1, len(roles)))
    system, behind = [], []
    for at, role in enumerate(roles):
        there = "i" in prompt
        system.append(there and role == "t" and "i" not in roles[:at])
        behind.append(there and role == "t" and "i" not in roles[at:])
    assert before_image(tokens)[0].tolist() == system[: len(prompt)]
    assert behind_image(tokens, n_query)[0].tolist() == behind[-n_query:]


def test_published_layers_and_ranges():
    layers = [int(name.split(".")[1]) for name, _ in vaf_hooks(32)]
    assert layers == [9, 10, 11, 12, 13, 14]
    with pytest.raises(ValueError, match=r"enhance=-1\.0: expected a finite strength"):
        vaf_hooks(32, enhance=-1.0)
    with pytest.raises(ValueError, match=r"suppress=nan"):
        vaf_hooks(32, suppress=float("nan"))
    with pytest.raises(ValueError, match=r"layers \[7\] for a model of 6 layers"):
        vaf_hooks(6, [7])
