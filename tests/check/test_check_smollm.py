"""`examples/check_smollm.py` on a tiny language model in the place of SmolLM2."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import torch
import transformers as tf
from tiny_inputs import IMAGES, TEXT, tokenizer

SCRIPT = Path(__file__).parents[2] / "examples" / "check_smollm.py"


def test_the_script_checks_in_three_dtypes(tmp_path):
    spec = importlib.util.spec_from_file_location("check_smollm", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    torch.manual_seed(0)
    tf.LlamaForCausalLM(tf.LlamaConfig(**TEXT)).save_pretrained(tmp_path / "text")
    tokenizer().save_pretrained(tmp_path / "text")
    IMAGES[2].save(tmp_path / "image.png")
    out = tmp_path / "out.json"
    folders = [str(tmp_path / "text"), "--work", str(tmp_path / "llava"), "--out", str(out)]
    picture = ["--image", str(tmp_path / "image.png"), "--question", "does a man hold a ball ?"]
    script.main([*folders, *picture, "--side", "56", "--no-speed", "--only", "forward", "RVE"])
    found = json.loads(out.read_text())
    assert list(found) == ["float32", "bfloat16", "float16"]
    assert found["float32"]["masks"] == {"mean": 1.0, "least": 1.0}
    for report in found.values():
        assert [line["name"] for line in report["lines"]] == ["wrapping", "forward", "RVE"]
        assert report["passed"]
