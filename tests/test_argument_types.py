"""One mistake in every argument of every public function: one sentence, before the function works."""

from __future__ import annotations

import importlib
import inspect
import math
import re
import types
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import numpy as np
import pytest
import torch

from rvelens import ARSProfile, HookedLVLM
from rvelens.evaluate.capture import Capture, CaptureRequest
from rvelens.evaluate.intervention import Intervention
from rvelens.evaluate.tuned import Tuned
from rvelens.files.arguments import _hints, described, is_of, refuse_wrong_types
from rvelens.judge.open_ended import judge
from rvelens.model.loading import load_model
from rvelens.model.trace import Trace, TracedAnswer
from rvelens.tokens.grid import ImageGrid

PACKAGES = (
    "rvelens", "rvelens.hooks", "rvelens.patching", "rvelens.plots", "rvelens.scores", "rvelens.views",
    "rvelens.evaluate", "rvelens.evaluate.capture", "rvelens.benchmarks",
    "rvelens.benchmarks.action_scenes", "rvelens.interventions", "rvelens.pairs", "rvelens.convert",
    "rvelens.studies",
)  # fmt: skip
# Classes and functions that hold or take what the package itself makes.
INNER = {
    "TokenMap", "LastRowHook", "visible_image", "tokens_of", "follow_bridge", "house_style",
    "Effects", "RunPair", "Score", "View", "Answer", "Capture", "Captured", "Benchmark", "Item",
    "Person", "Question", "Scene", "Box", "ContrastProcessor", "text_negative", "Conversion", "Batch",
    "Setup", "Shown", "Study", "HookedLVLM",
}  # fmt: skip
METHODS = (
    HookedLVLM.__init__, HookedLVLM.from_pretrained, HookedLVLM.prepare, HookedLVLM.ask,
    HookedLVLM.chat, HookedLVLM.trace, HookedLVLM.decode, HookedLVLM.hooks, HookedLVLM.add_hook,
    HookedLVLM.token_map, HookedLVLM.image_grid, ARSProfile.load, ARSProfile.from_scores,
    ARSProfile.published, ARSProfile.top, ARSProfile.save, Trace.load, Trace.save,
    TracedAnswer.map_of, Intervention.of, Intervention.load, Tuned.load, Capture.tensor,
    ImageGrid.tokens_in, load_model,
)  # fmt: skip


def entry_points():
    """Each public function by its name, without those that are listed as inner."""
    entries = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            if callable(value := getattr(module, name)) and name not in INNER:
                entries[name] = value.__init__ if isinstance(value, type) else value
    return {**entries, **{m.__qualname__: getattr(m, "__func__", m) for m in METHODS}}


ENTRIES = entry_points()


def function_of(entry):
    """The function behind the check: the first that its wrappers wrap."""
    return entry.__wrapped__


def right_value(hint):
    """Something of a type; the functions are not run, so it need not mean anything."""
    if get_origin(hint) in (Union, types.UnionType):
        return right_value(get_args(hint)[0])
    candidates = ("x", 1, 0.5, True, [], (), {}, np.zeros(1), torch.zeros(1), Path("x"), len)
    found = [value for value in candidates if is_of(value, hint)]
    if found:
        return found[0]
    if get_origin(hint) is tuple:
        return tuple(map(right_value, get_args(hint)))
    return object.__new__(hint)


def cases():
    for name, entry in ENTRIES.items():
        for parameter, hint in _hints(function_of(entry)).items():
            for value in mistakes(hint):
                yield pytest.param(
                    entry, parameter, value, id=f"{name}-{parameter}-{type(value).__name__}"
                )


