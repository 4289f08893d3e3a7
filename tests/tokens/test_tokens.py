"""TokenMap against straightforward loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformer_lens.hook_points import HookPoint

from rvelens.tokens.token_map import TokenMap, tokens_of

IMAGE = 9


@st.composite
def prompts(draw):
    """Left-padded rows of [padding, text, image, text]; ids and mask."""
    shapes = draw(
        st.lists(
            st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(1, 4)),
            min_size=1,
            max_size=4,
        )
    )
    length = max(map(sum, shapes)) + draw(st.integers(0, 2))
    ids, mask = [], []
    for before, image, after in shapes:
        row = [1] * before + [IMAGE] * image + [2] * after
        pad = length - len(row)
        ids.append([0] * pad + row)
        mask.append([0] * pad + [1] * len(row))
    return torch.tensor(ids), torch.tensor(mask), [image for _, image, _ in shapes]


@given(prompts())
def test_roles(prompt):
    ids, mask, n_image = prompt
    tokens = TokenMap.from_inputs(ids, IMAGE, mask)
    assert tokens.n_image == tuple(n_image)
    assert (tokens.image.int() + tokens.text.int() + (~tokens.real).int() == 1).all()
    assert tokens.last.tolist() == [ids.shape[1] - 1] * len(ids)
    index, valid = tokens.image_index()
    for row, n in enumerate(n_image):
        where = [i for i, token in enumerate(ids[row].tolist()) if token == IMAGE]
        assert index[row][valid[row]].tolist() == where
        assert int(valid[row].sum()) == n


@given(prompts(), st.integers(0, 5), st.integers(1, 40))
def test_alignment_with_a_layers_keys(prompt, n_generated, n_keys):
    ids, mask, _ = prompt
    tokens = TokenMap.from_inputs(ids, IMAGE, mask).extend(n_generated)
    total = ids.shape[1] + n_generated
    aligned = tokens.image_keys(n_keys, torch.device("cpu"))
    for row in range(len(ids)):
        image = [token == IMAGE for token in ids[row].tolist()] + [False] * n_generated
        # Fewer keys than tokens: the newest; more: empty slots at the end.
        expected = (
            image[total - n_keys :] if n_keys <= total else image + [False] * (n_keys - total)
        )
        assert aligned[row].tolist() == expected
    assert tokens.last.tolist() == [total - 1] * len(ids)


@given(prompts(), st.integers(1, 3))
def test_beams_repeat_samples_in_place(prompt, beams):
    ids, mask, _ = prompt
    tokens = TokenMap.from_inputs(ids, IMAGE, mask).expand(len(ids) * beams)
    expected = TokenMap.from_inputs(
        ids.repeat_interleave(beams, 0), IMAGE, mask.repeat_interleave(beams, 0)
    )
    assert torch.equal(tokens.image, expected.image)
    assert tokens.n_image == expected.n_image


@given(prompts(), st.integers(1, 20))
def test_crop_and_append_are_inverse(prompt, at):
    ids, mask, n_image = prompt
    tokens = TokenMap.from_inputs(ids, IMAGE, mask)
    at = min(at, ids.shape[1])
    rest = TokenMap.from_inputs(ids[:, at:], IMAGE, mask[:, at:])
    joined = tokens.crop(at).append(rest)
    assert torch.equal(joined.image, tokens.image)
    assert torch.equal(joined.real, tokens.real)
    assert joined.n_image == tuple(n_image)


def test_generated_keys_before_a_further_piece_are_text():
    ids = torch.tensor([[1, IMAGE, 2]])
    tokens = TokenMap.from_inputs(ids, IMAGE).extend(2).append(TokenMap.from_inputs(ids, IMAGE))
    assert tokens.image.tolist() == [[False, True, False, False, False, False, True, False]]
    assert tokens.real.all()


def test_right_padding_finds_the_last_real_token():
    ids, mask = (
        torch.tensor([[1, IMAGE, 2, 0], [1, IMAGE, 2, 2]]),
        torch.tensor([[1, 1, 1, 0], [1] * 4]),
    )
    assert TokenMap.from_inputs(ids, IMAGE, mask).last.tolist() == [2, 3]


def test_misuse():
    tokens = TokenMap.from_inputs(torch.tensor([[1], [2]]), IMAGE)
    with pytest.raises(ValueError, match="batch size 3 follows a prompt of batch size 2"):
        tokens.expand(3)

    point = HookPoint()
    point.name = "blocks.0.attn.hook_pattern"
    with pytest.raises(ValueError, match=r"blocks\.0\.attn\.hook_pattern has no token map"):
        tokens_of(point)
