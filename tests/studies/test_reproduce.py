"""The paper's tables by one command: which rows the data allow, what they cost, what they give."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from published_scenes import write_scenes
from small import tiny
from study_cases import StoppedError, count, stop_after

from rvelens import ARSProfile
from rvelens.benchmarks import BENCHMARKS
from rvelens.benchmarks.published import sources
from rvelens.interventions.methods import make_method
from rvelens.model.hooked_lvlm import TINY, HookedLVLM
from rvelens.studies import NAMES, find_study
from rvelens.studies.kit import paper
from rvelens.studies.kit.base import Setup, Work
from rvelens.studies.kit.parts import Parts
from rvelens.studies.reproduce import report
from rvelens.studies.reproduce import run as running
from rvelens.studies.reproduce.pace import Pace, measure_pace
from rvelens.studies.reproduce.plan import ONE_WORD, Request, make_rows
from rvelens.studies.reproduce.targets import TARGETS, UNMEASURED, choose_targets

MODEL = "llava-hf/llava-1.5-7b-hf"
LONG = {"sweep": {"alphas": [0.1], "betas": [1.0], "ks": [5], "band_step": 6}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model():
    return tiny()[0]


@pytest.fixture
def request_of(data):
    def make(**changes):
        known = {"data": str(data), "profile": tiny()[1], "options": LONG, "prompt": "chat"}
        return Request(MODEL, **(known | changes))

    return make


def named(rows):
    return [(row.target.name, row.label) for row in rows]


def test_every_table_and_figure_of_the_paper_is_measured_or_named():
    measured = {name for target in TARGETS for name in target.results}
    tables = {f"table{n}" for n in range(1, 8)}
    figures = {f"figure{n}" for n in (*range(1, 9), "9a", "9b", *range(10, 18))}
    assert measured | set(UNMEASURED) == tables | figures
    assert not measured & set(UNMEASURED)
    for target in TARGETS:
        assert target.study in NAMES
        assert find_study(target.study).work is not None
        assert {name for run in target.runs for name in run} <= set(BENCHMARKS)


def test_every_number_of_the_paper_belongs_to_one_target():
    cells = [cell for target in TARGETS for cell in report.cells_of(target, MODEL)]
    every = [cell for table in paper.TABLES for cell in paper.paper_cells(table)]
    assert set(cells) == {cell for cell in every if cell.model in (None, "llava-1.5-7b")}
    assert len(cells) == len(set(cells))
    assert not any(report.cells_of(target, "some/other") for target in TARGETS)


def test_every_published_benchmark_says_where_its_files_are():
    for name in BENCHMARKS:
        assert bool(sources(name)) is not name.startswith("action-scenes")
        for source in sources(name):
            assert source.address.startswith("http")


@pytest.mark.parametrize(
    ("tables", "figures", "names"),
    [
        (["1"], [], ["table1"]),
        (["7", "4"], [], ["table4", "table5-7"]),
        ([], ["9"], ["figure9a", "figure9b"]),
        ([], ["9a", "2"], ["figure2-3", "figure9a"]),
        (["2"], ["14"], ["table2", "figure13-17"]),
    ],
)
def test_results_are_chosen_by_their_numbers(tables, figures, names):
    assert [target.name for target in choose_targets(tables, figures)] == names


def test_all_are_chosen_without_numbers_and_others_refused():
    assert choose_targets() == TARGETS
    with pytest.raises(ValueError, match=r"table '8': expected one of 1, 2, 3, 4, 5, 7; pass one"):
        choose_targets(["8"])
    with pytest.raises(ValueError, match=r"figure 4 is a drawing: expected one that is measured"):
        choose_targets([], ["4"])


def test_rows_are_those_that_the_files_allow(request_of):
    rows = make_rows(choose_targets(["1", "3", "4"]), request_of())
    able = [row for row in rows if not row.reason]
    assert named(able) == [
        ("table1", "mmrel-real"), ("table1", "amber-relation"), ("table4", "pope-random"),
    ]  # fmt: skip
    assert [row.n_questions for row in able] == [8, 8, 8]
    lacking = [row for row in rows if row.reason]
    assert all(row.lacks_files for row in lacking)
    lines = report.lacks(lacking)
    assert any(
        "not run: rbench-image of table1, table3: no image-level_filterd" in x for x in lines
    )
    assert sum("https://drive.google.com/file/d/1sqO0MWBg" in line for line in lines) == 1
    assert any("mmrel-real of table3: mmrel-real has no question of relation" in x for x in lines)


def test_a_missing_image_is_a_reason_and_not_a_gap(request_of, tmp_path):
    data = write_scenes(tmp_path)
    for path in data.rglob("s0.png"):
        path.unlink()
    (row,) = make_rows(choose_targets(["5"]), request_of(data=str(data)))
    assert row.reason.startswith("1 of 8 image files of mmrel-real are missing, such as s0.png")


def test_what_lacks_besides_files_is_no_missing_file(request_of):
    rows = make_rows(
        choose_targets(["5"], ["5"]), request_of(profile=None, no_profile="no profile.")
    )
    assert rows[0].reason == "no profile."
    assert rows[1].reason.startswith("no contrastive pairs: expected --pairs FILE and --images DIR")
    assert not any(row.lacks_files for row in rows)
    assert not any("published" in line for line in report.lacks(rows))


def test_limits_and_options_reach_the_studies(request_of):
    request = request_of(limit=4, options={"masking": {"n_random": 20}})
    (ablation,) = make_rows(choose_targets(["5"]), request)
    assert len(ablation.benchmarks[0].items) == 4
    (masking,) = make_rows(choose_targets([], ["9a"]), request)
    assert len(masking.benchmarks[0].items) == 8
    assert masking.n_questions == 4
    options = request.options_of(masking.target)
    assert (options["n_questions"], options["n_random"]) == (4, 20)
    (maps,) = choose_targets([], ["6"])
    assert request_of().options_of(maps)["layer"] == 14
    assert replace(request_of(), model="other").options_of(maps)["layer"] == -1


def test_all_questions_of_rbench_are_asked_on_demand(request_of, monkeypatch):
    asked = []

    def load(name, data, **options):
        asked.append((name, options))
        raise ValueError("none")

    monkeypatch.setattr("rvelens.studies.reproduce.plan.load_benchmark", load)
    make_rows(choose_targets(["3"]), request_of(rbench="all"))
    make_rows(choose_targets(["3"]), request_of())
    assert asked[0] == ("mmrel-real", {"relation": "spatial"})
    assert ("rbench-image", {}) in asked
    assert ("rbench-image", {"relation": "spatial"}) in asked
    assert ("rbench-instance-box", {"relation": "spatial", "wording": "words"}) in asked
    make_rows(choose_targets(["3"]), request_of(wording="published"))
    assert ("rbench-instance-box", {"relation": "spatial", "wording": "published"}) in asked


def test_questions_are_asked_as_the_papers_code_asks(request_of, model):
    of_table1, of_table2 = choose_targets(["1", "2"])
    request, family = request_of(prompt=None), model.family
    assert request.decoding(of_table1, family).prompt == "llava_v1"
    assert request.decoding(of_table1, family).suffix == ""
    open_ended = request.decoding(of_table2, family)
    assert open_ended.prompt.endswith("USER: {image}\n{question} ASSISTANT:")
    other = replace(family, prompts={"chat": family.prompts["chat"]})
    assert request.decoding(of_table1, other).prompt == "chat"
    assert request.decoding(of_table1, other).suffix == ONE_WORD
    assert request.decoding(of_table2, other).prompt == "chat"
    assert request_of(prompt="chat").decoding(of_table1, family).suffix == ""


def test_work_is_what_the_studies_run(request_of, model, tmp_path):
    rows = {row.target.name: row for row in make_rows(TARGETS, request_of()) if not row.reason}
    works = {n: running.count(row, model, request_of(), tmp_path) for n, row in rows.items()}
    # Vanilla and RVE behind one prompt, two each for VCD and ICD, one for VAF; a row a branch.
    assert (works["table1"].prompts, works["table1"].answers) == (8 * 6, 8 * 7)
    assert (works["table4"].prompts, works["table4"].answers) == (8 * 4, 8 * 5)
    assert (works["table5-7"].prompts, works["table5-7"].answers) == (8, 8 * 5)
    assert (works["figure2-3"].prompts, works["figure2-3"].answers) == (8, 0)
    assert (works["figure13-17"].prompts, works["figure13-17"].answers) == (8, 16)
    methods = 5 + 2 + 1  # two branches more, and transformers alone
    assert works["figure9b"].prompts == 2 * 8 * methods * (7 + 1)
    assert (works["figure9b"].answers, works["figure9b"].tokens) == (8 * methods * 8, 16)
    assert works["figure9a"].prompts % 8 == 0


def test_counted_settings_and_masks_are_the_measured_ones(model, tmp_path):
    profile = tiny()[1]
    for name in ("sweep", "masking"):
        study = find_study(name)
        options = study.settled(LONG.get(name, {"n_questions": 4, "counts": [2]}))
        made = (make_method("rve", model, profile),)
        questions = make_rows(
            choose_targets(["5"]), Request(MODEL, str(write_scenes(tmp_path)), profile)
        )
        setup = Setup(
            model, profile, questions[0].benchmarks, (), made, Request(MODEL).decoding(
                choose_targets(["5"])[0], model.family), options, Parts(tmp_path),
        )  # fmt: skip
        work = study.work(setup)
        if name == "sweep":
            assert (work.prompts, work.answers) == (
                8,
                8 * (1 + len(study.measure(setup)["settings"])),
            )
        else:
            assert study.measure(setup)["counts"] == [0, 2]
            # Without heads all ways to choose are one.
            assert work.prompts == 4 * (1 + 2 + options["n_random"])


def test_pace_is_measured_on_real_answers(request_of, model):
    (row,) = make_rows(choose_targets(["5"]), request_of())
    decoding = request_of().decoding(row.target, model.family)
    pace = measure_pace(model, row.benchmarks[0].items, decoding, batch_size=4)
    assert pace.prompt > 0
    assert pace.token >= 0
    assert 2 <= pace.length <= 16
    assert 1 <= pace.questions <= 4
    assert measure_pace(model, row.benchmarks[0].items, decoding, seconds=0.0).questions == 1


def test_time_is_that_of_prompts_and_of_tokens_behind_the_first():
    pace = Pace(prompt=2.0, token=0.5, length=3.0, questions=8)
    assert pace.decoded(Work(10, 4)) == 8
    assert pace.seconds(Work(10, 4)) == 2 * 10 + 0.5 * 8
    assert pace.seconds(Work(1, 4, tokens=16)) == 2 + 0.5 * 4 * 15


@pytest.fixture(scope="module")
def papers_model():
    """The embedded model under the name of one of the paper's, and a profile of it."""
    model = HookedLVLM.from_pretrained(TINY)
    model.hf_model.config.name_or_path = MODEL
    return model, ARSProfile.from_scores(tiny()[1].scores)


