"""Draws scenes of 96x96 pixels: two people, their actions, clutter and noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from rvelens.benchmarks.action_scenes.world import OBJECTS, PART_OF, SIZE, VERBS
from rvelens.files.arguments import refuse_wrong_types
from rvelens.tokens.grid import Box

_Point = tuple[float, float]
SKIN = (236, 188, 150)
CLOTHES = {"man": (52, 84, 168), "woman": (196, 52, 96), "child": (64, 148, 72)}
HAIR = {"man": (60, 40, 30), "woman": (120, 60, 20), "child": (220, 180, 60)}
HEIGHT = {"man": 54, "woman": 50, "child": 42}
TINT = {
    "ball": (240, 140, 20),
    "board": (120, 72, 200),
    "cake": (250, 220, 235),
    "cup": (30, 190, 200),
    "basket": (170, 120, 50),
    "box": (140, 140, 150),
    "apple": (215, 30, 30),
    "drum": (230, 60, 200),
    "tire": (30, 30, 36),
    "log": (110, 70, 35),
}


@dataclass(frozen=True)
class Person:
    """One person and their action.

    Attributes:
        kind: "man", "woman" or "child".
        verb, object: the person's action, and its object.
        box: the whole person; parts: the place of each body part; contact: object at its part.
        visibility: 1 for a clear object, close to 0 for an object that has nearly faded.
    """

    kind: str
    verb: str
    object: str
    box: Box
    parts: dict[str, Box]
    contact: Box
    visibility: float


@refuse_wrong_types
@dataclass(frozen=True)
class Difficulty:
    """How hard a scene is to see; by default as in the test split.

    Attributes:
        visibility: the range of the remaining colour strength of an object that a person uses.
        noise: the standard deviation of the noise, in levels of 0 to 255.
        copies: the maximum number of objects that nobody uses.
        occluders: the maximum number of strokes across the scene.
    """

    visibility: tuple[float, float] = (0.15, 1.0)
    noise: float = 14.0
    copies: int = 3
    occluders: int = 2


CLEAR = Difficulty((0.9, 1.0), 4.0, 1, 0)
FAINT = Difficulty((0.0, 0.5), 20.0, 3, 2)


@dataclass(frozen=True)
class Plan:
    """The people of a scene, their places and actions, before anything is drawn."""

    kind: str
    verb: str
    object: str


def paint(
    rng: np.random.Generator, plans: tuple[Plan, Plan], difficulty: Difficulty
) -> tuple[Image.Image, tuple[Person, ...], list[tuple[str, Box]]]:
    """Draw a scene; returns the image, its people, and the copies of objects that nobody uses."""
    canvas = _background(rng)
    copies = [_copy(rng, canvas, plans) for _ in range(int(rng.integers(0, difficulty.copies + 1)))]
    centres = (24 + rng.uniform(-4, 4), 72 + rng.uniform(-4, 4))
    people = tuple(
        _person(rng, canvas, plan, x, difficulty) for plan, x in zip(plans, centres, strict=True)
    )
    for _ in range(int(rng.integers(0, difficulty.occluders + 1))):
        _twig(rng, canvas)
    pixels = np.asarray(canvas, dtype=np.float32)
    pixels = pixels + rng.normal(0, difficulty.noise, pixels.shape).astype(np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), people, copies


def _background(rng: np.random.Generator) -> Image.Image:
    sky = np.array([196, 216, 232]) + rng.integers(-14, 15, 3)
    grass = np.array([168, 192, 140]) + rng.integers(-14, 15, 3)
    canvas = Image.new("RGB", (SIZE, SIZE), tuple(int(c) for c in sky))
    horizon = int(rng.integers(56, 76))
    ImageDraw.Draw(canvas).rectangle((0, horizon, SIZE, SIZE), fill=tuple(int(c) for c in grass))
    return canvas


def _copy(
    rng: np.random.Generator, canvas: Image.Image, plans: tuple[Plan, Plan]
) -> tuple[str, Box]:
    """A copy of an asked object, or of any, away from both people."""
    thing = str(rng.choice([plans[0].object, plans[1].object, str(rng.choice(OBJECTS))]))
    x = float(rng.choice([rng.uniform(44, 52), rng.uniform(5, 9), rng.uniform(87, 91)]))
    y = float(rng.uniform(8, 30) if rng.random() < 0.5 else rng.uniform(84, 90))
    _object(canvas, thing, (x, y), 1.0)
    return thing, _inside((x - 5, y - 5, x + 5, y + 5))


def _person(
    rng: np.random.Generator, canvas: Image.Image, plan: Plan, x: float, difficulty: Difficulty
) -> Person:
    d = ImageDraw.Draw(canvas)
    tall = HEIGHT[plan.kind]
    side = 1 if rng.random() < 0.5 else -1
    # The pose often belongs to another verb, so that only where the object is tells what is done.
    pose = plan.verb if rng.random() < 0.4 else str(rng.choice(VERBS))
    ground = 82 + rng.uniform(-3, 3) - (6 if plan.verb == "ride" else 0)
    head = (x, ground - tall + 6)
    neck, hip = head[1] + 7, ground - 0.40 * tall
    mouth = (x + side * 3, head[1] + 2)
    foot, other_foot, hand, other_hand = _limbs(pose, x, side, ground, neck, hip)
    cloth = CLOTHES[plan.kind]
    for end in (foot, other_foot):
        d.line(((x, hip), end), fill=(70, 60, 60), width=4)
        d.ellipse(_around(end, 2.6), fill=(40, 30, 30))
    if plan.kind == "woman":
        d.polygon(((x - 4, neck), (x + 4, neck), (x + 9, hip + 7), (x - 9, hip + 7)), fill=cloth)
    else:
        d.rounded_rectangle((x - 6, neck, x + 6, hip + 2), 3, fill=cloth)
    for end in (hand, other_hand):
        d.line(((x, neck + 3), end), fill=cloth, width=3)
        d.ellipse(_around(end, 2.4), fill=SKIN)
    _head(d, plan.kind, head, side)
    place = {
        "foot": (foot[0] + side * 5, foot[1] - 2),
        "under": (x, ground + 5),
        "mouth": (mouth[0] + side * 4, mouth[1] + 1),
        "hand": (hand[0] + side * 5, hand[1]),
        "head": (x, head[1] - 11),
    }
    # The other parts stay where they are, so that a "no" has a place to be looked up too.
    parts = {name: _inside(_around(point, 7.0)) for name, point in place.items()}
    visibility = float(rng.uniform(*difficulty.visibility))
    spot = place[PART_OF[plan.verb]]
    _object(canvas, plan.object, spot, visibility)
    box = _inside((x - 14, head[1] - 8, x + 14, ground + 3))
    contact = parts[PART_OF[plan.verb]]
    return Person(plan.kind, plan.verb, plan.object, box, parts, contact, visibility)


def _limbs(
    verb: str, x: float, side: int, ground: float, neck: float, hip: float
) -> tuple[_Point, _Point, _Point, _Point]:
    """Ends of the active leg, the other leg, the active arm and the other arm."""
    foot = (x + side * 8, ground - 4) if verb == "kick" else (x + side * 4, ground)
    hand = {
        "eat": (x + side * 7, neck - 2),
        "hold": (x + side * 11, neck + 8),
        "carry": (x + side * 6, neck - 15),
    }.get(verb, (x + side * 9, neck + 11))
    other_hand = (x - side * 6, neck - 15) if verb == "carry" else (x - side * 8, neck + 12)
    return foot, (x - side * 4, ground), hand, other_hand


def _head(d: ImageDraw.ImageDraw, kind: str, at: _Point, side: int) -> None:
    x, y = at
    if kind == "woman":
        d.rounded_rectangle((x - 7, y - 6, x + 7, y + 8), 4, fill=HAIR[kind])
    d.ellipse(_around(at, 6.0), fill=SKIN)
    d.pieslice((x - 6.5, y - 7, x + 6.5, y + 5), 180, 360, fill=HAIR[kind])
    d.ellipse(_around((x + side * 2.5, y), 0.9), fill=(20, 20, 20))
    d.line((x + side * 1.5, y + 3, x + side * 4.5, y + 3), fill=(170, 40, 40), width=1)


def _object(canvas: Image.Image, thing: str, at: _Point, visibility: float) -> None:
    """Draw an object at a place; below 1 its colours fade into what lies behind."""
    x0, y0 = int(at[0]) - 9, int(at[1]) - 9
    patch = canvas.crop((x0, y0, x0 + 18, y0 + 18))
    drawn = patch.copy()
    DRAWERS[thing](ImageDraw.Draw(drawn), at[0] - x0, at[1] - y0, TINT[thing])
    canvas.paste(Image.blend(patch, drawn, visibility), (x0, y0))


Color = tuple[int, int, int]
Drawer = Callable[[ImageDraw.ImageDraw, float, float, Color], None]
INK = (40, 40, 48)


def _ball(d: ImageDraw.ImageDraw, x: float, y: float, c: Color) -> None:
    d.ellipse(_around((x, y), 5.0), fill=c, outline=INK)
    d.arc((x - 5, y - 2, x + 5, y + 8), 200, 340, fill=INK)


def _board(d: ImageDraw.ImageDraw, x: float, y: float, c: Color) -> None:
    d.rounded_rectangle((x - 8, y - 3, x + 8, y), 2, fill=c, outline=INK)
    for dx in (-5, 5):
        d.ellipse(_around((x + dx, y + 2), 2.0), fill=INK)


def _cake(d: ImageDraw.ImageDraw, x: float, y: float, c: Color) -> None:
    d.rectangle((x - 5, y - 1, x + 5, y + 4), fill=c, outline=INK)
    d.line((x, y - 5, x, y - 1), fill=(230, 30, 60), width=2)


def _cup(d: ImageDraw.ImageDraw, x: float, y: float, c: Color) -> None:
    d.polygon(((x - 5, y - 5), (x + 5, y - 5), (x + 3, y + 5), (x - 3, y + 5)), fill=c, outline=INK)


def _basket(d: ImageDraw.ImageDraw, x: float, y: float, c: Color) -> None:
    d.arc((x - 5, y - 7, x + 5, y + 4), 180, 360, fill=INK)
    d.polygon(((x - 6, y - 1), (x + 6, y - 1), (x + 4, y + 5), (x - 4, y + 5)), fill=c, outline=INK)


def _box(d: ImageDraw.ImageDraw, x: float, y: float, c: Color) -> None:
    d.rectangle((x - 5, y - 5, x + 5, y + 5), fill=c, outline=INK)
    d.line((x - 5, y, x + 5, y), fill=INK)


def _apple(d: ImageDraw.ImageDraw, x: float, y: float, c: Color) -> None:
    d.ellipse(_around((x, y + 1), 4.4), fill=c, outline=INK)
    d.line((x, y - 3, x + 2, y - 6), fill=(40, 110, 40), width=2)


def _drum(d: ImageDraw.ImageDraw, x: float, y: float, c: Color) -> None:
    d.rectangle((x - 6, y - 3, x + 6, y + 4), fill=c, outline=INK)
    d.ellipse((x - 6, y - 6, x + 6, y), fill=(250, 250, 250), outline=INK)


def _tire(d: ImageDraw.ImageDraw, x: float, y: float, c: Color) -> None:
    d.ellipse(_around((x, y), 6.0), fill=c)
    d.ellipse(_around((x, y), 2.6), fill=(235, 235, 235))


def _log(d: ImageDraw.ImageDraw, x: float, y: float, c: Color) -> None:
    d.rounded_rectangle((x - 8, y - 3, x + 8, y + 3), 3, fill=c, outline=INK)
    d.ellipse((x + 3, y - 3, x + 8, y + 3), fill=(210, 170, 110), outline=INK)


DRAWERS: dict[str, Drawer] = {
    "ball": _ball,
    "board": _board,
    "cake": _cake,
    "cup": _cup,
    "basket": _basket,
    "box": _box,
    "apple": _apple,
    "drum": _drum,
    "tire": _tire,
    "log": _log,
}


def _twig(rng: np.random.Generator, canvas: Image.Image) -> None:
    """A thin stroke across the scene that may hide a detail."""
    x, y, angle = rng.uniform(0, SIZE), rng.uniform(10, 90), rng.uniform(0, math.pi)
    dx, dy = 14 * math.cos(angle), 14 * math.sin(angle)
    color = tuple(int(c) for c in rng.integers(60, 200, 3))
    ImageDraw.Draw(canvas).line((x - dx, y - dy, x + dx, y + dy), fill=color, width=2)


def _around(point: _Point, r: float) -> Box:
    return (point[0] - r, point[1] - r, point[0] + r, point[1] + r)


def _inside(box: Box) -> Box:
    """The part of a box that lies in the image."""
    x0, y0, x1, y1 = (min(max(float(side), 0.0), float(SIZE)) for side in box)
    return x0, y0, x1, y1
