"""What a search tries depends on the ledger alone, lies in the space, and goes where values are high."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metammf.errors import MissingExtraError
from metammf.experiments.comparison_results import SearchedSetting, Trial
from metammf.experiments.proposing import STARTUP, Pruner, propose, require_optuna

SPACE = {
    "model.rate": SearchedSetting(1e-4, 1e-1, log=True, integer=False, choices=(), recipe=1e-3),
    "model.layers": SearchedSetting(1, 4, log=False, integer=True, choices=(), recipe=2),
    "model.widths": SearchedSetting(None, None, log=False, integer=False, choices=((8,), (16, 8)), recipe=(8,)),
    "model.rank": SearchedSetting(1, 64, log=True, integer=True, choices=(), recipe=16),
}


def finished(number, chosen, value, curve=()):
    return Trial(number, chosen, "finished", 1.0, 3, value, curve)


def search(trials, value_of, label="it"):
    """A search of which the values are known."""
    found = []
    for number in range(trials):
        chosen = propose(SPACE, found, label, "mf")
        found.append(finished(number, chosen, value_of(chosen)))
    return found


def test_the_first_trial_is_the_recipe():
    assert propose(SPACE, (), "it", "mf") == {key: one.recipe for key, one in SPACE.items()}
    assert propose({}, (), "it", "mf") == {}


def test_the_trials_after_it_keep_some_of_it():
    recipe = propose(SPACE, (), "it", "mf")
    kept = [trial.settings[key] == recipe[key] for trial in search(STARTUP + 1, lambda _: 0.5)[1:] for key in SPACE]
    assert 0 < sum(kept) < len(kept)


def test_before_tpe_models_that_share_settings_try_the_same_values_of_them():
    smaller = {key: one for key, one in SPACE.items() if key != "model.rank"}
    one, other = [], []
    for number in range(STARTUP + 1):
        one.append(finished(number, propose(SPACE, one, "dynamic", "mf"), 0.1 * number))
        other.append(finished(number, propose(smaller, other, "static", "mf"), -0.1 * number))
    drawn = [trial.settings["model.rate"] for trial in one]
    assert len(set(drawn)) > 2
    for a, b in zip(one, other, strict=True):
        assert {key: a.settings[key] for key in smaller} == b.settings


def test_before_tpe_models_of_other_families_try_other_values():
    assert len({propose(SPACE, search(1, lambda _: 0.5), "it", family)["model.rate"] for family in "abcdefgh"}) > 2


@pytest.mark.parametrize("key", SPACE)
def test_before_tpe_each_setting_is_moved_in_about_half_of_the_families(key):
    recipe = SPACE[key].recipe
    drawn = [propose(SPACE, search(1, lambda _: 0.5), "it", f"family {number}")[key] for number in range(60)]
    # A draw may fall on the recipe's own value: of two widths it does so half of the time.
    assert 8 <= sum(value != recipe for value in drawn) <= 45


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["finished", "pruned", "stopped", "failed"]))
def test_all_that_is_proposed_lies_in_the_space(seed, state):
    trials = search(STARTUP + 1, lambda chosen: (chosen["model.layers"] * 7 + seed) % 5 / 5, label=str(seed))
    last = trials[-1]
    trials[-1] = Trial(last.number, last.settings, state, 1.0, 2, 0.1, ((1, 0.05), (2, 0.1)))
    for trial in [*trials, finished(len(trials), propose(SPACE, trials, str(seed), "mf"), 0.0)]:
        chosen = trial.settings
        assert 1e-4 <= chosen["model.rate"] <= 1e-1
        assert chosen["model.layers"] in (1, 2, 3, 4)
        assert chosen["model.widths"] in ((8,), (16, 8))
        assert chosen["model.rank"] in range(1, 65)


def test_the_same_ledger_asks_for_the_same():
    trials = search(STARTUP + 3, lambda chosen: chosen["model.rate"])
    assert propose(SPACE, trials, "it", "mf") == propose(SPACE, trials, "it", "mf")
    assert propose(SPACE, trials, "it", "mf") != propose(SPACE, trials, "another", "mf")


@pytest.mark.parametrize("place", [0, 1, STARTUP + 2])
def test_a_trial_that_died_is_asked_for_again_and_changes_nothing_after_it(place):
    trials = search(STARTUP + 4, lambda chosen: chosen["model.rate"])
    dead = Trial(place, trials[place].settings, "died", 1.0, None, None)
    before, after = trials[:place], trials[place:]
    assert propose(SPACE, [*before, dead], "it", "mf") == dead.settings
    for number, trial in enumerate(after):
        assert propose(SPACE, [*before, *([dead] if number else []), *after[:number]], "it", "mf") == trial.settings


def test_a_search_finds_better_than_the_recipe():
    trials = search(15, lambda chosen: -abs(chosen["model.layers"] - 4) - abs(chosen["model.rank"] - 50) / 50)
    assert max(trial.value for trial in trials) > trials[0].value


def test_a_good_trial_that_the_budget_stopped_leads_the_search_as_one_that_ended_does():
    space = {"model.x": SearchedSetting(0.0, 1.0, log=False, integer=False, choices=(), recipe=0.2)}
    poor = [finished(number, {"model.x": 0.05 * number}, 0.05 + 0.001 * number) for number in range(8)]

    def asked(state):
        good = [Trial(8 + number, {"model.x": 0.9}, state, 300.0, 20, 0.2, ((1, 0.2),)) for number in range(3)]
        return [propose(space, [*poor, *good], str(search), "mf")["model.x"] for search in range(10)]

    assert asked("stopped") == asked("finished")
    assert min(asked("stopped")) > 0.6


def test_a_trial_behind_the_median_is_given_up_after_some_looks():
    curve = tuple((epoch, 0.1 * epoch) for epoch in range(1, 11))
    earlier = [finished(number, propose(SPACE, (), "it", "mf"), 1.0, curve) for number in range(3)]
    slow = Pruner(SPACE, earlier)
    told = [slow.is_behind(look, 0.05 * look) for look in range(1, 11)]
    assert told.index(True) == 4  # looks 1 to 4 are too early
    fast = Pruner(SPACE, earlier)
    assert not any(fast.is_behind(look, 0.2 * look) for look in range(1, 11))


def test_the_recipe_is_never_given_up():
    assert not any(Pruner(SPACE, ()).is_behind(look, 0.0) for look in range(1, 20))


def test_a_missing_optuna_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'metammf\[compare\]'"):
        require_optuna()
