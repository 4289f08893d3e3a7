"""What tutorials show and do not run: Python for a GPU machine, and commands."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
import torch
import transformers

from rvelens import HookedLVLM
from rvelens.cli import main
from rvelens.model.hooked_lvlm import TINY

PAGES = sorted((Path(__file__).parents[1] / "docs" / "tutorials").glob("0[6-9]_*.md"))


def blocks(page, language):
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


PYTHON = [block for page in PAGES for block in blocks(page, "python")]
LOADING = [block for block in PYTHON if "from_pretrained(" in block]
COMMANDS = [
    shlex.split(line)[1:]
    for page in PAGES
    for block in blocks(page, "bash")
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip()
]
# What a command says that found nothing wrong with its arguments.
STOPPED = r"no folder data|no pairs at pairs\.jsonl|no folder images|without a GPU"


@pytest.mark.parametrize("block", PYTHON)
def test_imports_of_a_block_exist(block):
    imports = [n for n in ast.parse(block).body if isinstance(n, ast.Import | ast.ImportFrom)]
    assert imports
    exec(compile(ast.Module(imports, []), "page", "exec"), {})


@pytest.mark.parametrize("block", LOADING)
def test_a_loading_block_runs_and_its_options_reach_transformers(block, monkeypatch):
    """With the embedded model in the place of the large one."""
    given = {}
    loader = transformers.AutoModelForImageTextToText
    load = loader.from_pretrained

    def instead(name, **options):
        given.update(options, name=name)
        return load(TINY)

    monkeypatch.setattr(loader, "from_pretrained", instead)
    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", lambda name, **options: name)
    scope = {}
    exec(compile(block, "page", "exec"), scope)
    assert isinstance(scope["model"], HookedLVLM)
    assert given["name"] == "llava-hf/llava-1.5-7b-hf"
    (call,) = (
        n for n in ast.walk(ast.parse(block))
        if isinstance(n, ast.Call) and ast.unparse(n.func) == "HookedLVLM.from_pretrained"
    )  # fmt: skip
    shown = {word.arg for word in call.keywords}
    assert shown
    assert shown <= set(given)
    assert given["dtype"] is torch.float16
    # What transformers does not know it would hand to the model's class, which refuses it.
    source = Path(transformers.modeling_utils.__file__).read_text(encoding="utf-8")
    for name in shown:
        assert f'kwargs.pop("{name}"' in source, name
    if "quantization_config" in given:
        config = given["quantization_config"]
        assert config.quantization_method() == "nf4"
        assert config.llm_int8_skip_modules == ["lm_head", "vision_tower", "multi_modal_projector"]
        known = set(transformers.BitsAndBytesConfig.__init__.__code__.co_varnames)
        (made,) = (
            n for n in ast.walk(ast.parse(block))
            if isinstance(n, ast.Call) and ast.unparse(n.func) == "BitsAndBytesConfig"
        )  # fmt: skip
        assert {word.arg for word in made.keywords} <= known


def test_the_modules_to_skip_are_modules():
    model = HookedLVLM.from_pretrained("rvelens/tiny").hf_model
    names = {name.split(".")[-1] for name, _ in model.named_modules()}
    assert {"lm_head", "vision_tower", "multi_modal_projector"} <= names


@pytest.mark.skipif(torch.cuda.is_available(), reason="the bench would run")
@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: " ".join(c)[:50])
def test_a_command_stops_at_what_is_not_here(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(command)
    said = " ".join(capsys.readouterr().err.split())
    assert end.value.code == 2
    assert re.search(STOPPED, said), said


def test_what_is_shown_is_here():
    assert len(PAGES) == 4
    assert len(LOADING) == 3
    assert len(COMMANDS) == 4
