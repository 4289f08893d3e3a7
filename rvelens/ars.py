"""Action-relation sensitivity: which heads look elsewhere when the verb changes (Section 3.1)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rvelens.contrastive import ContrastivePair, check_pair
from rvelens.hooks.record import ars_caching_hooks
from rvelens.model import HookedLVLM
from rvelens.prefix import can_share, prepare_shared
from rvelens.prompts import load_image

PUBLISHED = {"llava-1.5-7b": "llava15_7b_ars_head_ranking.json"}
FORMAT = "rvelens-ars-1"


@dataclass(frozen=True, eq=False)
class ARSProfile:
    """Sensitivity of every head of a model to the verb.

    Attributes:
        ranking: heads of each layer from most to least sensitive, [layer head].
        per_pair: equation 3 for each pair, float32 [pair layer head]; None if only the ranking or
            the mean is known.
        about: what it was measured on: model, prompt, number of pairs, versions.
    """

    ranking: Int[Tensor, "layer head"]
    mean: Float[Tensor, "layer head"] | None = field(default=None, repr=False)
    per_pair: Float[Tensor, "pair layer head"] | None = field(default=None, repr=False)
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_scores(
        cls,
        scores: Float[Tensor, "layer head"],
        per_pair: Float[Tensor, "pair layer head"] | None = None,
        **about: Any,
    ) -> ARSProfile:
        """A profile of given scores; heads with equal scores rank in the order of their numbers.

        Raises:
            ValueError: a score is not finite.
        """
        if not bool(scores.isfinite().all()):
            raise ValueError(
                "some head scores are not finite: expected finite numbers; check the model's dtype."
            )
        ranking = scores.argsort(dim=1, descending=True, stable=True)
        return cls(ranking, scores, per_pair, about)

    @classmethod
    def published(cls, model: str) -> ARSProfile:
        """The head ranking that the paper's authors published; `scores` were not published.

        Raises:
            ValueError: no ranking was published for this model.
        """
        if model not in PUBLISHED:
            raise ValueError(
                f"no published ranking for {model!r}: expected one of {', '.join(PUBLISHED)}; "
                "measure one with score_heads."
            )
        text = (resources.files("rvelens") / "data" / PUBLISHED[model]).read_text()
        data = json.loads(text)
        return cls(torch.tensor(data.pop("ranking")), about=data)

    @property
    def scores(self) -> Float[Tensor, "layer head"]:
        """Mean over the pairs of equation 3.

        Raises:
            ValueError: this profile holds a ranking only.
        """
        if self.mean is None:
            raise ValueError(
                "this profile holds a published ranking without scores: expected a measured profile; "
                "use .ranking, .top and .bottom, or measure with score_heads."
            )
        return self.mean

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return self.ranking.shape[0]

    @property
    def n_heads(self) -> int:
        """Query heads of each layer."""
        return self.ranking.shape[1]

    def top(self, layer: int, k: int) -> list[int]:
        """The k most sensitive heads of a layer, most sensitive first."""
        return self._heads(layer, k)[:k].tolist()

    def bottom(self, layer: int, k: int) -> list[int]:
        """The k least sensitive heads of a layer, least sensitive first."""
        return self._heads(layer, k).flip(0)[:k].tolist()

    def _heads(self, layer: int, k: int) -> Int[Tensor, " head"]:
        if not 0 <= layer < self.n_layers:
            raise ValueError(
                f"layer {layer} of a profile of {self.n_layers} layers: expected 0 to "
                f"{self.n_layers - 1}."
            )
        if not 1 <= k <= self.n_heads:
            raise ValueError(f"k={k} of {self.n_heads} heads: expected 1 to {self.n_heads}.")
        return self.ranking[layer]

    def auto_layers(self) -> list[int]:
        """Layers whose mean score over heads is at least that of the whole model.

        The paper enhances the layers with higher ARS ("middle") without a rule; this is one. It
        needs scores, a published ranking has none.
        """
        by_layer = self.scores.mean(dim=1)
        return torch.nonzero(by_layer >= by_layer.mean()).flatten().tolist()

    def digest(self) -> str:
        """Identifies a profile by what RVE takes from it, the ranking."""
        return hashlib.sha256(self.ranking.cpu().numpy().tobytes()).hexdigest()[:16]

    def save(self, path: str | Path) -> None:
        """Write the profile to one safetensors file, with `about` as JSON in its header.

        Raises:
            ValueError: the path does not end in .safetensors.
        """
        check_profile_path(path)
        tensors = {"ranking": self.ranking, "mean": self.mean, "per_pair": self.per_pair}
        tensors = {name: t.contiguous() for name, t in tensors.items() if t is not None}
        save_file(tensors, path, {"format": FORMAT, "about": json.dumps(self.about)})

    @classmethod
    def load(cls, path: str | Path) -> ARSProfile:
        """Read a profile that `save` wrote.

        Raises:
            ValueError: no such file, or not a profile.
        """
        if not Path(path).is_file():
            raise ValueError(f"no profile at {path}: expected a file that ARSProfile.save wrote.")
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(
                f"{path} cannot be read ({error}): expected a file that ARSProfile.save wrote."
            ) from error
        known = {"ranking", "mean", "per_pair"}
        if header.get("format") != FORMAT or "ranking" not in tensors or set(tensors) - known:
            raise ValueError(
                f"{path} is not a head profile (format {header.get('format')!r}): expected {FORMAT!r}, "
                "as ARSProfile.save writes."
            )
        _check_tensors(path, tensors)
        return cls(**tensors, about=json.loads(header.get("about", "{}")))


def check_profile_path(path: str | Path) -> None:
    """Raise ValueError where a profile cannot be written: call it before the work."""
    if Path(path).suffix != ".safetensors":
        raise ValueError(f"{path}: expected a file name that ends in .safetensors.")
    if Path(path).is_dir() or not Path(path).absolute().parent.is_dir():
        raise ValueError(f"{path}: expected a file in a folder that exists; create it first.")


def _check_tensors(path: str | Path, tensors: dict[str, Tensor]) -> None:
    ranking, shape = tensors["ranking"], tuple(tensors["ranking"].shape)
    ranks = ranking.dim() == 2 and ranking.dtype == torch.int64
    if not ranks or not torch.equal(
        ranking.sort(dim=1).values, torch.arange(shape[1]).expand(*shape)
    ):
        raise ValueError(
            f"{path} does not rank heads: expected each row of `ranking` to hold every head once."
        )
    wrong = [n for n, t in tensors.items() if n != "ranking" and tuple(t.shape[-2:]) != shape]
    if wrong:
        raise ValueError(f"{path}: {wrong[0]} is not of shape {shape}, as its ranking is.")


def ars(
    a: Float[Tensor, "pair head image"], a_hat: Float[Tensor, "pair head image"]
) -> Float[Tensor, "pair head"]:
    """Equation 3: ||A - A_hat|| / ((||A|| + ||A_hat||) / 2) over the image tokens.

    A and A_hat are post-softmax attention from the last token to the image tokens, not renormalised.
    In float32; 0/0 is 0. Ranges from 0 to 2; two disjoint maps of equal norm score 1.41.
    """
    a, a_hat = a.float(), a_hat.float()
    # The ratio does not change with scale, but the squares of very small weights would vanish.
    top = torch.maximum(a.amax(dim=-1), a_hat.amax(dim=-1))[..., None]
    top = torch.where(top > 0, top, 1.0)
    a, a_hat = a / top, a_hat / top
    mean_norm = (a.norm(dim=-1) + a_hat.norm(dim=-1)) / 2
    return torch.where(mean_norm > 0, (a - a_hat).norm(dim=-1) / mean_norm, 0.0)


def score_heads(
    model: HookedLVLM,
    pairs: Sequence[ContrastivePair],
    *,
    batch_size: int = 8,
    prompt: str = "chat",
    any_text: bool = False,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
) -> ARSProfile:
    """ARS of every head: equation 3, averaged over contrastive pairs.

    Texts about the same image (the same path or the same object), first of all both texts of a pair,
    share the forward up to the end of that image where `prefix.can_share` says that this is exact.

    Args:
        model: the hooked model; hooks that are on stay on, and nothing is shared under them.
        pairs: contrastive pairs; both texts of a pair go through the model in one batch.
        batch_size: pairs per forward (twice as many prompts).
        prompt: prompt preset or template, as in `model.prepare`.
        any_text: take pairs whose texts differ in more than one word too, as `check_pair` would not.
        progress: wraps the iteration over batches, for a progress bar.

    Returns:
        a profile with `scores` [layer head] and `per_pair` [pair layer head].

    Raises:
        ValueError: no pairs, a pair that `check_pair` refuses, or an image that cannot be read.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: expected at least 1.")
    if not pairs:
        raise ValueError("no contrastive pairs: expected at least one; see ContrastivePair.")
    for pair in () if any_text else pairs:
        check_pair(pair)
    for path in dict.fromkeys(p.image for p in pairs if isinstance(p.image, str | Path)):
        load_image(path)  # A torn one would lose hours of work near the end.
    starts = range(0, len(pairs), batch_size)
    batches = (pairs[start : start + batch_size] for start in (progress or iter)(starts))
    per_pair = torch.cat([_score_batch(model, batch, prompt) for batch in batches])
    return ARSProfile.from_scores(
        per_pair.mean(dim=0),
        per_pair,
        model=model.name,
        score="ars",
        prompt=prompt,
        n_pairs=len(pairs),
        versions={name: metadata.version(name) for name in ("torch", "transformers")},
    )


@torch.no_grad()
def _score_batch(
    model: HookedLVLM, pairs: Sequence[ContrastivePair], prompt: str
) -> Float[Tensor, "pair layer head"]:
    images = [pair.image for pair in pairs]
    texts = [pair.question for pair in pairs] + [pair.contrastive for pair in pairs]
    # Hooks that are on may edit any row, so they have to see the whole prompt of each text.
    shares = can_share(model, prompt) and not model.list_hooks()
    prepare = prepare_shared if shares else HookedLVLM.prepare
    inputs = dict(prepare(model, images + images, texts, prompt))
    if shares:
        n_past = inputs["past_key_values"].get_seq_length()
        inputs |= {name: inputs[name][:, n_past:] for name in ("input_ids", "position_ids")}
    attention: dict[int, Tensor] = {}
    with model.hooks(ars_caching_hooks(range(model.n_layers), attention)):
        model(**inputs, logits_to_keep=1)
    scores = []
    for layer in range(model.n_layers):
        a, a_hat = attention[layer].chunk(2)
        scores.append(ars(a, a_hat).cpu())
    return torch.stack(scores, dim=1)
