"""`rvelens check` on every family and decoder of the tests, and what it reports."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tiny_decoders
import torch
from family_cases import CASES, hooked
from rich.console import Console
from tiny_decoders import DECODERS
from tiny_inputs import IMAGES, image
from tiny_models import build

from rvelens.check import CHECKS, check
from rvelens.check.literal import LiteralRVE
from rvelens.check.outcome import Tolerance, apart
from rvelens.cli import main

QUESTION = "does a man hold a ball ?"
# What does not apply to a model of a family, and is checked in all others.
NO_REPLAY = {"replay", "shared prefix"}
NOT_APPLICABLE: dict[str, set[str]] = {
    "instructblip": {"hidden states", "second turn", "patch grid", *NO_REPLAY},
    "paligemma": {"causal rows", "second turn", *NO_REPLAY},
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "gemma3"), NO_REPLAY),
}
# Of tensors alone, without a processor.
NO_PROCESSOR = {"prompt", "batch", "patch grid", *NO_REPLAY}
WITHOUT: dict[str, set[str]] = {
    "blip_2": {"hidden states", "second turn"},
    "mistral3": {"edits"},
}
# What these models compute otherwise by themselves, in transformers.
FAILS = {
    "nemotron_h_omni": {"cache", "second turn"},  # its recurrent steps round otherwise
    "minimax_m3_vl": {"left padding"},  # its sparse blocks begin at the first token of padding
}


def family_report(name: str, dtype: torch.dtype = torch.float32) -> Any:
    hf_model, processor = build(name)
    family = "sharegpt4v" if name == "sharegpt4v" else None
    how = {"image": image(96, 60, 1), "question": QUESTION, "family": family, "speed": False}
    cast: Any = (
        hf_model  # `to` of transformers is a decorated method, of which pyright loses the type
    )
    return check(cast.to(dtype), processor=processor, **how)


def run_main(capsys: Any, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


def lines_with(report: Any, status: str) -> set[str]:
    return {line.name for line in report.lines if line.status == status}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_family_passes(name):
    report = family_report(name)
    assert report.passed, [line.text for line in report.failed]
    assert lines_with(report, "not applicable") == NOT_APPLICABLE.get(name, set())
    assert [line.name for line in report.lines] == ["wrapping", *CHECKS]


@pytest.mark.slow
@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_passes_but_for_what_the_model_computes_otherwise(name):
    hf_model, inputs = tiny_decoders.build(name)
    report = check(hf_model, inputs=inputs, speed=False)
    assert lines_with(report, "failed") == FAILS.get(name, set())
    assert lines_with(report, "not applicable") == NO_PROCESSOR | WITHOUT.get(name, set())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_tolerances_follow_the_dtype(dtype):
    report = family_report("llava", dtype)
    assert report.passed, [line.text for line in report.failed]
    assert report.line("cache").limit == 16 * torch.finfo(dtype).eps
    assert 0 < report.attention["rounded masks"] <= 1
    narrow = str(dtype).removeprefix("torch.")
    assert report.facts["dtype"] == narrow
    assert report.line("pattern").limit < 1e-3  # weights are compared in float32


def test_the_plain_model_of_a_failing_check_differs_as_much():
    """The failures of `FAILS` are the models' own: the unhooked lines are bit-identical."""
    hf_model, inputs = tiny_decoders.build("minimax_m3_vl")
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    padded = {
        **inputs,
        "input_ids": torch.nn.functional.pad(ids, (3, 0)),
        "attention_mask": torch.nn.functional.pad(mask, (3, 0)),
    }
    how = {"max_new_tokens": 1, "return_dict_in_generate": True, "output_logits": True}
    plain, moved = (hf_model.generate(**x, **how).logits[0] for x in (inputs, padded))
    assert apart(moved, plain) > 0.1


def test_a_wrapped_model_is_checked_beside_a_copy_and_left_as_it_was():
    model = hooked("llava")
    report = check(model, image=IMAGES[0], question=QUESTION, speed=False)
    assert report.line("unhooked logits").status == "passed"
    assert model.query_rows == "last"
    assert not model.list_hooks()
    with (
        model.hooks([("blocks.1.attn.hook_z", lambda z, hook: z)]),
        pytest.raises(ValueError, match=r"hooks are on, .*: expected none; call model\.reset_hook"),
    ):
        check(model)


def test_what_cannot_be_checked_is_refused_or_named():
    hf_model, processor = build("llava")
    with pytest.raises(ValueError, match=r"no processor and no inputs .* pass processor= or"):
        check(hf_model)
    with pytest.raises(ValueError, match="no image at nowhere"):
        check(hf_model, processor=processor, image="nowhere")
    hf_model.config.text_config.attn_logit_softcapping = 50.0
    report = check(hf_model, processor=processor, speed=False)
    assert lines_with(report, "failed") == {"wrapping"}
    assert "caps attention scores" in report.line("wrapping").reason
    assert report.line("wrapping").usable == "the model in transformers, without rvelens"
    assert lines_with(report, "not applicable") == set(CHECKS)
    with pytest.raises(ValueError, match="unknown check 'speed': expected one of wrapping"):
        report.line("speed")


