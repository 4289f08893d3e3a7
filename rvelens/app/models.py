"""Models that the explorer has loaded, and the lock round them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

from rvelens.benchmarks.action_scenes import contrastive_pairs
from rvelens.files.wording import counted
from rvelens.heads.pair import ContrastivePair
from rvelens.heads.profile import ARSProfile, check_profile_path
from rvelens.interventions.profiles import find_profile
from rvelens.model.hooked_lvlm import HookedLVLM
from rvelens.model.loading import load_model
from rvelens.model.weights import check_profile_of
from rvelens.scores import score_heads

SHIPPED = "rvelens/tiny"  # the model that comes with a profile
N_MEASURED = 64
MEASURED = f"scenes:{N_MEASURED}"  # the name of a profile that is measured on drawn scenes


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

    def describe(self) -> str:
        """The model in one line."""
        m = self.model
        return (
            f"{m.name}: {m.family.name}, {m.n_layers} layers × {m.n_heads} heads, "
            f"{str(m.hf_model.dtype).removeprefix('torch.')} on {m.device}; {self.source}"
        )


@dataclass(frozen=True, eq=False)
class Choice:
    """What one window works with; no window changes what another one works with.

    Attributes:
        name: of the model.
        profile: its head profile; None where none is known.
        source: where the profile is from, in words.
        code: Python that gives the profile, of a model called `model`; "" without one.
        profile_name: what the profile was chosen by, as `Models.choose` takes it, or `MEASURED`.
        is_restored: from an address: what else the address says of the page stays.
    """

    name: str
    profile: ARSProfile | None
    source: str
    code: str = ""
    profile_name: str = ""
    is_restored: bool = False


@dataclass(eq=False)
class Models:
    """Models by name, each loaded once, when it is first needed.

    Attributes:
        family, dtype, device_map: for all of them, as the command line takes them.
        lock: to be held while a model runs, since hooks belong to it: people wait for one another.
    """

    family: str | None = None
    dtype: str = "auto"
    device_map: str | None = None
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _models: dict[str, HookedLVLM] = field(default_factory=dict, repr=False)
    _measured: dict[str, Choice] = field(default_factory=dict, repr=False)

    def choose(self, name: str, profile: str = "") -> Choice:
        """A model by its name or folder, with a head profile.

        Args:
            name: a hub name, a folder or rvelens/tiny.
            profile: a file, a folder or "published"; "" for the one that ships with the model.

        Raises:
            ValueError: no such model or profile, or a profile of another model.
        """
        name, profile = name.strip(), profile.strip()
        ranking = find_profile(profile or None, name) if profile or name == SHIPPED else None
        model = self._model(name)
        if ranking is None:
            return Choice(
                name, None, "no head profile yet, which rve needs: measure it under Heads"
            )
        check_profile_of(model, ranking)
        source = f"head profile {profile}" if profile else "its shipped head profile"
        code = f"find_profile({profile or None!r}, {name!r})"
        return Choice(name, ranking, source, code, profile or SHIPPED)

    def measure_scenes(self, choice: Choice) -> Choice:
        """The same model with a head profile on drawn scenes, measured once; its name is `MEASURED`."""
        code = f'contrastive_pairs("validation", {N_MEASURED})'
        with self.lock:
            if choice.name not in self._measured:
                pairs = contrastive_pairs("validation", N_MEASURED)
                measured = self.measure(choice, pairs, code)
                self._measured[choice.name] = replace(measured, profile_name=MEASURED)
            return self._measured[choice.name]

    def measure(self, choice: Choice, pairs: list[ContrastivePair], code: str = "pairs") -> Choice:
        """The same model with a head profile measured on contrastive pairs; `code` gives the pairs."""
        model = self._model(choice.name)
        with self.lock:
            ranking = score_heads(model, pairs)
        source = f"head profile measured on {counted(len(pairs), 'pair')}, not saved"
        return Choice(choice.name, ranking, source, f"score_heads(model, {code})")

    def options(self) -> dict[str, str]:
        """How models are loaded, where that is not the default of `load_model`."""
        arguments = {"family": self.family, "dtype": self.dtype, "device_map": self.device_map}
        return {k: v for k, v in arguments.items() if v is not None and (k, v) != ("dtype", "auto")}

    def loaded(self, choice: Choice) -> Loaded:
        """The model of a choice, with the choice's profile."""
        return Loaded(self._model(choice.name), choice.profile, choice.source)

    def get(self, name: str) -> Loaded:
        """A model with the profile that ships with it; raises what `choose` raises."""
        return self.loaded(self.choose(name))

    def _model(self, name: str) -> HookedLVLM:
        if not name:
            raise ValueError(
                "no model is given: expected a name on the Hub, a folder or rvelens/tiny; enter one."
            )
        with self.lock:
            if name not in self._models:
                self._models[name] = load_model(
                    name, family=self.family, dtype=self.dtype, device_map=self.device_map
                )
            return self._models[name]


def save_profile(choice: Choice, path: str) -> Choice:
    """Write the profile of a choice to a new file; gives the choice with its new source.

    Raises:
        ValueError: the choice has no profile, the file name has a wrong ending, or the file exists.
        OSError: the file cannot be written.
    """
    if choice.profile is None:
        raise ValueError(
            "there is no head profile to save: expected a measured one; measure it under Heads first."
        )
    if not path.strip():
        raise ValueError("no file is given for the head profile: expected a path; enter one.")
    target = Path(path.strip()).expanduser()
    check_profile_path(target)
    if target.exists():
        raise ValueError(f"{target} exists already: expected a new file; choose another name.")
    choice.profile.save(target)
    code = f"ARSProfile.load({str(target)!r})"
    return replace(choice, source=f"head profile {target}", code=code, is_restored=False)
