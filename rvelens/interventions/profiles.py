"""The head profile that a command takes: named, shipped with the model, or published for it."""

from __future__ import annotations

from rvelens.heads.hub import check_name
from rvelens.heads.profile import PUBLISHED, ARSProfile


def find_profile(profile: str | None, model: str) -> ARSProfile:
    """The profile that was asked for, or the one that ships with the model.

    Raises:
        ValueError: no such profile, or none was named and none ships with this model, or the model's
            name is that of the embedded one but for a slip.
    """
    if profile is None and model == "rvelens/tiny":
        profile = model
    # Loading a model takes minutes, so the profile is looked for first; but not for a slip.
    check_name(model)
    if profile is None:
        raise ValueError(
            f"no head profile for {model}: expected a profile (--profile), a file or `published`; make "
            "one with `rvelens scan MODEL --pairs PAIRS.jsonl --images DIR -o PROFILE.safetensors`."
        )
    if profile.partition(":")[0] != "published":
        return ARSProfile.load(profile)
    # A ranking of other weights of the same shape would be taken without a word; so go by the name.
    wanted = profile.partition(":")[2] or next((n for n in PUBLISHED if n in model.lower()), None)
    if wanted is None:
        raise ValueError(
            f"no ranking was published for {model!r}: expected one of {', '.join(PUBLISHED)} in "
            "the model's name; if these are its weights, pass profile (--profile) "
            f"published:{next(iter(PUBLISHED))}."
        )
    return ARSProfile.published(wanted)
