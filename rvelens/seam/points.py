"""All hook points in one table. Registration, documentation and tests read it.

Names, shapes and meanings are TransformerLens'. The table tells the differences: the rows of scores and
pattern, and the keys of a cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PointRow:
    """One kind of hook point.

    Attributes:
        name: the name after `blocks.{layer}.`, or the whole name of a point that is in no block.
        axes: names of the tensor's axes.
        meaning: what the tensor is.
        owner: "model", "layer" for every layer, "attention" for layers with attention.
        read: the tensor of the model that the point shows and replaces.
    """

    name: str
    axes: str
    meaning: str
    owner: Literal["model", "layer", "attention"]
    read: str

    @property
    def full_name(self) -> str:
        """The name with LAYER for a layer's number."""
        return self.name if self.owner == "model" else f"blocks.LAYER.{self.name}"


_STREAM = "batch query d_model"
_HEADS = "batch query head d_head"
_MAP = "batch head query key"
_FUNCTION = "the attention function"

ROWS = (
    PointRow(
        "hook_image_features",
        "visual d_model",
        "input embeddings of all visual tokens, one sample after the other, without text and padding. "
        "The hook does not run in a forward without visual tokens",
        "model",
        "inputs_embeds of the decoder",
    ),
    PointRow(
        "hook_embed",
        _STREAM,
        "embeddings of text and image as they enter the residual stream, after any scaling",
        "model",
        "input of the first block",
    ),
    PointRow(
        "ln_final.hook_scale",
        "batch query 1",
        "the number that the final norm divides by",
        "model",
        "input of the final norm",
    ),
    PointRow("hook_resid_pre", _STREAM, "the input of the block", "layer", "input of the block"),
    PointRow(
        "hook_resid_mid",
        _STREAM,
        "hook_resid_pre + hook_attn_out, the input of the second branch",
        "layer",
        "input of the second norm, changed in place",
    ),
    PointRow(
        "hook_resid_post",
        _STREAM,
        "the output of the block: hook_resid_mid + hook_mlp_out",
        "layer",
        "output of the block",
    ),
    PointRow(
        "hook_mlp_out",
        _STREAM,
        "the addend of the second branch, after the branch's last norm if it has one",
        "layer",
        "output of the last module of the branch",
    ),
    PointRow(
        "ln1.hook_scale",
        "batch query 1",
        "the number that the first norm divides by",
        "layer",
        "its input",
    ),
    PointRow(
        "ln2.hook_scale",
        "batch query 1",
        "the number that the second norm divides by",
        "layer",
        "its input",
    ),
    PointRow(
        "hook_attn_out",
        _STREAM,
        "the addend of attention, after the branch's last norm if it has one",
        "attention",
        "output of the last module of the branch",
    ),
    PointRow(
        "attn.hook_q",
        _HEADS,
        "queries as projected: before any norm of heads and before rotary positions",
        "attention",
        "output of the projection",
    ),
    PointRow(
        "attn.hook_k",
        "batch query kv_head d_head",
        "keys as projected, of the new tokens",
        "attention",
        "output of the projection",
    ),
    PointRow(
        "attn.hook_v",
        "batch query kv_head d_head",
        "values as projected, of the new tokens",
        "attention",
        "output of the projection",
    ),
    PointRow(
        "attn.hook_rot_q",
        _HEADS,
        "queries as attention gets them, after norm and rotary positions",
        "attention",
        _FUNCTION,
    ),
    PointRow(
        "attn.hook_rot_k",
        "batch key kv_head d_head",
        "keys as attention gets them, with the keys of the cache",
        "attention",
        _FUNCTION,
    ),
    PointRow(
        "attn.hook_attn_scores",
        _MAP,
        'scaled q.k after the mask and before softmax; one query row under `query_rows="last"`',
        "attention",
        _FUNCTION,
    ),
    PointRow(
        "attn.hook_pattern",
        _MAP,
        'after softmax; one query row under `query_rows="last"`',
        "attention",
        _FUNCTION,
    ),
    PointRow(
        "attn.hook_z",
        _HEADS,
        "each head's output, before the output projection",
        "attention",
        _FUNCTION,
    ),
    PointRow(
        "attn.hook_result",
        "batch query head d_model",
        "each head's part of the output projection, without its bias and before any norm after it. It "
        "is computed while it is hooked. `run_with_cache` without a filter includes it under "
        "`cfg.use_attn_result`",
        "attention",
        "input and output of the output projection",
    ),
)


def rows_of(*owners: str) -> list[PointRow]:
    """Rows of these owners, in the order of the table."""
    return [row for row in ROWS if row.owner in owners]
