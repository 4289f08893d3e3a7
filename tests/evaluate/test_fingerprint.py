"""Hooks of other code, constants or state have another fingerprint; the same have the same."""

from __future__ import annotations

import functools
import operator
import random
import subprocess
import sys
import textwrap
import threading
import types
from collections import namedtuple
from dataclasses import dataclass
from enum import Enum

import numpy as np
import pytest
import torch

from rvelens.evaluate.fingerprint import fingerprint
from rvelens.evaluate.manifest import about_method
from rvelens.interventions.methods import Method

# A module of hooks, in which each of `CHANGES` changes what some hook does.
SOURCE = """
import functools, math
from dataclasses import dataclass
import torch

FACTOR = 4.0
TABLE = {"a": [1, 2]}

def helper(x):
    return x * FACTOR

def plain(x, hook):
    return x * 2.0

def default(x, hook, by=3.0):
    return x * by

def keyword(x, hook, *, by=5.0):
    return x * by

def through_helper(x, hook):
    return helper(x)

def through_table(x, hook):
    return x * TABLE["a"][1]

def made(by):
    def scaled(x, hook):
        return x * by
    return scaled

closure = made(6.0)
tensor = made(torch.tensor([7.0, 1.0]))
lambda_ = lambda x, hook: x * 8.0
scale = lambda by, x, hook: x * by
partial = functools.partial(scale, 9.0)

class Hook:
    kind = 10.0

    def __init__(self, by):
        self.by = by

    def __call__(self, x, hook):
        return self.inner(x) * self.by * self.kind

    def inner(self, x):
        return x + 11.0

class Child(Hook):
    pass

instance = Hook(12.0)
child = Child(12.5)
method = Hook(13.0).inner

@dataclass
class Settings:
    by: float = 14.0

    @property
    def twice(self):
        return self.by * 15.0

    @staticmethod
    def thrice(x):
        return x * 16.0

settings = Settings()

def through_settings(x, hook):
    return settings.thrice(x) * settings.twice

def nested(x, hook):
    return (lambda y: [helper(z) + 17.0 for z in y])(x)

def branch(x, hook):
    return x.abs() if hook else x.sqrt()

def annotated(x: torch.Tensor, hook) -> torch.Tensor:
    return math.sqrt(18.0) * x

@functools.wraps(plain)
def wrapped(x, hook):
    return plain(x, hook)

@torch.no_grad()
def without_gradient(x, hook):
    return x * 19.0

@functools.lru_cache
def remembered(x):
    return x * 20.0

def through_cache(x, hook):
    return remembered(x)
"""
CHANGES = [
    ("plain", "x * 2.0", "x * 400.0"),
    ("default", "by=3.0", "by=3.5"),
    ("keyword", "by=5.0", "by=5.5"),
    ("through_helper", "FACTOR = 4.0", "FACTOR = 4.5"),
    ("through_helper", "x * FACTOR", "x + FACTOR"),
    ("through_table", "[1, 2]", "[1, 3]"),
    ("closure", "made(6.0)", "made(6.5)"),
    ("closure", "return x * by\n    return", "return x + by\n    return"),
    ("tensor", "[7.0, 1.0]", "[7.0, 1.5]"),
    ("tensor", "torch.tensor([7.0, 1.0])", "torch.tensor([7.0, 1.0]).double()"),
    ("lambda_", "x * 8.0", "x * 8.5"),
    ("partial", "scale, 9.0", "scale, 9.5"),
    ("partial", "lambda by, x, hook: x * by", "lambda by, x, hook: x - by"),
    ("instance", "Hook(12.0)", "Hook(12.1)"),
    ("instance", "kind = 10.0", "kind = 10.5"),
    ("instance", "x + 11.0", "x + 11.5"),
    ("child", "x + 11.0", "x + 11.5"),
    ("child", "Child(12.5)", "Child(12.6)"),
    ("method", "Hook(13.0)", "Hook(13.5)"),
    ("through_settings", "by: float = 14.0", "by: float = 14.5"),
    ("through_settings", "self.by * 15.0", "self.by * 15.5"),
    ("through_settings", "x * 16.0", "x * 16.5"),
    ("nested", "+ 17.0", "+ 17.5"),
    ("nested", "FACTOR = 4.0", "FACTOR = 4.5"),
    ("branch", "x.abs()", "x.exp()"),
    ("annotated", "math.sqrt(18.0)", "math.sqrt(18.5)"),
    ("annotated", "math.sqrt", "math.exp"),
    ("wrapped", "x * 2.0", "x * 2.5"),
    ("without_gradient", "x * 19.0", "x * 19.5"),
    ("through_cache", "x * 20.0", "x * 20.5"),
]
HOOKS = sorted({name for name, _, _ in CHANGES})


