"""Methods of one's own: files, entry points, options, edits of each question, and what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from rvelens import HookedLVLM
from rvelens.benchmarks import load_benchmark
from rvelens.evaluate import Decoding, answer, evaluate
from rvelens.evaluate.answering import side_by_side
from rvelens.hooks import region_hooks
from rvelens.interventions import own
from rvelens.interventions.methods import check_parameters, make_method, needs_profile, options_of
from rvelens.model.hooked_lvlm import TINY

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "own_method.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
SHORT = Decoding(max_new_tokens=2)


@pytest.fixture(scope="module")
def tiny():
    return HookedLVLM.from_pretrained(TINY)


@pytest.fixture
def file(tmp_path):
    """The code of the documentation's page."""
    path = tmp_path / "my_method.py"
    path.write_text(BLOCKS[0] + "\n\n" + BLOCKS[1])
    return path


def written(tmp_path, code, name="other.py"):
    path = tmp_path / name
    path.write_text(code)
    return path


def test_the_page_has_twenty_lines():
    lines = [line for line in BLOCKS[0].splitlines() if line.strip()]
    assert len(lines) <= 20


def test_hooks_are_those_of_the_function(tiny, file):
    method = make_method(f"{file}:shift", tiny, by=2)
    assert (method.name, method.parameters) == ("shift", {"by": 2.0, "steps": "all"})
    assert [name for name, _ in method.hooks] == [
        f"blocks.{n}.attn.hook_attn_scores" for n in tiny.attention_layers
    ]
    item = load_benchmark("action-scenes", n=1).items[0]
    inputs = tiny.prepare(item.load(), item.text)

    def literal(scores, hook):
        image = hook.ctx["tokens"].image_keys(scores.shape[-1], scores.device)
        return scores + 2.0 * image[:, None, None]

    with torch.no_grad(), tiny.hooks(method.hooks):
        ours = tiny(**inputs)[:, -1]
    with torch.no_grad(), tiny.hooks([(name, literal) for name, _ in method.hooks]):
        torch.testing.assert_close(ours, tiny(**inputs)[:, -1], rtol=0, atol=1e-5)
    with torch.no_grad():
        assert (tiny(**inputs)[:, -1] - ours).abs().max() > 1e-2


def test_a_run_knows_the_code(tiny, file, tmp_path):
    scenes = load_benchmark("action-scenes", n=4)

    def run():
        methods = [make_method("vanilla", tiny), make_method(f"{file}:shift", tiny)]
        return evaluate(tiny, [scenes], methods, tmp_path / "run", decoding=SHORT)

    report = run()
    assert report is not None
    assert list(report["methods"]) == ["vanilla", "shift"]
    assert run() == report
    file.write_text(file.read_text().replace("row + self.by", "row - self.by"))
    with pytest.raises(ValueError, match=r"method\.code was [0-9a-f]{12}\.\.\. and is"):
        run()


def test_an_edit_of_each_question_is_that_question_alone(tiny, file, tmp_path):
    scenes = load_benchmark("action-scenes", n=4)
    method = make_method(f"{file}:to_box", tiny, beta=3.0)
    plain, pai = make_method("vanilla", tiny), make_method("pai", tiny)
    groups = side_by_side(tiny, [plain, pai, method])
    assert [[m.name for m in group] for group in groups] == [["vanilla", "pai"], ["to_box"]]
    evaluate(tiny, [scenes], [plain, method], tmp_path / "run", decoding=SHORT)
    lines = (tmp_path / "run" / "action-scenes" / "to_box" / "answers.jsonl").read_text()
    for item, line in zip(scenes.items, lines.splitlines(), strict=True):
        image, regions = item.load(), item.regions
        assert regions is not None
        boxes = [box for some in regions().values() for box in some]
        inside = torch.from_numpy(tiny.image_grid(image).tokens_in(boxes, image.size))[None]
        hooks = region_hooks(inside, tiny.attention_layers, 3.0)
        alone = replace(plain, hooks=tuple(hooks))
        ((text, margin),) = answer(tiny, alone, [image], [item.text], decoding=SHORT)
        said = json.loads(line)
        assert (said["answer"], said["margin"]) == (text, pytest.approx(margin, abs=1e-5))
    with pytest.raises(ValueError, match="method 'to_box' depends on the question"):
        answer(tiny, method, [scenes.items[0].load()], ["?"])


