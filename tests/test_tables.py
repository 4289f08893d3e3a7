"""Tables on a terminal, in Markdown and in CSV: nothing is cut, broken or run."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
import torch
from markdown_it import MarkdownIt
from rich.console import Console

from rvelens import ARSProfile
from rvelens.benchmarks.action_scenes import make_questions
from rvelens.cli import bench, families, judge, scan
from rvelens.evaluate import render_report
from rvelens.evaluate.render import tables as tables_of_run
from rvelens.speed import read_result
from rvelens.studies import NAMES, Setup, find_study
from rvelens.studies.demo.examples import Example, examples_table
from rvelens.tables import Table, markdown_block, markdown_code, markdown_text

DOCS = Path(__file__).parents[1] / "docs"
NUMBER = {"value": -0.25, "low": -0.5, "high": 0.125}


def shown(table, width=80):
    console = Console(width=width, file=io.StringIO())
    console.print(table, highlight=False)
    return console.file.getvalue()


def check(table: Table, width: int = 80) -> None:
    """Every word of every header and cell is on the terminal whole, and no line is too long."""
    text = shown(table, width)
    assert max(map(len, text.splitlines())) <= width
    words = re.findall(r"\S+", text)
    for cells in (table.columns, *table.text()):
        for cell in cells:
            for word in cell.split():
                assert any(word in piece for piece in words), (word, table.title)
        assert not cells[0] or cells[0].split()[0] in text


def stored(name):
    data = json.loads((DOCS / "studies" / name / f"{name}.json").read_text("utf-8"))
    return [model["measured"] for model in data["models"]]


# Those that draw pictures need the questions themselves.
@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("attention-maps", "cases")])
def test_tables_of_a_study_fit_80_columns(name):
    study = find_study(name)
    for table in study.show(object.__new__(Setup), stored(name)).tables.values():
        if not table.aside:
            check(table)


def test_tables_of_an_evaluation_fit_80_columns():
    (measured,) = stored("main-table")
    report = measured["report"]
    assert len(tables_of_run(report)) > 1
    for table in tables_of_run(report):
        check(table)
    assert max(map(len, shown(render_report(report)).splitlines())) <= 80


def test_tables_of_the_commands_fit_80_columns(capsys, monkeypatch):
    result = read_result(DOCS / "bench.json")
    for table in (bench._generation(result), bench._memory(result)):
        check(table)
    score = {"mean": NUMBER, "scored": 10, "unreadable": 2, "failed": 0}
    by_method = {
        m: {**score, "groups": {"real-action": score}} for m in ("mmrel-open/rve", "x/pai")
    }
    check(judge._table({"model": "a-judge [/b]", "answers": by_method}))
    for layers, heads in ((6, 12), (32, 32)):
        check(scan._table(ARSProfile.from_scores(torch.rand(layers, heads))))
    check(
        Table("", ("", "answer", "P(yes)", "P(no)"), [("RVE", "[/b] a long answer " * 9, "-", "1")])
    )
    question = make_questions("test", 1)[0]
    check(examples_table([Example(question, "Yes", "No", 0.75, 0.25)] * 2))
    monkeypatch.setenv("COLUMNS", "80")
    families.families()
    printed = capsys.readouterr().out
    for name in ("family", "prompts", "alpha", "verified", "note", "qwen2_5_vl"):
        assert name in printed
    assert max(map(len, printed.splitlines())) <= 80


@pytest.mark.parametrize(("width", "blocks"), [(200, 1), (80, 2), (40, 3)])
def test_a_table_too_wide_is_split_with_its_first_column_in_every_block(width, blocks):
    columns = ("name of the row", *(f"measured {letter}" for letter in "abcdef"))
    table = Table("Title", columns, [["the first row", *[NUMBER] * 6]])
    text = shown(table, width)
    assert text.count("name") == blocks
    check(table, width)
    assert text.startswith("Title\n")


def test_one_block_is_kept_where_intervals_fit_below_their_values():
    table = Table("", ("row", "a", "b", "c"), [["x", NUMBER, NUMBER, None]])
    assert "-0.250 [-0.500, 0.125]" in shown(table)
    assert "\n     [-0.500, 0.125]  [-0.500, 0.125]" in shown(table, 45)


def test_a_word_wider_than_the_terminal_is_folded_and_whole():
    long = "a" * 100
    assert shown(Table("", ("row", long), [["x", long]]), 40).replace("\n", "").count("a") == 200


def test_markup_of_a_terminal_is_text():
    assert "[/b] [red]" in shown(Table("[/x]", ("row",), [["[/b] [red]"]], notes=("[/n]",)))


def test_a_table_without_rows_is_its_title_and_notes():
    assert shown(Table("A title", ("question",), (), notes=("A note.",))) == "A title\nA note.\n"


def test_markdown_escapes_pipes_line_ends_and_html():
    table = Table("t", ("a|b", "n"), [["x | y\nz <script>", 0.25], ["-", None]], frozenset({"n"}))
    assert table.to_markdown().split("\n") == [
        "| a\\|b | n |",
        "| --- | --: |",
        "| x \\| y z &lt;script&gt; | +0.250 |",
        "| - |  |",
    ]


def test_csv_has_no_formula_and_unrounded_numbers():
    texts = ["=1+1", "+1", "-1", "@a", "\tb", "plain", "a=b"]
    table = Table("t", ("=name", "n"), [*([text, NUMBER] for text in texts), [-0.123456789, -2.5]])
    header, *rows = csv.reader(io.StringIO(table.to_csv(), newline=""))
    assert header == ["'=name", "n", "n low", "n high"]
    assert [row[0] for row in rows[:-1]] == [*(f"'{text}" for text in texts[:5]), "plain", "a=b"]
    assert rows[0][1:] == ["-0.25", "-0.5", "0.125"]
    assert rows[-1] == ["-0.123456789", "-2.5", "", ""]


ATTACKS = [
    "[click](javascript:alert(1))", "![x](http://evil.example/x.png)", "a [b\\](http://evil.example)",
    "<img src=http://evil.example/x.png>", "<javascript:alert(1)>", "<!-- hidden -->",
    "[ref]: javascript:alert(1)", "yes\n\n[ref]: http://evil.example\n\n![ref]", "# heading",
    "```\n[a](javascript:x)\n```", "~~~\n![x](http://evil.example)", "a | b\n| c",
]  # fmt: skip


def links_and_pictures(markdown):
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)
    return re.findall(r"<(?:a|img|script|h1|!--)[\s>-].*?>", html)


@pytest.mark.parametrize("text", ATTACKS)
def test_what_others_wrote_is_no_link_and_no_picture_in_markdown(text):
    table = Table("", ("answer", "n"), [(text, 1), ("yes", 2)])
    documents = [
        table.to_markdown(),
        f"{markdown_text(text)}\n\n- {markdown_text(text)}\n",
        f"The prompt {markdown_code(text)} is\n\n{markdown_block(text)}\n\n",
    ]
    for document in documents:
        assert links_and_pictures(document) == []
    assert links_and_pictures("[click](http://a.example) ![x](http://b.example)")


def test_markdown_of_plain_sentences_is_as_it_was():
    for text in ("p < 0.05 & accuracy -0.036 [0.015, 0.057] (95%)", "`eval` of a_b: yes/no"):
        assert markdown_text(text) == text
    assert markdown_code("chat") == "`chat`"
