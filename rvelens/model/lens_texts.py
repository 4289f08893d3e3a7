"""Texts and token ids, with TransformerLens' names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

Tokens = Int[Tensor, "batch key"] | Int[Tensor, " key"] | Int[Tensor, ""]


class LensTexts:
    """`to_tokens`, `to_string`, `to_str_tokens` and `to_single_token` of a model with a processor.

    Attributes:
        processor: the model's processor.
        device: the device for token ids.
    """

    processor: Any
    device: Any

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer; raises ValueError for a model without a processor."""
        if self.processor is None:
            raise ValueError(
                "this model has no processor: expected one, with a tokenizer; pass processor= to "
                "HookedLVLM.from_pretrained."
            )
        return getattr(self.processor, "tokenizer", self.processor)

    def to_tokens(
        self,
        input: str | Sequence[str],
        prepend_bos: bool | None = None,
        padding_side: str | None = None,
        move_to_device: bool = True,
    ) -> Int[Tensor, "batch key"]:
        """Token ids of texts, padded to the longest.

        Args:
            input: one text or several. An image token in it stays one token; `prepare` makes the
                inputs of images.
            prepend_bos: start with the beginning-of-sequence token; None for the tokenizer's default.
            padding_side: "left" or "right"; None for the tokenizer's default.
            move_to_device: move the ids to the device of the model.

        Raises:
            ValueError: no processor, or a tokenizer without a beginning-of-sequence token if it is
                requested.
        """
        texts = [input] if isinstance(input, str) else list(input)
        tokenizer, options = self.tokenizer, {}
        if padding_side is not None:
            options["padding_side"] = padding_side
        if prepend_bos is not None:
            texts = [self._first(prepend_bos) + text for text in texts]
            options["add_special_tokens"] = False
        ids = tokenizer(texts, return_tensors="pt", padding=len(texts) > 1, **options)["input_ids"]
        return ids.to(self.device) if move_to_device else ids

    def _first(self, prepend: bool) -> str:
        bos = self.tokenizer.bos_token
        if prepend and bos is None:
            raise ValueError(
                "prepend_bos=True for a tokenizer without a first token: expected None or False; "
                "leave it out."
            )
        return str(bos) if prepend else ""

    def to_string(self, tokens: Tokens | Sequence[int] | int) -> str | list[str]:
        """The text of token ids; a list of texts for a batch of them."""
        ids = torch.as_tensor(tokens)
        if ids.dim() > 1:
            return [str(self.tokenizer.decode(row)) for row in ids]
        return str(self.tokenizer.decode(ids.reshape(-1)))

    def to_str_tokens(
        self, input: str | Sequence[str] | Tokens, prepend_bos: bool | None = None
    ) -> list[str] | list[list[str]]:
        """The text of each token of a text or of ids; for several texts, a list for each."""
        if isinstance(input, Sequence) and not isinstance(input, str):
            return [self._str_tokens(self.to_tokens(text, prepend_bos)[0]) for text in input]
        ids = self.to_tokens(input, prepend_bos)[0] if isinstance(input, str) else input
        if ids.dim() > 1 and len(ids) > 1:
            return [self._str_tokens(row) for row in ids]
        return self._str_tokens(ids.reshape(-1))

    def _str_tokens(self, ids: Int[Tensor, " key"]) -> list[str]:
        return [str(self.tokenizer.decode([int(n)])) for n in ids]

    def to_single_token(self, string: str) -> int:
        """The token id of a text that is a single token.

        Raises:
            ValueError: the text is no token or several tokens, or the tokenizer does not know it.
        """
        ids = self.tokenizer(string, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise ValueError(
                f"{string!r} is {len(ids)} tokens: expected a text of one token; a leading space may "
                "be missing, see model.to_str_tokens."
            )
        if ids[0] == self.tokenizer.unk_token_id and string != self.tokenizer.unk_token:
            raise ValueError(
                f"{string!r} is not in the vocabulary: expected a text that the tokenizer knows, not "
                f"{self.tokenizer.unk_token}; take another text."
            )
        return int(ids[0])

    def to_single_str_token(self, int_token: int) -> str:
        """The text of one token id."""
        return str(self.tokenizer.decode([int_token]))
