"""Which tokens are padding, by masks and in places where nothing else tells it."""

from __future__ import annotations

import pytest
import torch
from family_cases import CASES, batch, hooked
from tiny_models import build
from transformers import DynamicCache

from rvelens import HookedLVLM
from rvelens.tokens.masks import padding_seen_by_itself

PER_KEY = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
every_family = pytest.mark.parametrize("name", CASES)


def right_padded(inputs):
    """The same prompts with their padding at the end."""
    order = (1 - inputs["attention_mask"]).argsort(dim=1, stable=True)
    return {k: x.gather(1, order) if k in PER_KEY else x for k, x in inputs.items()}


def square(padding, empty_rows):
    """Masks by row and key under which padding sees itself, and nothing else if `empty_rows`."""
    n = padding.shape[1]
    real = padding.bool()
    seen = torch.ones(n, n).tril().bool() & real[:, None]
    seen = seen & real[:, :, None] if empty_rows else seen
    return (seen | torch.eye(n).bool())[:, None]


@every_family
@pytest.mark.parametrize("empty_rows", [True, False])
@torch.no_grad()
def test_padding_that_sees_itself_is_padding(name, empty_rows):
    model = hooked(name)
    for inputs in (dict(batch(model)), right_padded(batch(model))):
        padding = inputs["attention_mask"]
        positions = (padding.cumsum(dim=1) - 1).clamp(min=0)
        inputs["position_ids"] = positions.expand(3, -1, -1) if "qwen" in name else positions
        # A single token of it at the end, which sees what a token of text would see, is text.
        sure = empty_rows | (padding[:, -1] == 1) | (padding[:, -2] == 0)
        for mask in (square(padding, empty_rows), ~square(padding, empty_rows) * -1e9):
            model.hf_model(**{**inputs, "attention_mask": mask})
            assert torch.equal(model.tokens.real[sure], padding.bool()[sure])
            last = (padding * torch.arange(padding.shape[1])).argmax(dim=1)
            assert torch.equal(model.tokens.last[sure], last[sure])


@pytest.mark.parametrize("n_past", [0, 3])
def test_causal_masks_have_no_padding(n_past):
    seen = torch.ones(4, 4 + n_past).tril(n_past).bool()[None, None]
    assert not padding_seen_by_itself(seen, n_past, 4).any()
    assert padding_seen_by_itself(torch.ones(1, 4), n_past, 4) is None
    diagonal = torch.eye(4).bool()[None, None]
    assert not padding_seen_by_itself(diagonal, 0, 4).any()  # no other token is left


@every_family
@torch.no_grad()
def test_the_last_row_is_the_last_real_one_where_roles_are_unknown(name):
    """Embeddings alone: the mask tells which row is the last, though not where the image is."""
    model = hooked(name)
    decoder = model.hf_model.get_decoder()
    ids = torch.randint(30, 60, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    shown = []
    with model.hooks([("blocks.1.attn.hook_pattern", lambda x, hook: shown.append(x.clone()))]):
        decoder(input_ids=ids, attention_mask=mask)
        decoder(inputs_embeds=decoder.get_input_embeddings()(ids), attention_mask=mask)
        assert model.tokens is None
    torch.testing.assert_close(shown[1], shown[0])
    assert not shown[1][1, ..., 6:].any()


@torch.no_grad()
def test_padding_between_generated_tokens_is_padding_behind_the_next_piece(model, inputs):
    cache, mask = DynamicCache(), inputs["attention_mask"]
    model(**inputs, past_key_values=cache)
    for n, real in ((1, [1, 1, 0]), (1, [1, 0, 0]), (2, [1, 1, 1])):
        mask = torch.cat([mask, torch.tensor(real)[:, None].repeat(1, n)], dim=1)
        ids = torch.full((3, n), 40)
        position_ids = (mask.cumsum(dim=1) - 1)[:, -n:]
        model(input_ids=ids, attention_mask=mask, position_ids=position_ids, past_key_values=cache)
    assert torch.equal(model.tokens.real, mask.bool())


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # of peft
@pytest.mark.parametrize("name", ["llava", "llava_next", "llava_onevision", "internvl", "idefics3"])
@torch.no_grad()
def test_learned_prompts_stand_before_the_tokens_of_the_map(name):
    """Prompt tuning puts embeddings before those of the ids that the wrapper gets."""
    peft = pytest.importorskip("peft")
    hf_model, processor = build(name)
    config = peft.PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=4, num_layers=3, token_dim=64,
        num_attention_heads=8,
    )  # fmt: skip
    model = HookedLVLM(peft.get_peft_model(hf_model, config).eval(), processor)
    inputs = right_padded(batch(model))
    plain = HookedLVLM(build(name)[0]).token_map(inputs)
    model(**inputs)
    assert torch.equal(model.tokens.image[:, 4:], plain.image)
    assert torch.equal(model.tokens.real[:, 4:], plain.real)
    assert model.tokens.real[:, :4].all()
    assert torch.equal(model.tokens.last, plain.last + 4)
