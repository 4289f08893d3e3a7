"""Answers token by token: the probability of each token, and where every head looked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from rvelens.files.arguments import refuse_wrong_types
from rvelens.model.frames import frames_library
from rvelens.tokens.grid import ImageGrid

# Pixels of the longer edge of a picture of `_repr_html_`, and tokens that it shows of an answer.
_EDGE, _MOST_SHOWN = 144, 64


@dataclass(frozen=True, eq=False)
class TracedAnswer:
    """One answer, token by token.

    Attributes:
        name: the name of its setting, such as "plain".
        text: the whole answer, as `HookedLVLM.ask` gives it.
        ids: the generated tokens, including the token that ends the answer.
        pieces: the text that each token adds; "" if a character needs more tokens.
        log_probs: natural logarithm of each token's probability, after all hooks and logits processors,
            including the cutoff of a contrast.
        attention: float32, after the softmax and the hooks, of the row that predicts the token. Only
            image tokens, not renormalised. 0 in layers without attention, and for image tokens outside
            a sliding window.
    """

    name: str
    text: str
    ids: Int[Tensor, " token"]
    pieces: tuple[str, ...]
    log_probs: Float[Tensor, " token"]
    attention: Float[Tensor, "token layer head image"] = field(repr=False)

    @refuse_wrong_types
    def map_of(
        self, token: int, layers: Sequence[int] | None = None, heads: Sequence[int] | None = None
    ) -> Float[np.ndarray, " image"]:
        """Attention to each image token for one token of the answer: the mean over layers and heads.

        Args:
            token: the number of the token in the answer, from 0; negative numbers count from the end.
            layers, heads: the layers and heads to average; None for all.

        Raises:
            ValueError: a token, layer or head that does not exist, or an empty list.
        """
        n_tokens, n_layers, n_heads, _ = self.attention.shape
        _check_numbers("token", [token], -n_tokens, n_tokens)
        layers = range(n_layers) if layers is None else layers
        heads = range(n_heads) if heads is None else heads
        _check_numbers("layer", layers, 0, n_layers)
        _check_numbers("head", heads, 0, n_heads)
        chosen = self.attention[token][list(layers)][:, list(heads)]
        return chosen.double().mean(dim=(0, 1)).numpy()


@dataclass(frozen=True, eq=False)
class Trace:
    """Answers to one question about one image, token by token, under one setting or several.

    Attributes:
        model: name of the model.
        image: the image in RGB, in its original size.
        question: the text of the question.
        prompt: the preset or template of the prompt.
        grid: the patch grid of the image; None in families without one.
        answers: one answer for each setting, in their order.
    """

    model: str
    image: Image.Image = field(repr=False)
    question: str
    prompt: str
    grid: ImageGrid | None = field(repr=False)
    answers: tuple[TracedAnswer, ...]

    def __getitem__(self, name: str) -> TracedAnswer:
        for answer in self.answers:
            if answer.name == name:
                return answer
        names = ", ".join(repr(answer.name) for answer in self.answers)
        raise KeyError(f"no answer {name!r}: expected one of {names}.")

    def to_dataframe(self) -> Any:
        """A pandas frame with a row for each answer, token, layer and head.

        Columns: `answer` (its name), `step` (from 0), `id`, `token` (its piece of the text),
        `log_prob`, `layer`, `head`, and `image_attention`, the share of the head's attention on the
        whole image. `TracedAnswer.attention` has the attention by image token.

        Raises:
            ValueError: pandas is not installed.
        """
        pandas = frames_library()
        return pandas.concat(
            [pandas.DataFrame(_columns(answer)) for answer in self.answers], ignore_index=True
        )

    @refuse_wrong_types
    def save(self, path: str | Path) -> None:
        """Write the trace, including its image, to one safetensors file.

        Raises:
            ValueError: the path does not end in .safetensors, or its folder does not exist.
        """
        # Here, since pydantic takes time to load, which an import need not wait for.
        from rvelens.model import trace_file

        about = {
            "model": self.model,
            "question": self.question,
            "prompt": self.prompt,
            "grid": None if self.grid is None else asdict(self.grid),
            "answers": [
                {"name": a.name, "text": a.text, "pieces": list(a.pieces)} for a in self.answers
            ],
        }
        trace_file.write_trace(path, about, self.image, self.answers)

    @classmethod
    @refuse_wrong_types
    def load(cls, path: str | Path) -> Trace:
        """Read a trace that `save` wrote.

        Raises:
            ValueError: no such file, or not a trace.
        """
        from rvelens.model import trace_file

        about, image, tensors = trace_file.read_trace(path)
        answers = (
            TracedAnswer(stored.name, stored.text, pieces=tuple(stored.pieces), **arrays)
            for stored, arrays in zip(about.answers, tensors, strict=True)
        )
        grid = None if about.grid is None else about.grid.grid()
        return cls(about.model, image, about.question, about.prompt, grid, tuple(answers))

    def _repr_html_(self) -> str:
        """The pieces of each answer in a row, each over the picture with its attention as heat."""
        rows = "".join(self._row(answer, self._top) for answer in self.answers)
        return f'<div><p style="margin:0"><b>{escape(self.question)}</b></p>{rows}</div>'

    @property
    def _top(self) -> float:
        """The largest value of any map that is shown: colours mean the same in all of them."""
        maps = [answer.map_of(n) for answer in self.answers for n in _shown(answer)]
        return max((float(layer_map.max(initial=0.0)) for layer_map in maps), default=0.0)

    def _row(self, answer: TracedAnswer, top: float) -> str:
        from rvelens.tokens.heat import heated, small, to_data_uri

        cells, picture = [], small(self.image, _EDGE)
        for n in _shown(answer):
            shown, alt = "", f"attention for {answer.pieces[n].strip()}"
            if self.grid is not None:
                uri = to_data_uri(heated(picture, answer.map_of(n), self.grid, top))
                shown = f'<img src="{uri}" alt="{escape(alt)}" style="margin:0;max-width:100%">'
            share = float(answer.log_probs[n].exp())
            cells.append(
                f'<figure style="margin:2px;width:{_EDGE}px;text-align:center">{shown}<figcaption>'
                f'<b dir="auto">{escape(answer.pieces[n].strip()) or "&nbsp;"}</b><br>'
                f"<small>{share:.1%}</small></figcaption></figure>"
            )
        left_out = len(answer.ids) - len(cells)
        more = f"<p>{left_out} more tokens are not shown.</p>" if left_out else ""
        scale = (
            f"attention to an image token, mean over layers and heads, from 0 to {top:.2g}; below "
            "each token its probability"
        )
        return (
            f'<p style="margin:8px 0 0">{escape(answer.name)}: <q dir="auto">'
            f"{escape(answer.text)}</q> <small>({scale})</small></p>"
            f'<div style="display:flex;flex-wrap:wrap">{"".join(cells)}</div>{more}'
        )


def _shown(answer: TracedAnswer) -> range:
    return range(min(len(answer.ids), _MOST_SHOWN))


def _columns(answer: TracedAnswer) -> dict[str, Any]:
    """The columns of one answer's rows: tokens outside, then layers, then heads."""
    n_tokens, n_layers, n_heads, _ = answer.attention.shape
    n_rows = n_layers * n_heads
    return {
        "answer": answer.name,
        "step": np.repeat(np.arange(n_tokens), n_rows),
        "id": np.repeat(answer.ids.numpy(), n_rows),
        "token": np.repeat(np.array(answer.pieces, dtype=object), n_rows),
        "log_prob": np.repeat(answer.log_probs.numpy(), n_rows),
        "layer": np.tile(np.repeat(np.arange(n_layers), n_heads), n_tokens),
        "head": np.tile(np.arange(n_heads), n_tokens * n_layers),
        "image_attention": answer.attention.sum(dim=-1).flatten().numpy(),
    }


def _check_numbers(noun: str, numbers: Sequence[int], start: int, stop: int) -> None:
    """Raise ValueError for numbers outside of `start` to `stop` - 1, or none at all."""
    wrong = [n for n in numbers if not start <= n < stop]
    if wrong or not numbers:
        subject = f"{noun} {wrong[0]}" if wrong else f"no {noun}"
        raise ValueError(
            f"{subject}: expected numbers from {start} to {stop - 1}; choose of these."
        )
