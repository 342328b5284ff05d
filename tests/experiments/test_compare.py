"""A whole comparison on two groups of users: equal budgets, choice on validation alone, one look at test, and any kill."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from math import inf, nan

import numpy as np
import pytest
from filelock import FileLock

from metammf.data.features import absent_features
from metammf.data.folder import load_dataset, save_dataset
from metammf.data.interactions import Interactions
from metammf.errors import ConfigError, DataError, FileFormatError, LeakageError, NonFiniteLossError, RunError
from metammf.experiments import compare, evaluating, finals
from metammf.experiments.compare import ComparisonPlan, died, run_comparison
from metammf.experiments.compare import work as compare_work
from metammf.experiments.comparison_results import ComparisonResults, LeftOut
from metammf.experiments.environment import source_hash
from metammf.experiments.finals import FINAL_FILE, FinalJob
from metammf.experiments.workers import Death
from metammf.files import read_json, write_json
from metammf.testing.data import scrambled

SETTINGS = {"training.epochs": 2, "training.batch_size": 200}
MODELS = ("mf+model.embedding_dim=8", "ease", "popularity")
SMALL_MF = "mf-model.embedding_dim=8"


def plan(data, **options):
    known = {"models": MODELS, "profile": "metammf", "trials": 3, "seeds": 2, "settings": SETTINGS, "here": True}
    return ComparisonPlan(data=data, **known | options)


class KilledError(Exception):
    """What stands for a kill."""


def stop_after(runs):
    def progress(done, total, what):
        if done >= runs:
            raise KilledError

    return progress


@pytest.fixture(scope="module", autouse=True)
def _without_waiting_for_the_disk():
    """A comparison of moments writes hundreds of files; that they outlive a loss of power is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """A comparison; how often the test part was read."""
    out, looks = tmp_path_factory.mktemp("comparison") / "out", []
    evaluate = evaluating.evaluate

    def counted(scorer, split, *, part="test", **options):
        looks.append(part)
        return evaluate(scorer, split, part=part, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluating, "evaluate", counted)
        results = run_comparison(plan(folder), out)
    return results, out, looks


def choices(results):
    return {one.name: (one.chosen_trial, one.chosen) for one in results.models}


def outcome(results):
    """All but times and memory."""
    plain = results.to_plain()
    for model in plain["models"]:
        for one in [*model["trials"], *model["seeds"]]:
            for key in ("seconds", "seconds_per_epoch", "peak_mib"):
                one.pop(key, None)
    return {key: plain[key] for key in ("models", "tests", "improvements", "audit", "data", "profile", "budget")}


def test_every_model_has_the_same_budget_and_begins_with_its_recipe(finished):
    results, _, _ = finished
    assert [one.name for one in results.models] == list(MODELS)
    mf, ease, popularity = results.models
    assert len(mf.trials) == len(ease.trials) == 3
    assert len(popularity.trials) == 1  # it has nothing to search
    assert all(trial.settings == {key: one.recipe for key, one in model.space.items()}
               for model in results.models for trial in model.trials[:1])  # fmt: skip
    assert mf.space.keys() == {"training.learning_rate", "training.weight_decay"}


def test_the_best_trial_on_validation_is_taken(finished):
    for model in finished[0].models:
        best = max(trial.value for trial in model.trials)
        assert model.trials[model.chosen_trial].value == best == model.spread.highest
        for key, value in model.chosen.items():
            section, _, name = key.partition(".")
            assert model.config[section][name] == value


def test_the_test_part_is_read_once_a_final_run(finished):
    results, _, looks = finished
    assert [len(one.seeds) for one in results.models] == [2, 1, 1]  # what is solved draws nothing
    assert looks.count("test") == 4


