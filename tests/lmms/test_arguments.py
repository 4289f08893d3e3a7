"""What `--model_args` may say, and what it may not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvelens.lmms.arguments import Arguments, parse


def test_nothing_but_a_model():
    assert parse({"pretrained": "rvelens/tiny"}) == Arguments("rvelens/tiny")


def test_what_the_command_line_adds():
    given_ = {"pretrained": "m", "batch_size": "4", "max_batch_size": None, "device": "cuda:1"}
    assert parse(given_) == Arguments("m", batch_size=4, device_map="cuda:1")
    assert parse({**given_, "device_map": "auto"}).device_map == "auto"


def test_parameters_of_the_method_in_both_forms():
    found = parse(
        {
            "pretrained": "m",
            "method": "vaf",
            "method_args": '\'{"enhance": 1.2, "suppress": 0.9}\'',
            "method.layers": "[9,14]",
            "method.suppress": 0.8,
        }
    )
    assert found.parameters == {"enhance": 1.2, "suppress": 0.8, "layers": [9, 14]}
    assert parse({"pretrained": "m", "method.layers": "9-14"}).parameters == {"layers": "9-14"}


VALUES = st.one_of(
    st.booleans(), st.integers(0, 10**6), st.floats(-1e3, 1e3), st.lists(st.integers(0, 99))
)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), VALUES, max_size=4))
def test_values_come_out_as_json_says_them(parameters):
    each = {f"method.{name}": json.dumps(value) for name, value in parameters.items()}
    assert parse({"pretrained": "m", **each}).parameters == parameters
    assert (
        parse({"pretrained": "m", "method_args": json.dumps(parameters)}).parameters == parameters
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, r"--model_args name no model: expected pretrained=MODEL"),
        ({"pretrained": "m", "methd": "rve"}, r"methd=rve: expected .*; did you mean 'method'\?"),
        ({"pretrained": "m", "alpha": 0.1}, r"alpha=0.1: expected one of .*method\.PARAMETER"),
        ({"pretrained": "m", "parameters": "{}"}, r"parameters=\{\}: expected one of"),
        ({"pretrained": 5}, r"pretrained=5 is an int: expected a string"),
        ({"pretrained": "m", "seed": 1.5}, r"seed=1.5 is a float: expected an integer"),
        ({"pretrained": "m", "seed": True}, r"seed=True is a bool: expected an integer"),
        ({"pretrained": "m", "batch_size": "auto"}, r"batch_size is 'auto': expected a number"),
        ({"pretrained": "m", "batch_size": 0}, r"batch_size is 0: expected a number of at least 1"),
        ({"pretrained": "m", "method_args": "[1]"}, r"method_args=\[1\]: expected a JSON object"),
        ({"pretrained": "m", "method_args": "k=5"}, r"method_args=k=5: expected a JSON object"),
    ],
)  # fmt: skip
def test_mistakes(wrong, message):
    with pytest.raises(ValueError, match=message):
        parse(wrong)
