"""Methods of one's own by name: a function in a Python file, or an entry point of a package."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from rvelens.heads.profile import ARSProfile
from rvelens.interventions.method import (
    Method,
    QuestionHooks,
    checked_hooks,
    naming,
    query_rows_of,
)
from rvelens.model.hooked_lvlm import HookedLVLM

# Entry points of packages: `[project.entry-points."rvelens.interventions"]`, NAME = "MODULE:FUNCTION".
GROUP = "rvelens.interventions"


def is_own(name: str) -> bool:
    """Whether a name is FILE.py:FUNCTION, or an entry point of the group `rvelens.interventions`."""
    return _file_of(name) is not None or _entry_point(name) is not None


def method_name(name: str) -> str:
    """What a method is called: of FILE.py:FUNCTION the function, else the name itself."""
    return name if _file_of(name) is None else name.rpartition(":")[2]


def own_function(name: str) -> Callable[..., Any]:
    """The function that makes a method of one's own.

    Args:
        name: FILE.py:FUNCTION, or an entry point.

    Raises:
        ValueError: no such file, function or entry point, code that cannot be loaded, or a function
            without a parameter for the model, or with options that have no names.
    """
    path, function = _file_of(name), name.rpartition(":")[2]
    if path is not None:
        found = getattr(_module(path), function, None)
        if not callable(found):
            raise ValueError(
                f"{path} has no function {function!r}: expected FILE.py:FUNCTION, which makes the "
                "method; correct its name."
            )
    else:
        entry = _entry_point(name)
        if entry is None:
            raise ValueError(
                f"no method {name!r}: expected FILE.py:FUNCTION or an entry point; name it."
            )
        try:
            found = entry.load()
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"the method {name!r} of an installed package cannot be loaded ({error}): expected its "
                f"entry point {entry.value} to import; repair the package."
            ) from error
    parameters = list(inspect.signature(found).parameters.values())
    unnamed = [p for p in parameters if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    if not parameters or unnamed:
        raise ValueError(
            f"{name} takes {inspect.signature(found)}: expected a parameter for the model, and options "
            "by their names; write each one out, as in make(model, factor=2.0)."
        )
    return found


def takes_profile(name: str) -> bool:
    """Whether the function of a method of one's own has a parameter `profile`."""
    return "profile" in inspect.signature(own_function(name)).parameters


def make_own(
    name: str, model: HookedLVLM, profile: ARSProfile | None, settings: Mapping[str, Any]
) -> Method:
    """The method that a function of one's own makes for a model.

    The function's first parameter is the model. A parameter called `profile` is the head profile. The
    others are options. It returns hooks, a `Method`, or an object with `hooks(model, question)`.

    Args:
        name: FILE.py:FUNCTION, or an entry point.
        model: the hooked model.
        profile: head sensitivities.
        settings: every option with its value.

    Raises:
        ValueError: something else came back, an option that JSON cannot hold, or no profile.
    """
    function, given = own_function(name), dict(settings)
    parameters = _plain(name, settings)
    if takes_profile(name):
        if profile is None:
            raise ValueError(
                f"{name} takes a profile, and there is none: expected the sensitivity of the model's "
                "heads; pass it, on the command line as --profile."
            )
        given["profile"], parameters["profile"] = profile, profile.digest()
    called = method_name(name)
    with naming(name):
        made = function(model, **given)
    if isinstance(made, Method):
        settled = {**parameters, **made.parameters}
        return Method(**{**vars(made), "name": called, "parameters": settled})
    if isinstance(made, QuestionHooks):
        version = getattr(made, "version", None)
        return Method(called, parameters, version=version, of_question=made)
    hooks = checked_hooks(made, called)
    return Method(called, parameters, hooks, query_rows_of(hooks))


def _plain(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Options as a manifest holds them."""
    try:
        return json.loads(json.dumps(dict(settings)))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} has an option that is not plain ({error}): expected numbers, texts and lists; "
            "make the rest within the function."
        ) from error


def _file_of(name: str) -> Path | None:
    """The file of FILE.py:FUNCTION; None for another name."""
    path = name if name.endswith(".py") else name.rpartition(":")[0]
    return Path(path) if path.endswith(".py") else None


def _entry_point(name: str) -> EntryPoint | None:
    return next(iter(entry_points(group=GROUP, name=name)), None)


def _module(path: Path) -> ModuleType:
    if not path.is_file():
        raise ValueError(
            f"no file {path}: expected FILE.py:FUNCTION, your own method; check the path."
        )
    return _loaded(path.resolve(), path.stat().st_mtime_ns)


@lru_cache
def _loaded(path: Path, time: int) -> ModuleType:
    """A Python file as a module; modules beside it can be imported while it loads."""
    # A prefix, so that a file called json.py is taken for no module of Python's own.
    spec = spec_from_file_location(f"rvelens_own_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        raise ValueError(
            f"{path} cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())}): "
            "expected a Python file that imports; run it by itself to see where it fails."
        ) from error
    finally:
        sys.path.remove(str(path.parent))
    return module