def test_models_to_come_are_named_in_the_file(folder, tmp_path):
    out, seen = tmp_path / "out", []

    def look(done, total, what):
        if (out / "comparison.json").is_file():
            found = ComparisonResults.read(out / "comparison.json")
            seen.append((found.complete, found.pending))

    results = run_comparison(plan(folder, models=("popularity", "ease")), out, progress=look)
    assert (False, ("ease",)) in seen
    assert (results.complete, results.pending) == (True, ())


def test_what_was_found_is_on_the_disk(finished):
    results, out, _ = finished
    assert ComparisonResults.read(out / "comparison.json") == results
    assert results.complete
    lines = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    assert len(lines) == sum(len(one.trials) for one in results.models) == 7
    assert not list(out.glob("models/*/trial-*"))
    assert (out / "models" / "ease" / "seed-1" / "recommender").is_dir()


def test_all_pairs_are_tested_and_the_audit_is_told(finished):
    results, _, _ = finished
    assert {(one.a, one.b) for one in results.tests} == {
        (a, b) for place, a in enumerate(MODELS) for b in MODELS[place + 1 :]
    }
    assert {one.table for one in results.tests} == {"all", "cold among all", "cold among cold"}
    assert len(results.improvements) == 3 * 2 * 3
    assert "parts are apart" in {check.name for check in results.audit}


def test_cold_users_have_a_table_of_their_own_where_the_split_makes_some(folder, tmp_path):
    """One that takes users in is told apart from one that ranks for all of them alike."""
    results = run_comparison(
        plan(folder, models=("ease", "popularity"), profile="cold-user", trials=1), tmp_path / "out"
    )
    assert "cold users are cold" in {check.name for check in results.audit}
    assert {one.table for one in results.tests} == {one.table for one in results.improvements} == {"all", "cold users"}
    ease, popularity = (one.seeds[0].test["cold users"]["ndcg@20"] for one in results.models)
    assert ease != popularity


@pytest.mark.parametrize("runs", [2, 5])
def test_a_comparison_that_was_killed_ends_as_if_it_had_not_been(finished, folder, tmp_path, runs):
    with pytest.raises(KilledError):
        run_comparison(plan(folder), tmp_path / "out", progress=stop_after(runs))
    lines = (tmp_path / "out" / "ledger.jsonl").read_text()
    told = []
    results = run_comparison(plan(folder), tmp_path / "out", progress=lambda *what: told.append(what))
    assert outcome(results) == outcome(finished[0])
    assert (tmp_path / "out" / "ledger.jsonl").read_text().startswith(lines)
    assert told[0][0] == runs
    assert told[-1][0] == told[-1][1] == 11


def test_folders_of_trials_that_are_over_go_when_a_comparison_goes_on(finished, folder, tmp_path):
    """A kill between a trial's line in the ledger and the end of its folder; one that is not over yet is left."""
    out = shutil.copytree(finished[1], tmp_path / "out")
    models = out / "models"
    for over in (models / "ease" / "trial-2", models / SMALL_MF / "trial-0"):
        over.mkdir()
        (over / "run.json").touch()
    (models / "ease" / "trial-3").mkdir()
    results = run_comparison(plan(folder), out)
    assert [path.name for path in out.glob("models/*/trial-*")] == ["trial-3"]
    assert outcome(results) == outcome(finished[0])


def test_a_finished_comparison_reads_the_test_part_no_more(finished, folder, monkeypatch):
    results, out, _ = finished
    monkeypatch.setattr(evaluating, "evaluate", None)
    assert outcome(run_comparison(plan(folder), out)) == outcome(results)


@pytest.mark.parametrize("name", ["test-train.parquet", "test-train.json"])
def test_a_damaged_evaluation_is_named_and_measured_again_where_that_is_asked_for(
    finished, folder, tmp_path, caplog, name
):
    out = shutil.copytree(finished[1], tmp_path / "out")
    run = out / "models" / "ease" / "seed-1"
    file = run / "evaluation" / name
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(RunError, match=rf"{name}: .*; remove .*final\.json, and the same command measures") as told:
        run_comparison(plan(folder), out)
    assert str(file) in str(told.value)
    (run / "final.json").unlink()
    assert outcome(run_comparison(plan(folder), out)) == outcome(finished[0])
    assert "the run is evaluated again" in caplog.text


