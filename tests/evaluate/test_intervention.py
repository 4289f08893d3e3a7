"""Interventions and profiles as artefacts: saved, read again, shared, and refused where they differ."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from hub_server import serving
from tiny_models import IMAGES, QUESTIONS

from rvelens import ARSProfile, HookedLVLM
from rvelens.benchmarks import load_benchmark
from rvelens.evaluate.answering import Decoding, answer_logits
from rvelens.evaluate.intervention import Intervention
from rvelens.evaluate.manifest import about_model
from rvelens.evaluate.manifest import make_manifest as run_manifest
from rvelens.interventions.methods import METHODS, make_method

DECODING = Decoding(suffix="one word .", max_new_tokens=4)


@pytest.fixture
def steer(model, profile):
    method = make_method("rve", model, profile, layers="0-1", k=3, alpha=0.4, max_entropy=0.99)
    return Intervention.of(model, method, profile, DECODING)


def answers(model, method):
    return answer_logits(model, method, IMAGES[:1], QUESTIONS[:1], ["picture"], DECODING)


def test_a_folder_holds_everything_that_answers_depend_on(steer, tmp_path, model, profile):
    steer.save(tmp_path / "steer")
    assert sorted(p.name for p in (tmp_path / "steer").iterdir()) == [
        "README.md", "manifest.json", "profile.safetensors",
    ]  # fmt: skip
    data = json.loads((tmp_path / "steer" / "manifest.json").read_text())
    assert data["method"]["parameters"] == {
        "layers": "0-1", "k": 3, "alpha": 0.4, "beta": 1.0, "scope": "all", "denoise": True,
        "max_entropy": 0.99, "profile": profile.digest(),
    }  # fmt: skip
    assert data["heads"]["1"] == {
        "sensitive": profile.top(1, 3),
        "insensitive": profile.bottom(1, 3),
    }
    assert data["model"]["layers"] == 3
    assert len(data["model"]["weights"]) == 64
    assert data["decoding"]["suffix"] == "one word ."
    assert {"rvelens", "torch", "transformers", "transformer-lens"} <= set(data["versions"])
    read = Intervention.load(tmp_path / "steer")
    assert read.other_versions() == []
    assert vars(read) | {"profile": 0} == vars(steer) | {"profile": 0}
    assert torch.equal(read.profile.scores, profile.scores)


def test_a_replay_is_bit_identical(steer, tmp_path, model, plain):
    steer.save(tmp_path)
    texts, logits = answers(model, steer.method(model))
    again = HookedLVLM.from_pretrained(plain, processor=model.processor)
    read = Intervention.load(tmp_path / "manifest.json")
    same_texts, same = answers(again, read.method(again))
    assert same_texts == texts
    assert torch.equal(same, logits)
    assert not torch.equal(answers(model, make_method("vanilla", model))[1], logits)
    with again.hooks(read.hooks(again)):
        hooked = again(**again.prepare(IMAGES[0], QUESTIONS[0]), logits_to_keep=1)[:, -1]
    shown = logits.isfinite()  # generate suppresses some words
    torch.testing.assert_close(hooked[shown], logits[shown], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_the_same_after_a_round_trip(name, tmp_path, model, profile):
    method = make_method(name, model, profile)
    Intervention.of(model, method, profile, DECODING).save(tmp_path)
    read = Intervention.load(tmp_path)
    again = read.method(model)
    assert (again.name, again.parameters, again.contrast) == (
        method.name, method.parameters, method.contrast,
    )  # fmt: skip
    assert (tmp_path / "profile.safetensors").exists() == (name == "rve")
    if method.contrast is not None or name == "vaf":
        with pytest.raises(ValueError, match=f"{name} is more than hooks on the last row"):
            read.hooks(model)
    else:
        assert len(read.hooks(model)) == len(method.hooks)


def test_another_model_is_refused(steer, plain, model):
    with torch.no_grad():
        next(plain.parameters())[0] += 1
    changed = HookedLVLM.from_pretrained(plain, processor=model.processor)
    with pytest.raises(
        ValueError, match=r"with weights \w{12}\.\.\., and .* has \w{12}\.\.\.: exp"
    ):
        steer.hooks(changed)
    half = HookedLVLM.from_pretrained(plain.bfloat16(), processor=model.processor)
    with pytest.raises(ValueError, match=r"with dtype float32, and .* has bfloat16: expected the"):
        steer.hooks(half)


@pytest.mark.parametrize(("name", "value"), [("layers", 32), ("heads", 4), ("family", "gemma3")])
def test_another_shape_is_named_before_the_weights(steer, model, name, value):
    steer.model[name] = value
    with pytest.raises(ValueError, match=f"with {name} {value}, and"):
        steer.method(model)


def test_another_chat_template_is_refused(steer, model):
    object.__setattr__(steer, "example", "USER {question}")
    with pytest.raises(
        ValueError, match=r"prompt 'chat' of .* is not the one that the intervention"
    ):
        steer.method(model)


def test_versions_that_differ_are_named(steer):
    steer.versions["torch"] = "1.0"
    (said,) = steer.other_versions()
    assert said == f"torch 1.0, here {torch.__version__}"


def test_a_changed_profile_is_refused(steer, tmp_path, profile):
    steer.save(tmp_path)
    ARSProfile.from_scores(-profile.scores).save(tmp_path / "profile.safetensors")
    with pytest.raises(
        ValueError, match=r"was changed after .* was written: expected unchanged files"
    ):
        Intervention.load(tmp_path)


def test_another_profile_than_the_methods_is_refused(model, profile):
    method = make_method("rve", model, profile)
    other = ARSProfile.from_scores(-profile.scores)
    with pytest.raises(
        ValueError, match=f"{profile.digest()}, and this one is {other.digest()}: exp"
    ):
        Intervention.of(model, method, other)
    with pytest.raises(ValueError, match="and none is given: expected that profile"):
        Intervention.of(model, method)


def test_a_run_of_eval_is_read_with_its_profile(tmp_path, model, profile):
    method = make_method("rve", model, profile, layers="0-1")
    benchmark = load_benchmark("action-scenes", n=2)
    made_with = run_manifest(model, about_model(model), benchmark, method, DECODING)
    (tmp_path / "manifest.json").write_text(json.dumps(made_with))
    read = Intervention.load(tmp_path, profile)
    assert read.method(model).parameters == method.parameters
    with pytest.raises(ValueError, match="none is given: expected that profile"):
        Intervention.load(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "rvelens-intervention-1"}', '"x"'])
def test_something_else_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(
        ValueError,
        match=r"manifest\.json (is not JSON|cannot be read) .*: expected the manifest.json that",
    ):
        Intervention.load(tmp_path)


def test_nothing_there_is_said_without_the_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "steer").mkdir(parents=True)
    for folder in (tmp_path, "runs/steer"):  # the second could name a repository
        with pytest.raises(
            ValueError, match=r"no intervention at .*: expected a folder with manif"
        ):
            Intervention.load(folder)


def test_folders_with_other_files_are_left_alone(steer, profile, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    for save in (steer.save, profile.save_folder):
        with pytest.raises(ValueError, match=r"holds other files \(thesis.tex is one\)"):
            save(tmp_path)
    with pytest.raises(ValueError, match="is a file: expected a folder"):
        steer.save(tmp_path / "thesis.tex")


def test_the_card_says_what_it_is(steer, tmp_path):
    steer.save(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: rvelens\n")
    for piece in (
        "| alpha | 0.4 |",
        "suffix `one word .`",
        "| 1 | ",
        "{question}",
        "--manifest FOLDER",
    ):
        assert piece in card


def test_a_profile_is_saved_as_a_folder(profile, tmp_path):
    profile.save_folder(tmp_path)
    read = ARSProfile.load(tmp_path)
    assert torch.equal(read.ranking, profile.ranking)
    assert (
        json.loads((tmp_path / "profile.json").read_text())["ranking"] == profile.ranking.tolist()
    )
    assert "Head sensitivities of random" in (tmp_path / "README.md").read_text()


HUB = """
import sys
from rvelens import ARSProfile
from rvelens.evaluate.intervention import Intervention
steer, profile = Intervention.load(sys.argv[1]), ARSProfile.load(sys.argv[1])
print(steer.push_to_hub("me/steer", private=True))
profile.push_to_hub("me/heads")
read = Intervention.load("me/steer")
assert (read.parameters, read.example) == (steer.parameters, steer.example)
assert read.profile.digest() == ARSProfile.load("me/heads").digest() == profile.digest()
for load in (ARSProfile.load, Intervention.load):
    try:
        load("me/nothing")
    except ValueError as error:
        print(error)
