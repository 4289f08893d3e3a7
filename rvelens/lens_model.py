"""What TransformerLens' own helpers ask of a model: its shape, its weights, its tokens, its cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rvelens.hook_root import HookRoot
from rvelens.layers import format_layers
from rvelens.lens_attention import bias_of
from rvelens.lens_config import LensConfig, config_of
from rvelens.lens_texts import LensTexts
from rvelens.linear import weight_of
from rvelens.stream import FinalNorm
from rvelens.taps import Scale

# Names by which configurations call what comes between the unembedding and the logits.
_BEHIND_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


class LensModel(LensTexts, HookRoot):
    """A `HookRoot` with the names that TransformerLens' helpers read.

    Attributes:
        blocks: hook points and weights by layer.
        ln_final: the final norm, with `hook_scale`.
        device: where inputs belong.
    """

    blocks: nn.ModuleList
    ln_final: FinalNorm

    @property
    def cfg(self) -> LensConfig:
        """The model's shape; `normalization_type` takes the self-check's short forward once."""
        config = self.__dict__.get("_cfg")
        if config is None:
            config = config_of(str(self.name), self.n_layers, self.hf_model, self.device)
            self.__dict__["_cfg"] = config
        found = self._seam.stream.look() or {}
        norm = found.get("ln_final.hook_scale")
        if isinstance(norm, Scale):
            config.normalization_type = "LN" if norm.centred else "RMS"
        config.device, config.dtype = self.device, self.hf_model.dtype
        return config

    def set_use_attn_result(self, use_attn_result: bool) -> None:
        """Whether `run_with_cache` without a filter keeps `hook_result` too."""
        self.cfg.use_attn_result = use_attn_result

    def set_use_split_qkv_input(self, use_split_qkv_input: bool) -> None:
        """Raises NotImplementedError: queries, keys and values share one input here."""
        self._refuse_forks(use_split_qkv_input, "use_split_qkv_input")

    def set_use_attn_in(self, use_attn_in: bool) -> None:
        """Raises NotImplementedError: all heads share one input here."""
        self._refuse_forks(use_attn_in, "use_attn_in")

    def _refuse_forks(self, wanted: bool, name: str) -> None:
        if wanted:
            raise NotImplementedError(
                f"{name}=True for a HookedLVLM, whose heads share one input: expected False; hook "
                "hook_q, hook_k or hook_v of a head instead."
            )

    # Weights --------------------------------------------------------------------------------------

    def _stacked(self, name: str) -> Tensor:
        """The weights of that name of all layers."""
        if len(self.attention_layers) < self.n_layers:
            raise ValueError(
                f"{name} of a model of {self.n_layers} layers, of which "
                f"{format_layers(self.attention_layers)} have attention: expected attention in every "
                f"layer; take blocks[layer].attn.{name} of those."
            )
        weights = [getattr(block.attn, name) for block in self.blocks]
        if len({w.shape for w in weights}) > 1:
            raise ValueError(
                f"{name} is of several shapes: expected one in all layers; take "
                f"blocks[layer].attn.{name}."
            )
        return torch.stack(weights)

    @property
    def W_Q(self) -> Float[Tensor, "layer head d_model d_head"]:  # noqa: N802
        """Weights of the queries; ValueError for layers that have none of their own."""
        return self._stacked("W_Q")

    @property
    def W_K(self) -> Float[Tensor, "layer kv_head d_model d_head"]:  # noqa: N802
        """Weights of the keys, of each key head once; ValueError as in `W_Q`."""
        return self._stacked("W_K")

    @property
    def W_V(self) -> Float[Tensor, "layer kv_head d_model d_head"]:  # noqa: N802
        """Weights of the values, of each key head once; ValueError as in `W_Q`."""
        return self._stacked("W_V")

    @property
    def W_O(self) -> Float[Tensor, "layer head d_head d_model"]:  # noqa: N802
        """Weights of the output projections; ValueError where one does not get `hook_z` as it is."""
        return self._stacked("W_O")

    @property
    def b_Q(self) -> Float[Tensor, "layer head d_head"]:  # noqa: N802
        """What is added to the queries."""
        return self._stacked("b_Q")

    @property
    def b_K(self) -> Float[Tensor, "layer kv_head d_head"]:  # noqa: N802
        """What is added to the keys."""
        return self._stacked("b_K")

    @property
    def b_V(self) -> Float[Tensor, "layer kv_head d_head"]:  # noqa: N802
        """What is added to the values."""
        return self._stacked("b_V")

    @property
    def b_O(self) -> Float[Tensor, "layer d_model"]:  # noqa: N802
        """What the output projections add."""
        return self._stacked("b_O")

    @property
    def W_E(self) -> Float[Tensor, "vocab d_model"]:  # noqa: N802
        """Embeddings of the tokens, before any scaling."""
        return self.hf_model.get_input_embeddings().weight

    @property
    def W_U(self) -> Float[Tensor, "d_model vocab"]:  # noqa: N802
        """The unembedding: `ln_final(hook_resid_post of the last layer) @ W_U + b_U` are the logits."""
        return weight_of(self.hf_model.get_output_embeddings()).T

    @property
    def b_U(self) -> Float[Tensor, " vocab"]:  # noqa: N802
        """What is added to the logits; zeros where nothing is."""
        return bias_of(self.hf_model.get_output_embeddings())

    def tokens_to_residual_directions(
        self, tokens: str | int | Int[Tensor, "*any"]
    ) -> Float[Tensor, "*any d_model"]:
        """The direction in which the stream over `ln_final.hook_scale` raises a token's logit.

        The weights of the final norm are in it. TransformerLens folds them into `W_U`; here the model's
        own weights stay as they are.

        Raises:
            NotImplementedError: logits that are scaled or capped behind the unembedding.
        """
        config = self.hf_model.config.get_text_config(decoder=True)
        for name in _BEHIND_LOGITS:
            if getattr(config, name, None) not in (None, 1, 1.0, 0):
                raise NotImplementedError(
                    f"{type(self.hf_model).__name__} has {name}={getattr(config, name)}: expected "
                    "logits that are W_U's own; multiply by model.W_U and apply it yourself."
                )
        ids = self.to_single_token(tokens) if isinstance(tokens, str) else tokens
        rows = weight_of(self.hf_model.get_output_embeddings())[torch.as_tensor(ids)]
        return rows * self.ln_final.w

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, " d_model"]:
        """The sum of `b_O` of the layers before `layer`.

        Raises:
            NotImplementedError: biases of feed-forward parts are asked for.
        """
        if include_mlp_biases:
            raise NotImplementedError(
                "biases of feed-forward parts are asked for: expected include_mlp_biases=False; "
                "hook_mlp_out holds them."
            )
        n = layer + int(mlp_input)
        blocks: Any = self.blocks[:n]
        biases = [block.attn.b_O for block in blocks]
        return torch.stack(biases).sum(dim=0) if biases else torch.zeros_like(self.W_E[0])

    # Inputs ---------------------------------------------------------------------------------------

    @contextmanager
    def beside(self, inputs: Mapping[str, Any]) -> Iterator[LensModel]:
        """Forwards inside take from `inputs` what they are not given: pixels, masks, grids.

        TransformerLens' patching helpers call the model on token ids alone. Inside of
        `model.beside(inputs)` those ids have their image.

        Args:
            inputs: as `prepare` makes them; ids and embeddings among them are left out.
        """
        before = self.__dict__.get("_beside", {})
        left = ("input_ids", "inputs_embeds")
        self.__dict__["_beside"] = {k: v for k, v in inputs.items() if k not in left}
        try:
            yield self
        finally:
            self.__dict__["_beside"] = before

    def _with_beside(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a forward with what they lack; a step behind a cache lacks nothing."""
        beside = self.__dict__.get("_beside", {})
        return kwargs if kwargs.get("past_key_values") is not None else {**beside, **kwargs}