def test_scrambling_the_test_part_changes_no_choice(finished, folder, tmp_path):
    """The contract: what is chosen depends on train and validation alone."""
    dataset = load_dataset(folder)
    split = dataset.split()
    other = scrambled(split.test, avoid=(split.train, split.validation))
    parts = (split.train, split.validation, other)
    users, items = (np.concatenate([getattr(part, name) for part in parts]) for name in ("users", "items"))
    log = Interactions(users, items, dataset.num_users, dataset.num_items)
    labels = np.repeat(np.arange(3, dtype=np.int8), [len(part) for part in parts])
    save_dataset(replace(dataset, interactions=log, parts=labels), tmp_path / "scrambled")
    results = run_comparison(plan(tmp_path / "scrambled"), tmp_path / "out")
    assert choices(results) == choices(finished[0])
    assert [one.validation("recall@10") for one in results.models] == [
        one.validation("recall@10") for one in finished[0].models
    ]
    assert results.models[1].mean("recall@10") != finished[0].models[1].mean("recall@10")


def test_models_and_seeds_may_join_later(finished, folder, tmp_path):
    shutil.copytree(finished[1], tmp_path / "out")
    more = run_comparison(plan(folder, models=("ease", "p3"), seeds=3), tmp_path / "out")
    assert [one.name for one in more.models] == ["ease", "p3"]
    assert choices(more)["ease"] == choices(finished[0])["ease"]
    # Those that are not asked for any more are told of: nobody is to drop what came out badly without a word.
    assert more.left_out == tuple(LeftOut(name, compare.NOT_ASKED_FOR) for name in (MODELS[0], "popularity"))


def test_every_result_names_the_code_that_made_it(finished):
    made = {one.source for model in finished[0].models for one in (*model.trials, *model.seeds)}
    assert made == {source_hash()}


def of_other_source(out, *, noted):
    """Let the trials of ease in a folder, and its final run, be of other code, which has noted it or was older than that."""
    ledger, run = out / "ledger.jsonl", out / "models" / "ease" / "seed-1"
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    for line in lines:
        if line["model"] == "ease":
            line["source"] = "a" * 64 if noted else None
    ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
    final = read_json(run / FINAL_FILE)
    final["result"]["source"] = None
    write_json(run / FINAL_FILE, final)
    write_json(run / "environment.json", read_json(run / "environment.json") | {"source": "b" * 64})


@pytest.mark.parametrize(("noted", "told"), [(True, "aaaaaaaaaaaa, bbbbbbbbbbbb"), (False, "not noted, bbbbbbbbbbbb")])
def test_going_on_with_other_code_is_told_once_and_kept(finished, folder, tmp_path, caplog, noted, told):
    """A final run of before results named their source has it from the run, which always did."""
    out = shutil.copytree(finished[1], tmp_path / "out")
    of_other_source(out, noted=noted)
    again = run_comparison(plan(folder), out)
    assert not caplog.records  # nothing is left to do, so that nothing new is mixed with it
    ease = again.models[1]
    assert {trial.source for trial in ease.trials} == {"a" * 64 if noted else None}
    assert [one.source for one in ease.seeds] == ["b" * 64]
    more = run_comparison(plan(folder, models=(*MODELS, "p3")), out)
    (record,) = caplog.records
    assert f"4 of 11 trials and final runs are of other source than this program's, {source_hash()[:12]} ({told})" in (
        record.getMessage()
    )
    assert more.models[1] == ease
    assert {one.source for one in (*more.models[3].trials, *more.models[3].seeds)} == {source_hash()}


