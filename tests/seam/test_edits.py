"""However a hook edits, and whatever an earlier hook hid: the edit counts, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from family_cases import CASES, batch, hooked, profile_of
from torch import Tensor

from rvelens import HookedLVLM
from rvelens.hooks import (
    devils_hooks,
    dilution_hooks,
    pai_hooks,
    region_hooks,
    rve_hooks,
    tokens_of,
    vaf_hooks,
)
from rvelens.hooks.rows import LastRowHook
from rvelens.hooks.rve import mask_hooks

SCORES, PATTERN = "blocks.1.attn.hook_attn_scores", "blocks.1.attn.hook_pattern"


def by_data(x: Tensor, hook: Any) -> None:
    x.data[:, 1] = x.data[:, 1] * 0.5


def by_numpy(x: Tensor, hook: Any) -> None:
    x.numpy()[:, 1] *= 0.5


def in_place(x: Tensor, hook: Any) -> None:
    x[:, 1] *= 0.5


def by_detached(x: Tensor, hook: Any) -> Tensor:
    x.detach()[:, 1] *= 0.5
    return x


def returned(x: Tensor, hook: Any) -> Tensor:
    x = x.clone()
    x[:, 1] *= 0.5
    return x


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("point", [SCORES, PATTERN])
@pytest.mark.parametrize("edit", [by_data, by_numpy, in_place, by_detached])
@pytest.mark.parametrize("rows", ["last", "all"])
def test_an_edit_counts_by_whatever_means(model, inputs, mode, point, edit, rows):
    model.query_rows = rows
    with mode():
        plain = model(**inputs)
        expected = model.run_with_hooks(**inputs, fwd_hooks=[(point, returned)])
        got = model.run_with_hooks(**inputs, fwd_hooks=[(point, edit)])
    assert torch.equal(got, expected)
    assert not torch.allclose(got[:, -1], plain[:, -1], atol=1e-5)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", CASES)
def test_hooks_that_look_change_no_bit(name, mode):
    model = hooked(name)
    prepared = batch(model)
    looks = [(lambda n: "attn" in n and not n.startswith("vision."), lambda x, hook: None)]
    with mode():
        plain = model(**prepared)
        for rows in ("last", "all"):
            model.query_rows = rows
            assert torch.equal(model.run_with_hooks(**prepared, fwd_hooks=looks), plain)
            assert torch.equal(model.run_with_cache(**prepared)[0], plain)


def methods(model: HookedLVLM, layers: list[int], n_image: int) -> dict[str, list[Any]]:
    region = torch.ones(3, n_image, dtype=torch.bool)
    heads = {layer: [0, 1] for layer in layers}
    return {
        "rve": rve_hooks(profile_of(model), layers, k=3, alpha=0.3),
        "rve, even heads": rve_hooks(profile_of(model), layers, k=3, alpha=0.3, max_entropy=0.99),
        "mask of heads": mask_hooks(heads, model.n_heads, alpha=0.5),
        "pai": pai_hooks(model.n_layers, layers),
        "devils": devils_hooks(model.n_layers, layers),
        "vaf": vaf_hooks(model.n_layers, layers),
        "region": region_hooks(region, layers),
        "dilution": dilution_hooks(layers, scale=0.0, shift=3.0),
    }


KINDS = ("rve", "rve, even heads", "mask of heads", "pai", "devils", "vaf", "region", "dilution")
HIDES: dict[str, Callable[[torch.dtype], float]] = {
    "the lowest number": lambda dtype: torch.finfo(dtype).min,
    "minus infinity": lambda dtype: -torch.inf,
}


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("number", HIDES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_a_method_leaves_hidden_what_an_earlier_hook_hid(name, kind, number):
    """Image tokens hidden from one head, or from all: no method shows or selects them again."""
    model = hooked(name)
    model.query_rows = "all" if kind == "vaf" else "last"
    prepared = batch(model)
    n_image = max(model.token_map(prepared).n_image)
    seen: list[Tensor] = []

    def hidden_keys(scores: Tensor, hook: Any) -> Tensor:
        image = tokens_of(hook).image_keys(scores.shape[-1], scores.device)
        half = image & (torch.arange(image.shape[1]) % 2 == 0)
        keys = half[:, None, None].expand_as(scores).clone()
        keys[:, 2] = image[:, None]  # one head sees nothing of the image
        keys[:, :, :-1] = False  # rows in the image would see nothing at all
        return keys

    def hide(scores: Tensor, hook: Any) -> Tensor:
        return scores.masked_fill(hidden_keys(scores, hook), HIDES[number](scores.dtype))

    def read(pattern: Tensor, hook: Any) -> None:
        seen.append(pattern[hidden_keys(pattern, hook)])

    hooks = methods(model, [1], n_image)[kind]
    with model.hooks([(SCORES, hide), *hooks, (PATTERN, read)]):
        logits = model(**prepared)
        model.generate(**prepared, max_new_tokens=3, do_sample=False)
    assert torch.isfinite(logits[:, -1]).all()
    assert len(seen) >= 3
    assert all(not bool(x.any()) for x in seen)


@torch.no_grad()
def test_rve_selects_among_what_an_earlier_hook_left(model, inputs):
    """Half of the image hidden from every head: RVE of the other half is what a mask would give."""
    hooks = rve_hooks(profile_of(model), [1], k=3, alpha=0.3)
    rows: list[Tensor] = []

    def hide(scores: Tensor, hook: Any) -> Tensor:
        image = tokens_of(hook).image_keys(scores.shape[-1], scores.device)
        half = image & (torch.arange(image.shape[1]) % 2 == 0)
        return scores.masked_fill(half[:, None, None], torch.finfo(scores.dtype).min)

    def keep(scores: Tensor, hook: Any) -> None:
        rows.append(scores[:, :, 0].clone())

    with model.hooks([(SCORES, hide), (SCORES, keep), *hooks, (SCORES, keep)]):
        model(**inputs)
    before, after = rows
    rve = hooks[0][1]
    target = rve.target(before, model.tokens)[:, None].expand_as(before)
    assert bool(target.any())
    torch.testing.assert_close(after[target], before[target] + before[target].abs())
    assert torch.equal(after[~target], before[~target])


@dataclass(frozen=True)
class Quiet:
    """Declares that it returns a copy."""

    in_place: ClassVar[bool] = False

    def __call__(self, x, hook):
        return x * 2.0


class Loud(Quiet):
    """Overrides the call without a word about it."""

    def __call__(self, x, hook):
        x.mul_(2.0)


class LoudRow(LastRowHook):
    """Edits the row in place that it is given."""

    def edited_row(self, row, tokens):
        row.mul_(2.0)
        return row


@pytest.mark.parametrize("point", ["hook_attn_scores", "hook_pattern"])
@pytest.mark.parametrize("rows", ["last", "all"])
@torch.no_grad()
def test_a_declaration_holds_for_the_call_of_its_own_class(model, inputs, point, rows):
    model.query_rows = rows
    expected, got, plain = (
        model.run_with_hooks(**inputs, fwd_hooks=[(f"blocks.0.attn.{point}", hook)])
        for hook in (Quiet(), Loud(), lambda x, hook: None)
    )
    assert torch.equal(got, expected)
    assert not torch.equal(got, plain)


@torch.no_grad()
def test_a_row_that_is_edited_in_place_counts_and_hides_what_was_hidden(model, inputs):
    hide = dilution_hooks([0], shift=-torch.inf)
    scores = "blocks.0.attn.hook_attn_scores"
    seen = {}

    def keep(name):
        return "blocks.0.attn.hook_pattern", lambda x, hook: seen.__setitem__(name, x.clone())

    for name, hooks in {
        "loud": [*hide, (scores, LoudRow())],
        "copy": [*hide, (scores, lambda x, hook: x * 2.0)],
    }.items():
        model.run_with_hooks(**inputs, fwd_hooks=[*hooks, keep(name)])
    assert torch.equal(seen["loud"], seen["copy"])


@pytest.mark.parametrize(
    "remove",
    [
        lambda hooks: hooks.clear(),
        lambda hooks: hooks.popitem(),
        lambda hooks: hooks.pop(next(iter(hooks))),
        lambda hooks: hooks.__delitem__(next(iter(hooks))),
    ],
)
def test_a_point_knows_that_its_hooks_are_gone_by_any_method(model, remove):
    point = model.hook_dict["blocks.0.attn.hook_pattern"]
    point.add_hook(lambda x, hook: x)
    assert (point.on, point.plain is not None) == (True, True)
    remove(point._forward_hooks)
    assert (point.on, point.plain) == (False, ())


def test_a_point_knows_that_its_hooks_were_exchanged(model):
    point = model.hook_dict["blocks.0.attn.hook_pattern"]
    point._forward_hooks.update({7: print})
    assert point.on
    point._forward_hooks = type(point._forward_hooks)(point)
    assert not point.on
    point._forward_hooks = {8: print}
    assert point.on
    point._forward_hooks.clear()
    assert not point.on
