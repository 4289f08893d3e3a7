"""Equations 1 and 2 against eager attention and loops, intervals, resumption, the paper's numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from picture_questions import StopError, interrupt_after, item, questions, unreadable
from tiny_models import IMAGES, QUESTIONS, build

from rvelens import HookedLVLM
from rvelens.benchmarks import scenes
from rvelens.model.hooked_lvlm import TINY
from rvelens.studies import find_study
from rvelens.studies.imbalance import _compare, _conclude
from rvelens.studies.kit import rows
from rvelens.studies.kit.run import run_study
from rvelens.studies.kit.write import write_study

STUDY = find_study("imbalance")


def measured(model, benchmark, out, **changes):
    return run_study(STUDY, model, [benchmark], out, **{"batch_size": 2} | changes)


def literal(plain, model, n, picture):
    """Equation 1 by layer in plain loops over the weights of an eager forward without padding."""
    plain.set_attn_implementation("eager")
    inputs = model.prepare(IMAGES[picture], QUESTIONS[n % 3])
    is_image = (inputs["input_ids"][0] == model.image_token_id).tolist()
    with torch.no_grad():
        attentions = plain(**inputs, output_attentions=True).attentions
    shares = []
    for layer in attentions:
        weights = layer[0, :, -1].double()
        mean = [sum(float(w) for w in weights[:, j]) / len(weights) for j in range(len(is_image))]
        image = sum(w for w, kind in zip(mean, is_image, strict=True) if kind)
        text = sum(w for w, kind in zip(mean, is_image, strict=True) if not kind)
        first = 0.0 if is_image[0] else mean[0]
        shares.append((image / sum(mean), text / sum(mean), first / sum(mean)))
    return shares, sum(is_image), len(is_image) - sum(is_image), [mean, is_image]


@pytest.fixture
def reference(plain, model):
    return [literal(plain, model, n, picture) for n, picture in enumerate((0, 1, 2, 0, 1))]


def test_shares_and_ratios_against_loops(model, reference, tmp_path):
    _, _, data = measured(model, questions(), tmp_path)
    layers, tokens = data["by_layer"], data["tokens"]
    n_layers = model.n_layers
    for layer in range(n_layers):
        image, text, first = (
            np.mean([shares[layer][k] for shares, *_ in reference]) for k in (0, 1, 2)
        )
        per_image = np.mean([shares[layer][0] / n for shares, n, *_ in reference])
        per_text = np.mean([shares[layer][1] / n for shares, _, n, _ in reference])
        assert layers["image"][layer]["value"] == pytest.approx(image, abs=1e-5)
        assert layers["text"][layer]["value"] == pytest.approx(text, abs=1e-5)
        assert layers["first"][layer]["value"] == pytest.approx(first, abs=1e-5)
        assert layers["sums"][layer]["value"] == pytest.approx(text / image, rel=1e-4)
        assert layers["per_token"][layer]["value"] == pytest.approx(per_text / per_image, rel=1e-4)
    share = np.mean([n / (n + m) for _, n, m, _ in reference])
    assert tokens["image"]["value"] == pytest.approx(share, abs=1e-6)
    assert tokens["mean_text"] == np.mean([m for _, _, m, _ in reference])
    assert data["later_layers"] == "2"
    assert data["later"]["image"]["low"] == layers["image"][2] == data["later"]["image"]["high"]
    mean, is_image = reference[0][3]
    assert data["example"]["weights"][-1] == pytest.approx(mean, rel=1e-3, abs=1e-7)
    assert data["example"]["image"] == is_image


def test_intervals_resample_photographs(model, tmp_path):
    """Ten questions about one picture are one photograph: nothing to resample."""
    same = questions(*(item(n, 0) for n in range(4)))
    _, _, data = measured(model, same, tmp_path)
    one = data["by_layer"]["image"][0]
    assert one["low"] == one["value"] == one["high"]


def test_padding_is_no_token(model, tmp_path):
    _, _, together = measured(model, questions(), tmp_path / "a", batch_size=5)
    _, _, alone = measured(model, questions(), tmp_path / "b", batch_size=1)
    for key in ("image", "text"):
        one, other = together["by_layer"][key], alone["by_layer"][key]
        assert [x["value"] for x in one] == pytest.approx([x["value"] for x in other], abs=1e-5)
    assert together["tokens"] == alone["tokens"]


@pytest.mark.parametrize("family", ["instructblip", "qwen2_5_vl", "llava_next", "gemma3"])
def test_every_family(family, tmp_path):
    hf_model, processor = build(family)
    model = HookedLVLM.from_pretrained(hf_model, processor=processor)
    some = questions(item(0, 0), item(1, 1))
    _, _, data = measured(model, some, tmp_path)
    for image, text in zip(data["by_layer"]["image"], data["by_layer"]["text"], strict=True):
        assert 0 < image["value"] < 1
        assert image["value"] + text["value"] == pytest.approx(1, abs=1e-5)


def test_it_goes_on_after_an_interruption(model, tmp_path):
    _, _, whole = measured(model, questions(), tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, rows, "last_rows", 2)
        with pytest.raises(StopError):
            measured(model, questions(), tmp_path / "cut")
    with pytest.MonkeyPatch.context() as patch:
        made = interrupt_after(patch, rows, "last_rows", 100)
        _, _, again = measured(model, questions(), tmp_path / "cut")
        assert len(made) == 2  # the third batch, and the example
    assert json.dumps(again) == json.dumps(whole)


def test_pictures_that_cannot_be_read_are_counted(model, tmp_path):
    setup, _, data = measured(model, questions(unreadable(0, 0), item(1, 1)), tmp_path)
    assert (data["questions"], data["left_out"], data["example"]["id"]) == (1, 1, "q1")
    assert any(
        "could not be read: 1 question." in note
        for note in STUDY.show(setup, [data]).tables[""].notes
    )
    with pytest.raises(ValueError, match=r"none of 1 pictures could be read \(no image at p\.png"):
        measured(model, questions(unreadable(0, 0)), tmp_path / "none")


def estimates(*values):
    return [{"value": v, "low": v - 0.01, "high": v + 0.01} for v in values]


def example_data(name):
    ends = {"low": estimates(12.0)[0], "high": estimates(80.0)[0]}
    return {
        "model": name,
        "by_layer": {
            "image": estimates(0.3, 0.7, 0.495),
            "image_minus_tokens": estimates(-0.5, 0.02, 0.001),
        },
        "later": {"image": ends, "first": ends, "sums": ends, "per_token": ends},
        "later_layers": "2-31",
        "tokens": {"image": estimates(0.88)[0], "text": estimates(0.12)[0]},
    }


def test_the_paper_stands_beside_its_own_model_alone():
    table = _compare(example_data("llava-hf/llava-1.5-7b-hf"))
    found = [row[3] and row[3]["value"] for row in table.rows]
    assert found == [12.0, 80.0, 0.88, 12.0, 80.0]
    # (1 - 0.164) / 0.164 and (1 - 0.042) / 0.042, and these times 0.878 / 0.122
    assert "5 to 23 as sums and 37 to 164 per token" in table.notes[-2]
    other = _compare(example_data("rvelens/tiny"))
    assert [row[3] for row in other.rows] == [None] * 5
    assert other.notes[-1] == "Measured on rvelens/tiny, for which the paper has no number."


def test_layers_count_only_where_their_interval_says_so():
    few = _conclude(example_data("m") | {"photographs": 19})
    assert few == ["19 photographs are too few to say anything."]
    said = _conclude(example_data("m") | {"photographs": 20})
    assert (
        "less attention than their share of the tokens in 1 of 3 layers, more in 1 of them"
        in said[1]
    )
    assert "less than half of all attention in 1 of them," in said[1]
    assert said[2] == (
        "The first token of the input alone gets 1200.0% to 8000.0% of the attention there."
    )
    assert "a text token gets 12 to 80 times" in said[3]
    nothing = {"low": estimates(0.0)[0], "high": estimates(0.0)[0]}
    data = example_data("m") | {"photographs": 20}
    data["later"]["first"] = nothing
    assert not any("first token" in line for line in _conclude(data))


def test_end_to_end(tmp_path):
    model = HookedLVLM.from_pretrained(TINY)
    setup, made, data = measured(model, scenes.load_scenes(n=4), tmp_path)
    files = write_study(tmp_path, STUDY, [made], [data], STUDY.show(setup, [data]))
    assert {"imbalance.csv", "imbalance-paper.csv", "imbalance-positions.png"} <= {
        f.name for f in files
    }
    assert json.loads(files[0].read_text())["models"][0]["measured"] == data
