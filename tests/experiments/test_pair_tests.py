"""All pairs, each way round, corrected over one metric and table; the best other is the best of the others."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from metammf.evaluation.result import Evaluation
from metammf.evaluation.significance import compare, holm
from metammf.experiments.comparison_results import ModelResult, SeedResult, Spread
from metammf.experiments.pair_tests import PairTests, _turned, improvements, percent

USERS = 40
METRICS = ("recall@20", "ndcg@20")


def evaluation(level, seed, *, cold=True):
    rng = np.random.default_rng(seed)
    columns = {"user_id": [f"u{user}" for user in range(USERS)]}
    for table in ("", "cold_among_all/", "cold_among_cold/"):
        for metric in METRICS:
            values = np.clip(level + 0.2 * rng.standard_normal(USERS), 0, 1)
            columns[table + metric] = pl.Series(
                values if cold or not table else np.full(USERS, np.nan), nan_to_null=True
            )
    means = {"recall@20": 0.0}
    return Evaluation("test", "train", (20,), False, USERS, USERS, means, {}, {}, 0.0, per_user=pl.DataFrame(columns))


@pytest.fixture(scope="module")
def tests():
    found = PairTests(METRICS)
    for name, level in (("c", 0.3), ("a", 0.5), ("b", 0.4)):
        found.add(name, [evaluation(level, ord(name) + seed) for seed in (0, 10)])
    return found


def test_every_pair_is_tested_on_the_means_over_seeds(tests):
    found = tests.results(["a", "b", "c"])
    assert [(one.a, one.b) for one in found[:3]] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert len(found) == 3 * 2 * 3
    first = found[0]
    both = [[evaluation(level, ord(name) + seed) for seed in (0, 10)] for name, level in (("a", 0.5), ("b", 0.4))]
    expected = compare(both[0], both[1], "recall@20")
    assert (first.mean_a, first.difference, first.p) == (expected.mean_a, expected.difference, expected.p_permutation)
    assert first.improvement_percent == pytest.approx(100 * expected.difference / expected.mean_b)


def test_holm_is_over_the_pairs_of_one_metric_and_table(tests):
    found = [one for one in tests.results(["a", "b", "c"]) if (one.metric, one.table) == ("ndcg@20", "cold among all")]
    np.testing.assert_allclose([one.p_holm for one in found], holm([one.p for one in found]))


def test_a_test_turned_round_says_the_same(tests):
    there, back = tests.results(["a", "b"])[0], tests.results(["b", "a"])[0]
    assert (back.a, back.b, back.p) == ("b", "a", there.p)
    assert (back.difference, back.low, back.high) == (-there.difference, -there.high, -there.low)
    assert back.improvement_percent == pytest.approx(percent(there.mean_b, there.mean_a))


def test_a_zero_has_no_sign_whichever_side_is_asked_for(tests):
    there = replace(tests.results(["a", "b"])[0], difference=0.0, low=0.0, high=0.25, effect_size=0.0)
    back = _turned(there)
    assert [math.copysign(1, value) for value in (back.difference, back.low, back.high, back.effect_size)] == [
        1,
        -1,
        1,
        1,
    ]


@pytest.mark.parametrize(("a", "b"), [("a", "b"), ("b", "a"), ("a", "c"), ("c", "a")])
def test_either_side_of_a_pair_is_what_a_test_of_that_side_finds(tests, a, b):
    """`compare` is asked anew for each side. As they were taken in, b was tested against a, and a against c."""
    levels = {"a": 0.5, "b": 0.4, "c": 0.3}
    both = [[evaluation(levels[name], ord(name) + seed) for seed in (0, 10)] for name in (a, b)]
    for found in tests.results([a, b])[: len(METRICS)]:
        expected = compare(*both, found.metric)
        assert (found.a, found.b, found.table, found.num_users) == (a, b, "all", expected.num_users)
        for key in ("mean_a", "mean_b", "difference", "low", "high", "effect_size"):
            assert getattr(found, key) == pytest.approx(getattr(expected, key), abs=1e-12), key
        assert found.p == expected.p_permutation
        assert found.improvement_percent == pytest.approx(100 * (expected.mean_a - expected.mean_b) / expected.mean_b)


def test_a_table_without_interactions_is_left_out():
    found = PairTests(METRICS)
    for name in "ab":
        found.add(name, [evaluation(0.4, ord(name), cold=False)])
    assert {one.table for one in found.results(["a", "b"])} == {"all"}


def test_the_tables_that_a_profile_asks_for_are_tested():
    found = PairTests(METRICS, ("all", "cold among all"))
    assert found.columns == [*METRICS, *(f"cold_among_all/{metric}" for metric in METRICS)]
    for name in "ab":
        found.add(name, [evaluation(0.4, ord(name))])
    assert {one.table for one in found.results(["a", "b"])} == {"all", "cold among all"}


def model(name, value):
    test = {"all": {"recall@20": value}}
    return ModelResult(
        name, name, name, {}, None, False, True, 1, {}, (), Spread(1, 0, 0, 0, 0, 0), {}, 0, {},
        (SeedResult(1, {}, test, None, None, None, 1.0, None),),
    )  # fmt: skip


def test_the_best_other_is_the_best_of_the_others():
    found = improvements([model("a", 0.5), model("b", 0.4), model("c", 0.2)], ["recall@20"])
    assert [(one.model, one.best_other) for one in found] == [("a", "b"), ("b", "a"), ("c", "a")]
    assert [one.percent for one in found] == pytest.approx([25.0, -20.0, -60.0])
    assert improvements([model("a", 0.5)], ["recall@20"]) == ()
    assert improvements([model("a", 0.5), model("b", 0.0)], ["recall@20"])[0].percent is None
