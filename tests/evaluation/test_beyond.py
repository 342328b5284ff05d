"""Coverage, Gini, novelty and popularity against loops and worked numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metammf.evaluation import beyond


@given(
    st.lists(st.lists(st.integers(-1, 5), min_size=3, max_size=3), min_size=1, max_size=6),
    st.lists(st.integers(0, 9), min_size=6, max_size=6),
    st.integers(1, 3),
)
@settings(deadline=None)
def test_beyond_metrics_equal_loops(lists: list[list[int]], popularity: list[int], k: int) -> None:
    found = beyond.beyond_metrics(np.array(lists), np.array(popularity), [k])
    shown = [item for row in lists for item in row[:k] if item >= 0]
    assert found[f"coverage@{k}"] == pytest.approx(len(set(shown)) / 6)
    counts = [shown.count(item) for item in range(6)]
    pairs = sum(abs(a - b) for a in counts for b in counts)  # Gini: mean absolute difference over twice the mean
    assert found[f"gini@{k}"] == pytest.approx(pairs / (2 * 6 * sum(counts)) if shown else 0.0)
    total = sum(popularity) + 6
    bits = [-math.log2((popularity[item] + 1) / total) for item in shown]
    assert found[f"novelty@{k}"] == pytest.approx(sum(bits) / len(bits) if bits else 0.0)
    seen = [popularity[item] for item in shown]
    assert found[f"popularity@{k}"] == pytest.approx(sum(seen) / len(seen) if seen else 0.0)


def test_gini_at_its_ends() -> None:
    assert beyond.gini(np.full(10, 3)) == pytest.approx(0.0)
    assert beyond.gini(np.array([0] * 9 + [5])) == pytest.approx(0.9)


def test_novelty_of_equally_popular_items_is_the_bits_to_name_one() -> None:
    assert beyond.novelty(np.array([1, 0, 2, 0, 0, 0, 0, 1]), np.full(8, 4)) == pytest.approx(3.0)
