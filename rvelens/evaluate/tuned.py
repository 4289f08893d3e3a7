"""A tuned setting of RVE, and the photographs that results must not be reported on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from rvelens.benchmarks import Benchmark
from rvelens.files.arguments import refuse_wrong_types
from rvelens.files.stored import Stored, checked, read_stored
from rvelens.files.wording import counted

By = Literal["auc", "accuracy", "balanced_accuracy", "f1"]
TUNED_FORMAT = "rvelens-tuned-1"


class StoredTuned(Stored):
    """The result of tuning, as stored in its file."""

    format: Literal["rvelens-tuned-1"]
    setting: dict[str, bool | int | float | str | list[int]]
    by: By
    model: str
    profile: str
    benchmark: str
    photographs: list[str]


class StoredMeasured(Stored):
    """The part of a study's measurements with the result of tuning."""

    tuned: dict[str, Any]


class StoredOfModel(Stored):
    """The measurements of the tuning study for a model."""

    measured: StoredMeasured


class StoredStudy(Stored):
    """The tune.json of `rvelens study tune`."""

    models: Annotated[list[StoredOfModel], Field(min_length=1)]


@dataclass(frozen=True)
class Tuned:
    """The result of tuning.

    Attributes:
        setting: keywords for `rve_hooks`.
        by: the metric that it was chosen by.
        model, profile: the model and the digest of the profile that it was chosen for.
        benchmark: the name of the benchmark that it was chosen on.
        photographs: the photographs of these questions.
    """

    setting: Mapping[str, Any]
    by: str
    model: str
    profile: str
    benchmark: str
    photographs: tuple[str, ...]

    def refuse_report_on(self, benchmark: Benchmark) -> None:
        """Raise ValueError if some questions are about photographs that it was tuned on."""
        photographs = set(self.photographs)
        overlap = [item for item in benchmark.items if item.source in photographs]
        if overlap:
            raise ValueError(
                f"{len(overlap)} of {counted(len(benchmark.items), 'question')} of "
                f"{benchmark.name} are about "
                f"photographs that RVE was tuned on ({overlap[0].source} is one): expected other "
                "photographs; split the photographs, or choose another benchmark."
            )

    def refuse_other(self, model: str, profile: str) -> None:
        """Raise ValueError for another model or another ranking of its heads."""
        for label, here, tuned_for in (
            ("model", model, self.model),
            ("head profile", profile, self.profile),
        ):
            if here != tuned_for:
                raise ValueError(
                    f"settings tuned for the {label} {tuned_for}, and this is {here}: expected the "
                    "same; tune for this one again."
                )

    def to_json(self) -> dict[str, Any]:
        """The result as JSON, which `load` reads."""
        return {
            "format": TUNED_FORMAT,
            **{k: v for k, v in vars(self).items() if k != "photographs"},
            "setting": dict(self.setting),
            "photographs": list(self.photographs),
        }

    @classmethod
    @refuse_wrong_types
    def load(cls, path: str | Path) -> Tuned:
        """Read the result of `rvelens tune`: its tune.json, or the part "tuned" of it.

        Raises:
            ValueError: no such file, or a file of another kind.
        """
        path = Path(path)
        path = path / "tune.json" if path.is_dir() else path
        expected = "the tune.json that `rvelens tune` wrote; tune again"
        data = read_stored(path, dict, expected)
        try:
            if data.get("format") != TUNED_FORMAT:
                data = checked(data, StoredStudy).models[0].measured.tuned
            attributes = checked(data, StoredTuned).model_dump(exclude={"format"})
        except ValueError as error:
            raise ValueError(
                f"{path} is not a result of `rvelens tune` ({error}): expected {expected}."
            ) from error
        return cls(**{**attributes, "photographs": tuple(attributes["photographs"])})
