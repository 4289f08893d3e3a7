"""Studies, head scores and reproductions by two processes: as by one; a dead one is no hang."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading

import pytest
import torch
from published_scenes import write_scenes
from study_cases import questions

from rvelens import ARSProfile
from rvelens.benchmarks.action_scenes import contrastive_pairs
from rvelens.cli import main
from rvelens.evaluate import processes
from rvelens.evaluate.answering import Decoding
from rvelens.evaluate.processes import Processes, Sign, at_work
from rvelens.studies.kit.base import LeftToFirst, Setup
from rvelens.studies.kit.parts import Parts


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", 1.0)
    monkeypatch.setattr(processes, "BEAT", 0.05)


def together(folder, work, count=2):
    """Run `work(parts)` in so many threads that share a folder; returns results or errors by rank."""
    results = {}
    folder.mkdir(exist_ok=True)
    start = threading.Barrier(count)

    def run(rank):
        try:
            with at_work(folder / "signs", Processes(rank, count)) as sign:
                start.wait()
                results[rank] = work(Parts(folder, sign))
        except ValueError as error:
            results[rank] = str(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return results


def test_each_computes_its_share_and_has_the_whole(tmp_path):
    items = questions(12).items
    batches = [items[n : n + 2] for n in range(0, 12, 2)]
    computed = {0: [], 1: []}

    def work(parts):
        def compute(batch):
            computed[parts.here.rank] += [item.id for item in batch]
            return [{"of": item.id} for item in batch]

        found = parts.by_item("things", batches, compute)
        return found, parts.by_item("again", batches[:1], compute)

    results = together(tmp_path, work)
    assert results[0] == results[1]
    assert list(results[0][0]) == [item.id for item in items]
    assert len(computed[1]) == 6
    assert sorted(computed[0] + computed[1])[:2] == ["q0", "q0"]
    # One process alone finds all of it, and computes nothing.
    alone = Parts(tmp_path).by_item("things", batches, lambda batch: pytest.fail("computed"))
    assert alone == results[0][0]


def test_parts_are_computed_once_and_in_turn(tmp_path):
    computed = []

    def work(parts):
        def part(n):
            computed.append((parts.here.rank, n))
            return n * n

        kept = parts.keep_each({f"p{n}": lambda n=n: part(n) for n in range(5)})
        return kept, parts.keep("one", lambda: part(9))

    results = together(tmp_path, work)
    assert results[0] == results[1] == ([0, 1, 4, 9, 16], 81)
    assert sorted(computed) == [(0, 0), (0, 2), (0, 4), (0, 9), (1, 1), (1, 3)]


def test_what_failed_in_one_is_taken_from_the_other(tmp_path):
    items = questions(2).items
    (tmp_path / "x.jsonl").write_text(json.dumps({"q0": None, "q1": 1}) + "\n")
    (tmp_path / "x.3.jsonl").write_text(json.dumps({"q0": 5}) + "\n" + '{"q1": tor')
    assert Parts(tmp_path).by_item("x", [items], lambda batch: pytest.fail("computed")) == {
        "q0": 5, "q1": 1,
    }  # fmt: skip


def test_one_that_fails_or_goes_silent_ends_the_others(tmp_path, monkeypatch):
    def fails(parts):
        if parts.here.rank:
            raise ValueError("torn.")
        parts.together()

    assert together(tmp_path, fails)[0].startswith("process 1 of 2 failed: expected all to finish")

    def silent(parts):
        if parts.here.rank:
            parts.sign.write = lambda: None
            threading.Event().wait(2.5)
            return
        parts.together()

    said = together(tmp_path / "silent", silent)[0]
    assert said.startswith("process 1 of 2 gave no sign of life for 1 seconds")
    assert said.endswith("finish; run the same command again to resume.")


def test_what_is_not_shared_is_left_to_the_first_process(model, tmp_path):
    def rest(rank):
        sign = Sign(tmp_path, Processes(rank, 2))
        setup = Setup(model, None, (), (), (), Decoding(), {}, Parts(tmp_path, sign))
        setup.leave_to_first()

    rest(0)
    with pytest.raises(LeftToFirst):
        rest(1)


SCRIPT = """
import os, sys, json
import rvelens.evaluate.processes as p
from rvelens.cli import main
p.PATIENCE, p.BEAT = 5.0, 0.5
if sys.argv[1] == "die" and os.environ["RANK"] == "1":
    from rvelens.studies.kit import parts
    append = parts.append_lines
    def dies(path, rows):
        append(path, rows)
        os._exit(9)
    parts.append_lines = dies
