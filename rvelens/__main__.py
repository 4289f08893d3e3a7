"""`rvelens`, and `python -m rvelens`."""

from __future__ import annotations

import sys


def run() -> None:
    """Run the command line; Ctrl-C ends it without a word, also while it still loads."""
    try:
        from rvelens.cli import main

        main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    run()
