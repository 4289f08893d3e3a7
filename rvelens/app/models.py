"""Models that the explorer has loaded, and the lock round them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from rvelens.cli.profiles import find_profile
from rvelens.contrastive import ContrastivePair
from rvelens.loading import load_model
from rvelens.model import HookedLVLM
from rvelens.profile import ARSProfile
from rvelens.scores import score_heads
from rvelens.weights import check_profile_of


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model, and the sensitivity of its heads where that is known.

    Attributes:
        model: without hooks that are on.
        profile: None until one is named or measured; all but rve do without.
        source: where the profile is from, in words.
    """

    model: HookedLVLM
    profile: ARSProfile | None
    source: str

    def says(self) -> str:
        """The model in one line."""
        m = self.model
        return (
            f"{m.name}: {m.family.name}, {m.n_layers} layers × {m.n_heads} heads, "
            f"{str(m.hf_model.dtype).removeprefix('torch.')} on {m.device}; {self.source}"
        )


@dataclass(eq=False)
class Models:
    """Models by name, each loaded once, when it is first asked for.

    Attributes:
        family, dtype, device_map: for all of them, as the command line takes them.
        lock: to be held while a model runs, since hooks belong to it: people wait for one another.
    """

    family: str | None = None
    dtype: str = "auto"
    device_map: str | None = None
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _loaded: dict[str, Loaded] = field(default_factory=dict, repr=False)

    def get(self, name: str) -> Loaded:
        """A model by its name or folder, with the profile that is known of it.

        Raises:
            ValueError: it cannot be found or read.
        """
        name = name.strip()
        if not name:
            raise ValueError("no model is named: expected a hub name, a folder or rvelens/tiny.")
        with self.lock:
            if name not in self._loaded:
                model = load_model(
                    name, family=self.family, dtype=self.dtype, device_map=self.device_map
                )
                shipped = name == "rvelens/tiny"
                profile = find_profile(None, name) if shipped else None
                source = (
                    "its shipped head profile"
                    if shipped
                    else "no head profile yet, which rve needs: measure one under Heads"
                )
                self._loaded[name] = Loaded(model, profile, source)
            return self._loaded[name]

    def profiled(self, name: str, profile: str) -> Loaded:
        """The model with the head profile of a file, or "published", from now on.

        Raises:
            ValueError: no such profile, or of another model.
        """
        loaded = self.get(name)
        found = find_profile(profile.strip(), name.strip())
        check_profile_of(loaded.model, found)
        return self._keep(name, loaded.model, found, f"head profile {profile.strip()}")

    def measured(self, name: str, pairs: list[ContrastivePair]) -> Loaded:
        """The model with a head profile measured on contrastive pairs, from now on."""
        loaded = self.get(name)
        with self.lock:
            found = score_heads(loaded.model, pairs)
        return self._keep(name, loaded.model, found, f"head profile of {len(pairs)} pairs")

    def _keep(self, name: str, model: HookedLVLM, profile: ARSProfile, source: str) -> Loaded:
        with self.lock:
            self._loaded[name.strip()] = Loaded(model, profile, source)
            return self._loaded[name.strip()]