@pytest.fixture(scope="module")
def done(data, papers_model, tmp_path_factory):
    """Tables 5 and 7 and Figures 2 and 3, measured; and all rows of Table 1, which were not."""
    model, profile = papers_model
    out = tmp_path_factory.mktemp("out")
    request = Request(MODEL, str(data), profile, prompt="chat")
    rows = make_rows(choose_targets(["5"], ["3"]), request)
    ordered = [row for row, _ in running.by_cost(rows, model, request, out)]
    began = []
    results = list(running.reproduce(ordered, model, request, out, began=began.append))
    assert began == ordered
    return request, ordered, results, out


def test_the_cheapest_come_first(done):
    _, ordered, results, _ = done
    assert [row.target.name for row in ordered] == ["figure2-3", "table5-7"]
    assert [result.row for result in results] == ordered


def test_each_cell_stands_beside_the_papers_with_its_interval(done):
    _, _, results, out = done
    ours, of_figures = report.tables_of(results, MODEL)
    assert ours.title == "Paper and measurement: table5, table7"
    data = json.loads((out / "table5-7/mmrel-real/ablation.json").read_text())
    scored = data["models"][0]["measured"]["benchmarks"]["mmrel-real"]["rules"]["official"]
    first = ours.rows[0]
    assert first[2].startswith("0.7112")
    assert first[3] == scored["methods"]["vanilla"]["accuracy"]
    assert first[4] == pytest.approx(first[3]["value"] - 0.7112, abs=1e-6)
    assert len(ours.rows) == 10
    assert "mmrel-real: 8 were asked." in ours.notes
    assert of_figures.title == "Paper and measurement: figure2, figure3"


