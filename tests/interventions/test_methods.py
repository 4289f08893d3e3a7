"""The registry: published defaults by family, what it refuses, and that every method runs."""

from __future__ import annotations

import json

import pytest
import torch
from family_cases import generate, hooked, profile_of

from rvelens import ARSProfile
from rvelens.evaluate.manifest import check_manifest
from rvelens.hooks import rve_hooks
from rvelens.interventions.icd import DISTURBANCE
from rvelens.interventions.methods import METHODS, Contrast, make_method


def layers_of(method):
    return [int(name.split(".")[1]) for name, _ in method.hooks]


def test_published_defaults_of_a_model_of_32_layers(model, monkeypatch):
    monkeypatch.setattr(model, "n_layers", 32)
    monkeypatch.setattr(model, "attention_layers", tuple(range(32)))
    monkeypatch.setattr(model, "n_heads", 32)
    profile = ARSProfile.published("llava-1.5-7b")
    made = {name: make_method(name, model, profile) for name in METHODS}
    parameters = {name: dict(method.parameters) for name, method in made.items()}
    assert len(parameters["rve"].pop("profile")) == 16
    assert parameters == {
        "vanilla": {},
        "rve": {
            "layers": "14-31",
            "k": 5,
            "alpha": 0.05,
            "beta": 1.0,
            "scope": "all",
            "denoise": True,
        },
        "vcd": {"alpha": 1.0, "beta": 0.1, "step": 500},
        "icd": {"alpha": 1.0, "beta": 0.1, "disturbance": DISTURBANCE},
        "vaf": {"layers": "9-14", "enhance": 1.15, "suppress": 0.95},
        "pai": {"layers": "2-31", "alpha": 0.2, "gamma": 1.0, "beta": 0.1},
        "devils": {"layers": "5-18", "alpha": 0.5},
    }
    assert {name: layers_of(method) for name, method in made.items()} == {
        "vanilla": [],
        "rve": list(range(14, 32)),
        "vcd": [],
        "icd": [],
        "vaf": list(range(9, 15)),
        "pai": list(range(2, 32)),
        "devils": list(range(5, 19)),
    }
    assert {name for name, method in made.items() if method.query_rows == "all"} == {"vaf"}
    assert made["vcd"].contrast == Contrast("vcd", 1.0, 0.1, step=500)
    assert made["icd"].contrast == Contrast("icd", 1.0, 0.1, disturbance=DISTURBANCE)
    assert all(made[name].contrast is None for name in ("vanilla", "rve", "vaf", "pai", "devils"))


@pytest.mark.parametrize("name", METHODS)
def test_parameters_are_json_and_make_the_same_method_again(name, model, profile):
    method = make_method(name, model, profile)
    parameters = json.loads(json.dumps(method.parameters))
    assert parameters == method.parameters
    parameters.pop("profile", None)
    assert make_method(name, model, profile, **parameters).parameters == method.parameters


def test_rve_takes_alpha_from_the_family_and_k_from_the_heads(profile):
    model = hooked("instructblip")
    method = make_method("rve", model, profile_of(model))
    assert (method.parameters["alpha"], method.parameters["k"]) == (0.5, 4)
    assert layers_of(method) == [1, 2]


def test_rve_hooks_are_those_of_rve_hooks(model, inputs, profile):
    options = {"k": 3, "alpha": 0.3, "beta": 2.0, "scope": "sensitive", "denoise": False}
    method = make_method("rve", model, profile, layers=[0, 2], **options)
    with torch.no_grad():
        with model.hooks(method.hooks):
            ours = model(**inputs)
        with model.hooks(rve_hooks(profile, [0, 2], **options)):
            expected = model(**inputs)
    assert torch.equal(ours, expected)


def test_layers_that_depend_on_the_input_are_in_the_manifest_once_asked_for(
    model, inputs, profile, tmp_path
):
    plain, default, gated = (
        make_method("rve", model, profile, **some)
        for some in ({}, {"max_entropy": 1}, {"max_entropy": 0.86})
    )
    assert default.parameters == plain.parameters
    assert gated.parameters == {**plain.parameters, "max_entropy": 0.86}
    check_manifest(tmp_path, plain.parameters)
    check_manifest(
        tmp_path, default.parameters
    )  # a run made before there was a max_entropy goes on
    with pytest.raises(ValueError, match=r"max_entropy was null and is 0\.86"):
        check_manifest(tmp_path, gated.parameters)
    expected = rve_hooks(profile, layers_of(gated), k=4, max_entropy=0.86)
    logits = []
    for hooks in (gated.hooks, expected, plain.hooks):
        with torch.no_grad(), model.hooks(hooks):
            logits.append(model(**inputs))
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])


