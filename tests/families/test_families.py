"""Every family: nothing changes without hooks, and hooks see and change what they should."""

from __future__ import annotations

import pytest
import torch
from family_cases import CASES, batch, family_of_case, generate, hooked, verifies
from reference import ars_of_attentions
from tiny_models import IMAGES, QUESTIONS, build

from rvelens import ContrastivePair, score_heads

SCORES = "blocks.{}.attn.hook_attn_scores"
PATTERN = "blocks.{}.attn.hook_pattern"


@verifies("identical to SDPA")
def test_unhooked_is_identical_to_sdpa(name):
    model = hooked(name)
    inputs = batch(model)
    plain, _ = build(name)
    assert plain.config.get_text_config()._attn_implementation == "sdpa"
    with torch.no_grad():
        expected = plain(**inputs).logits
        assert torch.equal(model(**inputs), expected)
    how = {"max_new_tokens": 6, "do_sample": False}
    expected = plain.generate(**inputs, **how, return_dict_in_generate=True, output_logits=True)
    assert torch.equal(model.generate(**inputs, **how), expected.sequences)
    logits = generate(model, inputs, output_logits=True).logits
    assert all(torch.equal(a, b) for a, b in zip(logits, expected.logits, strict=True))


@verifies("token map")
def test_token_map(name):
    model = hooked(name)
    inputs = batch(model)
    consumed = []
    decoder = model.hf_model.get_decoder()
    decoder.register_forward_pre_hook(
        lambda module, args, kwargs: consumed.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    with torch.no_grad():
        model(**inputs)
    tokens = model.tokens
    real, ids = inputs["attention_mask"].bool(), inputs["input_ids"]
    assert torch.equal(tokens.real, real)
    assert tokens.last.tolist() == [ids.shape[1] - 1] * 3
    assert tokens.n_image == tuple(tokens.image.sum(1).tolist())
    assert bool((tokens.text ^ tokens.image)[real].all())
    # The model replaced the embeddings at exactly the keys that the map calls image tokens.
    embed = model.hf_model.get_input_embeddings()
    same = (consumed[0] == embed(ids)).all(dim=-1)
    assert torch.equal(~same & real, tokens.image)
    assert (inputs["attention_mask"].diff(dim=1) >= 0).all(), "padding comes first"


@pytest.mark.parametrize("name", CASES)
def test_a_batch_answers_as_its_samples_do(name):
    model = hooked(name)
    together = model(**batch(model))[:, -1]
    for n in range(3):
        alone = model(**model.prepare(IMAGES[n], QUESTIONS[n]))[0, -1]
        torch.testing.assert_close(together[n], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_an_edit_changes_what_it_should(name):
    model = hooked(name)
    inputs = batch(model)
    seen = {}

    def look(scores, hook):
        seen[hook.name] = scores.clone()

    def raise_text(scores, hook):
        text = hook.ctx["tokens"].text[:, None, None]
        return torch.where(text[..., -scores.shape[-1] :], scores + scores.abs(), scores)

    unhooked = model(**inputs)
    first, later = SCORES.format(0), SCORES.format(1)
    with model.hooks([(first, look), (later, look)]):
        plain = model(**inputs)
    before = dict(seen)
    with model.hooks([(first, raise_text), (first, look), (later, look)]):
        edited = model(**inputs)
    image = model.tokens.image[:, None, None].expand_as(before[first])
    assert torch.equal(seen[first][image], before[first][image])
    assert not torch.equal(seen[first][~image], before[first][~image])
    assert not torch.equal(seen[later], before[later]), "what follows sees the edit"
    assert (edited - plain)[:, -1].abs().max() > 1e-3
    # Only the last row was edited, so no other row changes; PaliGemma's rows see later ones.
    if name != "paligemma":
        assert torch.equal(edited[:, :-1], unhooked[:, :-1])
    assert torch.equal(model(**inputs), unhooked)


@verifies("all rows = eager")
def test_all_rows_are_eager_attention(name):
    model = hooked(name)
    inputs = batch(model)
    model.query_rows = "all"
    eager, _ = build(name)
    eager.set_attn_implementation({"text_config": "eager"})
    with torch.no_grad():
        output = eager(**inputs, output_attentions=True)
    attentions = getattr(output, "attentions", None) or output.language_model_outputs.attentions
    leaf, patterns = {}, {}

    def keep(pattern, hook):
        patterns[hook.name] = pattern

    def bump(scores, hook):
        leaf["scores"] = torch.zeros_like(scores, requires_grad=True)
        return scores + leaf["scores"]

    hooks = [(PATTERN.format(layer), keep) for layer in range(model.n_layers)]
    with model.hooks([*hooks, (SCORES.format(0), bump)]):
        model(**inputs)[:, -1].logsumexp(dim=-1).sum().backward()
    real = inputs["attention_mask"].bool()
    rows = real[:, None].expand(-1, model.n_heads, -1)
    for layer in range(model.n_layers):
        pattern = patterns[PATTERN.format(layer)]
        assert pattern.shape == attentions[layer].shape
        torch.testing.assert_close(pattern[rows], attentions[layer][rows], atol=1e-5, rtol=1e-5)
    assert bool(leaf["scores"].grad.isfinite().all())
    assert float(leaf["scores"].grad.abs().max()) > 0


@verifies("ARS = reference")
def test_ars_is_equation_3(name):
    model = hooked(name)
    changed = [question.replace("hold", "ride").replace("kick", "eat") for question in QUESTIONS]
    changed[1] = changed[1].replace("between", "near")
    pairs = [ContrastivePair(*texts) for texts in zip(IMAGES, QUESTIONS, changed, strict=True)]
    profile = score_heads(model, pairs, any_text=True)  # one swaps a preposition
    inputs = model.prepare(IMAGES + IMAGES, [*QUESTIONS, *changed])
    eager, _ = build(name)
    eager.set_attn_implementation({"text_config": "eager"})
    with torch.no_grad():
        output = eager(**inputs, output_attentions=True)
    attentions = getattr(output, "attentions", None) or output.language_model_outputs.attentions
    tokens = model.token_map(inputs)
    image = [torch.nonzero(row).flatten().tolist() for row in tokens.image]
    expected = ars_of_attentions(attentions, image, tokens.last.tolist())
    torch.testing.assert_close(profile.scores, expected, atol=1e-5, rtol=1e-5)
    assert float(profile.scores.mean()) > 1e-3
    assert family_of_case(name).name == model.family.name