"""


def on_the_hub(code, folder, tmp_path, **environment):
    with serving() as hub:
        settings = {
            "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False,
            env={**os.environ, **settings, **environment},
        )  # fmt: skip
    return hub, done


@pytest.mark.slow
def test_push_and_load_on_the_hub(steer, tmp_path):
    steer.save(tmp_path / "steer")
    hub, done = on_the_hub(HUB, tmp_path / "steer", tmp_path, HF_TOKEN="secret-token")
    assert done.returncode == 0, done.stderr
    address, *errors = done.stdout.splitlines()
    assert address == f"{hub.address}/me/steer"
    assert len(errors) == 2
    assert all("no folder me/nothing here, and the Hub does not give it" in e for e in errors)
    assert set(hub.repos["me/steer"]) == {"manifest.json", "profile.safetensors", "README.md"}
    assert set(hub.repos["me/heads"]) == {"profile.json", "profile.safetensors", "README.md"}
    sent = b"".join(c for files in hub.repos.values() for c in files.values())
    assert b"secret-token" not in sent
    assert "secret-token" not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_push_without_a_token_is_one_sentence(steer, tmp_path):
    steer.save(tmp_path / "steer")
    code = (
        "import sys; from rvelens.evaluate.intervention import Intervention\n"
        "try: Intervention.load(sys.argv[1]).push_to_hub('me/steer')\n"
        "except ValueError as error: print(error)"
    )
    hub, done = on_the_hub(code, tmp_path / "steer", tmp_path, HF_TOKEN="")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith("me/steer cannot be pushed (")
    assert hub.repos == {}
