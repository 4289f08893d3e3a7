"""Head scores side by side: each estimate against a literal one, what is claimed, and resumption."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from picture_questions import StopError, few_draws, interrupt_after
from picture_questions import questions as pictures
from scipy.stats import spearmanr
from small import tiny

from rvelens import ARSProfile, score_heads
from rvelens.benchmarks import load_benchmark
from rvelens.benchmarks.action_scenes import contrastive_pairs, make_questions, patch_mask
from rvelens.hooks import ars_caching_hooks, head_mask_hooks, region_hooks, rve_hooks
from rvelens.hooks.rve import mask_hooks
from rvelens.model.yes_no import yes_margin
from rvelens.studies import find_study
from rvelens.studies.head_scores import finding, profiles, render
from rvelens.studies.kit import pairs as kit_pairs
from rvelens.studies.kit.run import run_study
from rvelens.studies.kit.write import write_study
from rvelens.studies.tune import split

STUDY = find_study("head-scores")
PAIRS = contrastive_pairs("validation", 6)
N, FEW = 24, {"n_questions": 8, "counts": [3, 12], "alphas": [0.05], "betas": [1.0], "ks": [2]}
SOME = {"scores": ["ars", "difference", "random"], "k": 3, "band_step": 6, "n_draws": 50, **FEW}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    few_draws(monkeypatch, finding)
    monkeypatch.setattr(finding, "N_ORDERS", 40)


@pytest.fixture(scope="module")
def scenes():
    return load_benchmark("action-scenes", n=N)


def measured(out, benchmark, model=None, **options):
    return run_study(
        STUDY, model or tiny()[0], [benchmark], out, pairs=PAIRS, options={**SOME, **options},
        batch_size=12,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory, scenes):
    with pytest.MonkeyPatch.context() as patch:
        few_draws(patch, finding)
        patch.setattr(finding, "N_ORDERS", 40)
        return measured(tmp_path_factory.mktemp("scores"), scenes)


def test_rankings_are_those_of_score_heads(found):
    for name, ranking in found[2]["rankings"].items():
        profile = score_heads(tiny()[0], PAIRS, score=name, batch_size=12)
        assert profile.ranking.tolist() == ranking


def region_auc_by_counting():
    """[question layer head]."""
    model, result = tiny()[0], []
    for question in make_questions("test", N):
        cache = {}
        with model.hooks(ars_caching_hooks(range(6), cache)):
            model(**model.prepare(question.image, question.text))
        region = patch_mask(question.regions["verb"], (8, 8), (96, 96)).ravel()
        result.append(
            [
                [
                    np.mean([(i > o) + 0.5 * (i == o) for i in a[region] for o in a[~region]])
                    for a in cache[layer][0].numpy()
                ]
                for layer in range(6)
            ]
        )
    return np.array(result).mean(axis=0)


def test_finding_the_region_by_counting(found):
    data, auc = found[2], region_auc_by_counting()
    assert data["layers"] == [3, 4, 5]
    for name in data["definitions"]:
        profile = score_heads(tiny()[0], PAIRS, score=name, batch_size=12)
        mine = data["finding"][name]
        first = np.mean([auc[layer, h] for layer in (3, 4, 5) for h in profile.top(layer, 3)])
        assert mine["auc"]["value"] == pytest.approx(first, abs=1e-4)
        assert mine["auc_over_all"]["value"] == pytest.approx(first - auc[3:].mean(), abs=1e-4)
        scores = profile.scores.numpy()
        within = [spearmanr(scores[layer], auc[layer]).statistic for layer in (3, 4, 5)]
        assert mine["within"]["value"] == pytest.approx(np.mean(within), abs=0.02)
        overall = spearmanr(scores.ravel(), auc.ravel()).statistic
        assert mine["overall"]["value"] == pytest.approx(overall, abs=0.02)
        assert mine["auc"]["low"] <= mine["auc"]["value"] <= mine["auc"]["high"]


def test_random_orders_one_by_one(found):
    auc, rng, each = region_auc_by_counting(), np.random.default_rng(55), []
    for _ in range(40):
        scores = rng.random((6, 12))
        first = [auc[layer, h] for layer in (3, 4, 5) for h in np.argsort(scores[layer])[-3:]]
        within = [spearmanr(scores[layer], auc[layer]).statistic for layer in (3, 4, 5)]
        overall = spearmanr(scores.ravel(), auc.ravel()).statistic
        each.append([np.mean(first) - auc[3:].mean(), np.mean(within), overall])
    for n, name in enumerate(("auc_over_all", "within", "overall")):
        one, column = found[2]["finding"]["random_orders"][name], np.array(each)[:, n]
        assert one["value"] == pytest.approx(column.mean(), abs=0.003)
        assert [one["low"], one["high"]] == pytest.approx(
            np.percentile(column, (2.5, 97.5)).tolist(), abs=0.02
        )


def test_masking_against_random_heads_one_by_one(found):
    setup, _, data = found
    model, cost = tiny()[0], data["masking"]
    assert cost["counts"] == [0, 3, 12]
    asked = setup.benchmark.sample(8).items
    inputs = model.prepare([item.load() for item in asked], [item.text for item in asked])
    truth = np.array([item.truth for item in asked])

    def accuracy(heads):
        with model.hooks(head_mask_hooks(heads)):
            margin = yes_margin(model(**inputs)[:, -1], model.processor)
        return float(((margin > 0).numpy() == truth).mean())

    orders = [
        {layer: rng.permutation(12)[:3].tolist() for layer in (3, 4, 5)}
        for rng in (np.random.default_rng([setup.seed, n]) for n in range(20))
    ]
    by_order = [accuracy(heads) for heads in orders]
    chance = np.mean(by_order)
    luck = cost["random_orders"]["accuracy"]
    assert luck["low"] == pytest.approx(min(by_order) - chance, abs=1e-5)
    assert luck["high"] == pytest.approx(max(by_order) - chance, abs=1e-5)
    assert luck["low"] < luck["high"]
    for name in ("ars", "difference"):
        profile = score_heads(model, PAIRS, score=name, batch_size=12)
        first = accuracy({layer: profile.top(layer, 3) for layer in (3, 4, 5)})
        mine = cost["scores"][name]["accuracy"]
        assert mine["curve"][1]["value"] == pytest.approx(first, abs=1e-6)
        assert mine["less_random"]["value"] == pytest.approx(first - chance, abs=1e-6)
    assert cost["scores"]["random draws"]["accuracy"]["less_random"]["value"] == 0


def test_gains_by_asking_again(found):
    setup, _, data = found
    model = tiny()[0]
    _, test = split(setup.benchmark, 0.3, setup.seed)
    images, texts = [i.load() for i in test.items], [i.text for i in test.items]

    def right(hooks):
        with model.hooks(hooks):
            said = model.ask(images, texts)
        return np.mean(
            [(s.lower() == "yes") == i.truth for s, i in zip(said, test.items, strict=True)]
        )

    plain = right([])
    for name in data["definitions"]:
        setting = data["gains"]["settings"][name]
        profile = score_heads(model, PAIRS, score=name, batch_size=12)
        for full, hooks in (
            (f"{name}, tuned", rve_hooks(profile, **setting)),
            (f"{name}, published", rve_hooks(profile, "preset", alpha=0.05, beta=1.0, k=5)),
        ):
            gain = render._gain(data, full)
            assert gain["value"] == pytest.approx(right(hooks) - plain, abs=1e-6)


def test_controls_by_asking_again(found):
    setup, _, data = found
    model, chosen = tiny()[0], data["gains"]["settings"]
    assert list(chosen) == [
        "ars",
        "difference",
        "random",
        "swapped heads",
        "all heads",
        "true region",
    ]
    assert set(chosen["all heads"]) == {"layers", "alpha", "beta"}
    assert set(chosen["true region"]) == {"layers", "beta"}
    _, test = split(setup.benchmark, 0.3, setup.seed)
    numbers = {item.id: n for n, item in enumerate(setup.benchmark.items)}
    questions = make_questions("test", N)
    ars = score_heads(model, PAIRS, batch_size=12)
    turned = ARSProfile.from_scores(-ars.scores)

    def right(hooks_of):
        """Share of right answers, one question a forward."""
        rights = []
        for item in test.items:
            question = questions[numbers[item.id]]
            region = patch_mask(question.regions["verb"], (8, 8), (96, 96)).ravel()
            with model.hooks(hooks_of(torch.from_numpy(region)[None])):
                said = model.ask(item.load(), item.text)
            rights.append((said[0].lower() == "yes") == item.truth)
        return float(np.mean(rights))

    def change(hooks_of):
        return pytest.approx(right(hooks_of) - right(lambda region: []), abs=1e-6)

    def from_all_heads(setting):
        everyone = dict.fromkeys(setting["layers"], range(12))
        return lambda region: mask_hooks(everyone, 12, setting["alpha"], setting["beta"])

    gain = {name: render._gain(data, f"{name}, tuned")["value"] for name in chosen}
    assert gain["swapped heads"] == change(lambda _: rve_hooks(turned, **chosen["swapped heads"]))
    assert gain["all heads"] == change(from_all_heads(chosen["all heads"]))
    assert gain["true region"] == change(
        lambda region: region_hooks(region, **chosen["true region"])
    )
    for control, over in data["gains"]["over"].items():
        assert over[control] is None
        for name in ("ars", "difference"):
            assert over[name]["value"] == pytest.approx(gain[name] - gain[control], abs=2e-6)
    assert list(data["gains"]["over"]) == ["all heads", "swapped heads", "random"]


def test_the_share_of_the_image_by_hand(found):
    model, shares = tiny()[0], []
    for question in make_questions("test", N):
        cache = {}
        with model.hooks(ars_caching_hooks(range(6), cache)):
            model(**model.prepare(question.image, question.text))
        shares.append(torch.stack([cache[layer].sum(-1).mean() for layer in range(6)]).mean())
    share = found[2]["finding"]["image_attention"]
    assert share["value"] == pytest.approx(float(torch.stack(shares).mean()), abs=1e-4)


def test_sentences_about_controls_say_what_is_confirmed(found):
    data = copy.deepcopy(found[2])
    pairs = data["gains"]["result"]["rules"]["official"]["pairs"]
    ends = {"true region, tuned": 0.1, "all heads, tuned": -0.1, "swapped heads, tuned": 0.0}
    for one in pairs:
        one["change"]["accuracy"] = estimate(ends.get(one["after"], 0.0))
    data["gains"]["over"] = {
        "all heads": {
            "ars": estimate(0.2), "difference": estimate(-0.2), "random": estimate(0.0)
        }
    }  # fmt: skip
    assert render._of_controls(data, ["ars", "difference", "random"]) == [
        "True region, tuned: raises accuracy (+0.100 [+0.090, +0.110]).",
        "All heads, tuned: lowers accuracy (-0.100 [-0.110, -0.090]).",
        "Swapped heads, tuned: does not change accuracy (+0.000 [-0.010, +0.010]), as far as these "
        "questions tell.",
        "Scores that make tuned RVE raise accuracy beyond all heads, tuned: ars (+0.200 [+0.190, "
        "+0.210]); the reverse is confirmed of difference (-0.200 [-0.210, -0.190]).",
    ]


def test_halves_of_equal_pairs_agree_and_of_noise_do_not(found):
    profile = score_heads(tiny()[0], PAIRS, score="random")
    same = copy.copy(profile)
    object.__setattr__(same, "per_pair", profile.per_pair[:1].expand(6, -1, -1))
    assert profiles.halves_agree(same, 3, 50, 0) == {"value": 1.0, "low": 1.0, "high": 1.0}
    chance = profiles.halves_agree(profile, 3, 200, 0)
    assert chance["value"] == pytest.approx(3 / 12, abs=0.1)
    object.__setattr__(same, "per_pair", profile.per_pair[:1])
    assert profiles.halves_agree(same, 3, 50, 0) is None


def test_what_is_shown(found, tmp_path):
    setup, made, data = found
    shown = STUDY.show(setup, [data])
    main = shown.tables[""]
    assert [row[0] for row in main.rows] == ["ars", "difference", "random", "random orders"]
    luck = dict(zip(main.columns, main.rows[-1], strict=True))
    assert luck["AUC over all heads"] == data["finding"]["random_orders"]["auc_over_all"]
    assert luck["masking, accuracy"] == data["masking"]["random_orders"]["accuracy"]
    assert luck["RVE tuned"] is None
    assert "agreement" not in main.columns  # nothing was published for this model
    assert "Scores that make tuned RVE raise accuracy" in " ".join(shown.sentences)
    files = {path.name for path in write_study(tmp_path, STUDY, [made], [data], shown)}
    assert {"head-scores.png", "head-scores-controls.png", "head-scores.csv"} <= files


def estimate(value, spread=0.01):
    return {"value": value, "low": value - spread, "high": value + spread}


def test_sentences_claim_what_intervals_confirm():
    known = {"a": estimate(0.1), "b": estimate(-0.1), "c": estimate(0.0)}
    said = render._claim("rise", known, wants=True)
    assert said == (
        "Scores that rise: a (+0.100 [+0.090, +0.110]); the reverse is confirmed of "
        "b (-0.100 [-0.110, -0.090])."
    )
    assert render._claim("cost", known, wants=False).startswith("Scores that cost: b (")
    assert render._claim("rise", {"c": estimate(0.0)}, wants=True) == (
        "Scores that rise: none is confirmed."
    )
    luck = {"low": -0.05, "high": 0.095}
    assert render._claim("rise more", known, wants=True, luck=luck) == (
        "Scores that rise more (-0.050 to +0.095): none is confirmed; the reverse is confirmed of "
        "b (-0.100 [-0.110, -0.090])."
    )


def test_a_benchmark_without_regions_has_no_finding(model, tmp_path):
    four = pictures()
    setup, _, data = measured(
        tmp_path, four, model, scores=["ars"], layers="0-2", counts=[3], share=0.4,
        by="accuracy", ks=[1], k=2,
    )  # fmt: skip
    assert data["finding"] is None
    shown = STUDY.show(setup, [data])
    assert "region AUC" not in shown.tables[""].columns
    assert shown.sentences == ("3 photographs are too few to say anything.",)


def test_interrupted_and_taken_up_again(scenes, tmp_path, monkeypatch, found):
    with monkeypatch.context() as patch:
        interrupt_after(patch, kit_pairs, "score_heads", 2)
        with pytest.raises(StopError):
            measured(tmp_path, scenes)
    made = interrupt_after(monkeypatch, kit_pairs, "score_heads", 9)
    assert measured(tmp_path, scenes)[2] == found[2]
    assert len(made) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scores": ["nothing"]}, "no head score 'nothing'"),
        ({"n_random": 19}, "n_random=19: expected at least 20"),
        ({"k": 0}, "k=0: expected at least 1"),
        ({"by": "luck"}, "tuning by 'luck'"),
        ({"layers": "auto"}, "would differ between scores: expected the"),
        ({"layers": "7"}, "layer"),
        ({"counts": [13]}, "expected numbers of heads from 0 to 12"),
        ({"counts": [0, 12]}, "of 12 heads: expected a number between none and all of"),
    ],
)
def test_mistakes_are_refused_before_the_work(scenes, tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(kit_pairs, "score_heads", lambda *a, **k: pytest.fail("worked already"))
    with pytest.raises(ValueError, match=message):
        measured(tmp_path, scenes, **options)
