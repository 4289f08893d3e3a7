"""The review of pairs: order, marks and progress."""

from __future__ import annotations

from rvelens.app.tab_pairs import marked, neighbour, next_undecided, pair_card


def row(name, decision=None, contrastive="Does a man kick a ball?"):
    return {
        "id": name, "image": "none.png", "question": "Does a man throw a ball?",
        "contrastive": contrastive, "decision": decision,
    }  # fmt: skip


ROWS = [row("a"), row("b", "accepted"), row("c"), row("d", "rejected")]


def test_the_next_undecided_pair_is_behind_and_then_round_the_end():
    assert next_undecided(ROWS, "a")["id"] == "c"
    assert next_undecided(ROWS, "c")["id"] == "a"
    assert next_undecided(ROWS, "gone")["id"] == "c"
    done = [row("a", "accepted"), row("b", "edited")]
    assert next_undecided(done, "b")["id"] == "b"


def test_neighbours_go_round():
    assert [neighbour(ROWS, at, step)["id"] for at, step in (("a", -1), ("a", 1), ("d", 1))] == [
        "d", "b", "a",
    ]  # fmt: skip


def test_the_verb_is_marked_and_texts_are_escaped(tmp_path):
    html = pair_card(ROWS, ROWS[0], tmp_path)
    assert "Does a man <mark>throw</mark> a ball?" in html
    assert "Does a man <mark>kick</mark> a ball?" in html
    assert "2 of 4" in html
    assert "1 accepted, 1 rejected, 2 undecided" in html
    assert "no image at" in html
    assert marked("<a> b", (0, 3)) == "<mark>&lt;a&gt;</mark> b"


def test_texts_that_differ_in_more_are_said_to(tmp_path):
    html = pair_card(ROWS, row("a", contrastive="Is it raining?"), tmp_path)
    assert "<mark>" not in html
    assert "differ in more than one word" in html
