"""Paired tests, intervals and corrections against exhaustive enumeration and worked numbers."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy import stats

from metammf.errors import DataError
from metammf.evaluation import significance as sig
from metammf.evaluation.result import Evaluation


def evaluation(values: list[float | None], users: list[int] | None = None, **changes: object) -> Evaluation:
    users = list(range(len(values))) if users is None else users
    frame = pl.DataFrame({"user_id": users, "recall@5": values})
    known = [value for value in values if value is not None]
    mean = sum(known) / max(1, len(known))
    plain = {
        "part": "test",
        "seen": "train",
        "ks": (5,),
        "all_users": False,
        "num_users": len(users),
        "num_interactions": len(users),
        "metrics": {"recall@5": mean},
        "warm": {},
        "cold": {},
        "seconds": 0.0,
    }
    return Evaluation(**(plain | changes), per_user=frame)


@pytest.mark.parametrize("differences", [[1, 1, 1, -1, 0, 0, 1, 1], [0.5, -0.25, 0.125, 0.75, 0.1, -0.3], [1, -1]])
def test_permutation_test_nears_the_exact_p(differences: list[float]) -> None:
    values = np.array(differences, dtype=np.float64)
    signs = np.array(list(itertools.product([-1, 1], repeat=len(values))))
    exact = (np.abs(signs @ values) >= abs(values.sum()) - 1e-12).mean()
    assert sig.permutation_test(values, resamples=40_000) == pytest.approx(exact, abs=0.01)


def test_permutation_test_holds_its_level_where_most_users_tie() -> None:
    rng = np.random.default_rng(0)
    p = [
        sig.permutation_test(rng.choice([0.0, 1.0, -1.0], 300, p=[0.9, 0.05, 0.05]), resamples=500) for _ in range(400)
    ]
    assert 0.02 < np.mean(np.array(p) <= 0.05) < 0.08


def test_permutation_test_at_its_ends() -> None:
    assert sig.permutation_test(np.zeros(5)) == 1.0
    assert sig.permutation_test(np.ones(100), resamples=999) == pytest.approx(1 / 1000)


def test_the_least_p_is_that_of_all_who_differ_alike() -> None:
    values = np.array([1.0, 0.5, 2.0, 0.0, 0.0, 0.0])
    assert sig.permutation_test(values) == pytest.approx(sig.least_p(1, 3), rel=0.02)
    assert sig.least_p(1, 3) == 0.25
    assert sig.least_p(36, 0) == 1.0
    assert sig.least_p(36, 100) == sig.least_p(36) == pytest.approx(36 / (sig.RESAMPLES + 1))
    assert sig.least_p(0) == 1.0


def test_permutation_test_is_the_same_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).normal(0.1, 1, 64)
    whole = sig.permutation_test(values, seed=3)
    assert whole == sig.permutation_test(values, seed=3)
    monkeypatch.setattr(sig, "_CELLS", 1000)
    assert sig.permutation_test(values, seed=3) == pytest.approx(whole, abs=0.02)


def test_a_pair_is_tested_alike_whoever_else_is_tested_with_it() -> None:
    columns = np.random.default_rng(2).normal(0.1, 1, (50, 3)) * [1, 0, 1]
    p_values = sig.permutation_tests(columns, resamples=999)
    lows, highs = sig.bootstrap_intervals(columns)
    for place, column in enumerate(columns.T):
        assert p_values[place] == sig.permutation_test(column, resamples=999)
        assert (lows[place], highs[place]) == sig.bootstrap_interval(column)
    assert p_values[1] == 1.0


def test_bootstrap_means_are_those_of_the_samples() -> None:
    values, seed = np.random.default_rng(3).normal(size=30), 5
    drawn = np.random.default_rng(seed).integers(30, size=(400, 30))
    expected = np.quantile(values[drawn].mean(axis=1), [0.1, 0.9])
    assert sig.bootstrap_interval(values, level=0.8, resamples=400, seed=seed) == pytest.approx(tuple(expected))


def test_t_test_equals_scipy() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 50))
    assert sig.t_test(a - b) == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert sig.t_test(np.zeros(4)) == 1.0
    assert sig.t_test(np.full(4, 0.25)) == 0.0
    assert sig.t_test(np.array([0.3])) == 1.0


def test_effect_size() -> None:
    assert sig.effect_size(np.array([1.0, 2.0, 3.0])) == pytest.approx(2.0)
    assert sig.effect_size(np.zeros(3)) == 0.0


def test_bootstrap_interval_nears_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(0.2, 1.0, 2000)
    error = values.std(ddof=1) / np.sqrt(2000)
    low, high = sig.bootstrap_interval(values)
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.01)
    assert sig.bootstrap_interval(values) == (low, high)


def test_holm_of_worked_numbers() -> None:
    # Sorted .005 .01 .03 .04, times 4 3 2 1 = .02 .03 .06 .04; the last is lifted to the one before it.
    assert sig.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert sig.holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert sig.holm([]).tolist() == []


def test_compare_pairs_users_whatever_their_order() -> None:
    a = evaluation([1.0, 0.0, 1.0, 0.5], [7, 3, 5, 1])
    b = evaluation([0.5, 0.0, 0.0, 0.0], [1, 3, 5, 7])
    found = sig.compare(a, b, "recall@5")
    assert (found.num_users, found.mean_a, found.mean_b, found.difference) == (4, 0.625, 0.125, 0.5)
    assert found.low <= 0.5 <= found.high
    assert found.p_adjusted == found.p_permutation


def test_compare_averages_seeds_user_by_user() -> None:
    seeds = [evaluation([1.0, 0.0, 0.5]), evaluation([0.0, 0.0, 1.0])]
    users, values = sig.per_user_mean(seeds, "recall@5")
    assert users.to_list() == [0, 1, 2]
    assert values.tolist() == [0.5, 0.0, 0.75]
    assert sig.compare(seeds, seeds[::-1], "recall@5").difference == 0.0


def test_compare_leaves_out_who_is_not_in_the_table() -> None:
    found = sig.compare(evaluation([1.0, None, 0.0]), evaluation([0.0, None, 0.0]), "recall@5")
    assert (found.num_users, found.num_differing, found.difference) == (2, 1, 0.5)


def test_users_who_differ_by_the_rounding_of_a_mean_over_seeds_do_not_differ() -> None:
    values = [0.1, 0.2, 0.7]
    assert np.mean([values] * 3, axis=0).tolist() != values
    assert sig.compare([evaluation(values)] * 3, evaluation(values), "recall@5").num_differing == 0


def test_compare_all_corrects_over_all_comparisons() -> None:
    rng = np.random.default_rng(0)
    ours = evaluation((rng.random(200) + 0.1).tolist())
    others = {name: evaluation(rng.random(200).tolist()) for name in ("mf", "ease", "p3")}
    found = sig.compare_all(ours, others, ["recall@5"], resamples=2000)
    assert list(found) == ["mf", "ease", "p3"]
    raw = [one.p_permutation for (one,) in found.values()]
    assert [one.p_adjusted for (one,) in found.values()] == pytest.approx(sig.holm(raw).tolist())
    alone = sig.compare(ours, others["ease"], "recall@5", resamples=2000)
    assert found["ease"][0] == replace(alone, p_adjusted=found["ease"][0].p_adjusted)
    assert sig.compare_all(ours, {}, ["recall@5"]) == {}
    assert found["mf"][0].significant()


def test_over_seeds() -> None:
    found = sig.over_seeds([evaluation([1.0, 0.0]), evaluation([1.0, 1.0])])
    assert found["recall@5"] == pytest.approx((0.75, np.std([0.5, 1.0], ddof=1)))
    assert sig.over_seeds([evaluation([1.0])])["recall@5"] == (1.0, 0.0)


def test_compare_refuses_what_cannot_be_paired() -> None:
    a = evaluation([1.0, 0.0])
    with pytest.raises(DataError, match="did you mean 'recall@5'"):
        sig.compare(a, a, "recal@5")
    with pytest.raises(DataError, match="not the same ones"):
        sig.compare(a, evaluation([1.0, 0.0], [0, 2]), "recall@5")
    with pytest.raises(DataError, match="one model are of different users"):
        sig.compare([a, evaluation([1.0])], a, "recall@5")
    with pytest.raises(DataError, match="different \\(part, seen, all_users, sample\\)"):
        sig.compare(a, evaluation([1.0, 0.0], seen="train+validation"), "recall@5")
    with pytest.raises(DataError, match="at least one evaluation"):
        sig.compare([], a, "recall@5")
    with pytest.raises(DataError, match="no user to compare on"):
        sig.compare(evaluation([None, None]), evaluation([None, None]), "recall@5")
