"""Every model of a comparison against every other: paired tests over users, and what each is ahead of the best other."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

import polars as pl

from metammf.evaluation.significance import compare_all, holm, per_user_mean
from metammf.experiments.comparison_results import TABLES, Improvement, PairTest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from metammf.evaluation.result import Evaluation
    from metammf.evaluation.significance import Comparison
    from metammf.experiments.comparison_results import ModelResult

TESTED_TABLES = ("all", "cold among all", "cold among cold")
"""Where a profile says nothing else."""


class PairTests:
    """The tests of a comparison as it grows: a pair is tested once.

    Args:
        metrics: What is tested, such as ``ndcg@20``.
        tables: In which tables, keys of `TABLES`.
    """

    def __init__(self, metrics: Sequence[str], tables: Sequence[str] = TESTED_TABLES) -> None:
        self.metrics, self.tables = tuple(metrics), tuple(tables)
        self._means: dict[str, Evaluation] = {}
        self._tests: dict[tuple[str, str, str, str], PairTest] = {}

    @property
    def columns(self) -> list[str]:
        """The columns of `Evaluation.per_user` that are needed, ``user_id`` left out."""
        return [TABLES[table] + metric for table in self.tables for metric in self.metrics]

    def add(self, name: str, evaluations: Sequence[Evaluation]) -> None:
        """Take in a model: the evaluations of its final runs."""
        frame = evaluations[0].per_user.select("user_id")
        for column in self.columns:
            if evaluations[0].per_user[column].null_count() == len(frame):
                continue  # the test part has no interaction of that table
            users, values = per_user_mean(evaluations, column)
            frame = frame.join(pl.DataFrame({"user_id": users, column: values}), on="user_id", how="left")
        mean = replace(evaluations[0], per_user=frame)
        self._test(name, mean)
        self._means[name] = mean

    def results(self, order: Sequence[str]) -> tuple[PairTest, ...]:
        """Return all tests, corrected by Holm over the pairs of one metric and table; a is before b in `order`."""
        found = []
        for table in self.tables:
            for metric in self.metrics:
                tests = [
                    self._directed(a, b, table, metric)
                    for a, b in combinations([name for name in order if name in self._means], 2)
                    if (table, metric, *sorted((a, b))) in self._tests
                ]
                adjusted = holm([one.p for one in tests])
                found += [replace(one, p_holm=float(p)) for one, p in zip(tests, adjusted, strict=True)]
        return tuple(found)

    def _test(self, name: str, mean: Evaluation) -> None:
        """Test a model against all that were taken in before it."""
        for table in self.tables:
            for metric in self.metrics:
                column = TABLES[table] + metric
                if column not in mean.per_user.columns:
                    continue
                found = compare_all(mean, self._means, [column])
                for other, (one,) in found.items():
                    test = as_pair(metric, table, name, other, one)
                    a, b = sorted((name, other))
                    self._tests[table, metric, a, b] = test if a == name else _turned(test)

    def _directed(self, a: str, b: str, table: str, metric: str) -> PairTest:
        """Return the test of a against b, as it was made or turned round."""
        first, second = sorted((a, b))
        test = self._tests[table, metric, first, second]
        return test if (first, second) == (a, b) else _turned(test)


def _turned(test: PairTest) -> PairTest:
    """Return the test of b against a."""
    return replace(
        test,
        a=test.b,
        b=test.a,
        mean_a=test.mean_b,
        mean_b=test.mean_a,
        # Taken from zero, which leaves a zero without a sign.
        difference=0.0 - test.difference,
        low=0.0 - test.high,
        high=0.0 - test.low,
        effect_size=0.0 - test.effect_size,
        improvement_percent=percent(test.mean_b, test.mean_a),
    )


def as_pair(metric: str, table: str, a: str, b: str, found: Comparison) -> PairTest:
    """Return a comparison of two models as plain data, not corrected for any other."""
    return PairTest(
        metric=metric,
        table=table,
        a=a,
        b=b,
        num_users=found.num_users,
        mean_a=found.mean_a,
        mean_b=found.mean_b,
        difference=found.difference,
        low=found.low,
        high=found.high,
        effect_size=found.effect_size,
        p=found.p_permutation,
        p_holm=found.p_permutation,
        improvement_percent=percent(found.mean_a, found.mean_b),
        num_differing=found.num_differing,
    )


def improvements(
    models: Sequence[ModelResult], metrics: Iterable[str], tables: Iterable[str] = TESTED_TABLES
) -> tuple[Improvement, ...]:
    """Return how far each model is ahead of the best other that is no placebo; it is behind where that is negative."""
    found = []
    for table in tables:
        for metric in metrics:
            means = {one.name: mean for one in models if (mean := one.mean(metric, table)) is not None}
            real = {one.name: means[one.name] for one in models if one.placebo is None and one.name in means}
            found += [
                _over_best_other(name, means[name], others, metric, table)
                for name in means
                if (others := {other: mean for other, mean in real.items() if other != name})
            ]
    return tuple(found)


def _over_best_other(name: str, mean: float, others: Mapping[str, float], metric: str, table: str) -> Improvement:
    best = max(others, key=lambda other: others[other])
    return Improvement(metric, table, name, best, percent(mean, others[best]))


def percent(a: float, b: float) -> float | None:
    """Return a less b in percent of b; None where b is 0."""
    return 100 * (a - b) / b if b else None
