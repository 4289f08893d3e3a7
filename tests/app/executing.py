"""Helpers for tests that run the programs of the explorer's "Copy as Python"."""

from __future__ import annotations


def executed(code, folder, monkeypatch):
    """The names of a program that was run in a folder."""
    monkeypatch.chdir(folder)
    names = {}
    exec(compile(code, "page", "exec"), names)
    return names