def test_the_report_holds_cells_rows_and_what_is_open(done):
    request, _, results, _ = done
    lacking = [row for row in make_rows(choose_targets(["4"]), request) if row.reason]
    whole = report.to_json(results, lacking, MODEL)
    assert len(whole["cells"]) == 10 + 5
    assert all(cell["measured"] is not None for cell in whole["cells"])
    assert [row["of"] for row in whole["rows"]] == [
        "mmrel-real", "mmrel-real", "pope-popular", "pope-adversarial",
    ]  # fmt: skip
    assert any("--set rve.layers=9-20" in point for point in whole["open"])
    text = report.reproduction_to_markdown(results, lacking, MODEL)
    assert "| llava-1.5-7b, mmrel-real, action, scope none, denoise false | accuracy |" in text
    assert "## Not run" in text
    assert "http://images.cocodataset.org/zips/val2014.zip" in text
    assert "## What the paper leaves open" in text


def test_a_model_that_is_none_of_the_papers_gets_its_own_tables(data, tmp_path):
    model, profile = tiny()
    request = Request("rvelens/tiny", str(data), profile, prompt="chat")
    rows = make_rows(choose_targets(["5"]), request)
    results = list(running.reproduce(rows, model, request, tmp_path))
    (table,) = report.tables_of(results, "rvelens/tiny")
    assert table.title == "rvelens/tiny, mmrel-real, 8 questions: what is enhanced"
    assert report.to_json(results, [], "rvelens/tiny")["cells"] == []


