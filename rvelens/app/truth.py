"""What is true of a drawn scene that a person asks about."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageChops

from rvelens.app.shared import scenes
from rvelens.tokens.grid import Box


@dataclass(frozen=True)
class Truth:
    """A drawn scene's truth.

    Attributes:
        scene: its number among `scenes()`.
        answer: of the scene's own question; None where another question is asked.
        boxes: where one must look for it, in pixels: the body part that the verb needs.
    """

    scene: int
    answer: bool | None
    boxes: tuple[Box, ...]


def truth_of(image: Image.Image, question: str) -> Truth | None:
    """The truth of a picture that is one of the drawn scenes; None for any other picture."""
    for number, scene in enumerate(scenes()):
        if _same(scene.image, image):
            own = question.strip() == scene.text
            return Truth(number, scene.answer if own else None, scene.regions["verb"])
    return None


def _same(picture: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures have the same pixels."""
    if picture.size != other.size:
        return False
    return ImageChops.difference(picture.convert("RGB"), other.convert("RGB")).getbbox() is None
