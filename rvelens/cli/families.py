"""`rvelens families`."""

from __future__ import annotations

from typing import Any

from rvelens.cli.common import Json, emit_json, out
from rvelens.families import FAMILIES, Family
from rvelens.tables import Table


def families(json: Json = False) -> None:
    """List the model families and what the package's tests verify on each."""
    rows = [_row(family) for family in FAMILIES.values()]
    if json:
        emit_json(rows)
        return
    checks = list(dict.fromkeys(check for row in rows for check in row["verified"]))
    numbers = {check: str(n) for n, check in enumerate(checks, start=1)}
    cells = [
        (
            row["name"],
            " ".join(row["prompts"]),
            str(row["alpha"]),
            "".join(n if check in row["verified"] else "-" for check, n in numbers.items()),
            row["note"],
        )
        for row in rows
    ]
    console = out()
    console.print(Table("", ("family", "prompts", "alpha", "verified", "note"), cells))
    legend = ", ".join(f"{n} {check}" for check, n in numbers.items())
    console.print(f"\nverified on small random models: {legend}", highlight=False)


def _row(family: Family) -> dict[str, Any]:
    return {
        "name": family.name,
        "model_types": list(family.model_types),
        "prompts": sorted({"chat", *family.prompts}),
        "alpha": family.alpha,
        "verified": list(family.verified),
        "note": family.note,
    }