def load(source):
    module = types.ModuleType("hooks_of_a_user")
    with pytest.MonkeyPatch.context() as patch:  # dataclasses look their module up
        patch.setitem(sys.modules, module.__name__, module)
        exec(compile(source, "hooks.py", "exec"), vars(module))
    return vars(module)


@pytest.mark.parametrize(("name", "before", "after"), CHANGES)
def test_a_change_of_code_constants_or_state_is_another_fingerprint(name, before, after):
    assert before in SOURCE
    changed = SOURCE.replace(before, after)
    one, other = (fingerprint(load(text)[name], name) for text in (SOURCE, changed))
    assert one != other
    # The same text, below a comment: what it does is the same.
    assert fingerprint(load("# moved\n" + SOURCE)[name], name) == one


def test_fingerprints_are_the_same_in_another_process(tmp_path):
    (tmp_path / "hooks_of_a_user.py").write_text(SOURCE)
    script = textwrap.dedent(
        f"""
        import hooks_of_a_user as hooks
        from rvelens.evaluate.fingerprint import fingerprint
        for name in {HOOKS!r}:
            print(name, fingerprint(getattr(hooks, name), name))
        """
    )
    run = functools.partial(
        subprocess.run, [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    outputs = [run(env={**__import__("os").environ, "PYTHONHASHSEED": seed}) for seed in "12"]
    assert outputs[0].returncode == 0, outputs[0].stderr
    assert outputs[0].stdout == outputs[1].stdout
    assert len(outputs[0].stdout.splitlines()) == len(HOOKS)


def test_methods_of_this_package_are_identified(model, profile):
    from rvelens.interventions.methods import METHODS, make_method

    seen = {}
    for name in METHODS:
        first, again = (about_method(make_method(name, model, profile)) for _ in range(2))
        assert first == again
        seen[name] = first.get("code")
    assert seen.pop("vanilla") is None
    assert len(set(seen.values())) == len(seen)
    weaker = about_method(make_method("rve", model, profile, beta=0.5))
    assert weaker["code"] != seen["rve"]


Point = namedtuple("Point", "x y")


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True)
class Frozen:
    by: float
    tensor: torch.Tensor


class Slots:
    __slots__ = ("by",)

    def __init__(self, by):
        self.by = by


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0), (True, 1), ("a", b"a"), ([1, 2], [2, 1]), ([1], (1,)), ({1: 2}, {1: 3}),
        ({1, 2}, {1, 3}), (None, ...), (range(3), range(4)), (Point(1, 2), Point(1, 3)),
        (Colour.RED, Colour.BLUE), (Slots(1), Slots(2)), (np.arange(3), np.arange(3.0)),
        (torch.zeros(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)),
        (torch.zeros(2), torch.zeros(2, 1)), (torch.float16, torch.bfloat16),
        (Frozen(1, torch.zeros(1)), Frozen(1, torch.ones(1))), (torch.sin, torch.cos),
        (operator.itemgetter(0), operator.itemgetter(1)), (0.0, -0.0),
        (torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)), (torch.nn.ReLU(), torch.nn.GELU()),
        (str.upper, str.lower), ([].append, [1].append), ([[1], 2], [[1, 2]]),
    ],
)  # fmt: skip
def test_values_that_differ_have_different_fingerprints(one, other):
    assert fingerprint(one, "x") == fingerprint(one, "x")
    assert fingerprint(one, "x") != fingerprint(other, "x")


def test_a_value_that_holds_itself():
    one = [1]
    one.append(one)
    assert fingerprint(one, "x") == fingerprint(one, "x")


def generator():
    yield 1


def imports_within(x, hook):
    import run_folders

    return run_folders


def module_as_value(x, hook):
    return vars(RUN_FOLDERS)


RUN_FOLDERS = sys.modules[__name__]


@pytest.mark.parametrize(
    ("state", "what"),
    [
        (threading.Lock(), "an object of type _thread.lock"),
        (generator(), "an object of type builtins.generator"),
        (random.Random(1), "an object of type random.Random"),
        (torch.Generator(), "an object of type torch._C.Generator"),
        (imports_within, "an import of run_folders within a function"),
        (module_as_value, "the module test_fingerprint"),
        (RUN_FOLDERS, "the module test_fingerprint"),
        (torch.zeros(2).to_sparse(), "a tensor of layout torch.sparse_coo"),
    ],
)
def test_what_cannot_be_identified_is_refused_with_its_place(state, what):
    def hook(x, hook):
        return state

    method = Method("own", {}, (("blocks.1.attn.hook_z", hook),))
    with pytest.raises(ValueError, match=f"method 'own', closure variable 'state'.* holds {what}"):
        about_method(method)
    known = Method("own", {}, method.hooks, version="2")
    assert about_method(known) == {"name": "own", "parameters": {}, "version": "2"}


def test_what_is_nested_too_deeply_is_refused():
    deep = []
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(ValueError, match="x is nested too deeply to compare it"):
        fingerprint(deep, "x")
