"""The attributes that TransformerLens' own helpers read: shape, weights and tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rvelens.heads.layers import format_layers
from rvelens.model.hook_root import HookRoot
from rvelens.model.lens_config import LensConfig, config_of, d_vocab_of
from rvelens.model.lens_texts import LensTexts
from rvelens.seam.arguments import Keywords, ModelInputs
from rvelens.seam.lens_attention import bias_of
from rvelens.seam.linear import weight_of
from rvelens.seam.stream import FinalNorm
from rvelens.seam.taps import Scale

# What configurations apply between the unembedding and the logits.
_BEHIND_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


class LensModel(LensTexts, HookRoot):
    """A `HookRoot` with the names that TransformerLens' helpers read.

    Attributes:
        blocks: hook points and weights by layer.
        ln_final: the final norm, with `hook_scale`.
        device: the device for inputs.
    """

    blocks: nn.ModuleList
    ln_final: FinalNorm

    @property
    def cfg(self) -> LensConfig:
        """The model's shape. `normalization_type` needs one short forward, once."""
        config = self.__dict__.get("_cfg")
        if config is None:
            config = config_of(str(self.name), self.n_layers, self.hf_model, self.device)
            self.__dict__["_cfg"] = config
        norm = (self._seam.stream.locate() or {}).get("ln_final.hook_scale")
        if isinstance(norm, Scale):
            config.normalization_type = "LN" if norm.centred else "RMS"
        config.device, config.dtype = self.device, self.hf_model.dtype
        config.d_vocab = d_vocab_of(self.hf_model)
        return config

    def set_use_attn_result(self, use_attn_result: bool) -> None:
        """Set whether `run_with_cache` without a filter also caches `hook_result`."""
        self.cfg.use_attn_result = use_attn_result

    def set_use_split_qkv_input(self, use_split_qkv_input: bool) -> None:
        """Raises NotImplementedError: queries, keys and values share one input here."""
        self._refuse_forks(use_split_qkv_input, "use_split_qkv_input")

    def set_use_attn_in(self, use_attn_in: bool) -> None:
        """Raises NotImplementedError: all heads share one input here."""
        self._refuse_forks(use_attn_in, "use_attn_in")

    def _refuse_forks(self, requested: bool, name: str) -> None:
        if requested:
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
                f"{name} differs in shape between layers: expected the same shape in all; take "
                f"blocks[layer].attn.{name}."
            )
        return torch.stack(weights)

    @property
    def W_Q(self) -> Float[Tensor, "layer head d_model d_head"]:  # noqa: N802
        """Weights of the queries; ValueError if a layer has no separate weights for them."""
        return self._stacked("W_Q")

    @property
    def W_K(self) -> Float[Tensor, "layer kv_head d_model d_head"]:  # noqa: N802
        """Weights of the keys, with each key head once; ValueError as in `W_Q`."""
        return self._stacked("W_K")

    @property
    def W_V(self) -> Float[Tensor, "layer kv_head d_model d_head"]:  # noqa: N802
        """Weights of the values, with each key head once; ValueError as in `W_Q`."""
        return self._stacked("W_V")

    @property
    def W_O(self) -> Float[Tensor, "layer head d_head d_model"]:  # noqa: N802
        """Weights of the output projections; ValueError if the input of one is not exactly `hook_z`."""
        return self._stacked("W_O")

    @property
    def b_Q(self) -> Float[Tensor, "layer head d_head"]:  # noqa: N802
        """Biases of the queries."""
        return self._stacked("b_Q")

    @property
    def b_K(self) -> Float[Tensor, "layer kv_head d_head"]:  # noqa: N802
        """Biases of the keys."""
        return self._stacked("b_K")

    @property
    def b_V(self) -> Float[Tensor, "layer kv_head d_head"]:  # noqa: N802
        """Biases of the values."""
        return self._stacked("b_V")

    @property
    def b_O(self) -> Float[Tensor, "layer d_model"]:  # noqa: N802
        """Biases of the output projections."""
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
        """Bias of the logits; zeros if there is none."""
        return bias_of(self.hf_model.get_output_embeddings())

    def tokens_to_residual_directions(
        self, tokens: str | int | Int[Tensor, "*any"]
    ) -> Float[Tensor, "*any d_model"]:
        """The direction of the residual stream that raises a token's logit.

        The logit is the product of this direction and the stream divided by `ln_final.hook_scale`. The
        direction includes the weights of the final norm, which TransformerLens folds into `W_U`.

        Raises:
            NotImplementedError: logits that are scaled or capped after the unembedding.
        """
        self._refuse_changed_logits()
        ids = self.to_single_token(tokens) if isinstance(tokens, str) else tokens
        rows = weight_of(self.hf_model.get_output_embeddings())[torch.as_tensor(ids)]
        return rows * self.ln_final.w

    @property
    def unembed(self) -> nn.Module:
        """The module that computes logits [*batch vocab] from `ln_final(x)` [*batch d_model].

        TransformerLens' `logit_lens` uses it.

        Raises:
            NotImplementedError: logits that are scaled or capped after the unembedding.
        """
        self._refuse_changed_logits()
        return self.hf_model.get_output_embeddings()

    def _refuse_changed_logits(self) -> None:
        """Raise NotImplementedError where logits are scaled or capped after the unembedding."""
        config = self.hf_model.config.get_text_config(decoder=True)
        for name in _BEHIND_LOGITS:
            if getattr(config, name, None) not in (None, 1, 1.0, 0):
                raise NotImplementedError(
                    f"{type(self.hf_model).__name__} has {name}={getattr(config, name)}: expected "
                    "logits that are W_U's output; multiply by model.W_U and apply it yourself."
                )

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, " d_model"]:
        """The sum of `b_O` of the layers before `layer`; layers without attention add none.

        Args:
            layer: the layer whose input includes the biases.
            mlp_input: include `b_O` of `layer` itself.
            include_mlp_biases: True is refused.

        Raises:
            NotImplementedError: biases of feed-forward parts, or a layer that normalises the sum of its
                heads.
        """
        if include_mlp_biases:
            raise NotImplementedError(
                "include_mlp_biases=True, and the biases of feed-forward parts are not read: expected "
                "False; hook_mlp_out includes them, and get_full_resid_decomposition needs "
                "expand_neurons=False."
            )
        total = torch.zeros_like(self.W_E[0])
        for n in range(layer + int(mlp_input)):
            block: Any = self.blocks[n]
            if n in self.attention_layers:
                self._refuse_normed_heads(n)
                total = total + block.attn.b_O
        return total

    def _refuse_normed_heads(self, layer: int) -> None:
        """Raise NotImplementedError where `hook_attn_out` is not the sum of `hook_result` and `b_O`."""
        module = self._seam.modules[layer]
        source = self._seam.stream.find(f"{layer}.hook_attn_out")
        added: Any = getattr(source, "module", None)
        if added is None or all(m is not module for m in added.modules()):
            raise NotImplementedError(
                f"layer {layer} of {type(self.hf_model).__name__} norms what its heads add: expected "
                "heads that sum to hook_attn_out; use decompose_resid, with one part for each layer's "
                "attention."
            )

    # Inputs ---------------------------------------------------------------------------------------

    @contextmanager
    def default_inputs(self, inputs: ModelInputs) -> Iterator[LensModel]:
        """A context in which forwards use these pixels, masks and grids by default.

        TransformerLens' patching helpers call the model with only token ids. Inside
        `model.default_inputs(inputs)`, the image of `inputs` belongs to these ids.

        Args:
            inputs: as `prepare` makes them; ids and embeddings in them are ignored.
        """
        before = self.__dict__.get("_defaults", {})
        ignored = ("input_ids", "inputs_embeds")
        self.__dict__["_defaults"] = {k: v for k, v in inputs.items() if k not in ignored}
        try:
            yield self
        finally:
            self.__dict__["_defaults"] = before

    def _with_defaults(self, kwargs: Keywords) -> dict[str, Any]:
        """The arguments of a forward, with defaults for those that are missing; none with a cache."""
        defaults = self.__dict__.get("_defaults", {})
        return kwargs if kwargs.get("past_key_values") is not None else {**defaults, **kwargs}
