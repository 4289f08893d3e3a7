"""Kills, fuzzing and malformed inputs, repeated: what was tried, and what survived.

    python -m tests.torture [--seed 1] [--kills 6]

Not part of the tests: it takes up to half an hour. Survived means: the same bytes after a kill, and one
sentence (ValueError, or OSError with the file's name) for every malformed input.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from rich.console import Console

from rvelens.tables import Table
from tests.torture import fuzz, interruptions, pictures


def main() -> int:
    """Run every area; 1 if something did not survive."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=6)
    given = parser.parse_args()
    areas = [*fuzz.AREAS, *pictures.AREAS, *interruptions.areas(given.kills)]
    rows, lost, console = [], [], Console()
    for name, run in areas:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            failures, tried = run(Path(folder), random.Random(given.seed))
        rows.append((name, tried, tried - len(failures), f"{time.monotonic() - start:.0f} s"))
        lost += [f"{name}: {failure}" for failure in failures]
        console.print(*map(str, rows[-1]), markup=False)
    console.print(Table("", ("area", "tried", "survived", "time"), rows))
    for line in lost[:40]:
        console.print(line, markup=False)
    return 1 if lost else 0


if __name__ == "__main__":
    raise SystemExit(main())
