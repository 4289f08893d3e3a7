"""Pictures that are malformed, huge, thin, or no files: each is read, or refused in one sentence."""

from __future__ import annotations

import io
import os
import random
import struct
import time
import zlib
from pathlib import Path

from PIL import Image

from rvelens.model.prompts import load_image
from tests.torture.fuzz import Area, survived

FORMATS = {
    "CMYK": ["JPEG", "TIFF"],
    "F": ["TIFF"],
    "RGB": ["PNG", "JPEG", "BMP", "GIF", "WEBP"],
}
SECONDS = 5.0  # that one picture may take


def header_only(width: int, height: int) -> bytes:
    """A PNG that claims a size, with few pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def timed(path: Path) -> str:
    """What went wrong with reading a picture, slowness included."""
    start = time.monotonic()
    what = survived(lambda: load_image(path))
    took = time.monotonic() - start
    return what or (f"took {took:.0f} s" if took > SECONDS else "")


def bytes_changed(folder: Path, draw: random.Random) -> tuple[list[str], int]:
    """Pictures of every mode and some formats, with bytes changed or cut off."""
    failures, times, path = [], 600, folder / "picture"
    for number in range(times):
        mode = draw.choice(["RGB", "L", "P", "RGBA", "1", "I;16", "CMYK", "F", "LA"])
        buffer = io.BytesIO()
        size = (draw.randrange(1, 40), draw.randrange(1, 40))
        Image.new(mode, size).save(buffer, draw.choice(FORMATS.get(mode, ["PNG", "TIFF"])))
        data = bytearray(buffer.getvalue())
        for _ in range(draw.randrange(6)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(data[: draw.randrange(len(data) + 1)] if draw.random() < 0.3 else data)
        if what := timed(path):
            failures.append(f"{number}: {mode}: {what}")
    return failures, times


def sizes(folder: Path, draw: random.Random) -> tuple[list[str], int]:
    """Headers that claim sizes of up to 2**31 pixels a side."""
    failures, times, path = [], 300, folder / "a.png"
    for number in range(times):
        width, height = (int(2 ** draw.uniform(0, 31)) for _ in range(2))
        path.write_bytes(header_only(width, height))
        if what := timed(path):
            failures.append(f"{number}: {width} x {height}: {what}")
    return failures, times


def no_files(folder: Path, draw: random.Random) -> tuple[list[str], int]:
    """Pipes, devices, folders, links that go round, names that are none."""
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    (folder / "round.png").symlink_to(folder / "round.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "empty.png").touch()
    names = [
        "pipe.png",
        "folder.png",
        "round.png",
        "device.png",
        "empty.png",
        "a\0b",
        "x" * 5000,
        "gone",
    ]
    failures = [f"{name[:20]!r}: {what}" for name in names if (what := timed(folder / name))]
    return failures, len(names)


AREAS: list[tuple[str, Area]] = [
    ("pictures with changed bytes", bytes_changed),
    ("pictures that claim a size", sizes),
    ("what is no file", no_files),
]
