"""A hook reads the same in generate, replay, replay_each, generate_each and evaluate."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import pytest
import torch
from family_cases import hooked, profile_of
from tiny_models import IMAGES, QUESTIONS

from rvelens.evaluate.answering import answer, answer_each, side_by_side
from rvelens.hooks import LastRowHook, pai_hooks, rve_hooks, tokens_of
from rvelens.hooks.rve import RVEHook
from rvelens.interventions.methods import Method
from rvelens.model.prefix import REPLAYS, prepare_shared
from rvelens.model.replay import can_replay, prefill

SCORES, PATTERN = "blocks.1.attn.hook_attn_scores", "blocks.1.attn.hook_pattern"
NEW = 4
NAMES = [*REPLAYS, "smolvlm"]


@dataclass(eq=False)
class Diary:
    """Writes down all that a hook can read, and edits nothing."""

    pages: list[Any] = field(default_factory=list)

    def __call__(self, x: Any, hook: Any) -> None:
        tokens = tokens_of(hook)
        page = [hook.name, hook.layer(), tuple(x.shape), str(x.dtype), tokens.n_keys]
        page += [tokens.n_known, tokens.n_image, tokens.batch, tokens.last.tolist()]
        page += [tokens.image.tolist(), tokens.real.tolist(), tokens.text.tolist()]
        page += [tokens.image_keys(x.shape[-1], x.device).tolist()]
        self.pages.append((page, x.detach().clone()))


def same(left: Diary, right: Diary) -> None:
    assert len(left.pages) == len(right.pages) > 0
    for (page, x), (other, y) in zip(left.pages, right.pages, strict=True):
        assert page == other
        seen = x > -1e30  # what the mask hides holds the lowest number, or a sum with it
        assert torch.equal(seen, y > -1e30)
        torch.testing.assert_close(x[seen], y[seen], rtol=0, atol=1e-5)


def setting(diary: Diary) -> list[tuple[str, Any]]:
    return [(SCORES, diary), (PATTERN, diary)]


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_hook_reads_the_same_in_every_way_of_running_it(name, shared):
    model = hooked(name)
    whole = model.prepare(IMAGES, QUESTIONS)
    expected = Diary()
    options = {"do_sample": False, "max_new_tokens": NEW}
    with model.hooks(setting(expected)):
        model.generate(**whole, **options)
    first = Diary(expected.pages[:2])

    if shared:  # the same prompts, of which a cache holds the images
        whole_mask = prepare_shared(model, IMAGES, QUESTIONS)["attention_mask"]
        shared_pages, inputs = Diary(), prepare_shared(model, IMAGES, QUESTIONS)
        with model.hooks(setting(shared_pages)):
            model.generate(**inputs, **options)
        expected, first = shared_pages, Diary(shared_pages.pages[:2])
        assert expected.pages[0][0][4] == whole_mask.shape[1]
    inputs = prepare_shared(model, IMAGES, QUESTIONS) if shared else whole
    prefix = prefill(model, inputs)

    replayed = Diary()
    with model.hooks(setting(replayed)):
        prefix.replay()
    same(replayed, first)

    for position in range(3):
        diary = Diary()
        settings = [[], rve_hooks(profile_of(model), [0, 1, 2], k=3)]
        settings.insert(position, setting(diary))
        prefix.replay_each(settings)
        same(diary, first)
        diary.pages.clear()
        prefix.generate_each(settings, max_new_tokens=NEW)
        same(diary, expected)


class DecodeOnly:
    """An edit of generated tokens' rows only."""

    def __call__(self, scores, hook):
        tokens = tokens_of(hook)
        return scores * 3.0 if tokens.n_keys > tokens.image.shape[1] else None


class PrefillOnly:
    """An edit of the prompt's row only."""

    def __call__(self, scores, hook):
        tokens = tokens_of(hook)
        return scores * 3.0 if tokens.n_keys == tokens.image.shape[1] else None


