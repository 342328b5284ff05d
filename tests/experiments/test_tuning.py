"""One model's search: what each trial is, how it ends, and that a kill changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from metammf.errors import DataError, NonFiniteLossError, WriteError
from metammf.experiments import tuning
from metammf.experiments.comparison_results import Budget, Trial
from metammf.experiments.config import merge
from metammf.experiments.environment import source_hash
from metammf.experiments.search_space import search_space
from metammf.experiments.tuning import (
    TrialJob,
    best_trial,
    chosen_config,
    died_trial,
    is_over,
    run_trial,
    seconds_left,
    spent,
    spread,
)
from metammf.experiments.workers import Death
from metammf.training.loop import Trainer

SMALL = {
    "model.embedding_dim": 8,
    "training.epochs": 4,
    "training.batch_size": 200,
    "training.learning_rate": 0.005,
    "training.metric": "ndcg@5",
}


@pytest.fixture
def job(folder, tmp_path):
    config = merge("mf", SMALL).config
    return TrialJob("mf", "mf", config, search_space(config), (), 1e9, folder, tmp_path / "trial")


def timeless(trial):
    return replace(trial, seconds=0.0)


def test_the_first_trial_is_the_recipe_and_tells_its_curve(job):
    trial = run_trial(job)
    assert (trial.number, trial.state, trial.epochs) == (0, "finished", 4)
    assert trial.settings["training.learning_rate"] == 0.005
    assert [epoch for epoch, _ in trial.curve] == [1, 2, 3, 4]
    assert trial.value == max(value for _, value in trial.curve)
    assert trial.seconds > 0
    assert trial.source == source_hash()


def test_the_next_trial_knows_of_those_before(job):
    first = run_trial(job)
    second = run_trial(replace(job, earlier=(first,), out=job.out.with_name("next")))
    assert second.number == 1
    assert second.settings != first.settings


@pytest.mark.parametrize("at", [1, 3])
def test_a_trial_that_was_killed_ends_as_if_it_had_not_been(job, monkeypatch, at):
    """Between an epoch's checkpoint and all that comes after it; and with none for a while."""
    straight = run_trial(replace(job, out=job.out.with_name("straight")))
    monkeypatch.setattr(tuning, "CHECKPOINT_SECONDS", 0.0)
    look = tuning._Account.on_epoch

    def killed(self, record):
        if record.epoch == at:
            raise KeyboardInterrupt
        look(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(tuning._Account, "on_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            run_trial(job)
    trained = []
    epoch = Trainer._epoch
    monkeypatch.setattr(Trainer, "_epoch", lambda self, number: trained.append(number) or epoch(self, number))
    assert timeless(run_trial(job)) == timeless(straight)
    assert trained == list(range(at + 1, 5))


def test_a_trial_that_was_whole_before_the_kill_is_not_trained_again(job, monkeypatch):
    straight = run_trial(job)
    monkeypatch.setattr(Trainer, "_epoch", None)
    again = run_trial(job)
    assert timeless(again) == timeless(straight)
    assert again.seconds > 0


def test_leftovers_of_other_settings_give_way(job):
    run_trial(job)
    other = replace(job, config=merge("mf", SMALL | {"training.epochs": 2}).config)
    assert run_trial(other).epochs == 2


def test_the_budget_ends_a_trial_and_its_best_value_so_far_counts(job):
    trial = run_trial(replace(job, seconds=0.0))
    assert (trial.state, trial.epochs) == ("stopped", 1)
    assert trial.value == trial.curve[0][1]
    assert chosen_config(job.config, trial).training.epochs == 1


def test_a_trial_that_is_behind_is_pruned(job):
    curve = tuple((epoch, 1.0) for epoch in range(1, 9))
    earlier = tuple(
        Trial(
            number, {**run_settings(job), "training.weight_decay": 1e-6 * (number + 1)}, "finished", 1.0, 8, 1.0, curve
        )
        for number in range(3)
    )
    longer = merge("mf", SMALL | {"training.epochs": 8}).config
    trial = run_trial(replace(job, config=longer, earlier=earlier))
    assert (trial.state, trial.epochs) == ("pruned", 5)
    assert best_trial((*earlier, trial)) == earlier[0]


def run_settings(job):
    return {key: one.recipe for key, one in job.space.items()}


def test_settings_that_do_not_fit_fail_and_the_search_goes_on(job, monkeypatch):
    def diverges(*_):
        raise NonFiniteLossError("the loss is not finite at epoch 1")

    monkeypatch.setattr(tuning, "train_run", diverges)
    trial = run_trial(job)
    assert (trial.state, trial.value, trial.reason) == ("failed", None, "the loss is not finite at epoch 1")
    assert not is_over((trial,), Budget(1.0, 10, (1,)), job.space)


def test_a_disk_that_is_full_says_nothing_of_the_settings(job, monkeypatch):
    def full(*_):
        raise WriteError(job.out, "No space left on device")

    monkeypatch.setattr(tuning, "train_run", full)
    with pytest.raises(WriteError, match="No space left"):
        run_trial(job)


def test_data_that_are_gone_say_nothing_of_the_settings(job, monkeypatch, tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        run_trial(replace(job, data=tmp_path / "nowhere"))


def on_a_device(*_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nand more")


def on_a_processor(*_):
    torch.empty(1 << 55)


@pytest.mark.parametrize(
    ("greedy", "said"),
    [
        (on_a_device, "CUDA out of memory. Tried to allocate 9 GiB"),
        (on_a_processor, "can't allocate memory: you tried"),
    ],
)
def test_settings_that_need_more_memory_than_there_is_fail(job, monkeypatch, greedy, said):
    monkeypatch.setattr(tuning, "train_run", greedy)
    trial = run_trial(job)
    assert (trial.state, trial.value) == ("failed", None)
    assert trial.reason.startswith(f"out of memory: {said}")


def test_a_fault_of_ours_is_no_failure_of_the_settings(job, monkeypatch):
    def faulty(*_):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(tuning, "train_run", faulty)
    with pytest.raises(RuntimeError, match="shapes"):
        run_trial(job)


def test_a_trial_that_was_stopped_before_it_was_looked_at_says_so(job):
    rarely = merge("mf", SMALL | {"training.evaluate_every": 3}).config
    trial = run_trial(replace(job, config=rarely, seconds=0.0))
    assert (trial.state, trial.value) == ("stopped", None)
    assert trial.reason == "its time was over before the first look at validation"
    assert best_trial((trial,)) is None


KILLED = Death("its process was killed (signal 9), perhaps for memory", 12.3456)


def test_a_trial_whose_process_died_is_tried_again(job):
    first = run_trial(job)
    second = run_trial(replace(job, earlier=(first,), out=job.out.with_name("second")))
    dead = died_trial(replace(job, earlier=(first,)), KILLED)
    assert (dead.number, dead.state, dead.value, dead.seconds, dead.reason) == (1, "died", None, 12.346, KILLED.reason)
    again = run_trial(replace(job, earlier=(first, dead), out=job.out.with_name("again")))
    assert timeless(again) == timeless(replace(second, number=2))


def test_what_dies_twice_has_failed(job):
    dead = died_trial(job, KILLED)
    again = died_trial(replace(job, earlier=(dead,)), KILLED)
    assert dead.settings == again.settings == run_settings(job)
    assert [(one.number, one.state) for one in (dead, again)] == [(0, "died"), (1, "failed")]
    assert run_trial(replace(job, earlier=(dead, again))).settings != dead.settings


def test_a_solved_model_is_searched_the_same_way(job):
    config = merge("ease", {"training.metric": "ndcg@5"}).config
    solved = replace(job, label="ease", config=config, space=search_space(config))
    first = run_trial(solved)
    assert (first.state, first.epochs, first.curve, first.settings) == ("finished", None, (), {"model.l2": 50.0})
    second = run_trial(replace(solved, earlier=(first,), out=job.out.with_name("next")))
    assert second.settings["model.l2"] != 50.0
    assert 0 < second.value <= 1


def test_settings_that_were_tried_are_not_tried_again(job):
    first = run_trial(job)
    never = replace(job, space={}, earlier=(replace(first, settings={}),), out=job.out.with_name("never"))
    again = run_trial(never)
    assert (again.number, again.value, again.seconds) == (1, first.value, 0.0)
    assert not never.out.exists()


def trial(number, value, state="finished", seconds=10.0):
    return Trial(number, {}, state, seconds, 3, value)


def test_a_search_ends_with_its_time_its_trials_or_its_hope():
    budget, space = Budget(1.0, 3, (1,)), {"model.l2": None}
    assert not is_over((), budget, space)
    assert is_over((trial(0, 0.1),), budget, {})
    assert not is_over((trial(0, 0.1), trial(1, 0.2)), budget, space)
    assert is_over((trial(0, 0.1), trial(1, 0.2), trial(2, 0.1)), budget, space)
    assert is_over((trial(0, 0.1, seconds=61.0),), budget, space)
    failed = tuple(trial(number, None, "failed") for number in range(3))
    assert is_over(failed, Budget(10.0, 9, (1,)), space)
    assert spent(failed) == 30.0


def test_a_trial_that_died_costs_time_and_counts_once_with_the_one_in_its_place():
    budget, space = Budget(1.0, 2, (1,)), {"model.l2": None}
    dead, good = trial(0, None, "died", seconds=20.0), trial(1, 0.1, seconds=10.0)
    assert not is_over((dead,), budget, space)
    assert not is_over((dead,), budget, {})
    assert seconds_left((dead,), budget, {}) == 40.0
    assert is_over((dead, good), budget, {})
    assert not is_over((dead, good), budget, space)
    assert spent((dead, good)) == 30.0
    assert not is_over((dead, good, replace(dead, number=2)), budget, space)  # the last one, to be tried again
    assert is_over((dead, good, replace(dead, number=2, seconds=30.0)), budget, space)  # but there is no time for it
    assert is_over((dead, good, replace(dead, number=2), trial(3, 0.2)), budget, space)
    assert best_trial((dead, good)) == good
    three = tuple(trial(number, None, state) for number, state in enumerate(["died", "failed"] * 3))
    assert not is_over(three[:4], Budget(10.0, 9, (1,)), space)
    assert is_over(three, Budget(10.0, 9, (1,)), space)


def test_a_trial_takes_its_share_and_the_last_all_that_is_left():
    budget, space = Budget(1.0, 4, (1,), trial_share=0.5), {"model.l2": None}
    assert seconds_left((), budget, space) == 30.0
    assert seconds_left((trial(0, 0.1, seconds=31.0),), budget, space) == 29.0
    assert seconds_left((trial(0, 0.1, seconds=5.0), trial(1, 0.1, seconds=5.0)), budget, space) == 30.0
    assert seconds_left(tuple(trial(number, 0.1, seconds=5.0) for number in range(3)), budget, space) == 45.0
    assert seconds_left((), budget, {}) == 60.0
    assert seconds_left((), Budget(1.0, 4, (1,)), space) == 60.0


def test_the_best_trial_is_the_first_of_equals_and_none_that_was_pruned():
    trials = (trial(0, 0.1), trial(1, 0.3), trial(2, 0.3), trial(3, 0.9, "pruned"), trial(4, None, "failed"))
    assert best_trial(trials) == trials[1]
    assert best_trial(trials[4:]) is None
    assert spread(trials).count == 4
    assert (spread(trials).lowest, spread(trials).highest) == (0.1, 0.9)
