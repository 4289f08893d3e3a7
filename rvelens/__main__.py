"""`python -m rvelens`."""

from __future__ import annotations

from rvelens.cli import main

if __name__ == "__main__":
    main()
