"""What a family knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rvelens.tokens.grid import ImageGrid, VideoGrid

GridOf = Callable[[Any, Any, tuple[int, int], int], ImageGrid | None]
VideoGridOf = Callable[[Any, Mapping[str, Any], int], VideoGrid | None]


# What tests/families check; a test holds each family's `verified` against what is in fact run.
CORE_CHECKS = (
    "identical to SDPA",
    "RVE = reference",
    "generation",
    "beams",
    "ARS = reference",
    "all rows = eager",
    "token map",
)
ALL_CHECKS = (*CORE_CHECKS, "grid")


def no_grid(config: Any, processor: Any, size: tuple[int, int], n_tokens: int) -> ImageGrid | None:
    """For models whose image tokens have no place in the image."""
    return None


def no_video(config: Any, inputs: Mapping[str, Any], video: int) -> VideoGrid | None:
    """For models that read no videos, or whose frames are images to them."""
    return None


@dataclass(frozen=True)
class Family:
    """One kind of vision-language model.

    Attributes:
        name: as in `rvelens families` and `HookedLVLM.from_pretrained(family=...)`.
        model_types: `config.model_type` of the configurations that belong to it.
        prompts: templates by preset name, with "{image}" and "{question}"; "chat" is what serves
            where the processor has no chat template of its own.
        alpha: default selection ratio of RVE (paper, Section 4), 0.05 where the paper is silent.
        grid: `(config, processor, (width, height) of the image, n_tokens)` to its patch grid, None
            where image tokens have no place in the image.
        video_grid: `(config, inputs, number of the video)` to its grid, from the model's inputs.
        refuse: reason why a configuration cannot be hooked exactly, or None.
        image_text: what stands for "{image}" in a template; None for the processor's image token,
            "" where the processor puts the image tokens before the text by itself.
        note: one line for `rvelens families`.
        replays: a prompt run in parts, from a cache, equals a whole forward, so that
            `rvelens.model.prefix` and `rvelens.model.replay` may share its start. Not so where
            every token of a prompt sees the last one, positions depend on the whole prompt, layers
            forget old keys, or a forward wants its pixels each time. Of each family here that says
            so, tests verify it.
        verified: what the package's tests verify on a small random model of each configuration.
    """

    name: str
    model_types: tuple[str, ...]
    prompts: Mapping[str, str] = field(default_factory=dict, repr=False)
    alpha: float = 0.05
    grid: GridOf = field(default=no_grid, repr=False)
    video_grid: VideoGridOf = field(default=no_video, repr=False)
    refuse: Callable[[Any], str | None] = field(default=lambda config: None, repr=False)
    image_text: str | None = None
    note: str = ""
    replays: bool = False
    verified: tuple[str, ...] = field(default=(), repr=False)

    def refuse_if_inexact(self, config: Any) -> None:
        """Raise ValueError, with the reason, for a configuration that cannot be hooked exactly."""
        reason = self.refuse(config) or _inexact_decoder(config.get_text_config())
        if reason:
            raise ValueError(
                f"{config.model_type} ({self.name}) cannot be hooked exactly, since {reason}: "
                "expected a decoder with plain softmax attention; choose a model of `rvelens "
                "families`."
            )


def _inexact_decoder(text_config: Any) -> str | None:
    """Reasons that hold for a decoder in any family."""
    if getattr(text_config, "is_encoder_decoder", False):
        return f"its language model {text_config.model_type} is an encoder-decoder"
    if getattr(text_config, "attn_logit_softcapping", None):
        return (
            f"its language model {text_config.model_type} caps attention scores with tanh, which "
            "SDPA cannot compute"
        )
    if text_config.model_type == "gpt_oss":
        return "its language model gpt_oss has attention sinks"
    return None
