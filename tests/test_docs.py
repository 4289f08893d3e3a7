"""Every command of the documentation is one that `rvelens` takes: it stops at data that is not here."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from rvelens.benchmarks import load_benchmark
from rvelens.cli import main
from rvelens.studies import find_study
from rvelens.studies.kit.paper import model_key

PAGE = (Path(__file__).parents[1] / "docs" / "reproducing.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [
    shlex.split(text)[1:]
    for block in BLOCKS
    for text in re.split(r"^(?=rvelens )", block, flags=re.MULTILINE)
    if text
]
# What a command says that found nothing wrong with its arguments.
NO_DATA = r"no folder data(/vg)?: expected|no pairs at pairs\.jsonl|no file original/"
# The page promises these, in this order, with a command below each.
SHOWN = ("Table 1", "Table 2", "Table 3", "Table 4", "Tables 5 and 7", "Figures 2 and 3", "Figure 5",
         "Figure 6", "Figures 7 and 8", "Figure 9a", "Figure 9b", "Figure 10",
         "Figures 13 to 17")  # fmt: skip


def named(command):
    return " ".join(command[-12:])[-60:]


def values(command, option):
    """What follows an option up to the next one."""
    found = []
    for n, word in enumerate(command):
        if word == option:
            rest = command[n + 1 :]
            stop = next((k for k, one in enumerate(rest) if one.startswith("-")), len(rest))
            found += rest[:stop]
    return found


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "none")

    def run(command):
        with pytest.raises(SystemExit) as end:
            main(command)
        said = capsys.readouterr()
        return end.value.code, " ".join(said.err.split())

    return run


@pytest.mark.parametrize("command", COMMANDS, ids=named)
def test_a_command_stops_at_data_that_is_not_here(run, tmp_path, command):
    code, said = run(command)
    assert code == 2
    assert re.search(NO_DATA, said), said
    assert not list(tmp_path.iterdir())


class NoModelError(Exception):
    """In place of loading weights."""


def of_studies():
    return [c for c in COMMANDS if c[0] == "study"]


@pytest.mark.parametrize("command", of_studies(), ids=named)
def test_with_data_a_study_gets_as_far_as_its_model(tmp_path, monkeypatch, command):
    """Methods, options, profiles and their number; questions of another benchmark stand in."""
    module = importlib.import_module("rvelens.cli.study")

    def found(name, data, **options):
        if values(command, "--benchmark"):  # else the study's own, which needs no files
            with pytest.raises(ValueError, match="no folder data"):
                load_benchmark(name, data, **options)
        return load_benchmark("action-scenes", n=2)

    def stop(name, **_):
        raise NoModelError(name)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "load_benchmark", found)
    monkeypatch.setattr(module, "open_model", stop)
    monkeypatch.setattr(module, "load_pairs", lambda *_, **__: [])
    measured = [p for p in values(command, "--profile") if p.endswith(".safetensors")]
    made = [p for c in COMMANDS if c[0] == "scan" for p in values(c, "-o")]
    assert set(measured) <= set(made)  # by a command further up on the page
    load = module.find_profile
    monkeypatch.setattr(
        module, "find_profile", lambda p, model: None if p in measured else load(p, model)
    )
    with pytest.raises(NoModelError, match=re.escape(values(command, "--model")[0])):
        main(command)


@pytest.mark.parametrize("command", of_studies(), ids=named)
def test_the_models_are_the_papers(command):
    assert all(model_key(name) for name in values(command, "--model"))
    study = find_study(command[1])
    for method in values(command, "--method"):
        assert method in study.methods


def test_the_page_names_every_table_and_figure_and_every_study():
    headings = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    places = [next(n for n, h in enumerate(headings) if h.split(":")[0] == s) for s in SHOWN]
    assert places == sorted(places)
    sections = dict(zip(headings, re.split(r"^## .*$", PAGE, flags=re.MULTILINE)[1:], strict=True))
    for place in places:
        assert "```bash\nrvelens " in sections[headings[place]]
    asked = {c[1] for c in of_studies()}
    assert asked == {
        "main-table", "open-ended", "ablation", "imbalance", "ars-map", "attention-maps", "sweep",
        "masking", "latency", "object-vs-action", "cases", "head-scores",
    }  # fmt: skip


def test_options_that_a_section_names_are_those_of_its_study():
    """In the text too, where no command is run."""
    known = {
        "layers": "masking",
        "question": "attention-maps",
        "new_tokens": "latency",
        "n_photographs": "object-vs-action",
    }
    named = set(re.findall(r"--option\s+(\w+)=", PAGE)) - {
        v.split("=")[0] for c in COMMANDS for v in values(c, "--option")
    }
    assert named == set(known)
    for option, study in known.items():
        assert option in find_study(study).options


def test_a_wrong_argument_does_not_pass_for_missing_data(run):
    """What the tests above rest on."""
    study = of_studies()[0]
    for wrong in (
        [*study, "--relations", "action"],
        [*study, "--option", "no=1"],
        [*study, "--method", "rev"],
        ["study", "main-table", "--benchmark", "amber-relation", "--relation", "action", "--data",
         "data", "--out", "x"],
    ):  # fmt: skip
        code, said = run(wrong)
        assert code == 2
        assert not re.search(NO_DATA, said)