def test_a_question_without_what_it_needs_is_left_out(tiny, file, tmp_path):
    scenes = load_benchmark("action-scenes-open", n=2)
    method = make_method(f"{file}:to_box", tiny)
    report = evaluate(tiny, [scenes], [method], tmp_path, decoding=SHORT)
    assert report is not None
    assert report["input"]["action-scenes-open"]["unreadable"] == ["this question has no box"]


def test_options_are_read_off_the_function(tmp_path, tiny, profile):
    path = written(
        tmp_path,
        "def make(model, profile, k: int, names=('a',), *, on: bool = False):\n    return []\n",
    )
    name = f"{path}:make"
    assert list(options_of(name)) == ["k", "names", "on"]
    assert needs_profile(name)
    with pytest.raises(ValueError, match="make' has no parameter 'kk': expected k, names, on; did"):
        check_parameters(name, {"kk": 1})
    with pytest.raises(ValueError, match="k='x' is a str: expected int"):
        check_parameters(name, {"k": "x"})
    with pytest.raises(ValueError, match=r"without k: expected a value; .* --set METHOD\.k=VALUE"):
        check_parameters(name, {})
    with pytest.raises(ValueError, match="takes a profile, and there is none"):
        make_method(name, tiny, k=1)
    method = make_method(name, tiny, profile, k=1)
    assert method.parameters == {"k": 1, "names": ["a"], "on": False, "profile": profile.digest()}


def test_a_package_offers_a_method(monkeypatch, tiny):
    entry = EntryPoint("pushed", "rvelens.hooks.pai:pai_hooks", own.GROUP)

    def entry_points(group, name):
        return [entry] if (group, name) == (own.GROUP, "pushed") else []

    monkeypatch.setattr(own, "entry_points", entry_points)
    assert "alpha" in options_of("pushed")
    entry = EntryPoint("pushed", "nowhere:make", own.GROUP)
    with pytest.raises(ValueError, match=r"cannot be loaded \(No module named 'nowhere'\)"):
        options_of("pushed")
    with pytest.raises(ValueError, match=r"unknown method 'pushd': .* or FILE\.py:FUNCTION"):
        make_method("pushd", tiny)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def make(model):\n    return 3\n", "method 'make' gave 3 for a hook: expected a list of"),
        ("def make(model):\n    return [('x', 3)]\n", r"gave \('x', 3\) for a hook"),
        (
            "def make(model, **options):\n    return []\n",
            "options by their names; write each one out",
        ),
        ("def make():\n    return []\n", "expected a parameter for the model"),
        ("def other(model):\n    return []\n", "has no function 'make': expected FILE.py:FUNCTION"),
        (
            "import nowhere\n",
            r"cannot be loaded \(ModuleNotFoundError: No module named 'nowhere'\)",
        ),
        ("def make(model, x: 'Non' = 1):\n    return []\n", "has a type that cannot be read"),
        ("def make(model, x={1}):\n    return []\n", "has an option that is not plain"),
    ],
)
def test_what_is_no_method_is_refused(tmp_path, tiny, code, said):
    path = written(tmp_path, code)
    with pytest.raises(ValueError, match=said):
        make_method(f"{path}:make", tiny)


def test_modules_beside_the_file_and_names_of_the_library(tmp_path, tiny):
    written(tmp_path, "BY = 4.0\n", "beside_own_method.py")
    path = written(
        tmp_path,
        "from beside_own_method import BY\ndef make(model, by=BY):\n    return []\n",
        "json.py",
    )
    assert make_method(f"{path}:make", tiny).parameters == {"by": 4.0}
    assert json.dumps({}) == "{}"


@pytest.fixture
def run(run_command):
    return run_command


EVAL = ("eval", "rvelens/tiny", "--benchmark", "action-scenes", "--limit", "4", "--out", "run")


