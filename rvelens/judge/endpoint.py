"""A chat model behind an OpenAI-compatible endpoint: one prompt in, its reply or a reason out."""

from __future__ import annotations

import base64
import contextlib
import io
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from rvelens.files.atomic import write_json
from rvelens.files.stored import Stored, read_stored


@dataclass(frozen=True)
class Endpoint:
    """A model and how to reach it. The key is read from OPENAI_API_KEY and kept nowhere else.

    Attributes:
        model: name of the model, as the endpoint calls it.
        base_url: of an OpenAI-compatible endpoint; None for OPENAI_BASE_URL, else OpenAI's own.
        temperature: sent only if given; models such as gpt-5-mini refuse it.
        timeout: seconds that one request may take.
        max_retries: further tries, with exponential back-off, after a time-out, a broken
            connection, or one of the statuses 408, 409, 429 and 500 or above.
    """

    model: str
    base_url: str | None = None
    temperature: float | None = None
    timeout: float = 120.0
    max_retries: int = 5

    @property
    def address(self) -> str:
        """The base URL that is used: as given, of the environment, or OpenAI's own."""
        return address_of(self.base_url)

    def __post_init__(self) -> None:
        """Refuse what no request can be sent with, before anything is loaded or sent."""
        if self.temperature is not None and not 0 <= self.temperature < math.inf:
            raise ValueError(
                f"temperature={self.temperature}: expected 0 or more; pass a number such as 0.7."
            )
        if not 0 < self.timeout < math.inf:
            raise ValueError(f"timeout={self.timeout}: expected more than 0 seconds; pass another.")
        if not self.address.startswith(("http://", "https://")):
            raise ValueError(
                "the base URL has no http:// or https://: expected a complete URL; correct it."
            )


@dataclass(frozen=True)
class Reply:
    """What a model said, and why it stopped: "stop", or "length" where it was cut off."""

    text: str
    finish_reason: str


class StoredText(Stored):
    """A reply in a file of a cache."""

    text: str
    finish_reason: str


class StoredReply(Stored):
    """A file of a cache of replies."""

    reply: StoredText


# Called with a prompt, and by keyword with `image` (a URL, see `data_url`) and `schema` (a JSON schema
# that the reply is to follow).
Ask = Callable[..., Reply | str]


@contextlib.contextmanager
def connect(endpoint: Endpoint) -> Iterator[Ask]:
    """A function from a prompt to the model's reply, or to the reason why there is none.

    It may be called from any thread, and raises nothing when a request fails.

    Raises:
        ValueError: no openai package, no key, or a base URL that is none.
    """
    try:
        import openai
    except ImportError as error:
        raise ValueError(
            "an endpoint needs the package openai, which is not installed: expected the extra "
            "[judge]; run pip install 'rvelens[judge]'."
        ) from error
    key = os.environ.get("OPENAI_API_KEY", "")
    if not key:
        raise ValueError(
            "OPENAI_API_KEY is not set: expected the endpoint's key; export it (any text, if the "
            "endpoint needs none)."
        )
    base_url = endpoint.address
    options: dict[str, Any] = {"model": endpoint.model}
    if endpoint.temperature is not None:
        options["temperature"] = endpoint.temperature

    def ask(
        prompt: str, *, image: str | None = None, schema: Mapping[str, Any] | None = None
    ) -> Reply | str:
        try:
            completion = client.chat.completions.create(
                messages=[{"role": "user", "content": _content(prompt, image)}],
                **options,
                **_structured(schema),
            )
            choice = completion.choices[0]
            text = choice.message.content or choice.message.refusal or ""
            return Reply(_without(key, text), str(choice.finish_reason))
        except openai.OpenAIError as error:
            reason = f"{type(error).__name__} of {shown(base_url)}: {error}"
        except (ValueError, TypeError, AttributeError, IndexError) as error:
            reason = f"what came back from {shown(base_url)} is no chat completion ({error})"
        return " ".join(_without(key, reason).split())[:300]

    with openai.OpenAI(
        api_key=key,
        base_url=base_url,
        timeout=endpoint.timeout,
        max_retries=endpoint.max_retries,
    ) as client:
        yield ask


OPENAI = "https://api.openai.com/v1"


def address_of(base_url: str | None) -> str:
    """The endpoint's address: as given, else OPENAI_BASE_URL, else OpenAI's own."""
    return base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI


def shown(address: str) -> str:
    """An address without what may hold a secret: a user, a password, a query."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _content(prompt: str, image: str | None) -> Any:
    if image is None:
        return prompt
    shown = {"type": "image_url", "image_url": {"url": image}}
    return [shown, {"type": "text", "text": prompt}]


def _structured(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    if schema is None:
        return {}
    named = {"name": "answer", "strict": True, "schema": dict(schema)}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def data_url(image: Image.Image, longest: int = 768) -> str:
    """An RGB image as a JPEG in a data URL, scaled down to `longest` pixels on its longer side."""
    small = image.copy()
    small.thumbnail((longest, longest))
    file = io.BytesIO()
    small.save(file, format="JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def cached(path: Path | None, ask: Callable[[], Reply | str], **about: Any) -> Reply | str:
    """The reply that a file keeps, or that of `ask`, which is then kept with what it is `about`.

    Reasons of failed requests are not kept, and a damaged file is replaced; None keeps nothing.
    """
    if path is None:
        return ask()
    try:
        stored = read_stored(path, StoredReply, "the reply of an endpoint").reply
        return Reply(stored.text, stored.finish_reason)
    except (OSError, ValueError):
        path.parent.mkdir(parents=True, exist_ok=True)
        reply = ask()
    if isinstance(reply, Reply):
        write_json(path, {"reply": asdict(reply), **about})
    return reply


def _without(key: str, text: str) -> str:
    """Some endpoints repeat the key that they refuse; a placeholder such as "x" is no secret."""
    return text.replace(key, "[key]") if len(key) >= 8 else text
