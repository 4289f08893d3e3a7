"""Loading by name, and what goes wrong before a row is read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published import instance_row, pope_row, write_array, write_lines

from rvelens.benchmarks import BENCHMARKS, load_benchmark
from rvelens.benchmarks.files import Folder

NAMES = [
    *("pope-random", "pope-popular", "pope-adversarial", "amber-relation", "amber-existence"),
    *("rbench-image", "rbench-instance-box", "rbench-instance-mask"),
    *(
        "mmrel-real",
        "mmrel-dalle",
        "mmrel-open",
        "action-scenes",
        "action-scenes-turns",
        "action-scenes-open",
    ),
]


def test_names():
    assert list(BENCHMARKS) == NAMES
    with pytest.raises(
        ValueError, match=r"'pope': expected one of pope-random.*did you mean 'pope-"
    ):
        load_benchmark("pope")


@pytest.mark.parametrize("name", [name for name in NAMES if "scenes" not in name])
def test_the_folder_is_asked_for_by_every_benchmark_with_files(name, tmp_path):
    with pytest.raises(
        ValueError, match=rf"no data folder for {name}: .*pass it as data \(--data\)"
    ):
        load_benchmark(name)
    with pytest.raises(ValueError, match=r"no folder .*nowhere: .*check the path"):
        load_benchmark(name, tmp_path / "nowhere")
    with pytest.raises(ValueError, match=f"below {tmp_path}"):
        load_benchmark(name, tmp_path)


def test_options_that_a_benchmark_does_not_have(tmp_path):
    with pytest.raises(ValueError, match="pope-random has no option 'relation': expected limit;"):
        load_benchmark("pope-random", tmp_path, relation="action")
    with pytest.raises(ValueError, match="has no option 'n': expected relation, wording, limit;"):
        load_benchmark("rbench-image", tmp_path, n=3)
    write_array(tmp_path / "image-level_filterd.json", [instance_row(0)])
    with pytest.raises(ValueError, match="relation 'size': expected one of all, action, spatial"):
        load_benchmark("rbench-image", tmp_path, relation="size")


@pytest.fixture(scope="module")
def whole():
    return load_benchmark("action-scenes", n=40)


@given(limit=st.integers(1, 60))
def test_a_sample_is_a_part_in_order(whole, limit):
    sample = whole.sample(limit)
    ids = [item.id for item in whole.items]
    places = [ids.index(item.id) for item in sample.items]
    assert places == sorted(set(places))
    assert len(places) == min(limit, 40)
    if 5 <= limit <= 30:
        assert places != list(range(limit))


def test_a_limit_below_one():
    with pytest.raises(ValueError, match="limit is 0: expected at least 1 question"):
        load_benchmark("action-scenes", n=4, limit=0)


ROWS = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.just("yes"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*pope_row(1), "id", "x"]), inner, max_size=5)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=6))
def test_any_json_is_a_question_or_a_problem(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("pope")
    path = write_lines(folder / "coco_pope_random.json", [pope_row("a unique id"), *rows])
    benchmark = load_benchmark("pope-random", folder)
    # A text is written as it is, so may be empty or several lines.
    assert len(benchmark.items) + len(benchmark.problems) == len(Folder.scan(folder, "").read(path))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_questions_or_one_sentence(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("pope")
    (folder / "coco_pope_random.json").write_bytes(content)
    with pytest.raises(ValueError, match=": expected "):
        load_benchmark("pope-random", folder)


def test_a_sample_keeps_the_shares_of_yes_and_no():
    whole = load_benchmark("action-scenes", n=40)
    for limit in (4, 12, 20):
        truths = [item.truth for item in whole.sample(limit).items]
        assert sum(truths) == limit / 2
