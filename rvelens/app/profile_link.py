"""The head profile that a window works with, as a part of the address, and back.

An address holds a profile's name where anyone can have the profile by that name. It never holds a
path: of a file it holds the profile's digest, so that a page with the same file opens without a word.
"""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import parse_qsl

from rvelens.app.address import hub_name
from rvelens.app.models import MEASURED, SHIPPED, Choice, Models

# Writes the profile into the address; without a name it is left out.
WRITE_PROFILE = "profile => { window.rvAddress(profile ? {profile} : {}, 'profile'); }"
NOT_CARRIED = "The address does not carry this head profile: it is a file on this machine."
_PUBLISHED, _FILE = "published", "file:"
# By its form alone: an answer must not tell which folders are here.
_REPOSITORY = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}")


def profile_part(choice: Choice) -> str:
    """What an address says of a window's profile; "" where there is none."""
    if choice.profile is None:
        return ""
    if _is_public(choice.profile_name):
        return choice.profile_name
    return f"{_FILE}{choice.profile.digest()}"


def is_carried(choice: Choice) -> bool:
    """Whether an address brings back a window's profile on any machine."""
    return not profile_part(choice).startswith(_FILE)


def _is_public(name: str) -> bool:
    return name == MEASURED or name.partition(":")[0] == _PUBLISHED or hub_name(name) != ""


def read_profile_link(models: Models, start: Choice, query: str) -> Choice | None:
    """The model that a page opened with, with the profile that an address names.

    Returns:
        None where the address names no other profile, or another model, which the tab Ask refuses.

    Raises:
        ValueError: a profile that no address carries, no such profile, or one of another model.
    """
    parts = dict(parse_qsl(query.removeprefix("?")))
    name = parts.get("profile", "")
    if name in ("", profile_part(start)) or parts.get("model", start.name) != start.name:
        return None
    if name.startswith(_FILE):
        raise ValueError(
            "the address is of a head profile in a file, which no address carries: expected the file; "
            "load it under Another model or head profile, and ask again."
        )
    if _REPOSITORY.fullmatch(name) and name != SHIPPED:
        raise ValueError(
            f"the address is of the head profile {name} on the Hub, and a link starts no download: "
            "expected this profile; load it under Another model or head profile, and ask again."
        )
    if name not in (MEASURED, SHIPPED) and name.partition(":")[0] != _PUBLISHED:
        raise ValueError(
            f"the address has profile={name}: expected {_PUBLISHED}, {MEASURED}, rvelens/tiny, or "
            "OWNER/NAME on the Hub, and no path; correct it."
        )
    choice = models.measure_scenes(start) if name == MEASURED else models.choose(start.name, name)
    return replace(choice, is_restored=True)
