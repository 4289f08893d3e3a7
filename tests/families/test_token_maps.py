"""The token map follows every way in which a prompt can be run, for every family and decoder.

A prompt may come in turns, behind a cache that was copied, cut or picked, as embeddings, or in beams.
Its map must be the literal one, and its logits under RVE those of one whole forward from scratch.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import tiny_decoders
import torch
from family_cases import CASES, batch, hooked, profile_of
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_decoders import DECODERS
from tiny_inputs import SPECIAL_IDS, VOCAB
from tiny_models import IMAGES, QUESTIONS
from torch import Tensor
from transformers import DynamicCache, StaticCache

from rvelens import HookedLVLM
from rvelens.hooks import rve_hooks
from rvelens.tokens.token_map import TokenMap, tokens_of

ALL = (*CASES, *DECODERS)
PER_KEY = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
WORDS = range(len(SPECIAL_IDS), len(VOCAB))
N_NEW = 2
GREEDY = {"max_new_tokens": N_NEW, "do_sample": False}
# Behind a cache these read the kinds of all tokens, not of the new ones alone.
KINDS_OF_ALL = ("gemma3", "gemma4", "gemma4_moe")
# A prompt in parts may be another one: every token of it sees the last one, padding moves the blocks
# of a sparse mask, or a state is rounded otherwise.
MAY_DIFFER = ("paligemma", "minimax_m3_vl", "nemotron_h_omni")
# These want their pixels in every forward, and `generate` wants those of the whole prompt.
WANT_PIXELS = ("instructblip", "blip_2")
# Features of their images enter later layers too, so that embeddings do not tell all.
DEEP = ("qwen3_vl", "qwen3_vl_moe")
# Embeddings are no input to the forward or to `generate`, or none beside pixels.
NO_EMBEDS = (*WANT_PIXELS, "gemma4")
NO_EMBEDS_TO_GENERATE = (*NO_EMBEDS, "gemma3", "paligemma")
NO_EMBEDS_BESIDE_PIXELS = ("blip_2", "gemma4", "llama4")
# `generate` repeats the prompt of these, but not its pixels.
NO_BEAMS = ("llama4", "fuyu")
# The last row sees so few image tokens that a share of 0.3 would enhance none.
SHARES = {"mistral3": 0.1, "mistral_large4": 0.01}
# Delta nets compute a prompt in chunks, and unscaled scores are large: these round more.
ROUNDS = ("qwen3_5", "minicpmv4_6", "gemma4")

either = pytest.mark.parametrize("bare", [False, True], ids=["model", "hf_model"])
every = pytest.mark.parametrize("name", ALL)
families = pytest.mark.parametrize("name", CASES)
no_map = pytest.raises(ValueError, match=r"attn\.hook_attn_scores has no token map")


@dataclass(frozen=True)
class Subject:
    """A wrapped tiny model and what it reads.

    Attributes:
        turns: two prompts of one sample with one image each.
        dialogue: both turns as one prompt with two images.
        prompts: a left-padded batch with one image a sample.
    """

    name: str
    model: HookedLVLM
    turns: tuple[dict[str, Tensor], dict[str, Tensor]]
    dialogue: dict[str, Tensor]
    prompts: dict[str, Tensor]

    @property
    def hooks(self) -> Any:
        profile, alpha = profile_of(self.model), SHARES.get(self.name, 0.3)
        return rve_hooks(profile, self.model.attention_layers, k=3, alpha=alpha)

    @property
    def exact(self) -> bool:
        """Whether a prompt in parts always equals a whole forward."""
        return self.name not in MAY_DIFFER

    def close(self, got: Tensor, expected: Tensor) -> None:
        atol = 1e-4 if self.name in ROUNDS else 1e-5
        torch.testing.assert_close(got, expected, rtol=0, atol=atol)

    def empty_cache(self) -> DynamicCache:
        return DynamicCache(config=self.model.hf_model.config.get_text_config(decoder=True))


@cache
def subject_of(name: str) -> Subject:
    """Built once: what a test leaves behind in a model must not matter to the next one."""
    if name in CASES:
        model = hooked(name)
        both = dict(model.prepare(IMAGES[:2], QUESTIONS[:2]))
        turns = tuple(dict(model.prepare(IMAGES[n], QUESTIONS[n])) for n in (0, 1))
        prompts = dict(batch(model))
    else:
        hf_model, both = tiny_decoders.build(name)
        model = HookedLVLM(hf_model)
        both = {k: v[:, :-12] if k in PER_KEY else v for k, v in both.items()}
        turns = tuple({k: _half(name, k, v, n) for k, v in both.items()} for n in (0, 1))
        prompts = left_padded(both)
    media = media_of(both)
    if name in ("idefics3", "smolvlm"):  # one row of images a sample
        media = {k: torch.cat([turn[k] for turn in turns], dim=1) for k in media}
    tokens = {k: torch.cat([turn[k] for turn in turns], dim=1) for k in PER_KEY if k in both}
    return Subject(name, model, turns, tokens | media, prompts)


def _half(name: str, key: str, x: Tensor, n: int) -> Tensor:
    packed = name == "minicpmv4_6" and key == "pixel_values"
    return x.chunk(2, dim=-1 if packed else 0)[n]


def left_padded(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The prompts with two more words each, which are padding in the first."""
    more = {"input_ids": [[0, 0], [WORDS[3], WORDS[4]]], "attention_mask": [[0, 0], [1, 1]]}
    zeros = [[0, 0], [0, 0]]
    return {
        k: torch.cat([v.new_tensor(more.get(k, zeros)), v], dim=1) if k in PER_KEY else v
        for k, v in inputs.items()
    }


def media_of(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in inputs.items() if k not in PER_KEY}


def tokens_only(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in inputs.items() if k in PER_KEY}


def words(*numbers: int) -> Tensor:
    return torch.tensor([[WORDS[n] for n in numbers]])


def with_text(inputs: Mapping[str, Tensor], ids: Tensor, before: bool = False) -> dict[str, Tensor]:
    """The prompt with more text behind or before it."""
    ids = ids.expand(len(inputs["input_ids"]), -1)
    more = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    out = dict(inputs)
    for key in tokens_only(inputs):
        new = more.get(key, torch.zeros_like(ids)).to(inputs[key].dtype)
        out[key] = torch.cat([new, inputs[key]] if before else [inputs[key], new], dim=1)
    return out


