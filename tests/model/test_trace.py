"""Traces: every token against whole forwards; files, frames and the picture."""

from __future__ import annotations

import json
import math
import threading

import numpy as np
import pytest
import torch
from family_cases import (
    CASES,
    IMAGES,
    QUESTIONS,
    hooked,
    profile_of,
    reference_logits,
    reference_of,
)
from PIL import Image
from reference import PATTERNS
from safetensors.torch import load_file, save_file
from tiny_inputs import SPECIAL_IDS

from rvelens.hooks import rve_hooks
from rvelens.interventions.methods import make_method
from rvelens.model.last_patterns import deferrable_layers, watching
from rvelens.model.trace import Trace, TracedAnswer
from rvelens.model.tracing import check_traced, pieces_of, traced_answer
from rvelens.speed.counts import count_operations
from rvelens.tokens.grid import ImageGrid, single_tile

pytestmark = pytest.mark.slow

OPTIONS = {"layers": [0, 1, 2], "k": 3, "alpha": 0.3, "beta": 1.0}
N = 5


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def settings_of(model):
    return {"plain": [], "RVE": rve_hooks(profile_of(model), **OPTIONS)}


def literal(name, model, inputs, ids, rve):
    """Attention and log-probabilities of a trace, from one whole forward without a cache."""
    logits = reference_logits(name, inputs, ids[None], rve)[0].clone()
    logits[:, SPECIAL_IDS] = -torch.inf
    log_probs = [
        float(row.log_softmax(dim=-1)[token]) for row, token in zip(logits, ids, strict=True)
    ]
    image = (inputs["input_ids"][0] == model.image_token_id).nonzero().flatten().tolist()
    n_prompt = inputs["input_ids"].shape[1]
    attention = torch.zeros(len(ids), model.n_layers, model.n_heads, len(image))
    for step in range(len(ids)):
        for layer in range(model.n_layers):
            attention[step, layer] = PATTERNS[layer][0, :, n_prompt - 1 + step, image]
    return attention, torch.tensor(log_probs)


@pytest.mark.parametrize("name", CASES)
def test_every_token_is_that_of_whole_forwards(name):
    """Plain and under RVE, whose reference edits every row that was the last one at its step."""
    model = hooked(name)
    trace = model.trace(IMAGES[0], QUESTIONS[0], settings_of(model), max_new_tokens=N)
    inputs = model.prepare(IMAGES[0], QUESTIONS[0])
    rve = reference_of(profile_of(model), inputs, model.image_token_id, **OPTIONS)
    assert [answer.name for answer in trace.answers] == ["plain", "RVE"]
    for answer, edits in zip(trace.answers, (None, rve), strict=True):
        assert answer.ids.shape == (N,)
        attention, log_probs = literal(name, model, inputs, answer.ids, edits)
        close(answer.attention, attention)
        close(answer.log_probs, log_probs)
    assert trace["plain"].text == model.ask(IMAGES[0], QUESTIONS[0], max_new_tokens=N)[0]
    assert not torch.allclose(trace["plain"].attention[0], trace["RVE"].attention[0], atol=1e-3)
    assert not model.list_hooks()


def is_pattern(name):
    return name.startswith("blocks.") and name.endswith("hook_pattern")


@pytest.mark.parametrize("name", ["llava", "gemma3", "qwen2_5_vl", "paligemma"])
def test_every_token_is_that_of_run_with_cache(name):
    """One whole forward for each step, eager, with the tokens before it as part of the prompt."""
    model = hooked(name)
    (answer,) = model.trace(IMAGES[1], QUESTIONS[1], max_new_tokens=N).answers
    eager = hooked(name)
    eager.hf_model.set_attn_implementation("eager")
    inputs = dict(eager.prepare(IMAGES[1], QUESTIONS[1]))
    image = eager.token_map(inputs).image[0]
    ones = torch.ones(1, 1, dtype=torch.long)
    for step, token in enumerate(answer.ids):
        with torch.no_grad():
            _, cache = eager.run_with_cache(**inputs, names_filter=is_pattern)
        for layer in range(eager.n_layers):
            row = cache[f"blocks.{layer}.attn.hook_pattern"][0, :, -1, : len(image)]
            close(answer.attention[step, layer], row[:, image])
        inputs["input_ids"] = torch.cat([inputs["input_ids"], token[None, None]], dim=1)
        inputs["attention_mask"] = torch.cat([inputs["attention_mask"], ones], dim=1)
        for key in ("token_type_ids", "mm_token_type_ids"):
            if key in inputs:
                kind = ones if name == "paligemma" else 0 * ones
                inputs[key] = torch.cat([inputs[key], kind], dim=1)


