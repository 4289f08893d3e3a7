"""Checks against whole forwards: wrapping, padding, batches, caches, replays."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import Tensor

from rvelens.check.outcome import (
    Outcome,
    apart,
    describe_error,
    failed,
    not_applicable,
    passed,
    within,
)
from rvelens.check.subject import NEW_TOKENS, Subject, left_padded, longer
from rvelens.model.prefix import can_share, prepare_shared
from rvelens.model.replay import prefill
from rvelens.seam.arguments import ModelInputs

# Tokens of padding before a prompt.
_PADDING = 3


@torch.no_grad()
def plain_results(hf_model: Any, inputs: ModelInputs) -> dict[str, Tensor | Exception]:
    """Logits and a greedy generation of a model that is not wrapped, or why there are none."""
    results: dict[str, Tensor | Exception] = {}
    options = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False}
    for name, run in (
        ("logits", lambda: hf_model(**inputs).logits),
        ("generation", lambda: hf_model.generate(**inputs, **options)),
    ):
        try:
            results[name] = run().clone()
        except Exception as error:  # whatever the model raises is shown, by the check of that name
            results[name] = error
    return results


def _twin(hf_model: Any) -> Any:
    """A copy that shares the weights and has no hook points."""
    memo: dict[int, Any] = {id(p): p for p in (*hf_model.parameters(), *hf_model.buffers())}
    return copy.deepcopy(hf_model, memo)


def check_forward(subject: Subject) -> Outcome:
    """The model answers a prompt with finite numbers, and the same ones again."""
    logits = subject.plain["logits"]
    if isinstance(logits, Exception):
        return failed(describe_error(logits))
    if not bool(logits.isfinite().all()):
        return failed("some logits are NaN or infinite, before wrapping")
    first, second = subject.logits(subject.inputs), subject.logits(subject.inputs)
    if not torch.equal(first, second):
        return failed("two forwards of one prompt differ: the model draws random numbers")
    return passed("finite logits, bit-identical in a second forward")


@torch.no_grad()
def check_unhooked_logits(subject: Subject) -> Outcome:
    """Logits are bit-identical before and after wrapping."""
    return _identical(subject.plain["logits"], subject.logits(subject.inputs), "logits")


@torch.no_grad()
def check_unhooked_generation(subject: Subject) -> Outcome:
    """A greedy generation is the same before and after wrapping."""
    options = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False}
    new = subject.model.generate(**subject.inputs, **options)
    assert isinstance(new, Tensor)
    return _identical(subject.plain["generation"], new, f"{NEW_TOKENS} greedy tokens")


def _identical(before: Tensor | Exception, after: Tensor, label: str) -> Outcome:
    if isinstance(before, Exception):
        return failed(f"before wrapping: {describe_error(before)}")
    if before.shape != after.shape or not torch.equal(before.to(after.device), after):
        return failed(f"{label} differ before and after wrapping")
    return passed(f"{label} are bit-identical before and after wrapping")


@torch.no_grad()
def check_causal(subject: Subject) -> Outcome:
    """Rows do not see later tokens."""
    moved, limit = subject.moved_by_last_token, subject.tolerance.whole
    if moved > limit and "token_type_ids" in subject.inputs:
        return not_applicable("tokens of a prompt see later ones in a prefix language model")
    return within(moved, limit, "another last token, and how far the rows before it move")


@torch.no_grad()
def check_left_padding(subject: Subject) -> Outcome:
    """Padding before a prompt does not change its answer."""
    config: Any = subject.model.hf_model.generation_config
    pad = getattr(config, "pad_token_id", None)
    padded = left_padded(subject.inputs, _PADDING, 0 if pad is None else int(pad))
    moved = apart(subject.first_logits(padded), subject.first_logits(subject.inputs))
    return within(moved, subject.tolerance.whole, f"{_PADDING} tokens of padding before the prompt")


@torch.no_grad()
def check_batch(subject: Subject) -> Outcome:
    """Prompts of unequal length in a batch are answered as alone."""
    if subject.image is None:
        return not_applicable("tensors were given, so no batch of other prompts can be made")
    together = subject.first_logits(subject.batch)
    alone = [
        subject.first_logits(subject.model.prepare(subject.image, question))
        for question in subject.questions
    ]
    moved = apart(together, torch.cat(alone))
    lengths = subject.batch["attention_mask"].sum(dim=1).tolist()
    reason = f"prompts of {', '.join(map(str, lengths))} tokens together and alone"
    return within(moved, subject.tolerance.whole, reason)


@torch.no_grad()
def check_cache(subject: Subject) -> Outcome:
    """Generated steps behind a cache equal a whole forward of the same tokens."""
    output = subject.generate(subject.inputs)
    steps = torch.stack(output.logits, dim=1)
    new = output.sequences[:, -NEW_TOKENS:]
    whole = subject.logits(_longer(subject, new[:, :-1]))[:, -NEW_TOKENS:]
    moved = apart(steps, whole)
    return within(
        moved, subject.tolerance.whole, f"{NEW_TOKENS} generated steps and whole forwards"
    )


def _longer(subject: Subject, new: Tensor) -> dict[str, Any]:
    prefix_model = subject.model.family.name == "paligemma"
    return longer(subject.inputs, new, prefix_model=prefix_model)


@torch.no_grad()
def check_second_turn(subject: Subject) -> Outcome:
    """A second turn behind the cache of the first equals a whole forward of both."""
    model = subject.model
    if _generates_itself(model.hf_model):
        return not_applicable("the model's own generate reads whole prompts")
    if not subject.is_causal:
        return not_applicable("the prompt would be read otherwise with a second turn behind it")
    first = subject.generate(subject.inputs, 2)
    text = subject.inputs["input_ids"][:, -4:]
    whole = _longer(subject, torch.cat([first.sequences[:, -2:], text], dim=1))
    behind = {k: v for k, v in whole.items() if not _is_visual(k)}
    cached = subject.generate({**behind, "past_key_values": first.past_key_values}, 1).logits[0]
    moved = apart(cached, subject.logits(whole)[:, -1])
    return within(moved, subject.tolerance.whole, "4 tokens behind an answer of 2, and a forward")


def _is_visual(name: str) -> bool:
    return any(kind in name for kind in ("pixel", "image", "video", "target_sizes"))


def _generates_itself(hf_model: Any) -> bool:
    base = hf_model.get_base_model() if hasattr(hf_model, "get_base_model") else hf_model
    plain: Any = transformers.GenerationMixin.__dict__["generate"]
    return getattr(type(base), "generate", None) is not plain


@torch.no_grad()
def check_replay(subject: Subject) -> Outcome:
    """The last token alone behind a shared prompt equals a whole forward, plain and under RVE."""
    model = subject.model
    if not model.family.replays:
        return not_applicable(f"the prompts of {model.family.name} are run whole")
    prefix = prefill(model, subject.batch)
    moved = 0.0
    for hooks in ([], subject.rve() if subject.k and subject.layers else []):
        with model.hooks(hooks):
            moved = max(moved, apart(prefix.replay(), subject.first_logits(subject.batch)))
    return within(moved, subject.tolerance.whole, "plain and under RVE, against whole forwards")


@torch.no_grad()
def check_shared_prefix(subject: Subject) -> Outcome:
    """Questions that share the run of their image are answered as alone."""
    model = subject.model
    if subject.image is None:
        return not_applicable("tensors were given, so no questions about an image can be asked")
    if not can_share(model, "chat"):
        return not_applicable(f"the prompts of {model.family.name} are run whole")
    inputs = prepare_shared(model, subject.image, subject.questions)
    shared = subject.generate(inputs, 1).logits[0]
    moved = apart(shared, subject.first_logits(subject.batch))
    return within(moved, subject.tolerance.whole, f"{len(subject.questions)} questions, one image")


@torch.no_grad()
def check_hidden_states(subject: Subject) -> Outcome:
    """The residual stream that hooks read is what transformers reports as hidden states."""
    model = subject.model
    names = [f"blocks.{n}.hook_resid_post" for n in range(model.n_layers)]
    seam, decoder = model._seam, model.hf_model.get_decoder()
    reasons = [seam.reason(decoder, n) for n in names if n in model.hook_dict]
    if len(reasons) < len(names) or any(reasons):
        reason = next(filter(None, reasons), "layers are in no list")
        return not_applicable(f"the stream cannot be read: {reason}")
    _, cache = model.run_with_cache(**subject.inputs, names_filter=names)
    output: Mapping[str, Any] = model.hf_model(**subject.inputs, output_hidden_states=True)
    states = output.get("hidden_states")
    if not states or len(states) != model.n_layers + 1:
        return not_applicable("the model reports no hidden states of its decoder")
    # The last state comes behind the final norm.
    pairs = zip(names[:-1], states[1:-1], strict=True)
    wrong = [name for name, state in pairs if not torch.equal(cache[name], state)]
    if wrong:
        return failed(f"{', '.join(wrong[:3])} are not the hidden states of transformers")
    return passed(f"{len(names) - 1} layers are bit-identical to transformers' hidden states")


@torch.no_grad()
def check_range(subject: Subject) -> Outcome:
    """No layer's numbers come near the largest of the dtype."""
    model = subject.model
    limit = torch.finfo(model.hf_model.dtype).max
    names = [f"blocks.{n}.hook_resid_post" for n in range(model.n_layers)]
    seam, decoder = model._seam, model.hf_model.get_decoder()
    names = [n for n in names if n in model.hook_dict and seam.reason(decoder, n) is None]
    if not names:
        return not_applicable("the residual stream cannot be read")
    _, cache = model.run_with_cache(**subject.inputs, names_filter=names)
    largest = {name: float(cache[name].abs().max()) for name in names}
    wrong = [name for name, x in largest.items() if not x < float("inf")]
    if wrong:
        return failed(f"{wrong[0]} holds NaN or infinity")
    return within(
        max(largest.values()), limit / 2, "largest number of the stream, half of the range"
    )
