"""Solved models against dense formulae in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metammf.data.interactions import Interactions
from metammf.errors import ConfigError
from metammf.models.ease import EASE, EASEConfig
from metammf.models.p3 import P3, P3Config
from metammf.models.popularity import Popularity, PopularityConfig


def log(seed: int = 0) -> Interactions:
    """The last user and the last item have nothing."""
    matrix = np.random.default_rng(seed).random((12, 9)) < 0.35
    matrix[-1] = matrix[:, -1] = False
    users, items = np.nonzero(matrix)
    return Interactions(users.astype(np.int32), items.astype(np.int32), 12, 9)


def scores(model: EASE | P3 | Popularity) -> np.ndarray:
    return model.scorer(model.solve()).scores(torch.arange(12)).numpy()


@pytest.mark.parametrize("l2", [0.5, 50.0])
def test_ease_is_the_closed_form(l2: float) -> None:
    X = log().matrix.toarray().astype(float)
    inverse = np.linalg.inv(X.T @ X + l2 * np.eye(9))
    weights = np.eye(9) - inverse / np.diag(inverse)  # each column over its own diagonal entry
    np.fill_diagonal(weights, 0)
    assert scores(EASE(EASEConfig(l2=l2), log())) == pytest.approx(X @ weights, abs=1e-5)


def test_ease_minimises_what_it_is_to_minimise() -> None:
    """|X - X B|^2 + l2 |B|^2 with a zero diagonal: no small step away is better."""
    X = log().matrix.toarray().astype(float)
    B = EASE(EASEConfig(l2=2.0), log()).solve()["weights"].numpy().astype(float)
    assert not np.diag(B).any()

    def objective(weights: np.ndarray) -> float:
        return float(np.square(X - X @ weights).sum() + 2.0 * np.square(weights).sum())

    rng = np.random.default_rng(0)
    for _ in range(20):
        step = rng.normal(0, 0.05, B.shape)
        np.fill_diagonal(step, 0)
        assert objective(B + step) > objective(B)


def test_ease_refuses_what_would_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"9 items, model\.max_items is 8"):
        EASE(EASEConfig(max_items=8), log()).solve()


def test_ease_with_a_penalty_that_float32_cannot_tell_from_none() -> None:
    """Two items watched by the same users: without a penalty there is no inverse."""
    users = np.repeat(np.arange(50, dtype=np.int32), 2)
    twins = Interactions(users, np.tile(np.arange(2, dtype=np.int32), 50), 50, 2)
    with pytest.raises(ConfigError, match=r"model\.l2"):
        EASE(EASEConfig(l2=1e-9), twins).solve()


@pytest.mark.parametrize("beta", [0.0, 0.7])
def test_p3_is_a_walk_of_three_steps(beta: float) -> None:
    """D_u^-1 X D_i^-1 X^T D_u^-1 X, over popularity^beta."""
    X = log().matrix.toarray().astype(float)
    by_user = np.diag(1 / np.maximum(X.sum(1), 1))
    by_item = np.diag(1 / np.maximum(X.sum(0), 1))
    expected = by_user @ X @ by_item @ X.T @ by_user @ X / np.maximum(X.sum(0), 1) ** beta
    found = scores(P3(P3Config(beta=beta), log()))
    assert found == pytest.approx(expected, abs=1e-6)
    if not beta:
        assert found[X.any(1)].sum(1) == pytest.approx(1, abs=1e-5)  # a walk ends somewhere


def test_popularity_counts() -> None:
    assert (scores(Popularity(PopularityConfig(), log())) == log().item_counts).all()


@pytest.mark.parametrize(("kind", "config"), [(EASE, EASEConfig()), (P3, P3Config()), (Popularity, PopularityConfig())])
def test_state_is_enough(kind: type, config: object) -> None:
    model = kind(config, log())
    again = kind(config, log()).scorer(model.solve())
    assert np.array_equal(again.scores(torch.arange(12)).numpy(), scores(model))
    assert again.num_items == model.num_items == 9
