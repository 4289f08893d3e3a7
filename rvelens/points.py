"""The hook points that there are: one table, which registration, documentation and tests are made from.

Names, shapes and meanings are TransformerLens'. What differs is in the table: the rows of scores and
pattern, and the keys that a cache holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Row:
    """One kind of hook point.

    Attributes:
        name: what stands behind `blocks.{layer}.`, or the whole name of a point of the model.
        axes: of the tensor, batch first.
        meaning: what the tensor is.
        owner: "model", "layer" for every layer, "attention" for layers with attention.
        read: where it is read and put back: at a module of the model by a torch hook that is on only
            while the point is in use, or in the attention function's place.
    """

    name: str
    axes: str
    meaning: str
    owner: Literal["model", "layer", "attention"]
    read: str

    @property
    def full_name(self) -> str:
        """The name with LAYER in the place of a layer's number."""
        return self.name if self.owner == "model" else f"blocks.LAYER.{self.name}"


_STREAM = "batch query d_model"
_HEADS = "batch query head d_head"
_MAP = "batch head query key"
_FUNCTION = "the attention function"

ROWS = (
    Row(
        "hook_image_features",
        "visual d_model",
        "what takes the place of the visual tokens among the decoder's input embeddings: of all "
        "samples, one sample after the other; padding and text are left out. A forward without visual "
        "tokens does not run it",
        "model",
        "inputs_embeds of the decoder",
    ),
    Row(
        "hook_embed",
        _STREAM,
        "embeddings of text and image as they enter the residual stream, behind any scaling",
        "model",
        "input of the first block",
    ),
    Row(
        "ln_final.hook_scale",
        "batch query 1",
        "what the final norm divides by",
        "model",
        "input of the final norm",
    ),
    Row("hook_resid_pre", _STREAM, "what the block gets", "layer", "input of the block"),
    Row(
        "hook_resid_mid",
        _STREAM,
        "hook_resid_pre + hook_attn_out, which the second branch reads",
        "layer",
        "input of the second norm, changed in place",
    ),
    Row(
        "hook_resid_post",
        _STREAM,
        "what the block returns: hook_resid_mid + hook_mlp_out",
        "layer",
        "output of the block",
    ),
    Row(
        "hook_mlp_out",
        _STREAM,
        "what the second branch adds, behind a norm of its own where it has one",
        "layer",
        "output of the last module of the branch",
    ),
    Row("ln1.hook_scale", "batch query 1", "what the first norm divides by", "layer", "its input"),
    Row("ln2.hook_scale", "batch query 1", "what the second norm divides by", "layer", "its input"),
    Row(
        "hook_attn_out",
        _STREAM,
        "what attention adds, behind a norm of its own where it has one",
        "attention",
        "output of the last module of the branch",
    ),
    Row(
        "attn.hook_q",
        _HEADS,
        "queries as projected: before any norm of heads and before rotary positions",
        "attention",
        "output of the projection",
    ),
    Row(
        "attn.hook_k",
        "batch query kv_head d_head",
        "keys as projected, of the new tokens",
        "attention",
        "output of the projection",
    ),
    Row(
        "attn.hook_v",
        "batch query kv_head d_head",
        "values as projected, of the new tokens",
        "attention",
        "output of the projection",
    ),
    Row(
        "attn.hook_rot_q",
        _HEADS,
        "queries as attention gets them, behind norm and rotary positions",
        "attention",
        _FUNCTION,
    ),
    Row(
        "attn.hook_rot_k",
        "batch key kv_head d_head",
        "keys as attention gets them: those in the cache too",
        "attention",
        _FUNCTION,
    ),
    Row(
        "attn.hook_attn_scores",
        _MAP,
        'scaled q.k after the mask and before softmax; one query row under `query_rows="last"`',
        "attention",
        _FUNCTION,
    ),
    Row(
        "attn.hook_pattern",
        _MAP,
        'after softmax; one query row under `query_rows="last"`',
        "attention",
        _FUNCTION,
    ),
    Row(
        "attn.hook_z",
        _HEADS,
        "each head's output, before the output projection",
        "attention",
        _FUNCTION,
    ),
    Row(
        "attn.hook_result",
        "batch query head d_model",
        "what each head adds, through its part of the output projection; computed where it is hooked, "
        "and in `run_with_cache` without a filter under `cfg.use_attn_result`",
        "attention",
        "input and output of the output projection",
    ),
)


def rows_of(*owners: str) -> list[Row]:
    """Rows of these owners, in the order of the table."""
    return [row for row in ROWS if row.owner in owners]