def test_a_run_that_was_stopped_goes_on(done, papers_model, tmp_path):
    model, _ = papers_model
    request, ordered, results, _ = done
    few = replace(request, batch_size=4)
    with pytest.raises(StoppedError):
        list(running.reproduce(ordered, model, few, tmp_path, progress=stop_after(4)))
    assert ordered[0].is_done(tmp_path)
    assert not ordered[1].is_done(tmp_path)
    seen = []
    again = list(running.reproduce(ordered, model, few, tmp_path, progress=count(seen)))
    assert len(seen) == 1
    assert all(result.reason == "" for result in again)
    of_run = [r.shown.measured.keys() for r in again]
    assert of_run == [r.shown.measured.keys() for r in results]


def test_a_row_that_fails_says_why_and_the_next_one_runs(request_of, papers_model, tmp_path):
    model, profile = papers_model
    request = request_of(profile=profile)  # layer 14 of a model of six
    rows = make_rows(choose_targets([], ["6", "3"]), request)
    results = {r.row.target.name: r for r in running.reproduce(rows, model, request, tmp_path)}
    assert results["figure6"].reason.startswith("layer=14 of a model of 6 layers")
    assert results["figure6"].shown is None
    assert results["figure2-3"].reason == ""
    assert "failed: layer=14" in report.reproduction_to_markdown(list(results.values()), [], MODEL)


def test_the_plan_says_what_is_left(done, papers_model):
    request, ordered, _, out = done
    counted = running.by_cost(ordered, papers_model[0], request, out)
    pace = Pace(3600.0, 0.0, 2.0, 4)
    table, hours = report.plan_table(counted, pace, dict.fromkeys(ordered, False))
    assert [row[:5] for row in table.rows] == [
        ["figure2-3", "mmrel-real", 8, 8, 0], ["table5-7", "mmrel-real", 8, 8, 40],
    ]  # fmt: skip
    assert hours == 16.0
    assert report.plan_table(counted, pace, dict.fromkeys(ordered, True))[1] == 0.0
