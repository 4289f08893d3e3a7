"""Contrastive decoding: what a disturbed second branch of the model also says is taken away."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, GenerationMixin, LogitsProcessor

from rvelens.hooks.strengths import check_strength
from rvelens.model.hooked_lvlm import HookedLVLM


class Branch:
    """A second run of the model beside a generation, on a cache of its own."""

    def __init__(self, model: HookedLVLM, inputs: Mapping[str, Any]) -> None:
        self._model = model
        self._inputs = dict(inputs)
        ids = self._inputs["input_ids"]
        self.batch = ids.shape[0]
        self._mask: Tensor = self._inputs.pop("attention_mask", torch.ones_like(ids))
        if not bool(self._mask[:, -1].all()):
            raise ValueError(
                "some prompts of the second branch end in padding: expected a left-padded batch; "
                "make it with model.prepare."
            )
        self._positions: Tensor | None = self._inputs.pop("position_ids", None)
        cache = self._inputs.pop("past_key_values", None)
        config = model.hf_model.config.get_text_config(decoder=True)
        self._cache = DynamicCache(config=config) if cache is None else cache
        if self._cache.get_seq_length() >= ids.shape[1]:
            raise ValueError(
                f"the second branch's cache holds {self._cache.get_seq_length()} of its "
                f"{ids.shape[1]} tokens: expected all but the last ones; cut the cache back."
            )

    def start(self, times: int) -> Float[Tensor, "rows vocab"]:
        """Logits behind the prompt, of which each sample will be continued `times` times."""
        inputs, self._inputs = self._inputs, {}  # Pixels are not needed again.
        n_past = int(self._cache.get_seq_length())
        for name in ("input_ids", "token_type_ids", "mm_token_type_ids"):
            if name in inputs:
                inputs[name] = inputs[name][:, n_past:]
        if self._positions is not None:
            inputs["position_ids"] = self._positions[:, n_past:]
        whole = self._model.hf_model if "pixel_values" in inputs else self._text_model()
        logits = self._run(whole, **inputs)
        if self._positions is None:
            self._positions = self._rotary_positions()
        if times == 1:
            return logits
        self._cache.batch_repeat_interleave(times)
        self._mask = self._mask.repeat_interleave(times, dim=0)
        if self._positions is not None:
            self._positions = self._positions.repeat_interleave(times, dim=0)
        return logits.repeat_interleave(times, dim=0)

    def extend(self, tokens: Int[Tensor, "rows 1"]) -> Float[Tensor, "rows vocab"]:
        """Logits behind one more token of each row."""
        positions = {}
        if self._positions is not None:
            self._positions = self._positions[:, -1:] + 1
            positions["position_ids"] = self._positions
        self._mask = torch.cat([self._mask, torch.ones_like(tokens)], dim=1)
        return self._run(self._text_model(), input_ids=tokens, **positions)

    def _run(self, module: Any, **inputs: Any) -> Float[Tensor, "rows vocab"]:
        inputs["attention_mask"] = self._mask
        cache: dict[str, Any] = {"past_key_values": self._cache, "use_cache": True}
        return module(**inputs, **cache, logits_to_keep=1).logits[:, -1].float()

    def _rotary_positions(self) -> Int[Tensor, "batch 1"] | None:
        """Where Qwen-VL's positions have got to, which its latest prefill alone knows."""
        ahead = getattr(self._model.hf_model.base_model, "rope_deltas", None)
        if ahead is None:
            return None
        return self._mask.sum(dim=1, keepdim=True) - 1 + ahead.to(self._mask.device)

    def _text_model(self) -> Any:
        """What takes tokens alone: InstructBLIP's own forward wants pixels each time."""
        inner = getattr(self._model.hf_model, "language_model", None)
        return inner if isinstance(inner, GenerationMixin) else self._model.hf_model