for words in json.loads(sys.argv[2]):
    try:
        main(words)
    except SystemExit as end:
        if end.code:
            sys.exit(end.code)
"""


def start_two(folder, mode, commands):
    """Two processes, as torchrun starts them, that run some commands of rvelens one after the other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {
        **os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    return [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, mode, json.dumps(commands)], cwd=folder, text=True,
            env={**shared, "RANK": str(n), "LOCAL_RANK": str(n)}, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for n in range(2)
    ]  # fmt: skip


def scan(data):
    return ["scan", "rvelens/tiny", "--pairs", "pairs.jsonl", "--images", str(data / "val2014"),
            "--batch-size", "2", "-o", "heads.safetensors"]  # fmt: skip


def reproduce(data, *results):
    return ["reproduce", "rvelens/tiny", "--data", str(data), "--prompt", "chat", *results,
            "--batch-size", "2", "--out", "out"]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("data"))


def write_pairs(folder, data):
    names = sorted(path.name for path in (data / "val2014").iterdir())
    pairs = contrastive_pairs("validation", 6)
    rows = [
        {"id": str(n), "image": names[n], "question": p.question, "contrastive": p.contrastive}
        for n, p in enumerate(pairs)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def run_alone(folder, commands, monkeypatch):
    monkeypatch.chdir(folder)
    for words in commands:
        with pytest.raises(SystemExit) as end:
            main(words)
        assert not end.value.code


def same_results(one, two):
    paths = [p.relative_to(one) for p in one.glob("out/*/*/*.json")]
    assert paths
    for path in paths:
        assert json.loads((two / path).read_text()) == json.loads((one / path).read_text()), path


@pytest.mark.slow
def test_two_processes_give_what_one_gives_and_a_killed_one_ends_the_run(
    data, tmp_path, monkeypatch
):
    alone, both, killed = (tmp_path / name for name in ("alone", "both", "killed"))
    for folder in (alone, both, killed):
        folder.mkdir()
        write_pairs(folder, data)
    table = reproduce(data, "--table", "5")
    commands = [scan(data), reproduce(data, "--table", "5", "--figure", "13")]
    first, second = start_two(both, "work", commands)
    left, dead = start_two(killed, "die", [table])
    run_alone(alone, commands, monkeypatch)
    out, err = first.communicate(timeout=120)
    assert first.returncode == 0, err
    assert "6 pairs, profile in heads.safetensors" in out
    out, err = second.communicate(timeout=60)
    assert (second.returncode, out) == (0, ""), err
    assert list(both.rglob("mmrel-real.1.jsonl"))  # the second did its share
    assert list(both.rglob("answers-1.jsonl"))
    same_results(alone, both)
    profiles = [ARSProfile.load(folder / "heads.safetensors") for folder in (alone, both)]
    assert torch.equal(profiles[0].per_pair, profiles[1].per_pair)
    assert profiles[0].about == profiles[1].about
    _, err = left.communicate(timeout=120)
    assert left.returncode == 2, err
    assert "process 1 of 2 gave no sign of life for 5 seconds" in err
    dead.communicate(timeout=10)
    assert dead.returncode == 9
    run_alone(killed, [table], monkeypatch)  # takes it up
    same_results(killed, alone)
