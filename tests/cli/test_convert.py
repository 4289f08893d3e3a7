"""`rvelens convert` on the command line."""

from __future__ import annotations

import json

import pytest
from original_checkpoint import write_checkpoint
from tiny_models import IMAGES

from rvelens.cli import main


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Run `rvelens` beside an original checkpoint `src`; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    write_checkpoint(tmp_path / "src")

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        said = capsys.readouterr()
        return end.value.code or 0, said.out, said.err

    return run


CONVERT = ("convert", "sharegpt4v", "src", "dst", "--vision-config", "src/vision.json")


def test_the_new_folder_answers(run, tmp_path):
    code, out, _ = run(*CONVERT, "--dtype", "bfloat16")
    assert code == 0
    assert "73 tensors (0.00 GB) in dst, 4 buffers dropped; load it with --family sharegpt4v" in out
    IMAGES[0].save(tmp_path / "1.png")
    asked = ("ask", "dst", "1.png", "does a man kick a ball ?", "--family", "sharegpt4v")
    assert "no head profile for dst" in run(*asked)[2]


def test_json_is_alone_on_stdout(run, tmp_path):
    code, out, _ = run(*CONVERT, "--json")
    assert code == 0
    result = json.loads(out)
    assert result.keys() == {"folder", "placed", "dropped", "bytes"}
    assert result["folder"] == "dst"
    assert "model.layers.0.self_attn.rotary_emb.inv_freq" in result["dropped"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("convert",), "Missing command"),
        (("convert", "llava"), "No such command"),
        (("convert", "sharegpt4v", "src"), "Missing argument"),
        (CONVERT[:4], "do not fit its config.json"),
        (("convert", "sharegpt4v", "src", "src"), "src exists and is not an empty folder"),
        (("convert", "sharegpt4v", "none", "dst"), "no file none/config.json"),
        ((*CONVERT, "--dtype", "int8"), "--dtype"),
        ((*CONVERT, "--vision-tower", "none"), "no weights in none"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(run, arguments, says, tmp_path):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert err.startswith("rvelens: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "dst").exists()