def image_columns(subject: Subject, inputs: Mapping[str, Tensor]) -> tuple[int, int]:
    """The first column that holds an image token, and the first one behind all of them."""
    columns = (inputs["input_ids"] == subject.model.image_token_id).any(dim=0).nonzero()
    return int(columns.min()), int(columns.max()) + 1


def positions_of(subject: Subject, inputs: Mapping[str, Tensor]) -> Tensor | None:
    """Positions that depend on the whole prompt; None where the model counts tokens."""
    method = getattr(getattr(subject.model.hf_model, "model", None), "get_rope_index", None)
    if method is None:
        return None
    if "image_grid_thw" not in inputs:  # text, or a part of an image
        counted = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
        return counted.expand(3, -1, -1)
    keys = ("input_ids", "image_grid_thw", "attention_mask", "mm_token_type_ids")
    return method(**{k: inputs[k] for k in keys if k in inputs})[0]


def piece(
    subject: Subject,
    inputs: Mapping[str, Tensor],
    start: int,
    stop: int | None = None,
    media: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Some columns of a prompt with the media that belong to them, for a forward of these alone."""
    stop = inputs["input_ids"].shape[1] if stop is None else stop
    out = dict(media or {})
    for key in tokens_only(inputs):
        whole = key == "attention_mask" or (key != "input_ids" and subject.name in KINDS_OF_ALL)
        out[key] = inputs[key][:, 0 if whole else start : stop]
    positions = positions_of(subject, inputs)
    if positions is not None:
        out["position_ids"] = positions[..., start:stop]
    if subject.name in WANT_PIXELS and not media:
        out |= media_of(subject.turns[0])
    return out


def for_generate(
    subject: Subject, inputs: Mapping[str, Tensor], media: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """All tokens of a prompt with the media of those that a cache does not hold."""
    out = tokens_only(inputs) | dict(media)
    positions = positions_of(subject, inputs)
    if positions is not None:
        out["position_ids"] = positions
    return out | media_of(inputs) if subject.name in WANT_PIXELS else out


def literal_map(subject: Subject, inputs: Mapping[str, Tensor]) -> TokenMap:
    """The map as loops over ids and mask tell it."""
    rows = zip(inputs["input_ids"].tolist(), inputs["attention_mask"].tolist(), strict=True)
    image_id = subject.model.image_token_id
    both = [
        [(bool(m) and i == image_id, bool(m)) for i, m in zip(*row, strict=True)] for row in rows
    ]
    image, real = torch.tensor(both).unbind(dim=-1)
    return TokenMap.from_masks(image, real)


def assert_map(tokens: TokenMap | None, expected: TokenMap) -> None:
    """The maps say the same of every key, whether or not it was generated."""
    assert tokens is not None
    assert tokens.n_keys == expected.n_keys
    assert tokens.n_image == expected.n_image

    def whole(mask: Tensor, fill: bool) -> list[list[bool]]:
        missing = expected.n_keys - mask.shape[1]
        return torch.nn.functional.pad(mask, (0, missing), value=fill).tolist()

    assert whole(tokens.image, False) == whole(expected.image, False)
    assert whole(tokens.real, True) == whole(expected.real, True)
    assert tokens.last.tolist() == expected.last.tolist()


def assert_maps(got: list[TokenMap], expected: list[TokenMap]) -> None:
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        assert_map(ours, theirs)


def fill(
    subject: Subject, inputs: Mapping[str, Tensor], cache: Any = None, **more: Any
) -> DynamicCache:
    """Run a forward without hooks, and return the cache that holds it."""
    cache = subject.empty_cache() if cache is None else cache
    subject.model(**inputs, past_key_values=cache, use_cache=True, **more)
    return cache


def without_map(cache: DynamicCache, subject: Subject) -> DynamicCache:
    """The cache made anew of its tensors."""
    plain = subject.name not in KINDS_OF_ALL and subject.name in CASES
    if not plain:  # windows, states and indices, which no method fills
        new = DynamicCache()
        new.layers = copy.deepcopy(cache.layers)
        return new
    new = subject.empty_cache()
    for n, layer in enumerate(cache.layers):
        new.update(layer.keys.clone(), layer.values.clone(), n)
    return new


def check_last_piece(
    subject: Subject,
    rest: Mapping[str, Tensor],
    cache: DynamicCache,
    whole: Mapping[str, Tensor] | None,
    expected: TokenMap | None = None,
) -> Tensor:
    """Behind this cache, map and logits are those of one whole forward, and RVE is on.

    Args:
        rest: what is not in the cache yet.
        whole: the whole prompt; None where no single forward could read it.
        expected: its map; by default from its ids.
    """
    model = subject.model
    if expected is None:
        expected = literal_map(subject, whole)
    plain = model(**rest, past_key_values=copy.deepcopy(cache))[:, -1]
    exact = whole is not None
    if exact and not subject.exact:  # it may be all the same
        exact = torch.allclose(plain, model(**whole)[:, -1], rtol=0, atol=1e-5)
    with model.hooks(subject.hooks):
        told = model(**rest, past_key_values=copy.deepcopy(cache), tokens=expected)[:, -1]
        got = model(**rest, past_key_values=cache)[:, -1]
        assert_map(model.tokens, expected)
        torch.testing.assert_close(got, told, rtol=0, atol=1e-6)
        if whole is not None and exact:
            subject.close(got, model(**whole)[:, -1])
            assert_map(model.tokens, expected)
    if subject.name != "mistral_large4":  # its row may see no image token among its 8 keys
        assert (got - plain).abs().max() > 1e-3, "RVE is on"
    return got


@contextmanager
def recorded(subject: Subject) -> Iterator[list[TokenMap]]:
    """RVE on, and the token map of each forward inside, in the order in which they run."""
    seen: list[TokenMap] = []

    def look(x: Tensor, hook: Any) -> None:
        tokens = tokens_of(hook)
        seen.append(tokens.crop(tokens.n_keys))  # a map behind a static cache counts on

    point = f"blocks.{subject.model.attention_layers[0]}.attn.hook_attn_scores"
    with subject.model.hooks([*subject.hooks, (point, look)]):
        yield seen


def steps(expected: TokenMap, n: int = N_NEW) -> list[TokenMap]:
    """The maps of a generation: of the prompt, and with each token behind it but the last."""
    return [expected.extend(step) for step in range(n)]


def generated(subject: Subject, generate: Any, **inputs: Any) -> tuple[Tensor, list[TokenMap]]:
    """Logits [row new vocab] and the map of each step."""
    with recorded(subject) as seen:
        output = generate(**inputs, **GREEDY, return_dict_in_generate=True, output_logits=True)
    return torch.stack(output.logits, dim=1), seen


def check_generation(
    subject: Subject,
    inputs: Mapping[str, Tensor],
    cache: DynamicCache,
    whole: Mapping[str, Tensor],
    bare: bool,
) -> None:
    """Behind this cache, maps and logits are those of a generation without any.

    Args:
        inputs: for `generate`: all tokens, and the media of those that the cache does not hold.
        bare: call the Hugging Face model's own `generate`.
    """
    known, generate = literal_map(subject, whole), subject.model.generate
    if subject.exact:
        expected, seen = generated(subject, generate, **whole)
        assert_maps(seen, steps(known))
    else:
        given = {"past_key_values": copy.deepcopy(cache), "tokens": known}
        expected, _ = generated(subject, generate, **inputs, **given)
    generate = subject.model.hf_model.generate if bare else generate
    # Its decoder gets embeddings only, where more than one token lies behind the cache.
    n_behind = whole["input_ids"].shape[1] - cache.get_seq_length()
    if bare and subject.name == "blip_2" and n_behind > 1 and media_of(inputs):
        with no_map:
            generated(subject, generate, **inputs, past_key_values=cache)
        return
    logits, seen = generated(subject, generate, **inputs, past_key_values=cache)
    assert_maps(seen, steps(known))
    subject.close(logits, expected)


# 1. A second turn.


@every
@torch.no_grad()
def test_a_second_turn_brings_its_image(name):
    subject = subject_of(name)
    first, second = subject.turns
    cache = fill(subject, first)
    n_first = first["input_ids"].shape[1]
    rest = piece(subject, subject.dialogue, n_first, media=media_of(second))
    check_last_piece(subject, rest, cache, subject.dialogue)
    assert len(subject.model.tokens.n_image) == 1
    assert subject.model.tokens.n_image[0] == sum(
        literal_map(subject, turn).n_image[0] for turn in subject.turns
    )


@every
@torch.no_grad()
def test_a_second_turn_after_a_generated_answer(name):
    """The cache holds the answer but its last token, which the second turn brings."""
    subject = subject_of(name)
    first, second = subject.turns
    output = subject.model.generate(**first, **GREEDY, return_dict_in_generate=True)
    answered = with_text(first, output.sequences[:, -N_NEW:])
    whole = {k: torch.cat([answered[k], second[k]], dim=1) for k in tokens_only(first)}
    whole |= media_of(subject.dialogue)
    cache = output.past_key_values
    n_past = answered["input_ids"].shape[1] - 1
    assert cache.get_seq_length() == n_past
    rest = piece(subject, whole, n_past, media=media_of(second))
    check_last_piece(subject, rest, cache, whole)


@either
@every
@torch.no_grad()
def test_a_second_turn_is_generated_with_its_image(name, bare):
    subject = subject_of(name)
    first, second = subject.turns
    inputs = for_generate(subject, subject.dialogue, media_of(second))
    check_generation(subject, inputs, fill(subject, first), subject.dialogue, bare)


@families
@torch.no_grad()
def test_a_second_turn_in_a_static_cache(name):
    """Its empty slots behind the tokens are none of them."""
    subject = subject_of(name)
    first, second = subject.turns
    config = subject.model.hf_model.config.get_text_config(decoder=True)
    n_keys = subject.dialogue["input_ids"].shape[1]
    cache = fill(subject, first, StaticCache(config, max_cache_len=n_keys + 5))
    rest = piece(subject, subject.dialogue, first["input_ids"].shape[1], media=media_of(second))
    check_last_piece(subject, rest, cache, subject.dialogue)


@torch.no_grad()
def test_second_turns_of_a_left_padded_batch():
    """Each sample gets its own second image, behind padding of its own."""
    subject = subject_of("llava")
    first = subject.prompts
    second = dict(subject.model.prepare(IMAGES[::-1], QUESTIONS[::-1]))
    whole = {k: torch.cat([first[k], second[k]], dim=1) for k in tokens_only(first)}
    pairs = zip(first["pixel_values"], second["pixel_values"], strict=True)
    whole["pixel_values"] = torch.stack([image for pair in pairs for image in pair])
    rest = piece(subject, whole, first["input_ids"].shape[1], media=media_of(second))
    check_last_piece(subject, rest, fill(subject, first), whole)


# 2. A system prompt.


@pytest.mark.parametrize("by", ["model", "decoder"])
@every
@torch.no_grad()
def test_an_image_behind_a_cached_system_prompt(name, by):
    subject = subject_of(name)
    whole = with_text(subject.turns[1], words(5, 1, 8, 2, 9), before=True)
    cache = subject.empty_cache()
    if by == "model":
        fill(subject, piece(subject, whole, 0, 5), cache)
    else:
        decoder = subject.model.hf_model.get_decoder()
        decoder(input_ids=whole["input_ids"][:, :5], past_key_values=cache, use_cache=True)
    rest = piece(subject, whole, 5, media=media_of(whole))
    check_last_piece(subject, rest, cache, whole)


@either
@every
@torch.no_grad()
def test_a_generation_behind_a_cached_system_prompt(name, bare):
    subject = subject_of(name)
    whole = with_text(subject.turns[1], words(5, 1, 8, 2, 9), before=True)
    cache = fill(subject, piece(subject, whole, 0, 5))
    inputs = for_generate(subject, whole, media_of(whole))
    check_generation(subject, inputs, cache, whole, bare)


# 3. Copies of a cache.


def image_cached(subject: Subject, inputs: Mapping[str, Tensor]) -> tuple[DynamicCache, int]:
    """A cache of the prompt up to the end of its images, and how many keys these are."""
    _, end = image_columns(subject, inputs)
    return fill(subject, piece(subject, inputs, 0, end, media_of(inputs))), end


@every
@torch.no_grad()
def test_a_copied_cache(name):
    """Copies and pickles take the map along, and run apart from their original."""
    subject = subject_of(name)
    filled, end = image_cached(subject, subject.prompts)
    pickled = pickle.dumps(filled)
    rest = piece(subject, subject.prompts, end)
    got = check_last_piece(subject, rest, copy.deepcopy(filled), subject.prompts)
    with subject.model.hooks(subject.hooks):
        for cache in (pickle.loads(pickled), filled):
            assert torch.equal(got, subject.model(**rest, past_key_values=cache)[:, -1])
            assert_map(subject.model.tokens, literal_map(subject, subject.prompts))


@either
@every
@torch.no_grad()
def test_prefix_caching(name, bare):
    """A cache of the common start is copied for each continuation, which `generate` gets whole.

    Of the decoders, one continuation each: of one token in the bare model, of several in the other.
    """
    subject = subject_of(name)
    prompt_cache, end = image_cached(subject, subject.turns[1])
    start = {k: v[:, :end] for k, v in tokens_only(subject.turns[1]).items()}
    start |= media_of(subject.turns[1])
    for tail in (words(3, 1, 4), words(7))[:: -1 if bare else 1]:
        whole = with_text(start, tail)
        inputs = for_generate(subject, whole, {})
        check_generation(subject, inputs, copy.deepcopy(prompt_cache), whole, bare)
        if name not in CASES:
            break


@every
@torch.no_grad()
def test_a_forward_behind_a_cache_made_of_tensors(name):
    """Nothing tells what such a cache holds, so hooks say so, unless the caller tells it."""
    subject = subject_of(name)
    model = subject.model
    filled, end = image_cached(subject, subject.prompts)
    rest = piece(subject, subject.prompts, end)
    known = literal_map(subject, subject.prompts)
    with model.hooks(subject.hooks):
        expected = model(**rest, past_key_values=copy.deepcopy(filled))[:, -1]
        with no_map:
            model(**rest, past_key_values=without_map(filled, subject))
        cache = without_map(filled, subject)
        got = model(**rest, past_key_values=cache, tokens=known)[:, -1]
        assert_map(model.tokens, known)
    assert torch.equal(got, expected)
    cache = fill(subject, rest, without_map(filled, subject), tokens=known)
    longer = with_text(subject.prompts, words(4, 2))
    rest = piece(subject, longer, known.n_keys)
    check_last_piece(subject, rest, cache, longer)


@pytest.mark.parametrize("n_left", [1, None])
@every
@torch.no_grad()
def test_generate_behind_a_cache_made_of_tensors(name, n_left):
    """The ids of the whole prompt tell what it holds: up to the image, or all but one token."""
    subject = subject_of(name)
    whole = subject.turns[1]
    filled, end = image_cached(subject, whole)
    n_keys = whole["input_ids"].shape[1]
    if n_left is not None and end < n_keys - n_left:
        filled = fill(subject, piece(subject, whole, end, n_keys - n_left), filled)
    inputs = for_generate(subject, whole, {})
    with no_map, subject.model.hooks(subject.hooks):
        cache = without_map(filled, subject)
        subject.model.hf_model.generate(**inputs, **GREEDY, past_key_values=cache)
    check_generation(subject, inputs, without_map(filled, subject), whole, False)


@pytest.mark.parametrize("n_left", [1, 3])
@torch.no_grad()
def test_a_cache_that_another_model_went_on_filling(n_left):
    """The map on it is of its beginning alone; `generate` has the ids of the rest."""
    subject = subject_of("llava")
    whole = with_text(subject.turns[1], words(5, 1, 8, 2, 9), before=True)
    cache = fill(subject, piece(subject, whole, 0, 5))
    n_past = whole["input_ids"].shape[1] - n_left
    other = copy.deepcopy(subject.model.hf_model)
    other(**piece(subject, whole, 5, n_past, media_of(whole)), past_key_values=cache)
    with no_map, subject.model.hooks(subject.hooks):
        subject.model(**piece(subject, whole, n_past), past_key_values=copy.deepcopy(cache))
    inputs = for_generate(subject, whole, {})
    check_generation(subject, inputs, cache, whole, False)


@torch.no_grad()
def test_a_static_cache_that_another_model_went_on_filling():
    """What comes next is one token, behind some that the map on the cache does not know."""
    subject = subject_of("llava")
    whole = with_text(subject.turns[1], words(5, 1, 8, 2, 9), before=True)
    n_keys = whole["input_ids"].shape[1]
    config = subject.model.hf_model.config.get_text_config()
    cache = fill(subject, piece(subject, whole, 0, 5), StaticCache(config, max_cache_len=n_keys))
    other = copy.deepcopy(subject.model.hf_model)
    other(**piece(subject, whole, 5, n_keys - 1, media_of(whole)), past_key_values=cache)
    with no_map, subject.model.hooks(subject.hooks):
        subject.model(**piece(subject, whole, n_keys - 1), past_key_values=cache)


@torch.no_grad()
def test_a_cache_that_another_model_filled_anew():
    """The map of what it held before must not be taken for that of what it holds now."""
    subject = subject_of("llava")
    cache = fill(subject, subject.turns[1])
    cache.reset()
    other = copy.deepcopy(subject.model.hf_model)
    whole = with_text(subject.turns[0], words(5, 1, 8, 2, 9), before=True)
    n_past = min(x["input_ids"].shape[1] - 2 for x in (subject.turns[1], whole))
    other(**piece(subject, whole, 0, n_past, media_of(whole)), past_key_values=cache)
    with no_map, subject.model.hooks(subject.hooks):
        subject.model(**piece(subject, whole, n_past), past_key_values=cache)


# 4. Embeddings.


def merged_embeddings(subject: Subject, inputs: Mapping[str, Tensor]) -> Tensor:
    """What the decoder reads: words and image features."""
    seen = []
    handle = subject.model.hf_model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["inputs_embeds"].clone()), with_kwargs=True
    )
    subject.model(**inputs)
    handle.remove()
    return seen[0]


def as_embeddings(
    subject: Subject, inputs: Mapping[str, Tensor], embeds: Tensor, media: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    out = {k: v for k, v in tokens_only(inputs).items() if k != "input_ids"} | dict(media)
    positions = positions_of(subject, inputs)
    if positions is not None:
        out["position_ids"] = positions
    return out | {"inputs_embeds": embeds}


@every
@torch.no_grad()
def test_embeddings_alone(name):
    """Embeddings do not tell which of them are an image's, so the caller does."""
    subject = subject_of(name)
    if name == "gemma4":
        pytest.skip("it looks the words of embeddings up again")
    model, known = subject.model, literal_map(subject, subject.prompts)
    embeds = merged_embeddings(subject, subject.prompts)
    inputs = as_embeddings(subject, subject.prompts, embeds, {})
    if name in WANT_PIXELS:  # the language model alone reads embeddings without pixels
        language_model = model.hf_model.language_model
        with no_map, model.hooks(subject.hooks):
            language_model(**inputs)
        return
    plain = model(**inputs)[:, -1]
    with model.hooks(subject.hooks):
        with no_map:
            model(**inputs)
        got = model(**inputs, tokens=known)[:, -1]
        assert_map(model.tokens, known)
        expected = model(**subject.prompts)[:, -1]
    assert (got - plain).abs().max() > 1e-3
    if name not in DEEP:
        subject.close(got, expected)


@every
@torch.no_grad()
def test_a_cache_of_embeddings_remembers_the_map_that_was_given(name):
    subject = subject_of(name)
    if name in (*NO_EMBEDS, *DEEP):
        pytest.skip("embeddings alone are not what the model reads")
    embeds = merged_embeddings(subject, subject.prompts)
    inputs = as_embeddings(subject, subject.prompts, embeds, {})
    cache = fill(subject, inputs, tokens=literal_map(subject, subject.prompts))
    longer = with_text(subject.prompts, words(2, 7, 1))
    rest = piece(subject, longer, embeds.shape[1])
    check_last_piece(subject, rest, cache, longer)


@every
@torch.no_grad()
def test_embeddings_with_pixels(name):
    """The model finds the places of its features among embeddings, and so does the map."""
    subject = subject_of(name)
    if name in NO_EMBEDS_BESIDE_PIXELS:
        pytest.skip("the model does not take both")
    model = subject.model
    embeds = model.hf_model.get_input_embeddings()(subject.prompts["input_ids"])
    inputs = as_embeddings(subject, subject.prompts, embeds, media_of(subject.prompts))
    with model.hooks(subject.hooks):
        got = model(**inputs)[:, -1]
        assert_map(model.tokens, literal_map(subject, subject.prompts))
        subject.close(got, model(**subject.prompts)[:, -1])


@families
@torch.no_grad()
def test_embeddings_are_generated_from(name):
    subject = subject_of(name)
    if name in (*NO_EMBEDS_TO_GENERATE, *DEEP):
        pytest.skip("embeddings alone are not what the model reads")
    embeds = merged_embeddings(subject, subject.turns[1])
    inputs = as_embeddings(subject, subject.turns[1], embeds, {})
    model, known = subject.model, literal_map(subject, subject.turns[1])
    with no_map, model.hooks(subject.hooks):
        model.generate(**inputs, **GREEDY)
    expected, _ = generated(subject, model.generate, **subject.turns[1])
    logits, seen = generated(subject, model.generate, **inputs, tokens=known)
    assert_maps(seen, steps(known))
    subject.close(logits, expected)


# 5. What can be done to a cache.


def croppable(cache: DynamicCache) -> None:
    if any(cache.is_sliding) or any(cache.is_linear) or not cache.is_croppable:
        pytest.skip("this cache cannot be cropped")


@every
@torch.no_grad()
def test_a_cropped_cache(name):
    """Another question behind the same image."""
    subject = subject_of(name)
    cache = fill(subject, subject.prompts)
    croppable(cache)
    _, end = image_columns(subject, subject.prompts)
    n = end - subject.prompts["input_ids"].shape[1]
    _ = cache.crop(n) if name in CASES else cache.crop(tokens_to_remove=n)
    start = {k: v[:, :end] if k in PER_KEY else v for k, v in subject.prompts.items()}
    whole = with_text(start, words(3, 1, 4, 1, 5))
    check_last_piece(subject, piece(subject, whole, end), cache, whole)


@every
@torch.no_grad()
def test_a_cache_cropped_within_its_image(name):
    """What is left of the image stays; what comes in the place of the rest is text."""
    subject = subject_of(name)
    cache = fill(subject, subject.turns[1])
    croppable(cache)
    begin, end = image_columns(subject, subject.turns[1])
    cut = (begin + end) // 2 + 1
    cache.crop(cut - cache.get_seq_length())
    part = {k: v[:, :cut] for k, v in tokens_only(subject.turns[1]).items()}
    whole = with_text(part, words(3, 1, 4))
    known = literal_map(subject, whole)
    assert 0 < known.n_image[0] < literal_map(subject, subject.turns[1]).n_image[0]
    check_last_piece(subject, piece(subject, whole, cut), cache, None, known)


REPEAT, SELECT, REORDER = "batch_repeat_interleave", "batch_select_indices", "reorder_cache"
PICKS = {
    "reorder": (REORDER, {"beam_idx": torch.tensor([1, 0])}, [1, 0]),
    "select some twice": (SELECT, {"indices": torch.tensor([1, 0, 1])}, [1, 0, 1]),
    "repeat": (REPEAT, {"repeats": 2}, [0, 0, 1, 1]),
}
MORE_PICKS = PICKS | {
    "select one": (SELECT, {"indices": torch.tensor([1])}, [1]),
    "select from the end": (SELECT, {"indices": torch.tensor([-1, -2])}, [-1, -2]),
    "select by a mask": (SELECT, {"indices": torch.tensor([False, True])}, [1]),
    "select by a list": (SELECT, {"indices": [1, 0]}, [1, 0]),
    "repeat unevenly": (REPEAT, {"repeats": torch.tensor([1, 2])}, [0, 1, 1]),
    "reorder by int32": (REORDER, {"beam_idx": torch.tensor([1, 0], dtype=torch.int32)}, [1, 0]),
}


def check_picked(subject: Subject, pick: Any, by_name: bool = False) -> None:
    """Samples of a cache are picked as the batch would be."""
    prompts = first_two(subject.name)
    method, arguments, order = pick
    cache, end = picked_from(subject.name)
    cache = copy.deepcopy(cache)
    if not all(hasattr(layer, method) for layer in cache.layers):
        pytest.skip(f"this cache has no {method}")
    call = getattr(cache, method)
    _ = call(**arguments) if by_name else call(*arguments.values())
    model, known = subject.model, literal_map(subject, prompts)
    rest = {k: _rows(k, v, order) for k, v in piece(subject, prompts, end).items()}
    edited, plain = whole_of_two(subject.name)
    with model.hooks(subject.hooks):
        got = model(**rest, past_key_values=cache)[:, -1]
    assert_map(model.tokens, TokenMap.from_masks(known.image[order], known.real[order]))
    if subject.exact or torch.allclose(plain, unhooked_pieces(subject.name), rtol=0, atol=1e-5):
        subject.close(got, edited[order])
    assert (got - plain[order]).abs().max() > 1e-3


def _rows(key: str, x: Tensor, order: list[int]) -> Tensor:
    if key == "position_ids":
        return x[:, order]
    return x[order] if key in PER_KEY else x


@cache
def first_two(name: str) -> dict[str, Tensor]:
    """A left-padded batch of two prompts."""
    subject = subject_of(name)
    if name not in CASES:
        return subject.prompts
    return dict(subject.model.prepare(IMAGES[:2], QUESTIONS[:2]))


@cache
def picked_from(name: str) -> tuple[DynamicCache, int]:
    return image_cached(subject_of(name), first_two(name))


@cache
def whole_of_two(name: str) -> tuple[Tensor, Tensor]:
    """Logits of both prompts from one whole forward, with and without RVE."""
    subject = subject_of(name)
    with subject.model.hooks(subject.hooks):
        edited = subject.model(**first_two(name))[:, -1]
    return edited, subject.model(**first_two(name))[:, -1]


@cache
def unhooked_pieces(name: str) -> Tensor:
    """Logits of both prompts behind a cache of their images, without RVE."""
    subject = subject_of(name)
    filled, end = picked_from(name)
    rest = piece(subject, first_two(name), end)
    return subject.model(**rest, past_key_values=copy.deepcopy(filled))[:, -1]


@pytest.mark.parametrize("pick", PICKS)
@every
@torch.no_grad()
def test_a_cache_of_picked_samples(name, pick):
    check_picked(subject_of(name), PICKS[pick])


@pytest.mark.parametrize("by_name", [False, True], ids=["by place", "by name"])
@pytest.mark.parametrize("pick", MORE_PICKS)
@pytest.mark.parametrize("name", ["llava"])
@torch.no_grad()
def test_every_way_to_pick_samples(name, pick, by_name):
    """Whatever transformers' own method takes, by place or by name."""
    check_picked(subject_of(name), MORE_PICKS[pick], by_name)


@every
@torch.no_grad()
def test_a_cache_that_is_picked_repeated_and_cropped(name):
    subject = subject_of(name)
    prompts = first_two(name)
    _, end = image_columns(subject, prompts)
    cache = fill(subject, prompts)
    croppable(cache)
    cache.reorder_cache(torch.tensor([1, 0]))
    cache.batch_repeat_interleave(2)
    cache.crop(end - cache.get_seq_length())
    cache.batch_select_indices(torch.tensor([0, 2, 3]))
    order = [1, 0, 0]
    rest = {k: _rows(k, v, order) for k, v in piece(subject, prompts, end).items()}
    known = literal_map(subject, prompts)
    with subject.model.hooks(subject.hooks):
        got = subject.model(**rest, past_key_values=cache)[:, -1]
    assert_map(subject.model.tokens, TokenMap.from_masks(known.image[order], known.real[order]))
    edited, plain = whole_of_two(name)
    if subject.exact or torch.allclose(plain, unhooked_pieces(name), rtol=0, atol=1e-5):
        subject.close(got, edited[order])


# 6. Prompts in pieces, and maps that do not fit.


@pytest.mark.parametrize("cuts", ["begin", "end", "begin end"])
@every
@torch.no_grad()
def test_a_left_padded_batch_in_pieces(name, cuts):
    subject = subject_of(name)
    prompts = subject.prompts
    begin, end = image_columns(subject, prompts)
    if begin == 0 and "begin" in cuts:
        pytest.skip("the prompt begins with its image")
    at = [{"begin": begin, "end": end}[cut] for cut in cuts.split()]
    cache = subject.empty_cache()
    for start, stop in zip([0, *at[:-1]], at, strict=True):
        media = media_of(prompts) if start <= begin < stop else {}
        fill(subject, piece(subject, prompts, start, stop, media), cache)
        assert_map(subject.model.tokens, crop_of(literal_map(subject, prompts), stop))
    media = media_of(prompts) if at[-1] <= begin else {}
    check_last_piece(subject, piece(subject, prompts, at[-1], None, media), cache, prompts)


def crop_of(known: TokenMap, n_keys: int) -> TokenMap:
    return TokenMap.from_masks(known.image[:, :n_keys], known.real[:, :n_keys])


@pytest.mark.parametrize("name", ["sharegpt4v", "qwen2_5_vl", "fuyu"])
@torch.no_grad()
def test_padding_in_pieces_of_one_token(name):
    """A piece of one token may be padding in some samples, which is not a generated token."""
    subject = subject_of(name)
    prompts = subject.prompts
    assert int((prompts["attention_mask"] == 0).sum(dim=1).max()) >= 2
    cache = subject.empty_cache()
    for n in range(2):
        fill(subject, piece(subject, prompts, n, n + 1), cache)
    rest = piece(subject, prompts, 2, None, media_of(prompts))
    check_last_piece(subject, rest, cache, prompts)


@every
@torch.no_grad()
def test_a_map_that_does_not_fit(name):
    subject = subject_of(name)
    model, prompts = subject.model, subject.prompts
    known = literal_map(subject, prompts)
    n = known.n_keys
    wider = torch.nn.functional.pad
    more = TokenMap.from_masks(wider(known.image, (0, 1)), wider(known.real, (0, 1)))
    rows = [*range(known.batch), 0]
    wrong = {
        "too short": (crop_of(known, n - 1), "a token map of .* for a forward of"),
        "too long": (more, f"a token map of {n + 1} tokens for a shorter forward"),
        "wrong batch": (
            TokenMap.from_masks(known.image[rows], known.real[rows]),
            f"a token map of {known.batch + 1} samples",
        ),
    }
    for tokens, message in wrong.values():
        with pytest.raises(ValueError, match=message), model.hooks(subject.hooks):
            model(**prompts, tokens=tokens)
        assert model._run.depth == 0
        assert model._run.here.given is None
    for tokens, message in wrong.values():
        if tokens is not more:
            with pytest.raises(ValueError, match=message), model.hooks(subject.hooks):
                model.generate(**prompts, **GREEDY, tokens=tokens)
    with model.hooks(subject.hooks):
        model(**prompts)
    assert_map(model.tokens, known)


@pytest.mark.parametrize("max_new_tokens", [1, 3])
@torch.no_grad()
def test_a_map_longer_than_the_prompt_of_a_generation(max_new_tokens):
    """It cannot say the role of a token that is yet to be generated."""
    subject = subject_of("llava")
    known = literal_map(subject, subject.prompts)
    wider = torch.nn.functional.pad
    more = TokenMap.from_masks(
        wider(known.image, (0, 1), value=True), wider(known.real, (0, 1), value=True)
    )
    how = {"max_new_tokens": max_new_tokens, "do_sample": False}
    with pytest.raises(ValueError, match="a token map of"), subject.model.hooks(subject.hooks):
        subject.model.generate(**subject.prompts, **how, tokens=more)


@every
@torch.no_grad()
def test_a_given_map_behind_a_cache_covers_it(name):
    subject = subject_of(name)
    cache, end = image_cached(subject, subject.prompts)
    rest = piece(subject, subject.prompts, end)
    known = literal_map(subject, subject.prompts)
    alone = TokenMap.from_masks(known.image[:, end:], known.real[:, end:])
    with (
        pytest.raises(ValueError, match="those in the cache included"),
        subject.model.hooks(subject.hooks),
    ):
        subject.model(**rest, past_key_values=cache, tokens=alone)


# 7. The number of an image token without an image.


def image_id(subject: Subject) -> Tensor:
    return torch.tensor([[subject.model.image_token_id]])


@pytest.mark.parametrize("n_text", [0, 2])
@every
@torch.no_grad()
def test_the_id_of_an_image_token_without_pixels_is_text(name, n_text):
    """Behind a cache: alone, as a decoding step is, and among other tokens."""
    subject = subject_of(name)
    if name in WANT_PIXELS:
        pytest.skip("the model wants an image, and puts it there")
    cache = fill(subject, subject.turns[1])
    n_past = cache.get_seq_length()
    said = (
        torch.cat([words(4), image_id(subject), words(7)], dim=1) if n_text else image_id(subject)
    )
    whole = with_text(subject.turns[1], said)
    before = literal_map(subject, subject.turns[1])
    missing = (0, said.shape[1])
    known = TokenMap.from_masks(
        torch.nn.functional.pad(before.image, missing),
        torch.nn.functional.pad(before.real, missing, value=True),
    )
    check_last_piece(subject, piece(subject, whole, n_past), cache, None, known)


@every
@torch.no_grad()
def test_the_id_of_an_image_token_in_a_first_prompt_without_pixels_is_text(name):
    subject = subject_of(name)
    if name in WANT_PIXELS:
        pytest.skip("the model wants an image")
    ids = torch.cat([words(4), image_id(subject), words(7)], dim=1)
    subject.model(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert subject.model.tokens.n_image == (0,)


@either
@pytest.mark.parametrize("tail", ["last", "before the last"])
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3", "idefics3", "gemma4_moe"])
@torch.no_grad()
def test_a_generation_behind_the_id_of_an_image_token(name, tail, bare):
    """The cache knows its image; the id behind it has none."""
    subject = subject_of(name)
    cache = fill(subject, subject.turns[1])
    said = [image_id(subject)] if tail == "last" else [image_id(subject), words(7)]
    inputs = tokens_only(with_text(subject.turns[1], torch.cat(said, dim=1)))
    positions = positions_of(subject, inputs)
    if positions is not None:
        inputs["position_ids"] = positions
    generate = subject.model.hf_model.generate if bare else subject.model.generate
    _, seen = generated(subject, generate, **inputs, past_key_values=cache)
    before = literal_map(subject, subject.turns[1])
    assert_maps(seen, steps(before.extend(len(said))))


# 8. Ways to generate.


def maps_of(subject: Subject, inputs: Mapping[str, Tensor], **how: Any) -> list[TokenMap]:
    with recorded(subject) as seen:
        subject.model.generate(**inputs, **(GREEDY | how))
    return seen


WAYS = {
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "sampled sequences": {"do_sample": True, "num_return_sequences": 3},
}


@pytest.mark.parametrize("way", WAYS)
@every
@torch.no_grad()
def test_maps_of_several_sequences_a_prompt(name, way):
    subject = subject_of(name)
    if name in NO_BEAMS:
        pytest.skip("the model does not repeat its pixels")
    torch.manual_seed(0)
    seen = maps_of(subject, subject.prompts, **WAYS[way], max_new_tokens=3)
    times = max(WAYS[way].get(n, 1) for n in ("num_beams", "num_return_sequences"))
    known = literal_map(subject, subject.prompts)
    repeated = [m.repeat_interleave(times, dim=0) for m in (known.image, known.real)]
    assert_maps(seen, steps(TokenMap.from_masks(*repeated), 3))


@pytest.mark.parametrize("of", ["prompts", "dialogue"])
@every
@torch.no_grad()
def test_maps_with_a_static_cache(name, of):
    subject = subject_of(name)
    inputs = getattr(subject, of)
    options = {"cache_implementation": "static", "disable_compile": True, "max_new_tokens": 3}
    seen = maps_of(subject, inputs, **options)
    assert_maps(seen, steps(literal_map(subject, inputs), 3))


@every
@torch.no_grad()
def test_maps_of_both_branches_under_guidance(name):
    """The branch without an image reads the last token of the prompt, and each new one."""
    subject = subject_of(name)
    if positions_of(subject, subject.prompts) is not None:
        pytest.skip("the model's own positions fail in the other branch")
    seen = maps_of(subject, subject.prompts, guidance_scale=1.5)
    known = literal_map(subject, subject.prompts)
    assert_maps(seen[::2], steps(known))
    ones = torch.ones(known.batch, 1, dtype=torch.bool)
    assert_maps(seen[1::2], steps(TokenMap.from_masks(~ones, ones)))


@families
@torch.no_grad()
def test_a_given_map_of_beams(name):
    """A map of the prompts alone serves their beams too."""
    subject = subject_of(name)
    known = literal_map(subject, subject.prompts)
    seen = maps_of(subject, subject.prompts, num_beams=2, tokens=known)
    repeated = [m.repeat_interleave(2, dim=0) for m in (known.image, known.real)]
    assert_maps(seen, steps(TokenMap.from_masks(*repeated)))


# 9. Anything in any order, against a literal account of it.

PADDING, TEXT, IMAGE = range(3)


@dataclass
class Account:
    """What the keys of each sample are: one list of roles a sample."""

    roles: list[list[int]]

    def as_map(self) -> TokenMap:
        roles = torch.tensor(self.roles)
        return TokenMap.from_masks(roles == IMAGE, roles != PADDING)

    def say(self, rows: list[list[int]]) -> None:
        self.roles = [old + new for old, new in zip(self.roles, rows, strict=True)]

    def mask(self) -> Tensor:
        return (torch.tensor(self.roles) != PADDING).long()


def roles_in(inputs: Mapping[str, Tensor], start: int, stop: int) -> list[list[int]]:
    both = zip(inputs["input_ids"].tolist(), inputs["attention_mask"].tolist(), strict=True)
    rows = ((ids[start:stop], mask[start:stop]) for ids, mask in both)
    image = VOCAB["<image>"]
    return [
        [(IMAGE if i == image else TEXT) if m else PADDING for i, m in zip(*row, strict=True)]
        for row in rows
    ]


@settings(max_examples=20, deadline=None)
@given(st.data())
@torch.no_grad()
def test_anything_that_can_be_done_to_a_cache(data):
    """Pieces, crops, picks, repeats, words that sound like images, and new images, in any order."""
    subject = subject_of("llava")
    model, prompts = subject.model, subject.prompts
    begin, end = image_columns(subject, prompts)
    n_pad = int((prompts["attention_mask"] == 0).sum(dim=1).max())
    cache, account = subject.empty_cache(), Account([[], [], []])

    def run(inputs: dict[str, Tensor], rows: list[list[int]]) -> None:
        account.say(rows)
        model(**(inputs | {"attention_mask": account.mask()}), past_key_values=cache)
        assert_map(model.tokens, account.as_map())

    def run_prompt(inputs: Mapping[str, Tensor], places: list[int]) -> None:
        n_keys = inputs["input_ids"].shape[1]
        cuts = sorted(data.draw(st.sets(st.sampled_from(places), max_size=3)))
        for start, stop in zip([0, *cuts], [*cuts, n_keys], strict=True):
            media = media_of(inputs) if start <= begin < stop else {}
            ids = inputs["input_ids"][:, start:stop]
            run({"input_ids": ids} | media, roles_in(inputs, start, stop))

    # Padding comes in a piece of several tokens, see test_padding_in_pieces_of_one_token.
    n_keys = prompts["input_ids"].shape[1]
    places = [at for at in range(max(n_pad, 2), n_keys) if not begin < at < end]
    run_prompt(prompts, places)
    actions = st.sampled_from(["crop", "pick", "repeat", "text", "image"])
    for action in data.draw(st.lists(actions, min_size=2, max_size=6)):
        batch_size, n_past = len(account.roles), len(account.roles[0])
        if action == "crop" and n_past > 1:
            n_left = data.draw(st.integers(1, n_past - 1))
            cache.crop(n_left - n_past)
            account.roles = [row[:n_left] for row in account.roles]
        elif action == "pick":
            picked = st.lists(st.integers(0, batch_size - 1), min_size=1, max_size=4)
            order = data.draw(picked)
            method = data.draw(st.sampled_from([cache.batch_select_indices, cache.reorder_cache]))
            method(torch.tensor(order))
            account.roles = [account.roles[n] for n in order]
        elif action == "repeat" and batch_size <= 3:
            cache.batch_repeat_interleave(2)
            account.roles = [row for row in account.roles for _ in range(2)]
        elif action == "image":
            order = data.draw(st.lists(st.integers(0, 2), min_size=batch_size, max_size=batch_size))
            run_prompt({k: v[order] for k, v in prompts.items()}, places)
        else:
            n_new = data.draw(st.integers(1, 4))
            row = st.lists(
                st.sampled_from([VOCAB["<image>"], *WORDS]), min_size=n_new, max_size=n_new
            )
            ids = [data.draw(row) for _ in range(batch_size)]
            run({"input_ids": torch.tensor(ids)}, [[TEXT] * n_new] * batch_size)
    longer = [[TEXT] * 2] * len(account.roles)
    account.say(longer)
    rest = {"input_ids": words(3, 8).expand(len(longer), -1), "attention_mask": account.mask()}
    copied = copy.deepcopy(cache)
    with model.hooks(subject.hooks):
        got = model(**rest, past_key_values=cache)[:, -1]
        told = model(**rest, past_key_values=copied, tokens=account.as_map())[:, -1]
    assert torch.equal(got, told)


@settings(max_examples=15, deadline=None)
@given(st.data())
@torch.no_grad()
def test_a_prompt_split_anywhere(data):
    """Logits under RVE are those of one whole forward."""
    subject = subject_of("llava")
    rows = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=4))
    prompts = {k: v[rows] for k, v in subject.prompts.items()}
    begin, end = image_columns(subject, prompts)
    n_keys = prompts["input_ids"].shape[1]
    n_pad = int((prompts["attention_mask"] == 0).sum(dim=1).max())
    places = [at for at in range(max(n_pad, 2), n_keys) if not begin < at < end]
    cuts = sorted(data.draw(st.sets(st.sampled_from(places), min_size=1, max_size=4)))
    cache = subject.empty_cache()
    for start, stop in zip([0, *cuts[:-1]], cuts, strict=True):
        media = media_of(prompts) if start <= begin < stop else {}
        fill(subject, piece(subject, prompts, start, stop, media), cache)
    media = media_of(prompts) if cuts[-1] <= begin else {}
    check_last_piece(subject, piece(subject, prompts, cuts[-1], None, media), cache, prompts)
