"""What importing and packaging must and must not do."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def python(code: str) -> str:
    """Run code in a fresh interpreter, away from the repository."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_changes_nobodys_settings():
    code = """
import logging, sys, warnings
import torch, transformers, transformer_lens
from transformers import AttentionInterface
def settings():
    root = logging.root
    return root.level, root.handlers[:], warnings.filters[:], transformers.logging.get_verbosity()
before = settings()
known = sorted(AttentionInterface().valid_keys())
import rvelens, rvelens.hooks
assert before == settings()
assert known == sorted(AttentionInterface().valid_keys())
assert "hooks" not in sys.modules
assert "matplotlib" not in sys.modules
print("clean")
"""
    assert python(code) == "clean"


def test_hooks_never_import_transformers():
    for file in (ROOT / "hooks").glob("*.py"):
        assert "import transformers" not in file.read_text(), file
        assert "from transformers" not in file.read_text(), file


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the sources, without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*build, "--wheel-dir", str(folder), str(ROOT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_package_and_nothing_beside_it(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"rvelens", next(top for top in tops if top.endswith(".dist-info"))}
    for wanted in (
        "rvelens/hooks/rve.py",
        "rvelens/py.typed",
        "rvelens/data/llava15_7b_ars_head_ranking.json",
        "rvelens/assets/tiny/model.safetensors",
        "rvelens/assets/tiny/profile.safetensors",
        "rvelens/report/render.py",
        "rvelens/cli/demo.py",
    ):
        assert wanted in names
    sources = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "rvelens").rglob("*.py")
        if "hooks" not in path.parts
    }
    assert sources <= set(names)


def test_the_wheel_is_small(wheel):
    assert wheel.stat().st_size < 16e6


def test_the_wheel_runs_without_the_network(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = f"""
import sys, socket
sys.path.insert(0, {str(tmp_path)!r})
def refuse(*a, **k): raise AssertionError("network")
socket.socket.connect = refuse
import rvelens
assert rvelens.__file__.startswith({str(tmp_path)!r})
from rvelens.benchmarks.action_scenes import make_questions
model = rvelens.HookedLVLM.from_pretrained("rvelens/tiny")
q = make_questions("test", 1)[0]
print(model.name, model.ask(q.image, q.text)[0] in ("Yes", "No"))
"""
    assert python(code) == "rvelens/tiny True"
