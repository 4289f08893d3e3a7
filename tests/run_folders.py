"""Folders of runs for tests that read them."""

from __future__ import annotations

from rvelens.files.atomic import write_json


def name_answers(folder, *names):
    """Write the manifest of a run that names files of answers."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / "manifest.json",
        {
            "format": "rvelens-run-2",
            "model": {"name": "m", "family": "llava", "dtype": "float32", "weights": "0" * 64},
            "benchmark": {"name": folder.parent.name},
            "method": {"name": folder.name, "parameters": {}},
            "decoding": {
                "prompt": "chat", "suffix": "", "max_new_tokens": 3, "seed": 55,
                "example": "{question}",
            },
            "versions": {},
            "answers": list(names) or ["answers.jsonl"],
        },
    )  # fmt: skip