def test_some_checks_alone():
    hf_model, processor = build("llava")
    how = {"processor": processor, "image": IMAGES[0], "question": QUESTION, "speed": False}
    report = check(hf_model, only=["RVE", "forward"], **how)
    assert [line.name for line in report.lines] == ["wrapping", "forward", "RVE"]
    with pytest.raises(ValueError, match="unknown check 'rve': expected some of image tokens"):
        check(hf_model, only=["rve"], **how)


def test_a_prompt_that_cannot_be_made_is_named():
    hf_model, processor = build("llava")
    report = check(hf_model, processor=processor.image_processor, speed=False)
    assert lines_with(report, "failed") == {"prompt"}


@pytest.fixture(scope="module")
def tiny() -> Any:
    return check("rvelens/tiny", compiled=False)


def test_a_report_fits_80_columns_and_says_all(tiny):
    console = Console(width=80, record=True, force_terminal=False)
    for table in tiny.tables():
        console.print(table, highlight=False)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert f"{len(CHECKS) + 1} checks passed and none failed." in text
    words = " ".join(text.split())
    for name in CHECKS:
        assert name in words
    for fact in (
        "rvelens/tiny (LlavaForConditionalGeneration)",
        "6, all with attention",
        "12 query heads, 12 key heads a layer",
        "64 of 76 tokens for 448x336; ids 4 of the configuration",
        "chat, llava_v1",
        "LlavaProcessor",
        "sdpa in the decoder, sdpa in the vision tower",
        "not applicable, because it is compiled on a GPU, or with --compiled",
    ):
        assert fact in words
    for row in tiny.speed[:3]:
        assert row.prefill > 0
        assert row.peak > 0


def test_results_have_colours_on_a_terminal(tiny):
    console = Console(width=80, record=True, force_terminal=True)
    console.print(tiny.tables()[1])
    assert "\x1b[32mpassed" in console.export_text(styles=True)


def test_a_report_as_json_and_as_markdown(tiny):
    data = json.loads(json.dumps(tiny.to_dict()))
    assert data["passed"] is True
    assert [line["name"] for line in data["lines"]] == ["wrapping", *CHECKS]
    assert {row["setting"] for row in data["speed"]} >= {"unhooked", "RVE"}
    text = tiny.to_markdown()
    assert text.startswith("### rvelens check: passed\n\n")
    assert "| patch grid | passed |" in text
    assert "| unhooked | " in text


def test_the_command_prints_and_exits(monkeypatch, capsys, tiny):
    import rvelens.check as package

    monkeypatch.setattr(package, "check", lambda *a, **k: tiny)
    assert run_main(capsys, "check", "rvelens/tiny")[0] == 0
    code, printed, _ = run_main(capsys, "check", "rvelens/tiny", "--json")
    assert code == 0
    assert json.loads(printed) == tiny.to_dict()
    hf_model, processor = build("llava")
    hf_model.config.image_token_id = 40
    broken = check(hf_model, processor=processor, image=IMAGES[0], speed=False)
    monkeypatch.setattr(package, "check", lambda *a, **k: broken)
    code, printed, _ = run_main(capsys, "check", "some/model", "--markdown")
    assert code == 1
    assert printed.startswith("### rvelens check: failed\n\nFailed: image tokens")
    assert "image tokens: still usable: " in printed


def test_a_name_that_is_no_model_is_a_mistake_of_the_user(capsys):
    code, _, error = run_main(capsys, "check", "/no/such/folder")
    assert code == 2
    assert "no folder /no/such/folder: expected a folder with a model" in error


def test_the_literal_masks_by_hand():
    """Two heads make each mask; of 4 image tokens m = 2 are selected."""
    scores = torch.tensor(
        [
            [0.0, 1.0, 2.0, 3.0, -4.0],
            [0.0, 1.0, 4.0, 1.0, -2.0],
            [9.0, 0.0, 5.0, 0.0, 1.0],
            [9.0, 0.0, 5.0, 0.0, 3.0],
        ],
        dtype=torch.float64,
    )
    rve = LiteralRVE([0, 1, 2, 3], k=2, alpha=0.5, beta=1.0)
    edited, tie = rve.edit(scores, [1, 2, 3, 4], 4)
    # Enhancing means are 1, 3, 2, -3: tokens 2 and 3. Denoising: 0, 5, 0, 2: tokens 2 and 4.
    expected = scores.clone()
    expected[:, 3] = torch.tensor([6.0, 2.0, 0.0, 0.0], dtype=torch.float64)
    assert torch.equal(edited, expected)
    assert not tie
    close = scores.clone()
    close[0, 1] = 3.0 - 1e-7  # the means of tokens 1 and 3 nearly tie for the second place
    assert rve.edit(close, [1, 2, 3, 4], 4)[1]


def test_limits_by_hand():
    assert Tolerance.of(torch.float32).whole == 1e-4
    assert Tolerance.of(torch.bfloat16).whole == 0.125
    a = torch.tensor([[1.0, -1.0, 0.0]])
    assert apart(a + 5, a) == pytest.approx(0, abs=1e-6)
    assert apart(2 * a, a) == pytest.approx(1)
    assert apart(a * float("nan"), a) != apart(a, a)
