"""`python -m rvelens`, and the command `rvelens`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it without a word, also while libraries are loaded."""
    try:
        from rvelens.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
