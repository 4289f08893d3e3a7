"""What masks of transformers hide, in every way that models write it."""

from __future__ import annotations

import copy

import pytest
import torch
from family_cases import CASES, batch, hooked, profile_of
from hypothesis import given
from hypothesis import strategies as st

from rvelens.hooks import rve_hooks
from rvelens.tokens.masks import HIDES, hidden_by, real_tokens

NUMBERS = {"-inf": -torch.inf, "lowest": None, "-1e9": -1e9, "-1e4": -1e4}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("number", NUMBERS)
def test_every_usual_number_hides(dtype, number):
    value = NUMBERS[number]
    lowest = torch.finfo(dtype).min
    hides = lowest if value is None else max(value, lowest) if number != "-inf" else value
    mask = torch.tensor([[[[0.0, hides, -50.0]]]], dtype=dtype)
    assert hidden_by(mask).tolist() == [[[[False, True, False]]]]
    assert torch.equal(hidden_by(mask), hidden_by(mask > HIDES))


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=5))
def test_real_tokens_by_any_kind_of_mask(rows):
    """A key is real if a row sees it, be the mask of bits or of numbers."""
    seen = torch.tensor(rows)[None, None]
    expected = seen[0, 0].any(dim=0)[None, 1:]
    for number in (-1e4, -1e9, torch.finfo(torch.float32).min):
        assert torch.equal(real_tokens((~seen) * number, 1, 3), expected)
    assert torch.equal(real_tokens(seen, 1, 3), expected)


@torch.no_grad()
@pytest.mark.parametrize("number", [-1e9, -1e4])
@pytest.mark.parametrize("name", [n for n in CASES if n not in ("gemma3", "paligemma")])
def test_a_four_dimensional_mask_gives_what_the_same_padding_gives(name, number):
    """A mask of numbers by row and key, as users build it: the same map, the same edited row."""
    model = hooked(name)
    if name == "instructblip":
        pytest.skip("its forward makes embeddings of its own, and a mask by key for them")
    prepared = dict(batch(model))
    padding = prepared["attention_mask"]
    n = padding.shape[1]
    seen = torch.ones(n, n).tril().bool()[None, None] & padding.bool()[:, None, None]
    prepared["position_ids"] = (padding.cumsum(dim=1) - 1).clamp(min=0)
    if name.startswith("qwen"):
        prepared["position_ids"] = model.hf_model.model.get_rope_index(
            **{k: v for k, v in prepared.items()
               if k in ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")}
        )[0]  # fmt: skip
    by_number = {**prepared, "attention_mask": (~seen) * number}
    hooks = rve_hooks(profile_of(model), range(model.n_layers), k=3, alpha=0.3)
    with model.hooks(hooks):
        expected = model.hf_model(**copy.copy(prepared)).logits[:, -1]
        image = model.tokens.image
        got = model.hf_model(**by_number).logits[:, -1]
    assert torch.equal(model.tokens.image, image)
    assert torch.equal(model.tokens.real, padding.bool())
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