def mistakes(hint):
    """Values that a type must refuse, by what is written and not by the rule that is tested."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if Any in kinds:
        return
    if type(None) not in kinds:
        yield None
    if not {str, Path} & set(kinds) and not any(get_origin(k) is None and k is str for k in kinds):
        yield "abc"
    if bool not in kinds:
        yield True
    if not any(hasattr(k, "read") for k in kinds):
        yield object()


def call(entry, parameter, value):
    function = function_of(entry)
    arguments = {}
    for each in inspect.signature(function).parameters.values():
        if each.name == parameter:
            arguments[each.name] = value
        elif each.default is each.empty and each.kind not in (
            each.VAR_KEYWORD,
            each.VAR_POSITIONAL,
        ):
            hint = _hints(function).get(each.name, Any)
            arguments[each.name] = "x" if hint is Any else right_value(hint)
    return entry(**arguments)


@pytest.mark.parametrize(("entry", "parameter", "value"), list(cases()))
def test_a_wrong_type_is_one_sentence(entry, parameter, value):
    with pytest.raises(TypeError) as error:
        call(entry, parameter, value)
    name = re.escape(entry.__qualname__.removesuffix(".__init__"))
    assert re.fullmatch(
        rf"{name}\({parameter}=.*\): expected [^;]+; [^;]+\.", str(error.value), re.DOTALL
    )


@pytest.mark.parametrize("name", ENTRIES)
def test_every_public_function_checks_its_arguments(name):
    parameters = inspect.signature(ENTRIES[name]).parameters.values()
    if any(each.annotation not in (each.empty, "Any") for each in parameters):
        assert hasattr(ENTRIES[name], "__wrapped__"), "decorate it with refuse_wrong_types"
        assert _hints(function_of(ENTRIES[name])), "import what its annotations name at run time"


def numbers():
    for name, entry in ENTRIES.items():
        if name[0].islower():
            signature = inspect.signature(function_of(entry))
            for parameter, hint in _hints(function_of(entry)).items():
                default = signature.parameters[parameter].default
                if hint is float and default == default:  # not NaN itself
                    yield pytest.param(entry, parameter, id=f"{name}-{parameter}")


@pytest.mark.parametrize(("entry", "parameter"), list(numbers()))
def test_nan_is_no_number(entry, parameter):
    with pytest.raises(
        ValueError, match=rf"\({parameter}=nan\): expected a finite number; pass one"
    ):
        call(entry, parameter, math.nan)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("attn.hook_pattern", "a list of texts; write points=['attn.hook_pattern']"),
        (("a", 3), "a list of texts; correct 3"),
        (None, "a list of texts; pass one"),
    ],
)
def test_what_to_do_with_a_list(value, text):
    with pytest.raises(TypeError, match=re.escape(f"expected {text}.")):
        CaptureRequest(value)


def test_a_number_in_quotes():
    @refuse_wrong_types
    def scaled(by: float, times: int = 1) -> None: ...

    scaled(1)
    scaled(np.float32(1), np.int64(2))
    scaled(torch.tensor(0.5), torch.arange(3)[1])
    with pytest.raises(TypeError, match=r"by='0.1'.*: expected a number; pass it without quotes"):
        scaled("0.1")
    with pytest.raises(TypeError, match=r"times=1.5.*: expected a whole number; pass one"):
        scaled(1, 1.5)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        scaled()


def test_no_key_is_shown():
    for key in ("sk-secret", {"api_key": "sk-secret"}):
        with pytest.raises(TypeError, match=r"judge\(endpoint=a (str|dict)\): expected") as error:
            judge([], key)
        assert "secret" not in str(error.value)


def test_what_is_wrong_in_a_list_is_named():
    @refuse_wrong_types
    def ask(texts: list[str], n: int = 1, share: float = 1.0) -> None: ...

    with pytest.raises(TypeError, match=r"expected a list of texts; correct None\."):
        ask(["a", None])
    ask(["a"], np.array(3), np.float32(0.5))
    for missing in (np.float32("nan"), torch.tensor(math.nan)):
        with pytest.raises(ValueError, match="share=nan\\): expected a finite number"):
            ask(["a"], share=missing)
    with pytest.raises(TypeError, match="expected a list of texts"):
        ask(np.array("a"))


def test_types_in_words():
    assert described(list[str] | None) == "a list of texts or None"
    assert described(dict[str, list[int]]) == "a mapping of texts to lists of whole numbers"
    assert described(tuple[int, str]) == "a tuple of a whole number and a text"
    assert described(list[tuple[str, str]]) == "a list of pairs"
    assert described(str | Path | HookedLVLM) == "a path or a HookedLVLM"