def test_trials_of_another_search_are_not_gone_on_with(finished, folder, tmp_path):
    """As where a version of the program has other ranges."""
    shutil.copytree(finished[1], tmp_path / "out")
    ledger = tmp_path / "out" / "ledger.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    whole = "".join(line for line in lines if '"ease", "number": 2' not in line)
    assert len(whole) < sum(map(len, lines))
    for old, new, told in (
        ('"model.l2": ', '"model.l3": ', "model.l2, model.l3 are not in both"),
        ('"model.l2": 50.0', '"model.l2": 50000.0', "model.l2 was 50000.0, and is searched over 1 to 5000"),
    ):
        ledger.write_text(whole.replace(old, new))
        with pytest.raises(RunError, match=f"of ease is of another search .{told}"):
            run_comparison(plan(folder, models=("ease",)), tmp_path / "out")


def test_a_solved_placebo_has_as_many_seeds_as_one_that_is_trained(folder, tmp_path):
    """Its features are drawn, and one draw says little."""
    (model,) = run_comparison(plan(folder, models=("content-knn+noise",), trials=1), tmp_path / "out").models
    assert (model.solved, [one.seed for one in model.seeds]) == (True, [1, 2])


def test_a_device_that_is_not_there_is_told_before_anything_is_written(folder, tmp_path):
    with pytest.raises(ConfigError, match="device 'cuda:99' is not available"):
        run_comparison(plan(folder, device="cuda:99"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"minutes": 20.0}, "another number of --minutes: 10.0, and now 20.0 is asked for"),
        ({"trials": 4}, "another number of --trials"),
        ({"profile": "mmrec"}, "another profile"),
        ({"settings": {"training.epochs": 3}}, "was begun with other settings"),
    ],
)
def test_another_budget_or_protocol_is_another_comparison(finished, folder, options, told):
    with pytest.raises(RunError, match=told):
        run_comparison(plan(folder, **options), finished[1])


def test_a_profile_named_for_another_split_says_so(folder, tmp_path, caplog):
    asked = {"profile": "hkuds-tiktok", "models": ("popularity",)}
    profile = run_comparison(plan(folder, **asked), tmp_path / "out").profile
    assert (profile.name, profile.seen) == ("hkuds-tiktok", "train")
    assert "another data set's published split" in profile.description
    assert "TikTok split of DiffMM" not in profile.description + profile.comparable
    assert "is not the split that it is named for" in caplog.text


def test_what_was_begun_before_a_setting_goes_on_where_the_setting_changes_nothing(folder, tmp_path):
    """The extractor's limit is wider than the features, and so none."""
    small = {**SETTINGS, "model.hidden_dims": [4], "model.embedding_dim": 4, "training.epochs": 1}
    asked = {"models": ("metammf-mf",), "trials": 1, "seeds": 1}
    before = run_comparison(plan(folder, settings=small, **asked), tmp_path / "out")
    again = run_comparison(plan(folder, settings={**small, "model.meta_hidden_dim": 10_000}, **asked), tmp_path / "out")
    assert outcome(again)["tests"] == outcome(before)["tests"]
    assert again.models[0].seeds == before.models[0].seeds
    with pytest.raises(RunError, match="was begun with other settings"):
        run_comparison(plan(folder, settings={**small, "model.meta_hidden_dim": 1}, **asked), tmp_path / "out")


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"models": []}', '{"models": {}, "started": "then", "trial_share": "half"}']
)
def test_a_damaged_plan_is_named(folder, tmp_path, text):
    out = tmp_path / "out"
    out.mkdir()
    (out / "plan.json").write_text(text)
    with pytest.raises(FileFormatError, match=r"plan\.json: it is damaged"):
        run_comparison(plan(folder, models=("popularity",)), out)


def test_a_folder_of_somebody_elses_is_refused(folder, tmp_path):
    (tmp_path / "letter.txt").touch()
    with pytest.raises(RunError, match=r"is not a comparison's folder \(it has no plan\.json\)"):
        run_comparison(plan(folder), tmp_path)


