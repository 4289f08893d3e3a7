"""The command line: results, JSON alone on stdout, and one sentence for every mistake."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import IMAGES, build

import rvelens
from rvelens import ARSProfile
from rvelens.benchmarks import load_benchmark
from rvelens.cli import main
from rvelens.cli.study import _warn_of_few
from rvelens.hooks import region_hooks
from rvelens.model.yes_no import yes_no_probabilities

QUESTION = "does a man hold a bat in the image ?"
TEMPLATE = "<s> USER {image} {question} ASSISTANT"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a tiny model, an image, a profile of the model, and contrastive pairs."""
    folder = tmp_path_factory.mktemp("cli")
    hf_model, processor = build("llava")
    hf_model.save_pretrained(folder / "model")
    processor = copy.deepcopy(processor)  # other tests take the same one
    processor.chat_template = (
        "{% for m in messages %}USER {% for c in m['content'] %}{% if c['type'] == 'image' %}<image> "
        "{% else %}{{ c['text'] }}{% endif %}{% endfor %} {% endfor %}ASSISTANT"
    )
    processor.save_pretrained(folder / "model")
    IMAGES[0].save(folder / "1.png")
    generator = torch.Generator().manual_seed(3)
    ARSProfile.from_scores(torch.rand(3, 8, generator=generator)).save(folder / "p.safetensors")
    ARSProfile.from_scores(torch.rand(4, 8)).save(folder / "deep.safetensors")
    ARSProfile.from_scores(torch.rand(3, 6)).save(folder / "narrow.safetensors")
    save_file({"x": torch.zeros(1)}, folder / "other.safetensors")
    rows = [{"image": "1.png", "question": QUESTION, "answer": "kick"}] * 3
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "bad.jsonl").write_text('{"image": "1.png"}\n')
    (folder / "not_image.png").write_text("text")
    (folder / "empty").mkdir()
    (folder / "pope").mkdir()
    row = {"question_id": 1, "image": "a.jpg", "text": "Is there a dog?", "label": "yes"}
    (folder / "pope" / "coco_pope_random.json").write_text(json.dumps(row))
    for name in ("others/report.md", "others/tune.csv", "card/README.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    (folder / "folder.png").mkdir()
    whole = (folder / "1.png").read_bytes()
    (folder / "torn.png").write_bytes(whole[: len(whole) // 2])
    torn = json.dumps({**rows[0], "image": "torn.png"})
    (folder / "torn.jsonl").write_text((folder / "pairs.jsonl").read_text() + "\n" + torn)
    return folder


@pytest.fixture
def run(folder, capsys, monkeypatch):
    """Run `rvelens` in the folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in arguments])
        said = capsys.readouterr()
        return end.value.code or 0, said.out, said.err

    return run


ASK = ("ask", "model", "1.png", QUESTION)
EVAL = ("eval", "model", "--benchmark", "action-scenes", "--out", "run")
DEEP = ("--profile", "deep.safetensors")
SCAN = ("scan", "model", "--pairs", "pairs.jsonl", "--images", ".", "-o", "new.safetensors")


def test_version_and_help(run):
    assert run("--version") == (0, f"rvelens {rvelens.__version__}\n", "")
    code, out, _ = run("--help")
    assert code == 0
    for command in ("demo", "ask", "scan", "families", "bench"):
        assert command in out


def test_ask_prints_both_answers_and_the_layers(run):
    code, out, _ = run(*ASK, "--profile", "p.safetensors", "--layers", "0,2", "--alpha", "0.2")
    assert code == 0
    assert "plain" in out
    assert "RVE in layers 0,2 (2 of 3), K 4, alpha 0.2, beta 1, scope all, denoising on" in out


def test_ask_json_is_alone_on_stdout_and_draws(run, folder):
    arguments = ("--profile", "p.safetensors", "--alpha", "0.4", "--beta", "2", "--json")
    code, out, err = run(*ASK, *arguments, "--save", "overlay.png", "--max-new-tokens", "3")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert result["layers"] == [1, 2]
    assert result["plain"]["yes"] != result["rve"]["yes"]
    assert 0 <= result["rve"]["no"] <= 1
    assert (folder / "overlay.png").stat().st_size > 10_000


def test_ask_reads_layers_k_scope_and_denoising(run):
    base = json.loads(run(*ASK, "--profile", "p.safetensors", "--alpha", "0.4", "--json")[1])
    seen = {base["rve"]["yes"]}
    for extra in (
        ("--layers", "0-2"),
        ("--k", "1"),
        ("--beta", "0.5"),
        ("--scope", "sensitive"),
        ("--no-denoise",),
        ("--prompt", TEMPLATE),
        ("--suffix", "hold ."),
        ("--max-entropy", "0.01"),
    ):
        out = run(*ASK, "--profile", "p.safetensors", "--alpha", "0.4", "--json", *extra)[1]
        seen.add(json.loads(out)["rve"]["yes"])
    assert len(seen) == 9


REGION = ("--region", "0,0,20,20")


def test_ask_replays_a_manifest_to_the_last_bit(run, folder):
    settings = ("--profile", "p.safetensors", "--alpha", "0.4", "--k", "2", "--max-entropy", "0.99")
    made = run(*ASK, *settings, "--suffix", "now ?", "--json", "--save-manifest", "steer")
    assert made[0] == 0, made[2]
    code, out, err = run(*ASK, "--manifest", "steer", "--json")
    assert (code, err) == (0, "")
    first, again = json.loads(made[1]), json.loads(out)
    for name in ("rve", "plain", "layers", "k", "alpha", "max_entropy", "prompt", "suffix"):
        assert again[name] == first[name]
    assert first["rve"] != first["plain"]
    assert "RVE in layers 1-2 (2 of 3), K 2" in run(*ASK, "--manifest", "steer/manifest.json")[1]


def test_ask_says_on_stderr_that_versions_differ(run, folder):
    assert run(*ASK, *P, "--save-manifest", "older")[0] == 0
    path = folder / "older" / "manifest.json"
    data = json.loads(path.read_text())
    data["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(data))
    code, out, err = run(*ASK, "--manifest", "older", "--json")
    assert code == 0
    assert json.loads(out)["method"] == "rve"
    assert f"made with other versions (torch 1.0, here {torch.__version__}): answers may" in err
    assert err.count("\n") == 1


def test_ask_refuses_what_a_manifest_was_not_made_for(run, folder):
    assert run(*ASK, *P, "--save-manifest", "mine")[0] == 0
    path = folder / "mine" / "manifest.json"
    other = json.loads(path.read_text())
    other["model"]["layers"] = 32
    (folder / "theirs").mkdir()
    (folder / "theirs" / "manifest.json").write_text(json.dumps(other))
    (folder / "theirs" / "profile.safetensors").write_bytes(
        (folder / "mine" / "profile.safetensors").read_bytes()
    )
    for arguments, says in (
        (("--manifest", "theirs"), "with layers 32, and model has 3: expected the model"),
        (("--manifest", "mine", "--prompt", TEMPLATE), "with a manifest made with 'chat'"),
        (("--manifest", "mine", "--suffix", "now"), "with a manifest made with ''"),
        (
            ("--manifest", "mine", "--k", "2"),
            "--k with --manifest, which holds these settings: expected only",
        ),
        (
            ("--manifest", "mine", "--dtype", "bfloat16"),
            "with dtype float32, and model has bfloat16",
        ),
        (("--manifest", "mine", *REGION), "--region with --manifest"),
    ):
        code, out, err = run(*ASK, *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert says in err


def test_ask_raises_a_region(run, folder):
    options = ("--layers", "0-1", "--beta", "2", "--json")
    code, out, err = run(*ASK, *REGION, *options, "--save", "region.png")
    assert (code, err) == (0, "")
    result = json.loads(out)
    model = rvelens.HookedLVLM.from_pretrained("model")
    inside = model.image_grid("1.png").tokens_in([(0.0, 0.0, 20.0, 20.0)], IMAGES[0].size)
    with model.hooks(region_hooks(torch.from_numpy(inside)[None], [0, 1], 2.0)):
        logits = model(**model.prepare("1.png", QUESTION), logits_to_keep=1)[:, -1]
    yes, no = yes_no_probabilities(logits, model.processor)[0].tolist()
    ratio = result["region"]["yes"] / result["region"]["no"]
    assert ratio == pytest.approx(yes / no, rel=1e-4)
    assert result["tokens"] == inside.sum() > 0
    assert result["region"] != result["plain"]
    assert (folder / "region.png").stat().st_size > 10_000


def test_scan_takes_reviewed_pairs_alone_and_any_text_if_told_to(run, folder):
    row = {"image": "1.png", "question": QUESTION, "answer": "kick"}
    longer = {"image": "1.png", "question": QUESTION, "contrastive": "does a man sit on it ?"}
    rows = [row, {**row, "decision": "accepted"}, {**longer, "decision": "rejected"}]
    (folder / "reviewed.jsonl").write_text("\n".join(map(json.dumps, rows)))
    scan = ("scan", "model", "--images", ".", "-o", "reviewed.safetensors", "--json")
    for flags, n in (((), 2), (("--reviewed",), 1)):
        out = run(*scan, "--pairs", "reviewed.jsonl", *flags)[1]
        assert json.loads(out)["n_pairs"] == n
    (folder / "longer.jsonl").write_text(json.dumps(longer))
    code, _, err = run(*scan, "--pairs", "longer.jsonl")
    assert code == 2
    assert "expected texts that differ in one word" in err
    out = run(*scan, "--pairs", "longer.jsonl", "--any-text")[1]
    assert json.loads(out)["n_pairs"] == 1


def test_scan_makes_a_profile_that_ask_takes(run, folder):
    code, out, _ = run(*SCAN, "--batch-size", "2", "--heatmap", "heat.pdf")
    assert code == 0
    assert "heads that rank first" in out
    profile = ARSProfile.load(folder / "new.safetensors")
    assert profile.about["n_pairs"] == 3
    assert "suffix" not in profile.about
    assert run(*SCAN[:-1], "asked.safetensors", "--suffix", "One word, yes or no.")[0] == 0
    asked = ARSProfile.load(folder / "asked.safetensors")
    assert asked.about["suffix"] == "One word, yes or no."
    assert not torch.allclose(asked.scores, profile.scores)
    assert (folder / "heat.pdf").read_bytes().startswith(b"%PDF")
    assert run(*ASK, "--profile", "new.safetensors")[0] == 0
    result = json.loads(run(*SCAN, "--json")[1])
    assert torch.tensor(result["scores"]).shape == (3, 8)


def test_families_are_listed(run):
    rows = json.loads(run("families", "--json")[1])
    assert {"llava", "instructblip", "qwen3_vl"} <= {row["name"] for row in rows}
    out = run("families")[1]
    assert all(row["name"] in out for row in rows)


def test_eval_prints_and_keeps_what_it_found(run, folder):
    options = ("--limit", "6", "--max-new-tokens", "2", "--method", "vanilla", "rve,pai", *P)
    code, out, _ = run(*EVAL[:-1], "kept", *options, "--set", "rve.k=3", "--set", "rve.layers=0-1")
    assert code == 0
    for piece in ("action-scenes, 6 questions", "against vanilla", "McNemar", "no suffix", "kept"):
        assert piece in out
    report = json.loads((folder / "kept" / "report.json").read_text())
    assert report["methods"]["rve"]["layers"] == "0-1"
    assert report["methods"]["rve"]["k"] == 3
    assert "| pai |" in (folder / "kept" / "report.md").read_text()
    again = run(*EVAL[:-1], "kept", *options, "--set", "rve.k=2", "--set", "rve.layers=0-1")
    assert again[0] == 2
    assert "k was 3 and is 2" in again[2]


def test_bench_prints_ratios(run, monkeypatch):
    result = {
        "shape": "tiny", "device": "cpu", "dtype": "float32", "threads": 1, "layers": 4,
        "rve_layers": [2, 3], "prompt_tokens": 620, "new_tokens": 16, "runs": 7,
        "seconds": {"transformers SDPA": 1.0, "HookedLVLM + RVE": 1.02},
        "ratios": {"transformers SDPA": 1.0, "HookedLVLM + RVE": 1.021},
        "quartiles": {"transformers SDPA": [1.0, 1.0], "HookedLVLM + RVE": [1.01, 1.03]},
        "missing": {"Bridge + RVE": "ImportError: no bridge"},
        "sharing": {"questions": 6, "answer_tokens": 2, "ratio": 3.456, "quartiles": [3.1, 3.6],
                    "per_second": {"one question at a time": 1.2, "shared prefix": 4.1},
                    "same_answers": True},
        "scoring": {"pairs": 2, "seconds": {"two forwards": 5.6, "score_heads": 3.1},
                    "ratio": 0.543, "quartiles": [0.51, 0.59], "largest_score": 3e-3,
                    "largest_difference": 8e-8},
        "settings": {"settings": 32, "questions": 4, "answer_tokens": 2, "ratio": 1.29,
                     "seconds": {"plain": 3.1, "32 settings": 4.0}, "quartiles": [1.27, 1.31],
                     "same_answers": True},
        "capture": [{"keys": 620, "forward": 3 * 2**30, "kept": 900, "last": 2048, "all": 2**22}],
    }  # fmt: skip
    monkeypatch.setattr("rvelens.speed.run_bench", lambda *args, **kwargs: result)
    code, out, _ = run("bench")
    assert code == 0
    for piece in (
        "1.021x",
        "3.46x",
        "answers the same",
        "0.54x",
        "1.29x",
        "the same as alone",
        "1.010 to 1.030",
        "no bridge",
        "3.00 GiB",
        "900 B",
        "2 KiB",
        "4 MiB",
    ):
        assert piece in out
    assert json.loads(run("bench", "--json")[1]) == result


P = ("--profile", "p.safetensors")
MISTAKES = [
    (("ask",), "Missing argument"),
    (("frobnicate",), "No such command 'frobnicate': see `rvelens --help`."),
    (("aks",), "No such command 'aks'; did you mean 'ask': see `rvelens --help`."),
    ((*ASK, "--frob"), "No such option"),
    (("ask", "no-such-folder/model", "1.png", QUESTION, *P), "cannot be loaded"),
    (("ask", "empty", "1.png", QUESTION, *P), "'empty' cannot be loaded"),
    (("ask", "model", "none.png", QUESTION, *P), "no image at none.png"),
    (("ask", "model", "not_image.png", QUESTION, *P), "cannot be read as an image"),
    (("ask", "model", "empty", QUESTION, *P), "cannot be read as an image"),
    (("ask", "model", "1.png", " ", *P), "a question is ' '"),
    (ASK, "no head profile for model"),
    ((*ASK, "--profile", "none.safetensors"), "no profile at none.safetensors"),
    ((*ASK, "--profile", "1.png"), "1.png cannot be read"),
    ((*ASK, "--profile", "other.safetensors"), "is not a head profile"),
    ((*ASK, "--profile", "published"), "no ranking was published for 'model'"),
    ((*ASK, "--profile", "published:gpt"), "no published ranking for 'gpt'"),
    ((*ASK, "--profile", "published:llava-1.5-7b"), "a profile of 32 layers x 32 heads"),
    ((*ASK, "--profile", "deep.safetensors"), "of 4 layers x 8 heads for a model of 3 x 8"),
    ((*ASK, "--profile", "narrow.safetensors"), "of 3 layers x 6 heads"),
    ((*ASK, *P, "--layers", "2-7"), "expected layers from 0 to 2"),
    ((*ASK, *P, "--layers", "middle"), "correct 'middle'"),
    ((*ASK, *P, "--k", "5"), "k=5 for 8 heads a layer: expected 1 to 4"),
    (
        ("ask", "rvelens/tinny", "1.png", QUESTION),
        "or rvelens/tiny, the embedded model; did you mean 'rvelens/tiny'?",
    ),
    (
        (*ASK, *P, "--k", "two"),
        "--k two: expected a whole number; correct it, or see `rvelens ask --help`.",
    ),
    ((*ASK, *P, "--alpha", "0"), "alpha=0.0: expected a share"),
    ((*ASK, *P, "--alpha", "nan"), "alpha=nan): expected a finite number"),
    ((*ASK, *P, "--beta", "-1"), "beta=-1.0: expected a finite strength"),
    ((*ASK, *P, "--scope", "some"), "scope='some': expected 'all' or 'sensitive'"),
    ((*ASK, *P, "--max-entropy", "0"), "max_entropy=0.0: expected a share of the entropy"),
    ((*ASK, "--region", "1,2,3"), "region '1,2,3': expected four numbers, X0,Y0,X1,Y1"),
    ((*ASK, "--region", "5,5,5,9"), "expected 0 <= X0 < X1 <= "),
    ((*ASK, "--region", "0,0,9999,9"), "expected 0 <= X0 < X1 <= "),
    ((*ASK, "--region", "nan,0,9,9"), "expected 0 <= X0 < X1 <= "),
    ((*ASK, *REGION, "--layers", "0-9"), "expected layers from 0 to 2"),
    ((*ASK, *REGION, "--beta", "-1"), "beta=-1.0: expected a finite strength"),
    ((*ASK, *REGION, "--k", "2"), "--k with --region, which replaces RVE: expected at most"),
    ((*ASK, *REGION, "--profile", "p.safetensors"), "--profile with --region"),
    ((*ASK, *REGION, "--save-manifest", "new"), "--save-manifest with --region, which holds for"),
    ((*ASK, *P, "--save-manifest", "1.png"), "1.png is a file: expected a folder"),
    ((*ASK, *P, "--save-manifest", "."), "holds other files"),
    ((*ASK, "--manifest", "empty"), "no intervention at empty"),
    (
        (*ASK, "--manifest", "1.png"),
        "1.png is not JSON (not UTF-8 text): expected the manifest.json",
    ),
    ((*ASK, "--manifest", "me/steer"), "no folder me/steer here, and the Hub does not give it"),
    ((*ASK, *P, "--prompt", "chatt"), "did you mean 'chat'?"),
    ((*ASK, *P, "--prompt", "{question}"), "has no image slot"),
    ((*ASK, *P, "--max-new-tokens", "0"), "--max-new-tokens"),
    ((*ASK, *P, "--save", "overlay.gif"), "expected a file name that ends in .png, .pdf, .svg"),
    ((*ASK, *P, "--save", "nowhere/overlay.png"), "no folder nowhere"),
    ((*ASK, *P, "--family", "lava"), "did you mean 'llava'?"),
    ((*ASK, *P, "--dtype", "float31"), "--dtype"),
    ((*ASK, *P, "--device-map", "tpu"), "tpu"),
    ((*SCAN[:-1], "profile.pt"), "ends in .safetensors"),
    ((*SCAN[:-1], "nowhere/p.safetensors"), "expected a file in a folder that exists"),
    ((*SCAN, "--pairs", "none.jsonl"), "no pairs at none.jsonl"),
    ((*SCAN, "--pairs", "bad.jsonl"), "bad.jsonl line 1"),
    ((*SCAN, "--images", "empty"), "pairs.jsonl line 1: no image at empty"),
    ((*SCAN, "--images", "nowhere"), "no folder nowhere"),
    ((*SCAN, "--batch-size", "0"), "--batch-size"),
    ((*SCAN, "--heatmap", "heat.bmp"), "ends in .png, .pdf, .svg"),
    (("bench", "--shape", "huge"), "shape 'huge': expected one of tiny, llava-1.5-7b"),
    (("bench", "--runs", "0"), "--runs"),
    (("bench", "--device", "tpu"), "device 'tpu': expected 'cpu' or 'cuda'"),
    (("bench", "--threads", "0"), "--threads"),
    (("demo", "--n-test", "1"), "--n-test"),
    (("demo", "--save", "1.png"), "--save 1.png is not a"),
    (("demo", "--save", "1.png/below"), "--save 1.png/below is not a"),
    ((*ASK, *P, "--device-map", "meta"), "device_map='meta' leaves the weights of model out"),
    ((*ASK, *P, "--save", "folder.png"), "folder.png is a folder"),
    ((*SCAN, "--heatmap", "folder.png"), "folder.png is a folder"),
    ((*SCAN, "--pairs", "torn.jsonl"), "torn.png cannot be read as an image"),
    ((*EVAL, "--benchmark", "pope"), "benchmark 'pope': expected one or several of pope-random"),
    ((*EVAL, "--benchmark", "pope"), "did you mean 'pope-random'?"),
    ((*EVAL, "--method", ","), "no method in ',': expected one or several of vanilla"),
    (("data", "check", "--benchmark", "[/x]"), "benchmark '[/x]': expected one of"),
    ((*EVAL, "--method", "vanila"), "method 'vanila': expected one or several of vanilla, rve"),
    ((*EVAL, "--method", "vanilla", "rve"), "no head profile for model"),
    ((*EVAL, "--method", "rve", *DEEP), "a profile of 4 layers x 8 heads for a model of 3 x 8"),
    ((*EVAL, "--set", "rve.alpha=1"), "'rve' is not among the methods vanilla"),
    ((*EVAL, "--set", "vanilla"), "--set vanilla: expected METHOD.PARAMETER=VALUE"),
    ((*EVAL, "--set", "vanilla.x=1"), "vanilla"),
    ((*EVAL, "--method", "vcd", "--set", "vcd.step=0"), "step=0: expected a step of the diffusion"),
    ((*EVAL, "--method", "vcd", "--set", "vcd.step=many"), "step"),
    ((*EVAL, "--limit", "0"), "--limit"),
    ((*EVAL, "--batch-size", "0"), "--batch-size"),
    ((*EVAL, "--relation", "temporal"), "has no option 'relation'"),
    ((*EVAL, "--prompt", "chatt"), "did you mean 'chat'?"),
    ((*EVAL, "--out", "1.png"), "1.png"),
    (
        (*EVAL, "--benchmark", "pope-random", "--data", "pope"),
        "no image of pope-random exists (1 file, such as ",
    ),
    (
        ("tune", "model", *P, "--benchmark", "pope-random", "--data", "pope", "--out", "t"),
        "no image of pope-random exists",
    ),
    (("ask", "./none", "1.png", QUESTION), "no folder ./none: expected a folder with a model"),
    (("eval", "a/b/c", *EVAL[2:]), "no folder a/b/c: expected a folder with a model"),
    (("scan", "rvelens/tinny", *SCAN[2:]), "did you mean 'rvelens/tiny'?"),
    (
        ("ask", "[/b]", "1.png", QUESTION, *P),
        "model '[/b]' is neither a folder nor a valid name on",
    ),
    (
        (*ASK, *P, "--method", "rve"),
        "No such option: --method; `rvelens eval`, `rvelens study` would",
    ),
    ((*EVAL[:-1], ""), "--out '': expected a non-empty value; pass one."),
    ((*EVAL, "--out="), "--out '': expected a non-empty value; pass one."),
    ((*EVAL[:-1], "others"), "others/report.md exists and was not written by an earlier run"),
    (("demo", "--save", "others"), "others/report.md exists and was not written by an earlier run"),
    (
        ("study", "tune", "--out", "others"),
        "others/tune.csv exists and was not written by an earlier",
    ),
    (
        (*ASK, *P, "--save-manifest", "card"),
        "card/README.md exists and was not written by an earlier",
    ),
    ((*EVAL, "--method", "vcd", "--set", "vcd.step=9999"), "step=9999: expected a step of the"),
    ((*EVAL, "--benchmark", "pope-random"), "--data"),
    ((*EVAL, "--benchmark", "pope-random", "--data", "nowhere"), "nowhere"),
    ((*EVAL, "--benchmark", "pope-random", "--data", "empty"), "empty"),
]


@pytest.mark.parametrize(("arguments", "says"), MISTAKES)
def test_a_mistake_is_one_sentence_and_exit_code_2(run, arguments, says, monkeypatch):
    # Not by the environment, which is read when the library is imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, out, err = run(*arguments)
    assert (code, out) == (2, ""), err
    assert says in err
    assert err.startswith("rvelens: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_files_of_somebody_else_are_as_they_were(run, folder):
    for words in ((*EVAL[:-1], "others"), ("demo", "--save", "others")):
        assert run(*words)[0] == 2
    for name in ("others/report.md", "others/tune.csv", "card/README.md"):
        assert (folder / name).read_text() == "mine"
    assert {path.name for path in (folder / "others").iterdir()} == {"report.md", "tune.csv"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="of machines without a GPU")
def test_a_missing_gpu_is_named_before_the_model_loads(run):
    code, _, err = run(*ASK, *P, "--device-map", "cuda")
    assert code == 2
    assert "device_map='cuda', and torch finds no CUDA device here: expected cpu or auto" in err


def test_square_brackets_are_text(run, folder):
    (folder / "[").mkdir()
    code, out, err = run(*ASK, *P, "--save", "[/b].png", "--save-manifest", "[/x]")
    assert (code, err) == (0, "")
    assert "overlay in [/b].png" in out
    assert "manifest in [/x]" in out


def test_few_pairs_and_few_questions_are_named(run, capsys):
    _, _, err = run(*SCAN)
    assert err == (
        "rvelens: 3 pairs: expected 30 or more; the ranking of so few depends on which they are, and "
        "other pairs would give another one.\n"
    )
    _warn_of_few([load_benchmark("action-scenes", n=60)], 0.3)
    assert capsys.readouterr().err.startswith(
        "rvelens: about 18 questions to tune on: expected 100"
    )
    _warn_of_few([load_benchmark("action-scenes", n=400)], 0.3)
    assert capsys.readouterr().err == ""


def test_mistakes_leave_no_profile_behind(run, folder):
    run(*SCAN[:-1], "late.safetensors", "--prompt", "chatt")
    assert not (folder / "late.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--version"], 0, ""),
        (["ask", "model", "none.png", QUESTION], 2, "rvelens: no image at none.png"),
        ([*ASK, *P, "--json"], 0, ""),
    ],
)
def test_in_a_process_of_its_own(folder, arguments, code, says):
    done = subprocess.run(
        [sys.executable, "-m", "rvelens", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert done.stderr.count("\n") == (1 if says else 0), done.stderr
    if "--json" in arguments:
        assert json.loads(done.stdout)["layers"] == [1, 2]