class LastKeys:
    """An edit of the three newest keys, wherever they are on the key axis."""

    def __call__(self, scores, hook):
        scores = scores.clone()
        scores[..., -3:] += 2.0
        return scores


class EverySecondStep:
    """An edit that counts the calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, scores, hook):
        self.calls += 1
        return scores * 2.0 if self.calls % 2 == 0 else None


class OwnRow(LastRowHook):
    """A hook of one's own on the last row, which looks at the number of keys."""

    def edited_row(self, row, tokens):
        return row * (1.0 + 0.1 * (tokens.n_keys % 3))


class ChangedRVE(RVEHook):
    """A subclass of a row-local hook is not known to be row-local."""

    def edited_row(self, row, tokens):
        return row * (2.0 if tokens.n_keys > tokens.n_known else 1.0)


def changed_rve(model):
    (_, hook), *_ = rve_hooks(profile_of(model), [1], k=3)
    return ChangedRVE(**{f.name: getattr(hook, f.name) for f in fields(hook) if f.init})


OWN = {
    "decode only": lambda model: DecodeOnly(),
    "prefill only": lambda model: PrefillOnly(),
    "last keys": lambda model: LastKeys(),
    "counts calls": lambda model: EverySecondStep(),
    "own row": lambda model: OwnRow(),
    "subclass": changed_rve,
    "plain function": lambda model: lambda scores, hook: scores * 1.7,
}


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("own", OWN)
@pytest.mark.parametrize("name", NAMES)
def test_a_hook_of_ones_own_answers_as_alone(name, own):
    model = hooked(name)
    inputs = model.prepare(IMAGES, QUESTIONS)
    options = {"do_sample": False, "max_new_tokens": NEW}
    with model.hooks([(SCORES, OWN[own](model))]):
        alone = model.generate(**inputs, **options)
        new = alone[:, -NEW:]
    prefix = prefill(model, inputs)
    beside = [[], rve_hooks(profile_of(model), [0, 1], k=3), pai_hooks(3, alpha=0.5)]
    ids, _ = prefix.generate_each([*beside, [(SCORES, OWN[own](model))]], max_new_tokens=NEW)
    assert torch.equal(ids[:, 3], new)
    with model.hooks(beside[1]):
        assert torch.equal(ids[:, 1], model.generate(**inputs, **options)[:, -NEW:])


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("own", OWN)
def test_evaluate_gives_a_method_of_ones_own_its_answers(model, own):
    def methods():
        return [
            Method("vanilla", {}),
            Method("own", {}, ((SCORES, OWN[own](model)),)),
            Method("pai", {}, tuple(pai_hooks(3, alpha=0.5))),
        ]

    groups = side_by_side(model, methods())
    together = answer_each(model, [method.hooks for method in groups[0]], IMAGES, QUESTIONS)
    names = [method.name for method in groups[0]]
    assert "own" in names
    alone = [text for text, _ in answer(model, methods()[1], IMAGES, QUESTIONS)]
    assert [row[names.index("own")][0] for row in together] == alone


@torch.no_grad()
def test_hooks_that_see_every_row_are_not_replayed(model, inputs):
    prefix = prefill(model, inputs)
    on_z = [("blocks.0.attn.hook_z", lambda z, hook: z * 0.5)]
    for run in (prefix.replay_each, prefix.generate_each):
        with pytest.raises(ValueError, match=r"sees every row of a prompt.*run whole forwards"):
            run([[], on_z])
    with pytest.raises(ValueError, match="sees every row"), model.hooks(on_z):
        prefix.replay()
    assert not can_replay(model, on_z)
    methods = [Method(n, {}, h) for n, h in (("vanilla", ()), ("z", tuple(on_z)), ("other", ()))]
    assert [[m.name for m in g] for g in side_by_side(model, methods)] == [
        ["vanilla", "other"],
        ["z"],
    ]
    assert not model.list_hooks()
