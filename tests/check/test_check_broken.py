"""Models and parts that are broken on purpose: each is caught by the name of a check."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

import pytest
import torch
from family_cases import hooked
from tiny_inputs import VOCAB, image
from tiny_models import build
from transformers.cache_utils import DynamicLayer

from rvelens import HookedLVLM
from rvelens.check import CHECKS, check
from rvelens.families import family_of
from rvelens.hooks.ablate import HeadMask
from rvelens.hooks.rve import RVEHook
from rvelens.seam import look_up
from rvelens.seam.call import Call
from rvelens.tokens.grid import ImageGrid, Tile

QUESTION = "does a man hold a ball ?"


def llava(implementation: str = "sdpa") -> tuple[Any, Any]:
    hf_model, processor = build("llava")
    hf_model.set_attn_implementation(implementation)
    return hf_model, processor


def layers_of(hf_model: Any) -> Any:
    return hf_model.get_decoder().layers


def wrong_image_token_id(patch: Any) -> dict[str, Any]:
    hf_model, processor = llava()
    hf_model.config.image_token_id = VOCAB["ball"]
    return {"model": hf_model, "processor": processor}


def ignores_its_attention_function(patch: Any) -> dict[str, Any]:
    hf_model, processor = llava()
    module = layers_of(hf_model)[1].self_attn
    forward = module.forward
    module.forward = lambda *a, **k: (torch.zeros(1), *forward(*a, **k)[1:])
    return {"model": hf_model, "processor": processor}


def skips_its_attention_function(patch: Any) -> dict[str, Any]:
    hf_model, processor = llava()
    module = layers_of(hf_model)[1].self_attn
    module.forward = lambda hidden_states, **k: (module.o_proj(module.q_proj(hidden_states)), None)
    return {"model": hf_model, "processor": processor}


class Adding:
    """A processor that changes what another one makes."""

    def __init__(self, processor: Any, change: Any) -> None:
        self.processor, self.change = processor, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["processor"], name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        batch = self.processor(*args, **kwargs)
        self.change(batch)
        return batch


def with_token(place: str, word: str) -> Any:
    """Adds a token at the start, behind it, next to the image or at the end of each prompt."""

    def add(batch: Any) -> None:
        ids, mask = batch["input_ids"], batch["attention_mask"]
        new = torch.full_like(ids[:, :1], VOCAB[word])
        # Of the first prompt; a batch is not of interest here.
        first_image = int((ids[0] == VOCAB["<image>"]).int().argmax())
        at = {"start": 0, "image": first_image, "end": ids.shape[1]}[place]
        batch["input_ids"] = torch.cat([ids[:, :at], new, ids[:, at:]], dim=1)
        batch["attention_mask"] = torch.cat([mask[:, :1] * 0 + 1, mask], dim=1)

    return add


def adding(place: str, word: str) -> Any:
    def broken(patch: Any) -> dict[str, Any]:
        hf_model, processor = llava()
        return {"model": hf_model, "processor": Adding(processor, with_token(place, word))}

    return broken


def no_mask(patch: Any) -> dict[str, Any]:
    hf_model, processor = llava()

    def show_padding(batch: Any) -> None:
        batch["attention_mask"] = torch.ones_like(batch["attention_mask"])

    return {"model": hf_model, "processor": Adding(processor, show_padding)}


def scaled_mask(patch: Any) -> dict[str, Any]:
    hf_model, processor = llava("eager")
    for layer in layers_of(hf_model):
        forward = layer.self_attn.forward

        def scaled(*args: Any, forward: Any = forward, **kwargs: Any) -> Any:
            kwargs["attention_mask"] = kwargs["attention_mask"] * 1e-38
            return forward(*args, **kwargs)

        layer.self_attn.forward = scaled
    return {"model": hf_model, "processor": processor}


class Transposed(Tile):
    def values(self, tokens: Any) -> Any:
        return super().values(tokens).T


def transposed_grid(patch: Any) -> dict[str, Any]:
    hf_model, processor = llava()
    family = family_of("llava")

    def grid(*args: Any) -> Any:
        plain = family.grid(*args)
        assert plain is not None
        tiles = [Transposed(**dataclasses.asdict(tile)) for tile in plain.tiles]
        return ImageGrid(plain.n_tokens, tuple(tiles))

    family_with = dataclasses.replace(family, grid=grid)
    return {"model": hf_model, "processor": processor, "family": family_with}


def noise(patch: Any) -> dict[str, Any]:
    hf_model, processor = llava()
    layers_of(hf_model)[1].mlp.register_forward_hook(lambda m, a, y: y + torch.randn_like(y))
    return {"model": hf_model, "processor": processor}


def forgetful_cache(patch: Any) -> dict[str, Any]:
    update = DynamicLayer.update

    def forget(self: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        if key.shape[2] == 1 and self.keys is not None:
            self.keys = self.keys.clone()
            self.keys[:, :, :8] = 0
        return update(self, key, value, *args, **kwargs)

    patch.setattr(DynamicLayer, "update", forget)
    hf_model, processor = llava()
    return {"model": hf_model, "processor": processor}


def cache_of_the_second_turn(patch: Any) -> dict[str, Any]:
    update = DynamicLayer.update

    def forget(self: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        if key.shape[2] > 1 and self.keys is not None and self.keys.numel():
            self.keys = torch.zeros_like(self.keys)
        return update(self, key, value, *args, **kwargs)

    patch.setattr(DynamicLayer, "update", forget)
    hf_model, processor = llava()
    return {"model": hf_model, "processor": processor}


def wide_vision_tower(patch: Any) -> dict[str, Any]:
    hf_model, processor = llava()
    hf_model.model.vision_tower.double()
    return {"model": hf_model, "processor": processor}


def swapped_layers(patch: Any) -> dict[str, Any]:
    hf_model, processor = llava()
    first, second, *rest = layers_of(hf_model)
    hf_model.get_decoder().layers = torch.nn.ModuleList([second, first, *rest])
    return {"model": hf_model, "processor": processor}


def shared_layer(patch: Any) -> dict[str, Any]:
    hf_model, processor = llava()
    layers_of(hf_model)[1] = layers_of(hf_model)[0]
    return {"model": hf_model, "processor": processor}


def overflow(patch: Any) -> dict[str, Any]:
    hf_model, processor = llava()
    with torch.no_grad():
        hf_model.get_decoder().layers[1].mlp.down_proj.weight.mul_(1e38)
    return {"model": hf_model, "processor": processor}


def other_numbers_when_wrapped(patch: Any) -> dict[str, Any]:
    original = look_up.LookUp.__call__

    def scaled(self: Any, *names: Any) -> Any:
        function = original(self, *names)
        return lambda module, query, *a, **k: function(module, query * 1.5, *a, **k)

    hf_model, processor = llava()
    hf_model.set_attn_implementation("eager")  # its functions have another code than the scaled one
    patch.setattr(look_up.LookUp, "__call__", scaled)
    patch.setattr("rvelens.check.run.is_wrapped", lambda hf_model: False)
    patch.setattr("rvelens.check.whole.plain_results", without_look_up(original, scaled, patch))
    return {"model": hf_model, "processor": processor}


def without_look_up(original: Any, scaled: Any, patch: Any) -> Any:
    from rvelens.check import whole

    plain_results = whole.plain_results

    def results(*args: Any) -> Any:
        patch.setattr(look_up.LookUp, "__call__", original)
        plain = plain_results(*args)
        patch.setattr(look_up.LookUp, "__call__", scaled)
        return plain

    return results


def part(target: Any, name: str, instead: Any) -> Any:
    """A part of rvelens that does something else."""

    def broken(patch: Any) -> dict[str, Any]:
        owner = importlib.import_module(target) if isinstance(target, str) else target
        patch.setattr(owner, name, instead(getattr(owner, name)))
        hf_model, processor = llava()
        return {"model": hf_model, "processor": processor}

    return broken


def scaled_scores(original: Any) -> Any:
    def scores(self: Any, *args: Any) -> Any:
        values, hidden = original(self, *args)
        return values * 1.01, hidden

    return scores


def stronger(original: Any) -> Any:
    return lambda self, row, tokens, floor: original(self, row * 1.001, tokens, floor)


def next_head(original: Any) -> Any:
    def mask(self: Any, z: Any, hook: Any) -> Any:
        z = z.clone()
        z[:, :, [head + 1 for head in self.heads]] = 0
        return z

    return mask


def unedited(original: Any) -> Any:
    return lambda z, opened, row: z


def shifted_cache(original: Any) -> Any:
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        logits, cache = original(self, *args, **kwargs)
        return logits, {name: x + 1e-3 for name, x in cache.items()}

    return run


def late(original: Any) -> Any:
    return lambda mask: original(mask) + mask.cumsum(dim=1).clamp(max=20)


def one_image_for_another(original: Any) -> Any:
    return lambda model, picture, *a: original(model, picture.rotate(90), *a)


BROKEN = {
    "a wrong image token id": (wrong_image_token_id, {"image tokens", "forward"}),
    "ignores its attention function": (ignores_its_attention_function, {"layers"}),
    "skips its attention function": (skips_its_attention_function, {"layers"}),
    "a token at the start": (adding("start", "ball"), {"prompt"}),
    "a second token of the beginning": (adding("start", "<s>"), {"prompt"}),
    "a token at the end": (adding("end", "ball"), {"prompt"}),
    "an end of sequence": (adding("end", "</s>"), {"prompt"}),
    "an image token too many": (adding("image", "<image>"), {"image tokens", "forward"}),
    "no mask of padding": (no_mask, {"batch"}),
    "a scaled mask": (scaled_mask, {"causal rows", "left padding", "cache"}),
    "a transposed grid": (transposed_grid, {"patch grid"}),
    "noise": (noise, {"forward"}),
    "a cache that loses keys": (forgetful_cache, {"cache"}),
    "a cache without a first turn": (cache_of_the_second_turn, {"second turn"}),
    "a vision tower in another dtype": (wide_vision_tower, {"forward"}),
    "swapped layers": (swapped_layers, {"wrapping"}),
    "a shared layer": (shared_layer, {"layers"}),
    "an overflow": (overflow, {"range", "forward"}),
    "other numbers when wrapped": (
        other_numbers_when_wrapped,
        {"unhooked logits", "unhooked generation"},
    ),
    "scaled scores": (part(Call, "scores", scaled_scores), {"layers"}),
    "a stronger edit": (part(RVEHook, "_edited", stronger), {"RVE"}),
    "another head masked": (part(HeadMask, "__call__", next_head), {"head masks"}),
    "edits that are lost": (part("rvelens.seam.attention", "_put_row", unedited), {"edits", "RVE"}),
    "a shifted cache": (part(HookedLVLM, "run_with_cache", shifted_cache), {"hidden states"}),
    "later positions": (part("rvelens.model.replay", "positions", late), {"replay"}),
    "another image": (
        part("rvelens.check.whole", "prepare_shared", one_image_for_another),
        {"shared prefix"},
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_caught_by_its_name(name, monkeypatch):
    broken, expected = BROKEN[name]
    report = check(**broken(monkeypatch), image=image(96, 60), question=QUESTION, speed=False)
    assert not report.passed
    named = {line.name for line in report.failed}
    assert expected <= named, {line.name: line.reason for line in report.failed}
    for line in report.failed:
        assert line.reason
        assert line.usable
    assert report.notes()[0].startswith("Failed: ")


def test_every_check_but_those_of_attention_can_fail_by_itself():
    caught = set().union(*(expected for _, expected in BROKEN.values()))
    # The self-check of layers comes before these.
    assert set(CHECKS) - caught == {"pattern", "z"}


def test_a_pattern_that_is_not_eager_attention_is_caught(monkeypatch):
    """Where the self-check of layers is off, or sees nothing."""
    model = hooked("llava")
    model._seam.check_layers(model.hf_model.get_decoder())
    monkeypatch.setattr(type(model._seam), "check_layers", lambda self, decoder: {})
    monkeypatch.setattr(Call, "scores", scaled_scores(Call.scores))
    line = check(model, image=image(96, 60), question=QUESTION, speed=False).line("pattern")
    assert line.status == "failed"
    assert line.measured is not None
    assert line.limit is not None
    assert line.measured > line.limit


def test_a_z_that_is_not_eager_attention_is_caught(monkeypatch):
    model = hooked("llava")
    monkeypatch.setattr(type(model._seam), "check_layers", lambda self, decoder: {})
    original = Call.original
    monkeypatch.setattr(Call, "original", lambda call: (original(call)[0] * 1.001, None))
    line = check(model, image=image(96, 60), question=QUESTION, speed=False).line("z")
    assert line.status == "failed"