def test_without_settings_it_is_the_answer_under_whatever_hooks_are_on():
    model = hooked("llava")
    hooks = settings_of(model)["RVE"]
    both = model.trace(IMAGES[0], QUESTIONS[0], settings_of(model), max_new_tokens=2)
    with model.hooks(hooks):
        (answer,) = model.trace(IMAGES[0], QUESTIONS[0], max_new_tokens=2).answers
        assert answer.name == "hooked"
        close(answer.attention, both["RVE"].attention)
        with pytest.raises(
            ValueError, match=r"hooks are on, and settings are given \(plain\): expect"
        ):
            model.trace(IMAGES[0], QUESTIONS[0], {"plain": []})
    assert model.trace(IMAGES[0], QUESTIONS[0], max_new_tokens=1).answers[0].name == "plain"


def test_it_ends_where_the_answer_ends():
    model = hooked("llava")
    ids = model.trace(IMAGES[0], QUESTIONS[0], max_new_tokens=N).answers[0].ids
    model.hf_model.generation_config.eos_token_id = int(ids[2])
    first = ids.tolist().index(int(ids[2]))
    (answer,) = model.trace(IMAGES[0], QUESTIONS[0], max_new_tokens=N).answers
    assert answer.ids.tolist() == ids[: first + 1].tolist()
    assert len(answer.pieces) == len(answer.attention) == len(answer.log_probs) == first + 1


def test_hooks_after_which_all_rows_are_shown_give_the_same():
    model = hooked("llava")
    (last,) = model.trace(IMAGES[0], QUESTIONS[0], max_new_tokens=3).answers
    model.query_rows = "all"
    (every,) = model.trace(IMAGES[0], QUESTIONS[0], max_new_tokens=3).answers
    close(every.attention, last.attention)


@pytest.mark.parametrize("name", ["llava", "llava_next", "llava_onevision", "instructblip"])
def test_layers_without_hooks_are_computed_behind_the_generation(name):
    """The same as hooks on the pattern record, which layers with hooks of their own go on using."""
    model = hooked(name)
    assert deferrable_layers(model) == [0, 1, 2]
    (plain,) = model.trace(IMAGES[0], QUESTIONS[0], max_new_tokens=N).answers
    looks = [(f"blocks.{layer}.attn.hook_pattern", lambda x, hook: None) for layer in (0, 2)]
    with model.hooks(looks):
        assert deferrable_layers(model) == [1]
        (mixed,) = model.trace(IMAGES[0], QUESTIONS[0], max_new_tokens=N).answers
    close(plain.attention, mixed.attention)
    with model.hooks([("blocks.1.attn.hook_q", lambda x, hook: x * 2)]):
        assert deferrable_layers(model) == [0, 1, 2]
        (edited,) = model.trace(IMAGES[0], QUESTIONS[0], max_new_tokens=1).answers
        inputs = model.prepare(IMAGES[0], QUESTIONS[0])
        _, cache = model.run_with_cache(**inputs, names_filter="blocks.1.attn.hook_pattern")
    row = cache["blocks.1.attn.hook_pattern"][0, :, 0]
    close(edited.attention[0, 1], row[:, model.token_map(inputs).image[0]])


def test_what_is_not_computed_behind_the_generation():
    assert deferrable_layers(hooked("gemma3")) == []  # layers with a sliding window
    assert deferrable_layers(hooked("paligemma")) == []
    model = hooked("llava")
    config = model.hf_model.generation_config
    config.cache_implementation = "static"
    assert deferrable_layers(model) == []
    config.cache_implementation = None
    config.prompt_lookup_num_tokens = 2
    assert deferrable_layers(model) == []
    with pytest.raises(ValueError, match="prompt_lookup_num_tokens runs several rows in a step"):
        model.trace(IMAGES[0], QUESTIONS[0], max_new_tokens=2)


