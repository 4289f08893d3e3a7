"""Head profiles: how sensitive every head of a model is to the verb, and their files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rvelens.files import atomic as files
from rvelens.files.arguments import refuse_wrong_types
from rvelens.heads import hub

PUBLISHED = {"llava-1.5-7b": "llava15_7b_ars_head_ranking.json"}
PROFILE_FORMAT = "rvelens-ars-1"


@refuse_wrong_types
@dataclass(frozen=True, eq=False)
class ARSProfile:
    """Sensitivity of every head of a model to the verb.

    Attributes:
        ranking: heads of each layer from most to least sensitive, [layer head].
        per_pair: equation 3 for each pair, float32 [pair layer head]; None if only the ranking or
            the mean is known.
        about: how it was measured: model, prompt, number of pairs, versions.
        attention_layers: layers of a hybrid model that have attention; by default all. In other layers
            every score is 0.
    """

    ranking: Int[Tensor, "layer head"]
    mean: Float[Tensor, "layer head"] | None = field(default=None, repr=False)
    per_pair: Float[Tensor, "pair layer head"] | None = field(default=None, repr=False)
    about: dict[str, Any] = field(default_factory=dict)
    attention_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        layers = tuple(map(int, self.attention_layers)) or tuple(range(self.n_layers))
        object.__setattr__(self, "attention_layers", layers)

    @classmethod
    @refuse_wrong_types
    def from_scores(
        cls,
        scores: Float[Tensor, "layer head"],
        per_pair: Float[Tensor, "pair layer head"] | None = None,
        attention_layers: Iterable[int] = (),
        **about: Any,
    ) -> ARSProfile:
        """A profile from given scores; heads with equal scores rank in the order of their numbers.

        Raises:
            ValueError: a score is not finite, or the scores are not numbers by layer and head.
        """
        if scores.dim() != 2 or not scores.is_floating_point():
            raise ValueError(
                f"scores are {scores.dtype} of shape {tuple(scores.shape)}: expected real numbers "
                "[layer head]; pass one for each head."
            )
        if not bool(scores.isfinite().all()):
            raise ValueError(
                "some head scores are not finite: expected finite numbers; check the model's dtype."
            )
        ranking = scores.argsort(dim=1, descending=True, stable=True)
        return cls(ranking, scores, per_pair, about, tuple(attention_layers))

    @classmethod
    @refuse_wrong_types
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
        data = files.read_json(resources.files("rvelens") / "data" / PUBLISHED[model])
        return cls(torch.tensor(data.pop("ranking")), about=data)

    @property
    def scores(self) -> Float[Tensor, "layer head"]:
        """Mean over the pairs of equation 3.

        Raises:
            ValueError: this profile has only a ranking.
        """
        if self.mean is None:
            raise ValueError(
                "this profile holds a published ranking without scores: expected a measured profile; "
                "use .ranking, .top and .bottom, or measure with score_heads."
            )
        return self.mean

    @property
    def score_name(self) -> str:
        """The name of the score, for figures and tables."""
        return {"ars": "ARS"}.get(name := str(self.about.get("score", "ars")), name)

    @property
    def n_layers(self) -> int:
        """The number of layers of the model."""
        return self.ranking.shape[0]

    @property
    def n_heads(self) -> int:
        """The number of query heads of each layer."""
        return self.ranking.shape[1]

    @refuse_wrong_types
    def top(self, layer: int, k: int) -> list[int]:
        """The k most sensitive heads of a layer, most sensitive first."""
        return self._heads(layer, k)[:k].tolist()

    @refuse_wrong_types
    def bottom(self, layer: int, k: int) -> list[int]:
        """The k least sensitive heads of a layer, least sensitive first."""
        return self._heads(layer, k).flip(0)[:k].tolist()

    def _heads(self, layer: int, k: int) -> Int[Tensor, " head"]:
        if not 0 <= layer < self.n_layers:
            raise ValueError(
                f"layer {layer} of a profile of {self.n_layers} layers: expected 0 to "
                f"{self.n_layers - 1}; correct it."
            )
        if not 1 <= k <= self.n_heads:
            raise ValueError(
                f"k={k} of {self.n_heads} heads: expected 1 to {self.n_heads}; correct it."
            )
        return self.ranking[layer]

    def auto_layers(self) -> list[int]:
        """Layers whose mean score over heads is at least the mean over the whole model.

        The paper enhances "middle" layers, which have higher ARS, but gives no rule. This is a rule of
        rvelens. It needs scores, which a published ranking does not have.
        """
        layers = torch.tensor(self.attention_layers)
        by_layer = self.scores[layers].mean(dim=1)
        return layers[by_layer >= by_layer.mean()].tolist()

    def digest(self) -> str:
        """A digest of the ranking, which is the part of a profile that RVE uses."""
        return hashlib.sha256(self.ranking.cpu().numpy().tobytes()).hexdigest()[:16]

    @refuse_wrong_types
    def save(self, path: str | Path) -> None:
        """Write the profile to one safetensors file, with `about` as JSON in its header.

        Raises:
            ValueError: the path does not end in .safetensors.
        """
        check_profile_path(path)
        tensors = {"ranking": self.ranking, "mean": self.mean, "per_pair": self.per_pair}
        tensors = {name: t.contiguous() for name, t in tensors.items() if t is not None}
        if len(self.attention_layers) < self.n_layers:
            tensors["attention_layers"] = torch.tensor(self.attention_layers)
        content = save(tensors, {"format": PROFILE_FORMAT, "about": json.dumps(self.about)})
        files.write_bytes(path, content)

    @refuse_wrong_types
    def save_folder(self, folder: str | Path) -> None:
        """Write a folder to share: profile.safetensors, a readable profile.json, and a README.md.

        Raises:
            ValueError: the folder holds other files.
        """
        folder = hub.make_folder(folder)
        self.save(folder / hub.PROFILE)
        readable = {
            "about": self.about,
            "digest": self.digest(),
            "ranking": self.ranking.tolist(),
            "mean": None if self.mean is None else self.mean.tolist(),
        }
        files.write_json(folder / hub.ABOUT, readable)
        files.write_text(folder / hub.CARD, profile_card(self))

    @refuse_wrong_types
    def push_to_hub(self, repo_id: str, *, private: bool | None = None) -> str:
        """Upload the folder of `save_folder` to the Hugging Face Hub; returns its URL.

        Raises:
            ValueError: no token, or the Hub refuses.
        """
        return hub.push(self.save_folder, repo_id, private=private)

    @classmethod
    @refuse_wrong_types
    def load(cls, where: str | Path, revision: str | None = None) -> ARSProfile:
        """Read a profile that `save`, `save_folder` or `push_to_hub` wrote.

        Args:
            where: the file, the folder, "rvelens/tiny" for the profile of the embedded model, or
                OWNER/NAME on the Hugging Face Hub.
            revision: branch, tag or commit on the Hub.

        Raises:
            ValueError: no such file, or not a profile.
        """
        # Here, since pydantic takes time to load, which an import need not wait for.
        from rvelens.files.stored import parse_stored
        from rvelens.heads.profile_file import ProfileAbout, check_tensors

        path = hub.find(where, hub.PROFILE, revision)
        if path is None:
            raise ValueError(
                f"no profile at {where}: expected a file of `rvelens scan` or ARSProfile.save; "
                "measure the profile again."
            )
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(
                f"{path} cannot be read ({error}): expected a file of `rvelens scan` or "
                "ARSProfile.save; measure the profile again."
            ) from error
        tensor_names = {"ranking", "mean", "per_pair", "attention_layers"}
        if (
            header.get("format") != PROFILE_FORMAT
            or "ranking" not in tensors
            or set(tensors) - tensor_names
        ):
            raise ValueError(
                f"{path} is not a head profile (format {header.get('format')!r}): expected "
                f"{PROFILE_FORMAT!r}, as ARSProfile.save writes; measure the profile again."
            )
        check_tensors(path, tensors)
        layers = tensors.pop("attention_layers", torch.tensor([])).tolist()
        try:
            about = parse_stored(header.get("about", "{}"), ProfileAbout).model_dump(
                exclude_unset=True
            )
        except ValueError as error:
            raise ValueError(
                f"{path}: `about` cannot be read ({error}): expected text that ARSProfile.save "
                "writes; measure the profile again."
            ) from error
        return cls(**tensors, about=about, attention_layers=tuple(layers))


def profile_card(profile: ARSProfile) -> str:
    """The README.md of a profile's folder."""
    model = str(profile.about.get("model", "a model"))
    heads = {
        str(layer): " ".join(map(str, profile.top(layer, min(5, profile.n_heads))))
        for layer in range(profile.n_layers)
    }
    # Here, since it loads rich's tables, for which an import need not wait.
    from rvelens.tables import markdown_text

    body = f"""How far the attention of each head of {markdown_text(model)} moves when the verb of a
question changes (ARS), of {profile.n_layers} layers with {profile.n_heads} heads. Digest of the
ranking: `{profile.digest()}`.

{hub.rows(profile.about, "measured with", "")}

{hub.rows(heads, "layer", "most sensitive heads")}

```python
from rvelens import ARSProfile

profile = ARSProfile.load("FOLDER")  # or OWNER/NAME on the Hub
```
"""
    return hub.card(f"Head sensitivities of {model}", body, model)


def check_profile_path(path: str | Path) -> None:
    """Raise ValueError if a profile cannot be written; call it before the work."""
    if Path(path).suffix != ".safetensors":
        raise ValueError(f"{path}: expected a file name that ends in .safetensors; rename it.")
    if Path(path).is_dir() or not Path(path).absolute().parent.is_dir():
        raise ValueError(f"{path}: expected a file in a folder that exists; create it first.")
