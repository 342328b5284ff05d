"""Each metric against a loop over the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metammf.data.interactions import Interactions
from metammf.evaluation import metrics


def naive(name: str, ranked: list[int], relevant: set[int], k: int, mean_relevant: float) -> float:
    first = ranked[:k]
    found = [item for item in first if item in relevant]
    if not relevant:
        return 0.0
    if name == "precision":
        return len(found) / k
    if name == "recall":
        return len(found) / len(relevant)
    if name == "micro_recall":
        return len(found) / mean_relevant
    if name == "hit_rate":
        return 1.0 if found else 0.0
    if name == "ndcg":
        gain = sum(1 / math.log2(place + 2) for place, item in enumerate(first) if item in relevant)
        return gain / sum(1 / math.log2(place + 2) for place in range(min(len(relevant), k)))
    if name == "map":
        total = 0.0
        for place, item in enumerate(first):
            if item in relevant:
                total += sum(1 for other in first[: place + 1] if other in relevant) / (place + 1)
        return total / min(len(relevant), k)
    assert name == "mrr"
    return next((1 / (place + 1) for place, item in enumerate(first) if item in relevant), 0.0)


NUM_ITEMS = 9
lists = st.lists(
    st.tuples(st.permutations(range(NUM_ITEMS)), st.integers(0, NUM_ITEMS), st.sets(st.integers(0, NUM_ITEMS - 1))),
    min_size=1,
    max_size=6,
)


@given(lists, st.integers(1, NUM_ITEMS))
@settings(deadline=None)
def test_metrics_equal_loops(users: list[tuple[list[int], int, set[int]]], k: int) -> None:
    width = NUM_ITEMS
    items = np.array([order[:length] + [-1] * (width - length) for order, length, _ in users])
    pairs = [(user, item) for user, (_, _, wanted) in enumerate(users) for item in sorted(wanted, reverse=True)]
    log = Interactions(
        np.array([user for user, _ in pairs], dtype=np.int32),
        np.array([item for _, item in pairs], dtype=np.int32),
        len(users),
        NUM_ITEMS,
    )
    hits = metrics.hit_matrix(items, np.arange(len(users)), log)
    assert hits.tolist() == [[item in wanted for item in row] for row, (_, _, wanted) in zip(items, users, strict=True)]
    mean_relevant = len(pairs) / len(users)
    for name, metric in metrics.METRICS.items():
        values = metric(hits, log.user_counts, k)
        wanted = [naive(name, order[:length], items_, k, mean_relevant) for order, length, items_ in users]
        assert values.dtype == np.float64
        assert values.tolist() == pytest.approx(wanted), name


def test_micro_recall_is_total_hits_over_total_relevant() -> None:
    hits = np.array([[True, True, False], [True, False, False], [False, False, False]])
    relevant = np.array([4, 1, 0])
    assert metrics.micro_recall(hits, relevant, 3).mean() == pytest.approx(3 / 5)
    assert metrics.hit_rate(hits, relevant, 3).mean() == pytest.approx(2 / 3)


def test_known_answers() -> None:
    hits = np.array([[False, True, False, True]])
    relevant = np.array([3])
    found = metrics.means(metrics.per_user_metrics(hits, relevant, [2, 4]))
    assert found["precision@2"] == 0.5
    assert found["recall@4"] == pytest.approx(2 / 3)
    assert found["mrr@4"] == 0.5
    assert found["map@2"] == pytest.approx(0.5 / 2)
    assert found["map@4"] == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert found["ndcg@2"] == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))


def test_no_user_and_nothing_relevant() -> None:
    for metric in metrics.METRICS.values():
        assert metric(np.zeros((0, 3), dtype=np.bool_), np.zeros(0, dtype=np.int64), 3).shape == (0,)
        assert metric(np.zeros((2, 3), dtype=np.bool_), np.zeros(2, dtype=np.int64), 3).tolist() == [0, 0]


def test_a_users_values_do_not_depend_on_who_else_is_there() -> None:
    rng = np.random.default_rng(0)
    hits = rng.random((1000, 20)) < 0.2
    relevant = np.maximum(hits.sum(axis=1), rng.integers(1, 9, 1000))
    together = metrics.ndcg(hits, relevant, 20)
    alone = np.concatenate([metrics.ndcg(hits[[u]], relevant[[u]], 20) for u in range(1000)])
    assert (together == alone).all()