@pytest.mark.parametrize("name", ["rve", "vaf", "pai", "devils"])
def test_a_method_with_hooks_runs_under_its_query_rows(name, model, inputs, profile):
    method = make_method(name, model, profile, layers="0-2")
    plain = generate(model, inputs, output_logits=True).logits[0]
    model.query_rows = method.query_rows
    with model.hooks(method.hooks):
        logits = generate(model, inputs, output_logits=True).logits[0]
    assert not torch.allclose(logits, plain, atol=1e-3)


def test_a_profile_is_told_by_its_ranking(model, profile):
    names = [
        make_method("rve", model, p).parameters["profile"]
        for p in (profile, ARSProfile(profile.ranking), ARSProfile(profile.ranking.flip(1)))
    ]
    assert names[0] == names[1] != names[2]


def test_pai_with_guidance(model):
    method = make_method("pai", model, gamma=1.5, beta=0.2)
    assert method.contrast == Contrast("text", 0.5, 0.2)
    assert method.hooks


def test_layers_as_text_and_numbers(model, profile):
    assert make_method("vaf", model, layers=[2, 0]).parameters["layers"] == "0,2"
    assert make_method("pai", model, layers="0-1").parameters["layers"] == "0-1"
    auto = make_method("devils", model, profile, layers="auto")
    assert layers_of(auto) == profile.auto_layers()


@pytest.mark.parametrize(
    ("name", "parameters", "match"),
    [
        ("vfa", {}, r"unknown method 'vfa': expected one of vanilla, .* did you mean 'vaf'\?"),
        ("vaf", {"enhanc": 1.0}, r"no parameter 'enhanc': expected .*; did you mean 'enhance'\?"),
        ("vanilla", {"alpha": 1.0}, r"'vanilla' has no parameter 'alpha': expected none"),
        ("vcd", {"step": 0}, r"step=0: expected a step of the diffusion from 1 to 999"),
        ("vcd", {"step": 2.5}, r"step=2\.5 is a float: expected int"),
        ("vcd", {"alpha": "much"}, r"alpha='much' is a str: expected float"),
        ("vcd", {"alpha": True}, r"alpha=True is a bool: expected float"),
        (
            "vcd",
            {"alpha": [0.5] * 99},
            r"alpha=\[0\.5(, 0\.5)+, \.\.\.\] is a list: expected float",
        ),
        ("vcd", {"alpha": -1}, r"alpha=-1\.0: expected a finite strength"),
        ("icd", {"beta": 0}, r"beta=0\.0: expected a share"),
        ("icd", {"disturbance": ""}, r"disturbance='': expected a non-empty"),
        ("vaf", {"suppress": -0.5}, r"suppress=-0\.5: expected a finite strength"),
        ("vaf", {"layers": "7"}, r"layers '7': expected layers from 0 to 2"),
        ("vaf", {"layers": []}, r"layers '': expected numbers and ranges"),
        ("pai", {"gamma": 0.5}, r"gamma=0\.5: expected a finite strength from 1 to 1000"),
        ("pai", {"alpha": -1}, r"alpha=-1\.0"),
        ("devils", {"layers": "auto"}, r"layers 'auto' without a profile"),
        ("rve", {}, r"method 'rve' without a head profile: expected a profile"),
    ],
)
def test_mistakes(model, name, parameters, match):
    with pytest.raises(ValueError, match=match):
        make_method(name, model, **parameters)


def test_rve_mistakes(model, profile):
    with pytest.raises(ValueError, match=r"k=5 for 8 heads a layer"):
        make_method("rve", model, profile, k=5)
    with pytest.raises(ValueError, match=r"max_entropy=0\.0: expected a share of the entropy"):
        make_method("rve", model, profile, max_entropy=0)
    with pytest.raises(ValueError, match=r"3 layers x 4 heads for a model of 3 x 8"):
        make_method("rve", model, ARSProfile.from_scores(torch.rand(3, 4)))


def test_pai_as_published_skips_the_first_token_under_guidance_alone(model):
    """The authors' script edits every token where guidance is off."""
    kinds = {}
    for gamma in (1.0, 1.1):
        for as_published in (False, True):
            method = make_method("pai", model, gamma=gamma, as_published=as_published)
            kinds[gamma, as_published] = type(method.hooks[0][1]).__name__
            assert method.parameters.get("as_published", False) is as_published
    assert kinds == {
        (1.0, False): "PAIHook",
        (1.0, True): "PAIHook",
        (1.1, False): "PAIHook",
        (1.1, True): "Restricted",
    }
