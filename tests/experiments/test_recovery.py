from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from metammf.experiments.recovery import binned, recovery

NAMES = ("visual", "acoustic", "textual")


@pytest.fixture
def truth() -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.full(3, 0.5), size=200)


@pytest.fixture
def everything() -> np.ndarray:
    return np.ones((200, 3), dtype=np.bool_)


def test_the_truth_is_recovered_perfectly(truth: np.ndarray, everything: np.ndarray) -> None:
    found = recovery(truth, truth, everything, NAMES)
    assert found["pearson"] == pytest.approx(1)
    assert found["spearman"] == pytest.approx(1)
    assert found["top_found"] == 1
    assert {name: one["pearson"] for name, one in found["by_modality"].items()} == pytest.approx(
        dict.fromkeys(NAMES, 1)
    )


def test_noise_recovers_nothing(truth: np.ndarray, everything: np.ndarray) -> None:
    shares = np.random.default_rng(1).dirichlet(np.ones(3), size=200)
    found = recovery(shares, truth, everything, NAMES)
    assert abs(found["pearson"]) < 0.15
    assert abs(found["top_found"] - 1 / 3) < 0.15


def test_correlations_are_scipys(truth: np.ndarray, everything: np.ndarray) -> None:
    shares = truth**3 + 0.1 * np.random.default_rng(1).random((200, 3))
    found = recovery(shares, truth, everything, NAMES)
    assert found["pearson"] == pytest.approx(stats.pearsonr(shares.ravel(), truth.ravel()).statistic)
    assert found["spearman"] == pytest.approx(stats.spearmanr(shares.ravel(), truth.ravel()).statistic)


def test_what_an_item_lacks_does_not_count(truth: np.ndarray, everything: np.ndarray) -> None:
    shares = truth.copy()
    shares[:50, 2] = 7
    truth[:50, 2] = 0
    everything[:50, 2] = False
    found = recovery(shares, truth, everything, NAMES)
    assert found["pearson"] == pytest.approx(1)
    assert found["top_found"] == 1


def test_what_does_not_vary_is_not_correlated(truth: np.ndarray, everything: np.ndarray) -> None:
    found = recovery(np.full((200, 3), 1 / 3), truth, everything, NAMES)
    assert (found["pearson"], found["spearman"]) == (0, 0)


def test_chance_is_naming_the_most_frequent() -> None:
    truth = np.eye(3)[[0, 0, 0, 1, 2]]
    found = recovery(truth, truth, np.ones((5, 3), dtype=np.bool_), NAMES)
    assert found["top_chance"] == 0.6


def test_bins_hold_quartiles() -> None:
    truth = np.repeat([[0.05], [1.0]], 5, axis=0)
    shares = np.array([[0.0], [0.1], [0.2], [0.3], [0.4], [0.9], [0.9], [0.9], [0.9], [0.9]])
    found = binned(shares, truth, np.ones((10, 1), dtype=np.bool_))
    assert found["true"] == pytest.approx([0.05, 0.95])
    assert found["count"] == [5, 5]
    assert found["low"] == pytest.approx([0.1, 0.9])
    assert found["middle"] == pytest.approx([0.2, 0.9])
    assert found["high"] == pytest.approx([0.3, 0.9])