class ContrastProcessor(LogitsProcessor):
    """(1 + alpha) l - alpha l', where l' are the logits of a second, disturbed branch.

    For `model.generate(**inputs, logits_processor=[processor])`, greedy or sampled, with any
    `num_return_sequences`. Tokens with l < max(l) + log(beta) are set to minus infinity: only what
    the undisturbed branch finds likely enough can win. The second branch runs on the same model, so
    hooks that are on during the generation are on in both branches; VCD and ICD have none. One
    processor serves one call of generate.

    Args:
        model: the model that generates.
        negative: the second branch's prompts, what `model.prepare` returns; one per prompt of the
            generation. Or `input_ids` and `attention_mask` of the whole prompts with
            `past_key_values` that hold all but their end; the cache is written to.
        alpha: strength, at least 0.
        beta: share of the largest probability that a token needs, in (0, 1].

    Attributes:
        first: contrasted logits of the first new token before the cutoff, [rows vocab]; None until
            it is generated.

    Raises:
        ValueError: alpha or beta outside its range, prompts padded on the right; when called, a
            batch that is no multiple of the second branch's, beams, or a second use.
    """

    def __init__(
        self, model: HookedLVLM, negative: Mapping[str, Any], alpha: float = 1.0, beta: float = 0.1
    ) -> None:
        check_contrast(alpha, beta)
        self.alpha, self.beta = alpha, beta
        self._branch = Branch(model, negative)
        self._seen: Tensor | None = None
        self.first: Tensor | None = None

    @torch.no_grad()
    def __call__(
        self, input_ids: Int[Tensor, "rows key"], scores: Float[Tensor, "rows vocab"]
    ) -> Float[Tensor, "rows vocab"]:
        """Next-token logits of the generation, contrasted with those of the second branch."""
        if self._seen is None:
            negative = self._branch.start(self._times(scores.shape[0])).to(scores)
            self.first = contrasted(scores, negative, self.alpha)
        else:
            self._refuse_jumps(self._seen, input_ids)
            negative = self._branch.extend(input_ids[:, -1:]).to(scores)
        self._seen = input_ids
        return combine(scores, negative, self.alpha, self.beta)

    def _times(self, rows: int) -> int:
        if rows % self._branch.batch:
            raise ValueError(
                f"{rows} rows are generated and the second branch has {self._branch.batch} prompts: "
                "expected a multiple of them; prepare both branches from the same questions."
            )
        return rows // self._branch.batch

    @staticmethod
    def _refuse_jumps(seen: Int[Tensor, "before key"], now: Int[Tensor, "after longer"]) -> None:
        if now.shape != (seen.shape[0], seen.shape[1] + 1):
            raise ValueError(
                f"a contrast processor saw {tuple(seen.shape)} tokens and then {tuple(now.shape)}: "
                "expected one more token per row at each step of a generation; make a new "
                "processor for each call of generate."
            )
        if not torch.equal(now[:, :-1], seen):
            raise ValueError(
                "sequences changed places between two steps: expected greedy decoding or sampling, "
                "since the second branch cannot follow beams; leave num_beams at 1."
            )


def combine(
    positive: Float[Tensor, "rows vocab"],
    negative: Float[Tensor, "rows vocab"],
    alpha: float,
    beta: float,
) -> Float[Tensor, "rows vocab"]:
    """(1 + alpha) l - alpha l', minus infinity where l < max(l) + log(beta)."""
    # https://github.com/DAMO-NLP-SG/VCD/blob/d6568ff81b8fd306a49e630df44f2db5c2300191/vcd_utils/vcd_sample.py#L150-L153
    cutoff = positive.amax(dim=-1, keepdim=True) + math.log(beta)
    return contrasted(positive, negative, alpha).masked_fill(positive < cutoff, -torch.inf)


def contrasted(
    positive: Float[Tensor, "rows vocab"], negative: Float[Tensor, "rows vocab"], alpha: float
) -> Float[Tensor, "rows vocab"]:
    """(1 + alpha) l - alpha l'."""
    return (1 + alpha) * positive - alpha * negative


def check_contrast(alpha: float, beta: float) -> None:
    """Raise ValueError where the strength or the cutoff is outside its range."""
    check_strength("alpha", alpha)
    if not 0 < beta <= 1:
        raise ValueError(
            f"beta={beta}: expected a share of the largest probability in (0, 1]; "
            "choose one in this range."
        )
