"""Files are replaced whole or not at all, whoever writes at the same time and whatever fails."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import stat
import sys
from pathlib import Path

import pytest

from rvelens.files import atomic as files
from rvelens.files import paths

PROCESSES, TIMES = 6, 40


def _replace(path: Path, number: int) -> None:
    for n in range(TIMES):
        files.write_json(path, {"writer": number, "time": n, "filler": [number] * 20_000})


def test_a_reader_never_sees_half_a_file_while_many_processes_write(tmp_path):
    path = tmp_path / "report.json"
    files.write_json(path, {"writer": -1, "filler": [-1] * 20_000})
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    writers = [context.Process(target=_replace, args=(path, n)) for n in range(PROCESSES)]
    for writer in writers:
        writer.start()
    reads = 0
    while any(writer.is_alive() for writer in writers):
        report = json.loads(path.read_text())
        assert set(report["filler"]) == {report["writer"]}
        reads += 1
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * PROCESSES
    assert reads > 10
    assert os.listdir(tmp_path) == ["report.json"]


def _full(file, data):
    file.write(data[: len(data) // 2])
    file.flush()
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    files.write_json(path, "old")
    monkeypatch.setattr(files, "_write", _full)
    for write in (files.write_json, files.write_text):
        with pytest.raises(OSError, match=r"No space left on device: '.*report\.json'$") as caught:
            write(path, "new")
        assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == ["report.json"]
    assert files.read_json(path) == "old"
    with pytest.raises(OSError, match=r"No space left on device: '.*lines\.jsonl'$"):
        files.append_lines(tmp_path / "lines.jsonl", [1, 2])


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interruption_leaves_no_scratch_file(tmp_path, monkeypatch, error):
    def interrupted(file, data):
        raise error

    monkeypatch.setattr(files, "_write", interrupted)
    with pytest.raises(error):
        files.write_text(tmp_path / "a.txt", "new")
    assert not os.listdir(tmp_path)


def test_a_folder_that_is_not_there_names_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: '.*none/a\.txt'"):
        files.write_text(tmp_path / "none" / "a.txt", "")


def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    for path in (tmp_path, Path("/dev/null")):
        with pytest.raises(
            ValueError, match=rf"{path} is not a regular file: expected .*; choose another\."
        ):
            files.write_text(path, "")


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path):
    elsewhere = tmp_path / "elsewhere.txt"
    elsewhere.write_text("mine")
    (tmp_path / "link.txt").symlink_to(elsewhere)
    files.write_text(tmp_path / "link.txt", "new")
    assert elsewhere.read_text() == "mine"
    assert not (tmp_path / "link.txt").is_symlink()


def test_a_scratch_name_that_is_taken_is_not_written_through(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere.txt"
    elsewhere.write_text("mine")
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: "0" * 2 * n)
    (tmp_path / f".{'0' * 16}.partial").symlink_to(elsewhere)
    with pytest.raises(FileExistsError, match=r"a\.txt"):
        files.write_text(tmp_path / "a.txt", "new")
    assert elsewhere.read_text() == "mine"


def test_permissions_are_those_of_the_file_before_or_of_the_user(tmp_path):
    private, new = tmp_path / "private.txt", tmp_path / "new.txt"
    private.touch(0o600)
    for path in (private, new):
        files.write_text(path, "")
    (tmp_path / "plain.txt").touch()
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (private, new, tmp_path / "plain.txt")]
    assert modes[0] == 0o600
    assert modes[1] == modes[2]


def test_numbers_that_json_has_not_are_refused_before_anything_is_written(tmp_path):
    for write in (files.write_json, files.append_lines):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write(tmp_path / "a.json", [float("nan")])
    assert not os.listdir(tmp_path)


def test_torn_last_lines_are_dropped_cut_or_ended(tmp_path):
    path = tmp_path / "lines.jsonl"
    assert files.torn_line(path) == b""
    files.append_lines(path, [{"a": "é\u2028"}, 2])
    whole = path.read_bytes()
    assert [line.value() for line in files.read_lines(path, drop_torn=True)] == [
        {"a": "é\u2028"},
        2,
    ]
    assert files.read_lines(path)[-1].is_blank
    path.write_bytes(whole + b'{"a": "\xc3')
    assert files.torn_line(path) == b'{"a": "\xc3'
    assert [str(line) for line in files.read_lines(path)] == [f"{path} line {n}" for n in (1, 2, 3)]
    assert len(files.read_lines(path, drop_torn=True)) == 2
    files.cut_torn_line(path)
    assert path.read_bytes() == whole
    path.write_bytes(whole + b"3")
    files.end_last_line(path)
    assert path.read_bytes() == whole + b"3\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name .* at column 2$"),
        ("[1,\n2", "Expecting ',' delimiter at line 2 column 2$"),
        (b"\xff", "^not UTF-8 text$"),
        ("[" * 100_000, "^nested too deeply$"),
        ("1" * 5000, "^a number that is too long$"),
    ],
)
def test_what_is_no_json_says_why(tmp_path, text, reason):
    with pytest.raises(ValueError, match=reason):
        files.parse_json(text)
    path = tmp_path / "a.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"a\.json is not JSON \(.*\): expected .*; restore it\.$"):
        files.read_json(path)


def test_a_byte_order_mark_is_no_part_of_the_text():
    assert files.parse_json("\ufeff[1]".encode()) == [1]


def _hold(lock: Path, held, release) -> None:
    with files.locked(lock, "a folder"):
        held.set()
        release.wait()


def test_a_lock_refuses_or_waits(tmp_path):
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    held, release = context.Event(), context.Event()
    lock = tmp_path / "run" / "answers.lock"
    holder = context.Process(target=_hold, args=(lock, held, release))
    holder.start()
    held.wait()
    with (
        pytest.raises(
            ValueError, match=r"^RUN is being written by another run: expected one at a time; wait"
        ),
        files.locked(lock, "RUN"),
    ):
        pass
    release.set()
    with files.locked(lock, "RUN", wait=True):
        pass
    holder.join()


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/passwd", "..", "", "..\\a", "a\0b"])
def test_a_name_never_leads_out_of_its_folder(tmp_path, name):
    with pytest.raises(
        ValueError, match=r"does not name a file below .*: expected a relative path"
    ):
        paths.path_below(tmp_path, name)


def test_a_link_never_leads_out_of_its_folder(tmp_path):
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    (folder / "real").mkdir(parents=True)
    elsewhere.mkdir()
    (folder / "out").symlink_to(elsewhere)
    (folder / "in").symlink_to(folder / "real")
    assert paths.path_below(folder, "in/a.png") == folder / "in" / "a.png"
    assert paths.path_below(folder, "a..b/c.png") == folder / "a..b" / "c.png"
    with pytest.raises(ValueError, match="is a link to a file outside of"):
        paths.path_below(folder, "out/a.png")


def test_a_file_of_somebody_else_is_refused(tmp_path):
    report, notes = tmp_path / "report.json", tmp_path / "report.md"
    paths.refuse_foreign([report, notes], report, "methods")
    notes.write_text("mine")
    with pytest.raises(
        ValueError, match=r"report\.md exists and was not written by an earlier run"
    ):
        paths.refuse_foreign([report, notes], report, "methods")
    for text in ("mine", "[]", '{"other": 1}'):
        report.write_text(text)
        with pytest.raises(ValueError, match=r"report\.json exists"):
            paths.refuse_foreign([report, notes], report, "methods")
    report.write_text('{"methods": {}}')
    paths.refuse_foreign([report, notes], report, "methods")
    notes.unlink()
    notes.symlink_to(tmp_path / "nowhere")
    report.unlink()
    with pytest.raises(ValueError, match=r"report\.md exists"):
        paths.refuse_foreign([report, notes], report, "methods")


def test_a_folder_below_a_file_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    paths.check_new_folder(tmp_path / "new" / "below")
    with pytest.raises(ValueError, match="file is a file: expected a folder, new or empty, for"):
        paths.check_new_folder(tmp_path / "file" / "below")


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "a.lock").symlink_to(tmp_path / "victim")
    with (
        pytest.raises(ValueError, match=r"a\.lock is a link"),
        files.locked(tmp_path / "a.lock", "a"),
    ):
        pass
    assert not (tmp_path / "victim").exists()
