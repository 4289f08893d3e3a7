"""Conversations: messages with several turns and images, as one prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import transformers
from PIL import Image
from transformers import TextStreamer

from rvelens.families import Family
from rvelens.files.wording import counted
from rvelens.model.chat_template import from_template
from rvelens.model.limits import check_questions
from rvelens.model.prompts import batch_of, check_processor, image_text, load_image, render_prompt

_ROLES = ("system", "user", "assistant")
Messages = Sequence[Mapping[str, Any]]


class Pieces(TextStreamer):
    """Passes on the text of an answer during generation, in pieces that end at whole words."""

    def __init__(self, tokenizer: Any, give: Callable[[str], object]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._give = give

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """A piece of text that later tokens do not change."""
        if text:
            self._give(text)


def prepare_chat(family: Family, processor: Any, messages: Messages) -> transformers.BatchFeature:
    """A batch of one prompt for a conversation. The prompt ends where the answer begins.

    Args:
        family: if the processor has no chat template, the family's prompt preset is used for one
            question about one image.
        processor: the model's Hugging Face processor.
        messages: as `HookedLVLM.chat` takes them.

    Raises:
        ValueError: messages of another form, or a conversation that the family has no prompt for.
    """
    check_processor(processor)
    turns, images = read_messages(messages)
    texts = [part["text"] for turn in turns for part in turn["content"] if part["type"] == "text"]
    check_questions(texts, processor)
    _check_images(family, images)
    text = _text_of(family, processor, turns, len(images))
    slot = image_text(family, processor)
    if slot and text.count(slot) != len(images):
        raise ValueError(
            f"the chat template of {family.name} wrote {text.count(slot)} image tokens for "
            f"{counted(len(images), 'image')}: expected one for each; ask about fewer images."
        )
    return batch_of(processor, [text], [images])


def read_messages(messages: Messages) -> tuple[list[dict[str, Any]], list[Image.Image]]:
    """Messages as chat templates take them, with slots for images, and the images in their order.

    Raises:
        ValueError: something that is not a message, an unknown kind of content, or a last message that
            is not of the user.
    """
    if not messages or isinstance(messages, str | Mapping):
        raise ValueError(
            'no list of messages: expected [{"role": "user", "content": ...}, ...]; pass one.'
        )
    images: list[Image.Image] = []
    turns = [_turn(n, message, images) for n, message in enumerate(messages)]
    if turns[-1]["role"] != "user":
        raise ValueError(
            f"the last message is of the {turns[-1]['role']}: expected one of the user, which is "
            "answered; add it."
        )
    return turns, images


def _turn(n: int, message: Any, images: list[Image.Image]) -> dict[str, Any]:
    role = message.get("role") if isinstance(message, Mapping) else None
    if role not in _ROLES or "content" not in message:
        raise ValueError(
            f"message {n} has the role {role!r}: expected a mapping with `role`, one of "
            f"{', '.join(_ROLES)}, and `content`; correct it."
        )
    content = message["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return {"role": role, "content": [_part(n, part, images) for part in parts]}


def _part(n: int, part: Any, images: list[Image.Image]) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind == "image" and "image" in part:
        images.append(load_image(part["image"]))
        return {"type": "image"}
    raise ValueError(
        f"message {n} has a part of the type {kind!r}: expected "
        '{"type": "text", "text": ...} or {"type": "image", "image": ...}, with a path, a picture, an '
        "array or an open file; nothing is downloaded."
    )


def _check_images(family: Family, images: Sequence[Image.Image]) -> None:
    if not images:
        raise ValueError(
            'no message has an image: expected a part {"type": "image", "image": ...}; add one.'
        )
    if family.image_text == "" and len(images) > 1:
        raise ValueError(
            f"{counted(len(images), 'image')} for {family.name}, whose processor puts one "
            "image before the text: "
            "expected one; ask about each by itself."
        )


def _text_of(
    family: Family, processor: Any, turns: Sequence[Mapping[str, Any]], n_images: int
) -> str:
    """The prompt, by the processor's chat template, or by the preset for one question and image."""
    if getattr(processor, "chat_template", None):
        return from_template(processor, [dict(turn) for turn in turns])
    if len(turns) > 1 or n_images > 1:
        raise ValueError(
            f"{counted(len(turns), 'message')} with {counted(n_images, 'image')}, and the "
            f"processor of {family.name} has no "
            "chat template: expected one message with one image; set processor.chat_template."
        )
    words = [part["text"] for part in turns[0]["content"] if part["type"] == "text"]
    return render_prompt(family, processor, "\n".join(words), "chat")
