"""What a forward returns: logits, a loss, both, nothing, or the residual stream before some layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rvelens.seam.arguments import Keywords
from rvelens.seam.taps import TapPoint, first_of, hidden_of

RETURN_TYPES = ("logits", "loss", "both", None)


class LogitsAndLoss(NamedTuple):
    """What a forward with `return_type="both"` returns."""

    logits: Float[Tensor, "batch query vocab"]
    loss: Float[Tensor, ""] | Float[Tensor, "batch query-1"]


class StoppedError(Exception):
    """Ends a forward before a layer; holds the residual stream there."""

    def __init__(self, residual: Float[Tensor, "batch query d_model"]) -> None:
        super().__init__()
        self.residual = residual


def check_return(return_type: Any, kwargs: Keywords) -> None:
    """Raise ValueError for an unknown return type, or one that the arguments rule out."""
    if return_type not in RETURN_TYPES:
        raise ValueError(
            f"return_type is {return_type!r}: expected 'logits', 'loss', 'both' or None; pass one of "
            "them."
        )
    if return_type in ("loss", "both") and kwargs.get("logits_to_keep"):
        raise ValueError(
            f"return_type={return_type!r} with logits_to_keep: expected logits of every token, "
            "from which the loss is computed; leave one of them out."
        )


def loss_of(
    logits: Float[Tensor, "batch query vocab"],
    ids: Int[Tensor, "batch query"] | None,
    counted: Bool[Tensor, "batch query"] | None,
    per_token: bool,
) -> Float[Tensor, ""] | Float[Tensor, "batch query-1"]:
    """Cross-entropy of every next token that is text.

    Args:
        logits: of the model.
        ids: the tokens of the forward.
        counted: tokens that count; None for all. Padding, image tokens and tokens right behind padding
            do not count, and get 0 under `per_token`.
        per_token: return the loss of each token, not their mean.

    Raises:
        ValueError: no ids, or logits of some tokens only.
    """
    if ids is None or ids.shape[1] != logits.shape[1]:
        raise ValueError(
            "a loss of a forward without the ids of its tokens: expected an id for each row of logits; "
            "pass input_ids, or compute the loss from the logits."
        )
    target = ids[:, 1:].to(logits.device)
    losses = nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2).float(), target, reduction="none"
    )
    if counted is None:
        return losses if per_token else losses.mean()
    counts = counted[:, 1:].to(losses.device)
    losses = losses * counts
    return losses if per_token else losses.sum() / counts.sum()


@contextmanager
def stopping(blocks: tuple[nn.Module, ...], layer: int | None, embed: TapPoint) -> Iterator[None]:
    """Raise `StoppedError` before a layer; None runs all.

    Args:
        blocks: the model's own layers.
        layer: the first that does not run. Negative numbers count from the end. The number of layers
            gives the residual stream before the final norm.
        embed: `hook_embed`, which runs before layer 0.

    Raises:
        ValueError: the model has no such layer.
    """
    if layer is None:
        yield
        return
    n = layer + len(blocks) if layer < 0 else layer
    if not 0 <= n <= len(blocks):
        raise ValueError(
            f"stop_at_layer={layer} of a model of {len(blocks)} layers: expected a layer from "
            f"{-len(blocks)} to {len(blocks)}; choose one of these."
        )

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: Keywords) -> None:
        x = hidden_of(args, kwargs)
        # A copy: it may be the caller's own tensor.
        raise StoppedError(residual=embed.show(x.clone())[0] if n == 0 and embed.in_use else x)

    def behind(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        raise StoppedError(residual=first_of(output))

    if n < len(blocks):
        handle = blocks[n].register_forward_pre_hook(before, prepend=True, with_kwargs=True)
    else:
        handle = blocks[-1].register_forward_hook(behind)
    try:
        yield
    finally:
        handle.remove()
