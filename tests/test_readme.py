"""The README's Python runs as it stands, from top to bottom, and prints what the text says."""

from __future__ import annotations

import re
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


def test_its_blocks_run_one_after_the_other(capsys):
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL):
        exec(block, names)
    assert "This prints `['Yes']`, which is right, and then `['No']`." in README
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == ["plain: ['Yes']", "RVE:   ['No']"]
    assert len(printed) == 3


def test_it_is_short():
    assert len(README.split()) <= 1100