def test_one_that_was_ended_before_it_had_written_anything_begins(folder, tmp_path):
    """A kill, or a full disk, between the lock and the plan; and another that holds it says that it does."""
    out = tmp_path / "out"
    out.mkdir()
    (out / ".lock").touch()
    (out / ".plan.json.x.part").touch()
    with FileLock(out / ".lock"), pytest.raises(RunError, match="is in use by another process"):
        run_comparison(plan(folder, models=("popularity",)), out)
    assert run_comparison(plan(folder, models=("popularity",)), out).complete


def test_a_folder_that_cannot_be_written_is_told(folder, tmp_path, monkeypatch):
    def read_alone(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(FileLock, "acquire", read_alone)
    with pytest.raises(RunError, match=r"cannot write .*: Read-only file system"):
        run_comparison(plan(folder, models=("popularity",)), tmp_path)


def test_no_search_takes_more_than_its_time(folder, tmp_path):
    """The recipe's first epoch is over the budget: it is stopped there, and the final run gets no more epochs than it had."""
    results = run_comparison(plan(folder, models=MODELS[:1], minutes=1e-9, seeds=1), tmp_path / "out")
    (model,) = results.models
    assert [(trial.state, trial.epochs) for trial in model.trials] == [("stopped", 1)]
    assert (model.seeds[0].epochs, model.config["training"]["epochs"]) == (1, 1)


def taking(seconds):
    """What does the work of a comparison, where each trial would take so many seconds, and epochs none."""

    def work(job):
        if isinstance(job, FinalJob):
            return compare_work(job)
        done = compare_work(replace(job, seconds=1e9))
        return replace(
            done, seconds=min(seconds, job.seconds), state="stopped" if job.seconds < seconds else "finished"
        )

    return work


@pytest.mark.parametrize("killed_after", [1, 2, None])
def test_the_number_of_steps_stays_what_it_is(folder, tmp_path, monkeypatch, killed_after):
    """The search ends by its time after two of ten trials, each of which took half of it, and one model is left out."""
    monkeypatch.setattr(compare, "work", taking(45.0))
    asked = plan(folder, models=("ease", "ease+model.max_items=1", "popularity"), minutes=1.0, trials=10)
    told = []

    def progress(done, total, what):
        told.append((done, total, what))
        if what and len(told) - 1 == killed_after:
            raise KilledError

    if killed_after:
        with pytest.raises(KilledError):
            run_comparison(asked, tmp_path / "out", progress=progress)
    run_comparison(asked, tmp_path / "out", progress=progress)
    assert {total for _, total, _ in told} == {11 + 11 + 2}
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert told[-1][0] == 24
    first, second = (what for _, _, what in told if what.startswith("ease trial"))
    assert first.startswith("ease trial 0 stopped at its share of the budget: recall@10 ")
    assert first.endswith("; 30 of 60 s used")
    assert second.startswith("ease trial 1 stopped at the end of the budget: recall@10 ")
    assert second.endswith("; all 60 s are used")
    assert next(done for done, _, what in told if what == first) == 5


def test_a_recipe_that_is_slow_leaves_half_of_the_time_to_search_with(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "work", taking(45.0))
    results = run_comparison(plan(folder, models=("ease",), minutes=1.0), tmp_path / "out")
    (model,) = results.models
    assert results.budget.trial_share == 0.5
    assert [(trial.state, trial.seconds) for trial in model.trials] == [("stopped", 30.0), ("stopped", 30.0)]


def test_a_comparison_goes_on_with_the_share_that_it_was_begun_with(folder, tmp_path, monkeypatch):
    """One that was begun before there was a share, in which one trial may have taken all."""
    asked = plan(folder, models=("ease",), minutes=1.0)
    run_comparison(asked, tmp_path / "out")
    path = tmp_path / "out" / "plan.json"
    path.write_text(json.dumps({key: one for key, one in json.loads(path.read_text()).items() if key != "trial_share"}))
    (tmp_path / "out" / "ledger.jsonl").unlink()
    shutil.rmtree(tmp_path / "out" / "models")
    monkeypatch.setattr(compare, "work", taking(45.0))
    results = run_comparison(asked, tmp_path / "out")
    assert results.budget.trial_share == 1.0
    assert [(trial.state, trial.seconds) for trial in results.models[0].trials] == [
        ("finished", 45.0),
        ("stopped", 15.0),
    ]


def test_what_the_data_cannot_serve_is_left_out_and_told(folder, tmp_path, caplog):
    dataset = load_dataset(folder)
    bare = replace(dataset, catalog=replace(dataset.catalog, features=absent_features({}, dataset.num_items)))
    save_dataset(bare, tmp_path / "bare")
    results = run_comparison(plan(tmp_path / "bare", models=("vbpr", "popularity")), tmp_path / "out")
    assert [one.name for one in results.models] == ["popularity"]
    assert [(one.name, "has no features" in one.reason) for one in results.left_out] == [("vbpr", True)]
    assert "vbpr is left out" in caplog.text
    with pytest.raises(ConfigError, match="no model can be compared: vbpr"):
        run_comparison(plan(tmp_path / "bare", models=("vbpr",)), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_modality_that_is_not_there_leaves_the_model_out(folder, tmp_path):
    asked = ('vbpr+model.modalities=["smell"]', "popularity")
    results = run_comparison(plan(folder, models=asked), tmp_path / "out")
    assert "smell" in results.left_out[0].reason


def test_a_model_of_which_every_trial_fails_is_left_out(folder, tmp_path):
    results = run_comparison(plan(folder, models=("ease+model.max_items=1", "popularity")), tmp_path / "out")
    assert [one.name for one in results.models] == ["popularity"]
    assert "items x items memory" in results.left_out[0].reason
    assert results.complete  # the search is over: the same command has nothing left to do
    again = run_comparison(plan(folder, models=("ease+model.max_items=1", "popularity")), tmp_path / "out")
    assert again.left_out == results.left_out


def dying(*places):
    """What does the work of a comparison, of which the process of each job that `places` name has died."""
    told = []

    def work(job):
        told.append((job.out.parent.name, job.out.name))
        if told[-1] in places:
            return died(job, Death("its process was killed (signal 9), perhaps for memory", 2.5))
        return compare_work(job)

    return work


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_trial_whose_process_dies_is_tried_again_and_the_search_goes_on(
    finished, folder, tmp_path, monkeypatch, place
):
    """Killed right after the death, it ends as if neither had been, but for the line that the death has in the ledger."""
    monkeypatch.setattr(compare, "work", dying(("ease", f"trial-{place}")))
    asked, told = plan(folder, models=("ease",)), []

    def stop(done, total, what):
        if f"trial {place} died" in what:
            raise KilledError

    with pytest.raises(KilledError):
        run_comparison(asked, tmp_path / "out", progress=stop)
    (model,) = run_comparison(asked, tmp_path / "out", progress=lambda *what: told.append(what)).models
    dead = model.trials[place]
    assert (dead.state, dead.seconds, dead.value) == ("died", 2.5, None)
    assert dead.reason == "its process was killed (signal 9), perhaps for memory"
    assert model.trials[place + 1].settings == dead.settings
    others = [trial for trial in model.trials if trial != dead]
    known = finished[0].models[1]
    assert [(trial.settings, trial.value) for trial in others] == [
        (trial.settings, trial.value) for trial in known.trials
    ]
    assert model.chosen == known.chosen
    assert "killed (signal 9)" in (tmp_path / "out" / "ledger.jsonl").read_text()
    assert (told[0][0], *told[-1][:2]) == (place, 4, 4)  # what died counts for no step


def test_settings_that_die_twice_have_failed(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "work", dying(("popularity", "trial-0"), ("popularity", "trial-1")))
    results = run_comparison(plan(folder, models=("popularity",)), tmp_path / "out")
    assert results.left_out[0].reason.startswith(
        "no trial has come to a value; the recipe's own: its process was killed"
    )


def test_a_final_run_whose_process_dies_leaves_the_model_out_and_is_tried_again(
    finished, folder, tmp_path, monkeypatch, caplog
):
    with monkeypatch.context() as patch:
        patch.setattr(compare, "work", dying((SMALL_MF, "seed-2")))
        results = run_comparison(plan(folder), tmp_path / "out")
    assert [one.name for one in results.models] == ["ease", "popularity"]
    (left,) = results.left_out
    assert (left.name, left.tried_again, results.complete) == (MODELS[0], True, False)
    assert left.reason == (
        "seed 2: its process was killed (signal 9), perhaps for memory; the same command tries it again"
    )
    assert "is left out: seed 2" in caplog.text
    assert outcome(run_comparison(plan(folder), tmp_path / "out")) == outcome(finished[0])


def test_a_final_run_that_cannot_be_trained_leaves_the_model_out(folder, tmp_path, monkeypatch):
    def diverges(*_):
        raise NonFiniteLossError("the loss is not finite at epoch 1")

    monkeypatch.setattr(finals, "train_run", diverges)
    results = run_comparison(plan(folder, models=MODELS[:1], trials=1), tmp_path / "out")
    assert results.models == ()
    assert results.left_out[0].reason.startswith("seed 1: the loss is not finite at epoch 1")


@pytest.mark.parametrize("at", ["train_run", "evaluate_run", "evaluated_once", "num_parameters"])
def test_a_final_run_that_needs_more_memory_than_there_is_leaves_the_model_out(folder, tmp_path, monkeypatch, at):
    def greedy(*_, **__):
        raise MemoryError("Unable to allocate 9 GiB")

    monkeypatch.setattr(finals, at, greedy)
    results = run_comparison(plan(folder, models=("popularity",)), tmp_path / "out")
    assert results.left_out[0].reason.startswith("seed 1: out of memory: Unable to allocate 9 GiB")


@pytest.mark.slow
def test_processes_that_die_end_no_comparison(folder, tmp_path, fragile):
    """One model dies in its second trial; another, which has but one, in its final run."""
    models = (fragile("in-a-trial", 2), f"{fragile('at-the-end', 2)}+model.l2=50.0", "popularity")
    asked = plan(folder, models=models, here=False, jobs=2)
    results = run_comparison(asked, tmp_path / "out")
    assert [one.name for one in results.models] == [models[0], "popularity"]
    assert [trial.state for trial in results.models[0].trials] == ["finished", "died", "finished", "finished"]
    assert results.models[0].trials[1].reason == "its process was killed (signal 9), perhaps for memory"
    assert [one.name for one in results.left_out] == [models[1]]
    again = run_comparison(asked, tmp_path / "out")
    assert [one.name for one in again.models] == list(models)
    assert again.models[0].trials == results.models[0].trials


def test_a_leak_stops_all_before_anything_is_written(folder, tmp_path, monkeypatch):
    def leaky(*_):
        raise LeakageError("leakage audit failed: parts are apart")

    monkeypatch.setattr(compare, "audit", leaky)
    with pytest.raises(LeakageError, match="parts are apart"):
        run_comparison(plan(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_a_profile_needs_is_told(folder, tmp_path):
    with pytest.raises(DataError, match="profile user-time: two groups has no timestamps"):
        run_comparison(plan(folder, profile="user-time"), tmp_path / "out")


@pytest.mark.parametrize(
    ("option", "value"),
    [(name, 0) for name in ("trials", "seeds", "jobs", "minutes")] + [("minutes", odd) for odd in (-1, inf, nan)],
)
def test_budgets_that_are_none_are_refused(folder, option, value):
    with pytest.raises(ConfigError, match=f"--{option}: expected"):
        plan(folder, **{option: value})
