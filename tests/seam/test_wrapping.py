"""What wrapping puts around methods of a model follows copies, and keeps what its owner set there."""

from __future__ import annotations

import copy
import pickle
import types

import pytest
import torch
from family_cases import CASES, batch, hooked

from rvelens import HookedLVLM

Z = "blocks.0.attn.hook_z"
GREEDY = {"do_sample": False, "max_new_tokens": 4}


def doubled(x, hook):
    return x * 2


def with_other_weights(hf_model):
    """A shallow copy with a language model head of its own."""
    other = copy.copy(hf_model)
    other.__dict__["_modules"] = dict(hf_model._modules)
    head = copy.deepcopy(hf_model.get_output_embeddings())
    torch.nn.init.normal_(head.weight, std=5.0)
    other._modules["lm_head"] = head
    return other


@torch.no_grad()
def test_a_shallow_copy_generates_with_its_own_weights(model, inputs):
    other = with_other_weights(model.hf_model)
    step = other(**inputs).logits[:, -1]
    out = other.generate(**inputs, **GREEDY, output_logits=True, return_dict_in_generate=True)
    # Positions of the padded rows start elsewhere in generate: RoPE rounds otherwise.
    torch.testing.assert_close(out.logits[0], step, rtol=1e-4, atol=1e-3)
    assert (step - model.hf_model(**inputs).logits[:, -1]).abs().amax() > 1


def test_a_generate_that_was_set_on_the_model_is_called(plain, inputs):
    calls = []

    def own(self, *args, **kwargs):
        calls.append(self)
        return type(self).generate(self, *args, **kwargs)

    expected = plain.generate(**inputs, **GREEDY)
    plain.generate = types.MethodType(own, plain)
    for _ in range(2):  # the second wrapper finds the first one's work
        model = HookedLVLM.from_pretrained(plain)
        assert torch.equal(model.generate(**inputs, **GREEDY), expected)
        assert torch.equal(plain.generate(**inputs, **GREEDY), expected)
    assert calls == [plain] * 4
    with (
        model.hooks([(Z, doubled)]),
        pytest.raises(ValueError, match="prompt_lookup_num_tokens runs several rows"),
    ):
        plain.generate(**inputs, **GREEDY, prompt_lookup_num_tokens=2)
    twin = copy.deepcopy(plain)
    assert twin.generate.__func__ is own
    assert twin.generate.__self__ is twin


def test_a_marking_method_that_was_set_on_the_model_is_called(plain, inputs):
    """Here one that calls the class's own, as a patch that prints would."""
    owner = plain.model
    calls = []

    def own(*args, **kwargs):
        calls.append(args)
        return type(owner).get_placeholder_mask(owner, *args, **kwargs)

    owner.get_placeholder_mask = own
    model = HookedLVLM.from_pretrained(plain)
    with torch.no_grad():
        model(**inputs)
    assert len(calls) == 1
    assert model.tokens is not None
    assert min(model.tokens.n_image) > 0


@pytest.mark.parametrize("name", CASES)
def test_copies_and_pickles_are_plain_models(name):
    model = hooked(name)
    inputs = batch(model)
    # Before any forward: behind one, hooks of transformers itself cannot be pickled.
    twins = copy.deepcopy(model.hf_model), pickle.loads(pickle.dumps(model.hf_model))
    with torch.no_grad():
        expected = model.hf_model(**inputs).logits
        with model.hooks([(Z, doubled)]):
            for twin in twins:
                assert torch.equal(twin(**inputs).logits, expected)
                twin.generate(
                    **inputs, **GREEDY, use_cache=False
                )  # no hooks of its own: not refused


@pytest.mark.parametrize("position", [5, 6])
def test_options_of_generate_are_read_where_they_are_given_by_position(model, inputs, position):
    ids = inputs["input_ids"]
    arguments = [ids, None, None, None, None, None, model.hf_model][: position + 1]
    others = {k: v for k, v in inputs.items() if k != "input_ids"}
    with model.hooks([(Z, doubled)]):
        if position == 6:
            with pytest.raises(ValueError, match="assistant_model runs several rows"):
                model.hf_model.generate(*arguments, **others, **GREEDY)
        else:
            model.hf_model.generate(*arguments, **others, **GREEDY)


@torch.no_grad()
def test_marks_of_a_call_by_hand_are_of_no_forward(model, inputs):
    """The base model's forward finds its own; a text alone has no image."""
    base = model.hf_model.model
    embeds = base.get_input_embeddings()(inputs["input_ids"])
    n_features = int((inputs["input_ids"] == model.image_token_id).sum())
    features = torch.zeros(n_features, embeds.shape[-1])
    base.get_placeholder_mask(inputs["input_ids"], embeds, features)
    base(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    assert model.tokens is None or model.tokens.n_image == (0,) * len(embeds)
