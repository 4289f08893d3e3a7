"""A chat model behind an OpenAI-compatible endpoint: one prompt in, its reply or a reason out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


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


@dataclass(frozen=True)
class Reply:
    """What a model said, and why it stopped: "stop", or "length" where it was cut off."""

    text: str
    finish_reason: str


Ask = Callable[[str], Reply | str]


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
            "the judge needs the package openai: expected it beside rvelens; "
            "run pip install 'rvelens[judge]'."
        ) from error
    key = os.environ.get("OPENAI_API_KEY", "")
    if not key:
        raise ValueError(
            "no OPENAI_API_KEY in the environment: expected the endpoint's key there; export it (any "
            "text serves an endpoint that asks for none)."
        )
    base_url = endpoint.base_url or os.environ.get("OPENAI_BASE_URL") or None
    if base_url is not None and not base_url.startswith(("http://", "https://")):
        raise ValueError(
            "the base URL has no http:// or https://: expected a whole URL; correct it."
        )
    options: dict[str, Any] = {"model": endpoint.model}
    if endpoint.temperature is not None:
        options["temperature"] = endpoint.temperature

    def ask(prompt: str) -> Reply | str:
        try:
            completion = client.chat.completions.create(
                messages=[{"role": "user", "content": prompt}], **options
            )
            choice = completion.choices[0]
            text = choice.message.content or choice.message.refusal or ""
            return Reply(_without(key, text), str(choice.finish_reason))
        except openai.OpenAIError as error:
            reason = f"{type(error).__name__}: {error}"
        except (ValueError, TypeError, AttributeError, IndexError) as error:
            reason = f"what came back is no chat completion ({error})"
        return " ".join(_without(key, reason).split())[:300]

    with openai.OpenAI(
        api_key=key,
        base_url=base_url,
        timeout=endpoint.timeout,
        max_retries=endpoint.max_retries,
    ) as client:
        yield ask


def _without(key: str, text: str) -> str:
    """Some endpoints repeat the key that they refuse; a placeholder such as "x" is no secret."""
    return text.replace(key, "[key]") if len(key) >= 8 else text
