"""MMRel: relations in real and generated images, yes/no and open-ended (Nie et al. 2024)."""

from __future__ import annotations

from pathlib import Path

from rvelens.benchmarks import rules
from rvelens.benchmarks.base import Benchmark, Item
from rvelens.benchmarks.files import Folder, photograph, words
from rvelens.benchmarks.rows import Row, collect

# What the names of files and folders call things.
DOMAINS = {"real": {"real", "vg"}, "dalle": {"dall", "dalle"}, "sdxl": {"sdxl", "spec"}}
_RELATIONS = {"action": {"action"}, "spatial": {"spatial"}, "comparative": {"comparative", "size"}}
OPEN = {"open", "generative"}
# Sets of their own: questions against common sense, and what models are tuned on.
LEFT_OUT = {"adversarial", "tuning", "finetuning"}


def load_mmrel(part: str, data: Path | None, *, relation: str = "all") -> Benchmark:
    """One part of MMRel: "real" and "dalle" are yes/no questions, "open" is open-ended.

    It reads the .json and .jsonl files whose path below `data` has a word of MMRel: real or VG, Dall-E,
    SDXL or SPEC, or MMRel itself. The words of the path and of the row's image, such as
    "Dall-E_generated/action/", also give the kind of image (real or Dall-E) and the relation (action,
    spatial, comparative). A file is open-ended if its path has the word open or generative. Paths with
    adversarial or tuning are other sets. A row is {"question_id": "fmjdezdha6v12u3", "image": "58.jpg",
    "text": ..., "label": "yes"}. The label of an open-ended question is the reference text. Images are
    found by name anywhere below `data`. If several have the same name, the image whose folders share
    the most words with the path of the questions is used.

    Args:
        part: "real", "dalle" or "open".
        data: the folder.
        relation: "all", or only "action" or "spatial".

    Raises:
        ValueError: no such folder, no questions, a file that cannot be read, an unknown relation.
    """
    name = f"mmrel-{part}"
    folder = Folder.scan(data, name)
    paths = _annotations(folder, part)
    rows = [row for path in paths for row in folder.read(path)]
    questions, problems = collect(rows, lambda row: _item(folder, row, part))
    if not questions:
        raise ValueError(
            f"no questions of {name} below {data}: expected .json or .jsonl files whose path has "
            "the words real or Dall-E, action or spatial, and open for open-ended ones; put the "
            "published files there."
        )
    whole = Benchmark(
        name,
        questions,
        problems,
        rules.judged if part == "open" else rules.mmrel,
        folder.digests(paths),
        positives=() if part == "open" else ("yes",),
    )
    return whole.of_relation(relation)


def _annotations(folder: Folder, part: str) -> list[Path]:
    """The files that may hold questions of a part, by the words of their paths."""
    domain_words = {"mmrel"}.union(*DOMAINS.values())
    chosen = []
    for path in sorted(path for paths in folder.by_name.values() for path in paths):
        path_words = words(folder.relative(path))
        if (
            path.suffix not in (".json", ".jsonl")
            or not path_words & domain_words
            or path_words & LEFT_OUT
        ):
            continue
        if bool(path_words & OPEN) == (part == "open") and (
            part == "open" or _named(path_words, DOMAINS) in ("", part)
        ):
            chosen.append(path)
    return chosen


def _named(path_words: set[str], kinds: dict[str, set[str]]) -> str:
    """The first kind that one of the words tells; "" if none does."""
    return next((kind for kind, names in kinds.items() if path_words & names), "")


def _item(folder: Folder, row: Row, part: str) -> Item | None:
    """The question of a row, or None if its image is of another part."""
    name = row.text("image")
    hints = words(f"{folder.relative(row.path)}/{name}")
    domain, relation = _named(hints, DOMAINS), _named(hints, _RELATIONS)
    if part != "open" and domain != part:
        return None

    def fits(path_words: set[str]) -> bool:
        """Not of another part, whose pictures have the same numbers."""
        kinds = [
            (_named(path_words, kinds), _named(hints, kinds)) for kinds in (DOMAINS, _RELATIONS)
        ]
        return all(
            path_kind == hint_kind for path_kind, hint_kind in kinds if path_kind and hint_kind
        )

    picture = folder.picture(name, hints, fits)
    # The key has the folders: action/ and spatial/ number their images alike.
    key = folder.relative(picture)
    is_open = part == "open"
    return photograph(
        picture,
        id=row.id("question_id", "id"),
        image=key,
        source=key,
        text=row.text("text", "question"),
        truth=None if is_open else row.truth("label", "answer"),
        reference=row.text("label", "answer") if is_open else None,
        group="-".join(word for word in ((domain if is_open else ""), relation) if word),
    )