def test_watches_are_of_one_thread_and_end_with_the_block():
    model = hooked("llava")
    inputs = model.prepare(IMAGES[0], QUESTIONS[0])
    with watching(model, [1]) as calls, torch.no_grad():
        other = threading.Thread(target=lambda: model(**inputs))
        other.start()
        other.join()
        assert calls[1].call is None
        model(**inputs)
        assert calls[1].query.shape == (1, model.n_heads, 1, 8)
    assert model.blocks[1].attn.watch is None
    assert not model.blocks[1].attn.in_use


def test_a_record_of_a_token_takes_few_operations():
    """Of the model's own, of which each token takes about 20 in a layer."""
    model = hooked("llava")
    inputs = model.prepare(IMAGES[0], QUESTIONS[0])
    options = {"do_sample": False, "max_new_tokens": 12, "min_new_tokens": 12}
    model.hf_model.generation_config.min_new_tokens = 12
    traced_answer(model, inputs, "plain", 12)  # with the self-check
    plain = count_operations(lambda: model.generate(**inputs, **options))
    traced = count_operations(lambda: traced_answer(model, inputs, "plain", 12))
    assert plain < traced < 1.06 * plain


MISTAKES = {
    "no settings": ({"settings": {}}, "no settings to trace: expected at least one"),
    "no tokens": ({"max_new_tokens": 0}, "max_new_tokens=0: expected at least 1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_be_traced(mistake):
    given, said = MISTAKES[mistake]
    with pytest.raises(ValueError, match=said):
        hooked("llava").trace(IMAGES[0], **{"question": QUESTIONS[0], **given})


def test_only_one_question_and_hooks_alone_are_traced():
    with pytest.raises(ValueError, match="a question is a list: expected one text"):
        check_traced(["a", "b"], None, False)
    with pytest.raises(ValueError, match="the setting 'V' is a method: expected a list of hooks"):
        check_traced("a", {"V": make_method("vanilla", hooked("llava"))}, False)


class Bytes:
    """A processor whose tokens are bytes of UTF-8."""

    def batch_decode(self, ids, skip_special_tokens):
        return [bytes(row.tolist()).decode("utf-8", errors="replace") for row in ids]


def test_a_character_of_several_tokens_stands_with_its_last_one():
    text = "a é€ b"
    ids = torch.tensor(list(text.encode()))
    pieces = pieces_of(Bytes(), ids)
    assert pieces == ("a", " ", "", "é", "", "", "€", " ", "b")
    assert "".join(pieces) == text


# What one has of it --------------------------------------------------------------------------------


GRID = single_tile(2, 2)


def small_trace(grid: ImageGrid | None = GRID):
    generator = torch.Generator().manual_seed(0)

    def answer(name, *pieces):
        attention = torch.rand(len(pieces), 2, 3, 4, generator=generator) / 4
        ids = torch.arange(len(pieces))
        return TracedAnswer(name, "".join(pieces), ids, pieces, -(ids + 1).float(), attention)

    image = Image.new("RGB", (40, 20), (200, 120, 60))
    answers = (answer("plain", "a", " <b>"), answer("RVE", "c", " d", " e"))
    return Trace("m", image, "Is 1 < 2?", "chat", grid, answers)


def test_a_map_is_the_mean_over_layers_and_heads():
    trace = small_trace()
    answer = trace["RVE"]
    expected = [sum(float(answer.attention[2, 1, h, i]) for h in (0, 2)) / 2 for i in range(4)]
    assert np.allclose(answer.map_of(2, layers=[1], heads=[0, 2]), expected)
    assert np.allclose(answer.map_of(-1), answer.attention[2].mean(dim=(0, 1)).numpy())
    with pytest.raises(ValueError, match="layer 2: expected numbers from 0 to 1"):
        answer.map_of(0, layers=[2])
    with pytest.raises(ValueError, match="no head: expected numbers from 0 to 2"):
        answer.map_of(0, heads=[])
    with pytest.raises(ValueError, match="token 3: expected numbers from -3 to 2"):
        answer.map_of(3)
    with pytest.raises(KeyError, match="no answer 'VCD': expected one of 'plain', 'RVE'"):
        trace["VCD"]


def test_the_frame_has_a_row_for_each_answer_token_layer_and_head():
    trace = small_trace()
    frame = trace.to_dataframe()
    assert len(frame) == (2 + 3) * 2 * 3
    row = frame.query("answer == 'RVE' and step == 1 and layer == 1 and head == 2").iloc[0]
    assert (row.token, row.id) == (" d", 1)
    assert row.log_prob == -2
    assert math.isclose(
        row.image_attention, float(trace["RVE"].attention[1, 1, 2].sum()), rel_tol=1e-6
    )


@pytest.mark.parametrize("grid", [GRID, None])
def test_a_file_gives_the_same_trace(tmp_path, grid):
    trace = small_trace(grid)
    trace.save(tmp_path / "t.safetensors")
    again = Trace.load(tmp_path / "t.safetensors")
    for name in ("model", "question", "prompt", "grid"):
        assert getattr(again, name) == getattr(trace, name)
    assert np.array_equal(np.asarray(again.image), np.asarray(trace.image))
    for one, other in zip(again.answers, trace.answers, strict=True):
        assert (one.name, one.text, one.pieces) == (other.name, other.text, other.pieces)
        for name in ("ids", "log_probs", "attention"):
            assert torch.equal(getattr(one, name), getattr(other, name))
    assert again._repr_html_() == trace._repr_html_()


def test_a_path_that_no_trace_can_have(tmp_path):
    with pytest.raises(ValueError, match=r"expected a file name that ends in \.safetensors"):
        small_trace().save(tmp_path / "t.pt")
    with pytest.raises(ValueError, match="expected a file in a folder that exists"):
        small_trace().save(tmp_path / "no" / "t.safetensors")
    with pytest.raises(ValueError, match=r"no trace at .*: expected a file that Trace.save wrote"):
        Trace.load(tmp_path / "t.safetensors")
    (tmp_path / "t.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        Trace.load(tmp_path / "t.safetensors")


def damaged(tmp_path, change):
    """A trace's file with tensors and header changed."""
    path = tmp_path / "t.safetensors"
    trace = small_trace()
    trace.save(path)
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["about"])
    tensors = load_file(path)
    change(tensors, about)
    save_file(tensors, path, {"format": "rvelens-trace-1", "about": json.dumps(about)})
    return path


DAMAGES = {
    "missing": (lambda t, a: t.pop("0.ids"), "tensors 0.ids"),
    "additional": (lambda t, a: t.update({"2.ids": torch.zeros(1)}), "tensors 2.ids"),
    "negative": (lambda t, a: t["1.attention"].neg_(), "RVE: attention that is none"),
    "nan": (lambda t, a: t["1.attention"].fill_(torch.nan), "RVE: attention that is none"),
    "certain": (lambda t, a: t["0.log_probs"].fill_(2), "plain: log-probabilities above 0"),
    "narrow": (
        lambda t, a: t.update({"0.ids": t["0.ids"].int()}),
        "plain: tensors of other dtypes",
    ),
    "short": (lambda t, a: a["answers"][0]["pieces"].pop(), "another number of tokens than pieces"),
    "elsewhere": (lambda t, a: a["grid"].update(n_tokens=9), "answers of different images"),
    "beyond": (lambda t, a: a["grid"]["tiles"][0].update(start=3), "a tile beyond the image's"),
    "words": (lambda t, a: a.update(question=3), "question: Input should be a valid string"),
    "picture": (lambda t, a: t["image"].zero_(), "image: cannot identify"),
    "no bytes": (lambda t, a: t.update(image=torch.zeros(3)), "image: no bytes of a PNG"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_one_sentence(tmp_path, damage):
    change, said = DAMAGES[damage]
    with pytest.raises(ValueError, match=f"is not a trace .*{said}.*: expected a file that"):
        Trace.load(damaged(tmp_path, change))


def test_a_file_of_another_format(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "t.safetensors", {"format": "rvelens-ars-1"})
    with pytest.raises(ValueError, match=r"format 'rvelens-ars-1'.*: expected 'rvelens-trace-1'"):
        Trace.load(tmp_path / "t.safetensors")


def test_a_notebook_shows_words_over_pictures_and_no_markup_of_theirs():
    shown = small_trace()._repr_html_()
    assert shown.count("<figure") == shown.count("<img") == 5
    assert "Is 1 &lt; 2?" in shown
    assert "&lt;b&gt;" in shown
    assert "36.8%" in shown  # exp(-1)
    assert "<script" not in shown
    without = small_trace(None)._repr_html_()
    assert without.count("<figure") == 5
    assert "<img" not in without
