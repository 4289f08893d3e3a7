"""An intervention as an artefact: a method with all its parameters, and its model and prompt.

A folder holds `manifest.json`, the head profile if the method takes one, and a README.md. It can be
pushed to the Hugging Face Hub. Runs of `rvelens eval` can also be read, with their profile as an
argument.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from rvelens.benchmarks.files import sha256
from rvelens.evaluate import manifest as runs
from rvelens.evaluate.answering import Decoding
from rvelens.files.arguments import refuse_wrong_types
from rvelens.files.atomic import write_json, write_text
from rvelens.files.stored import (
    Digest,
    Stored,
    StoredDecoding,
    StoredMethod,
    StoredModel,
    read_stored,
)
from rvelens.heads import hub
from rvelens.heads.layers import parse_layers
from rvelens.heads.profile import ARSProfile
from rvelens.interventions.methods import Method, make_method
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.tables import markdown_block, markdown_code, markdown_text

INTERVENTION_FORMAT = "rvelens-intervention-1"


class StoredProfile(Stored):
    """The file of a head profile next to a manifest."""

    file: Literal["profile.safetensors"]
    sha256: Digest


class Manifest(Stored):
    """The manifest.json of an intervention, or of a run, which has no entry for a profile."""

    format: Literal["rvelens-intervention-1", "rvelens-run-2"]
    model: StoredModel
    method: StoredMethod
    decoding: StoredDecoding
    versions: dict[str, str]
    profile: StoredProfile | None = None


@dataclass(frozen=True, eq=False)
class Intervention:
    """A method for one model, with everything that its answers depend on.

    Attributes:
        name: the name of the method in `rvelens.interventions.methods.METHODS`.
        parameters: all parameters, as in `Method.parameters`.
        profile: the head profile; None if the method takes none.
        model: name, revision, family, dtype, layers, heads and a digest of the weights.
        decoding: prompt, suffix and length of its answers.
        example: the prompt of the model around "{question}".
        versions: the versions of the libraries that it was made with.
    """

    name: str
    parameters: Mapping[str, Any]
    profile: ARSProfile | None = field(repr=False)
    model: Mapping[str, Any]
    decoding: Decoding
    example: str
    versions: Mapping[str, str] = field(repr=False)

    @classmethod
    @refuse_wrong_types
    def of(
        cls,
        model: HookedLVLM,
        method: Method,
        profile: ARSProfile | None = None,
        decoding: Decoding | None = None,
    ) -> Intervention:
        """The intervention for a method on a model.

        Args:
            model: the hooked model.
            method: from `make_method`.
            profile: the profile that the method was made with.
            decoding: how its answers are generated; by default `Decoding()`.

        Raises:
            ValueError: the method was made with another profile.
        """
        decoding = decoding or Decoding()
        profile = profile if "profile" in method.parameters else None
        check_profile(method.parameters, profile)
        return cls(
            method.name,
            dict(method.parameters),
            profile,
            _about(model),
            decoding,
            runs.example(model, decoding.prompt),
            intervention_versions(),
        )

    @refuse_wrong_types
    def method(self, model: HookedLVLM) -> Method:
        """The method on a model.

        Raises:
            ValueError: another model, or a model with another prompt.
        """
        self.refuse_other(model)
        settings = {name: v for name, v in self.parameters.items() if name != "profile"}
        return make_method(self.name, model, self.profile, **settings)

    @refuse_wrong_types
    def hooks(self, model: HookedLVLM) -> list[tuple[str | Callable[[str], bool], Any]]:
        """Its hooks, for `model.hooks(...)`.

        Raises:
            ValueError: an error of `method`, or a method that needs more than hooks on the last row.
        """
        method = self.method(model)
        if method.contrast is not None or method.query_rows == "all":
            raise ValueError(
                f"{self.name} is more than hooks on the last row: expected a method without a "
                "second branch; use .method(model) with rvelens.evaluate.answering.answer."
            )
        return list(method.hooks)

    def refuse_other(self, model: HookedLVLM) -> None:
        """Raise ValueError for another model, or a model with another prompt."""
        here = _about(model)
        for name in ("family", "layers", "heads", "dtype", "weights"):
            # A run's manifest says nothing of layers and heads, which its weights imply.
            stored = self.model.get(name, here[name] if name in ("layers", "heads") else None)
            if stored != here[name]:
                raise ValueError(
                    f"an intervention for {self.model.get('name')} with {name} {_short(stored)}, "
                    f"and {model.name} has {_short(here[name])}: expected the model that it was "
                    "made for; load that model."
                )
        if runs.example(model, self.decoding.prompt) != self.example:
            raise ValueError(
                f"the prompt {self.decoding.prompt!r} of {model.name} is not the one that the "
                "intervention was made with: expected the same chat template; use the processor "
                "of that model."
            )

    def other_versions(self) -> list[str]:
        """ "torch 2.6.0, here 2.7.0" for each library whose version differs."""
        here = intervention_versions()
        return [
            f"{name} {version}, here {here.get(name)}"
            for name, version in self.versions.items()
            if version != here.get(name)
        ]

    def heads(self) -> dict[int, dict[str, list[int]]]:
        """Sensitive and insensitive heads of each edited layer; {} without a profile."""
        if self.profile is None:
            return {}
        layers = parse_layers(self.parameters["layers"], None, self.profile.n_layers)
        k = self.parameters["k"]
        return {
            n: {"sensitive": self.profile.top(n, k), "insensitive": self.profile.bottom(n, k)}
            for n in layers
        }

    @refuse_wrong_types
    def save(self, folder: str | Path) -> None:
        """Write manifest.json, README.md and, if there is a profile, profile.safetensors.

        Raises:
            ValueError: the folder holds other files.
        """
        folder = hub.make_folder(folder)
        data = {
            "format": INTERVENTION_FORMAT,
            "model": dict(self.model),
            "method": {"name": self.name, "parameters": dict(self.parameters)},
            "heads": self.heads(),
            "decoding": {**asdict(self.decoding), "greedy": True, "example": self.example},
            "versions": dict(self.versions),
        }
        (folder / hub.PROFILE).unlink(missing_ok=True)
        if self.profile is not None:
            self.profile.save(folder / hub.PROFILE)
            data["profile"] = {"file": hub.PROFILE, "sha256": sha256(folder / hub.PROFILE)}
        write_json(folder / hub.MANIFEST, data)
        write_text(folder / hub.CARD, self.card())

    @refuse_wrong_types
    def push_to_hub(self, repo_id: str, *, private: bool | None = None) -> str:
        """Upload the folder of `save` to the Hugging Face Hub; returns its URL.

        Raises:
            ValueError: no token, or the Hub refuses.
        """
        return hub.push(self.save, repo_id, private=private)

    @classmethod
    @refuse_wrong_types
    def load(
        cls,
        where: str | Path,
        profile: ARSProfile | None = None,
        revision: str | None = None,
    ) -> Intervention:
        """Read an intervention, from its own folder or from a run of `rvelens eval`.

        Args:
            where: the folder, its manifest.json, or OWNER/NAME on the Hugging Face Hub.
            profile: the profile for a run, whose folder has none.
            revision: branch, tag or commit on the Hub.

        Raises:
            ValueError: no such folder, a folder of another kind, or another profile than the manifest
                names.
        """
        path = hub.find(where, hub.MANIFEST, revision)
        if path is None:
            raise ValueError(
                f"no intervention at {where}: expected a folder with {hub.MANIFEST}; write it with "
                "`rvelens ask --save-manifest`."
            )
        stored = read_stored(
            path,
            Manifest,
            f"the {hub.MANIFEST} that `rvelens ask --save-manifest` or `rvelens eval` wrote; take that",
        )
        if stored.profile is not None:
            profile_path = path.parent / hub.PROFILE
            profile = ARSProfile.load(profile_path)
            if sha256(profile_path) != stored.profile.sha256:
                raise ValueError(
                    f"{profile_path} was changed after {path} was written: expected unchanged files; "
                    "restore both."
                )
        attributes = _fields(stored)
        check_profile(attributes["parameters"], profile)
        return cls(**attributes, profile=profile)

    def card(self) -> str:
        """The README.md of its folder."""
        model = str(self.model["name"])
        heads = {
            f"{n}": " ".join(map(str, h["sensitive"]))
            + " / "
            + " ".join(map(str, h["insensitive"]))
            for n, h in self.heads().items()
        }
        table = hub.rows(heads, "layer", "most / least sensitive heads") if heads else ""
        prompt, suffix = self.decoding.prompt, self.decoding.suffix or "none"
        body = f"""{self.name} with these settings, for {markdown_text(model)} and for no other weights:

{hub.rows(self.parameters, "setting", "value")}

{table}

{hub.rows(self.model, "model", "")}

{hub.rows(self.versions, "made with", "version")}

Prompt {markdown_code(prompt)}, suffix {markdown_code(suffix)}; the model reads:

{markdown_block(self.example)}

```bash
rvelens ask {shlex.quote(" ".join(model.split()))} IMAGE QUESTION --manifest FOLDER
```

FOLDER is this folder, or its OWNER/NAME on the Hub. In Python, for a loaded `HookedLVLM`:

```python
from rvelens.evaluate.intervention import Intervention

steer = Intervention.load("FOLDER")
with model.hooks(steer.hooks(model)):
    print(model.ask(image, question))
```
"""
        return hub.card(f"{self.name} for {model}", body, model)


def _about(model: HookedLVLM) -> dict[str, Any]:
    """What a model is, for a manifest."""
    return {**runs.about_model(model), "layers": model.n_layers, "heads": model.n_heads}


def intervention_versions() -> dict[str, str]:
    """Versions of the libraries that answers may depend on."""
    return {**runs.versions(), "transformer-lens": metadata.version("transformer-lens")}


def check_profile(parameters: Mapping[str, Any], profile: ARSProfile | None) -> None:
    """Raise ValueError if a method's parameters name another profile than the given one."""
    named = parameters.get("profile")
    digest = None if profile is None else profile.digest()
    if named is not None and named != digest:
        raise ValueError(
            f"the method was made with the head profile {named}, and "
            + ("none is given" if digest is None else f"this one is {digest}")
            + ": expected that profile; pass it as profile (--profile)."
        )


def _fields(stored: Manifest) -> dict[str, Any]:
    """The fields of an intervention, but for the profile."""
    decoding = stored.decoding.model_dump()
    example = decoding.pop("example")
    return {
        "name": stored.method.name,
        "parameters": dict(stored.method.parameters),
        "model": stored.model.model_dump(exclude_unset=True),
        "decoding": Decoding(**decoding),
        "example": example,
        "versions": dict(stored.versions),
    }


def _short(value: Any) -> str:
    return str(value) if len(str(value)) <= 16 else f"{str(value)[:12]}..."