def test_the_command_of_the_page(run, file):
    methods = ("--method", "vanilla", "rve", "my_method.py:shift", "--max-new-tokens", "2")
    code, out, err = run(*EVAL, *methods, "--set", "shift.by=0.5", "--set", "rve.steps=prefill")
    assert code == 0, err
    assert "shift" in out
    stored = json.loads(Path("run/action-scenes/shift/manifest.json").read_text())["method"]
    assert stored["parameters"] == {"by": 0.5, "steps": "all"}
    stored = json.loads(Path("run/action-scenes/rve/manifest.json").read_text())["method"]
    assert stored["parameters"]["steps"] == "prefill"


def test_help_lists_parameters(run, file):
    code, out, _ = run("eval", "--method", "pai", "my_method.py:shift", "--help")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["shift.by", "float", "1.0"] in lines
    assert ["shift.steps", "str", '"all"'] in lines
    assert ["pai.alpha", "float", "0.2"] in lines
    code, out, _ = run("eval", "--help")
    assert "what --set takes" not in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("my_method.py:shft",), "my_method.py has no function 'shft'"),
        (("no.py:shift",), "no file no.py: expected FILE.py:FUNCTION"),
        (("my_method.py",), "has no function 'my_method.py'"),
        (
            ("my_method.py:shift", "--set", "shift.buy=1"),
            "has no parameter 'buy': expected by, steps",
        ),
        (("my_method.py:shift", "--set", "shift.by=x"), "by='x' is a str: expected float"),
        (("my_method.py:shift", "./my_method.py:shift"), "two methods are named 'shift'"),
    ],
)
def test_mistakes_are_one_sentence(run, file, words, said):
    code, _, err = run(*EVAL, "--method", *words)
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1


FAULTS = {
    "in make": "def make(model):\n    return {}['x']\n",
    "for a question": (
        "class ByWord:\n    def hooks(self, model, question):\n        return {}['x']\n"
        "def make(model):\n    return ByWord()\n"
    ),
    "in a hook": (
        "def fault(x, hook):\n    return {}['x']\n"
        "def make(model):\n    return [('blocks.0.attn.hook_pattern', fault)]\n"
    ),
}


@pytest.mark.parametrize("place", FAULTS)
def test_an_error_names_the_method_its_line_and_the_question(tiny, tmp_path, place):
    path = written(tmp_path, FAULTS[place])
    scenes = load_benchmark("action-scenes", n=1)

    def run():
        method = make_method(f"{path}:make", tiny)
        return evaluate(tiny, [scenes], [method], tmp_path / "run", decoding=SHORT)

    with pytest.raises(KeyError) as error:
        run()
    (note,) = error.value.__notes__
    line = next(n for n, text in enumerate(FAULTS[place].splitlines(), 1) if "['x']" in text)
    assert f"(other.py line {line})" in note
    assert note.startswith("raised in the method '")
    assert note.endswith(": expected hooks without an error; correct the method.")
    question = f", for the question {scenes.items[0].id!r}:"
    assert (question in note) == (place != "in make")


def test_methods_of_this_package_are_not_blamed(tiny, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(tiny, "generate", fail)
    scenes = load_benchmark("action-scenes", n=1)
    with pytest.raises(RuntimeError, match="the device is gone") as error:
        evaluate(tiny, [scenes], [make_method("pai", tiny)], tmp_path / "run", decoding=SHORT)
    assert not hasattr(error.value, "__notes__")


def test_an_error_without_a_text_keeps_its_name(run_command, tmp_path):
    path = written(tmp_path, FAULTS["in a hook"].replace("return {}['x']", "assert False"))
    words = ("eval", "rvelens/tiny", "--benchmark", "action-scenes", "--limit", "1")
    code, _, err = run_command(*words, "--method", f"{path}:make", "--out", str(tmp_path / "run"))
    assert code == 2
    assert "AssertionError, raised in the method 'make'" in err or "AssertionError: " in err


@pytest.mark.parametrize("place", FAULTS)
def test_the_command_line_names_them_too(run_command, tmp_path, place):
    path = written(tmp_path, FAULTS[place])
    words = ("eval", "rvelens/tiny", "--benchmark", "action-scenes", "--limit", "1")
    code, out, err = run_command(*words, "--method", f"{path}:make", "--out", str(tmp_path / "run"))
    assert (code, out) == (2, "")
    assert "KeyError: 'x', raised in the method '" in err
    assert "other.py line " in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()
