"""What is written is what is read; what is something else is refused by the place where it is."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from metammf.errors import DataError, FileFormatError
from metammf.experiments.comparison_results import (
    Budget,
    Check,
    ComparisonResults,
    DataSummary,
    Improvement,
    LeftOut,
    ModelResult,
    PairTest,
    ProfileSummary,
    PublishedFigure,
    SearchedSetting,
    SeedResult,
    Spread,
    Trial,
)


def seed_result(seed, value):
    return SeedResult(seed, {"ndcg@20": 0.3}, {"all": {"ndcg@20": value}}, 4, 2, 0.1, 0.5, 300.0, ((1, 0.2), (2, 0.3)))


MODEL = ModelResult(
    name="mf",
    model="mf",
    recipe="mf",
    overrides={"training.epochs": 4},
    placebo=None,
    content=False,
    solved=False,
    parameters=100,
    space={"training.learning_rate": SearchedSetting(1e-4, 1e-2, True, False, (), 1e-3)},
    trials=(
        Trial(0, {"training.learning_rate": 1e-3}, "finished", 1.5, 4, 0.3, ((1, 0.2), (2, 0.3))),
        Trial(1, {"training.learning_rate": 1e-2}, "failed", 0.1, None, None, (), "the loss is not finite"),
    ),
    spread=Spread(1, 0.3, 0.3, 0.3, 0.3, 0.3),
    chosen={"training.learning_rate": 1e-3},
    chosen_trial=0,
    config={"model": {"name": "mf"}},
    seeds=(seed_result(1, 0.25), seed_result(2, 0.35)),
)
RESULTS = ComparisonResults(
    data=DataSummary("two groups", "0" * 64, 17, 20, 130, {"train": 98}, 4, 16, {"visual": 5}, {"visual": 0.0}),
    profile=ProfileSummary(
        "mmrec", "", "", {"method": "published"}, "train", (20,), ("ndcg",), "ndcg@20", ("ndcg@20",)
    ),
    budget=Budget(1.0, 2, (1, 2)),
    command="metammf compare",
    environment={"python": "3.11"},
    started="2026-01-01T00:00:00+00:00",
    updated="2026-01-01T00:01:00+00:00",
    complete=True,
    audit=(Check("parts are apart", "no pair in two parts"),),
    models=(MODEL,),
    left_out=(LeftOut("vbpr", "there are no features"),),
    tests=(PairTest("ndcg@20", "all", "mf", "p3", 16, 0.3, 0.2, 0.1, 0.05, 0.15, 0.4, 0.001, 0.001, 50.0),),
    improvements=(Improvement("ndcg@20", "all", "mf", "p3", 50.0),),
    published=(PublishedFigure("BM3", "recall@20", 0.0957, "a paper", "test"),),
)


def test_what_is_written_is_what_is_read(tmp_path):
    RESULTS.write(tmp_path / "comparison.json")
    assert ComparisonResults.read(tmp_path / "comparison.json") == RESULTS


def test_a_file_of_before_models_were_tried_again_reads():
    values = RESULTS.to_plain()
    del values["left_out"][0]["tried_again"]
    assert ComparisonResults.from_plain(values) == RESULTS


def test_a_model_without_a_final_run_is_refused():
    values = RESULTS.to_plain()
    values["models"][0]["seeds"] = []
    with pytest.raises(DataError, match=f"comparison: {values['models'][0]['name']}: no final run"):
        ComparisonResults.from_plain(values)


def test_a_file_of_before_results_named_their_source_reads():
    values = RESULTS.to_plain()
    for model in values["models"]:
        for one in (*model["trials"], *model["seeds"]):
            assert one.pop("source") is None
    assert ComparisonResults.from_plain(values) == RESULTS


def test_what_the_budget_a_failure_or_a_death_cut_off_has_not_ended():
    states = ("finished", "pruned", "stopped", "failed", "died")
    trials = tuple(Trial(place, {}, state, 1.0, 7 + place, 0.3) for place, state in enumerate(states))
    models = [replace(MODEL, trials=trials, chosen_trial=place) for place in range(3)]
    assert [trial.state for trial in trials if trial.ended] == ["finished", "pruned"]
    assert models[0].num_ended == 2
    assert [model.cut_short_at for model in models] == [None, None, 9]


def test_plain_values_are_what_json_holds():
    assert json.loads(json.dumps(RESULTS.to_plain(), allow_nan=False)) == RESULTS.to_plain()


def test_means_and_deviations_are_over_seeds():
    assert MODEL.mean("ndcg@20") == pytest.approx(0.3)
    assert MODEL.deviation("ndcg@20") == pytest.approx(0.1 / 2**0.5)
    assert MODEL.mean("ndcg@20", "cold among all") is None
    assert replace(MODEL, seeds=MODEL.seeds[:1]).deviation("ndcg@20") is None


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda plain: plain.pop("budget"), "budget"),
        (lambda plain: plain.update(colour="red"), "colour"),
        (lambda plain: plain["models"][0]["trials"][0].update(state="lost"), "models.0.trials.0.state"),
        (lambda plain: plain.update(format="metammf-comparison-0"), "format"),
    ],
)
def test_what_is_no_comparison_is_refused_by_its_place(tmp_path, change, where):
    plain = RESULTS.to_plain()
    change(plain)
    with pytest.raises(DataError, match=where):
        ComparisonResults.from_plain(plain)
    (tmp_path / "comparison.json").write_text(json.dumps(plain))
    with pytest.raises(FileFormatError, match=r"comparison\.json"):
        ComparisonResults.read(tmp_path / "comparison.json")
