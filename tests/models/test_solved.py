"""Solved models against dense formulae in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import sparse

from metammf.data.features import ItemFeatures
from metammf.data.interactions import Interactions
from metammf.errors import ConfigError
from metammf.models import itemknn
from metammf.models.base import Inputs, SolvedModel
from metammf.models.content_knn import ContentKNN, ContentKNNConfig
from metammf.models.content_table import content_of
from metammf.models.ease import EASE, EASEConfig
from metammf.models.itemknn import ItemKNN, ItemKNNConfig, largest_of_rows
from metammf.models.p3 import P3, P3Config, RP3Beta, RP3BetaConfig
from metammf.models.popularity import Popularity, PopularityConfig


def log(seed: int = 0) -> Interactions:
    """The last user and the last item have nothing."""
    matrix = np.random.default_rng(seed).random((12, 9)) < 0.35
    matrix[-1] = matrix[:, -1] = False
    users, items = np.nonzero(matrix)
    return Interactions(users.astype(np.int32), items.astype(np.int32), 12, 9)


def content(seed: int = 0) -> ItemFeatures:
    """Small whole numbers, with equal cosines among them, and items that lack something; item 4 lacks all."""
    rng = np.random.default_rng(seed)
    matrices = {
        name: rng.integers(-2, 3, (9, width)).astype(np.float32) for name, width in (("visual", 3), ("text", 2))
    }
    present = {name: rng.random(9) < 0.8 for name in matrices}
    for mask in present.values():
        mask[4] = False
    return ItemFeatures(matrices, present)


def inputs(train: Interactions | None = None) -> Inputs:
    return Inputs(log() if train is None else train, content())


def scores(model: SolvedModel) -> np.ndarray:
    return model.scorer(model.solve()).scores(torch.arange(12)).numpy()


@pytest.mark.parametrize("l2", [0.5, 50.0])
def test_ease_is_the_closed_form(l2: float) -> None:
    X = log().matrix.toarray().astype(float)
    inverse = np.linalg.inv(X.T @ X + l2 * np.eye(9))
    weights = np.eye(9) - inverse / np.diag(inverse)  # each column over its own diagonal entry
    np.fill_diagonal(weights, 0)
    assert scores(EASE(EASEConfig(l2=l2), inputs())) == pytest.approx(X @ weights, abs=1e-5)


def test_ease_minimises_what_it_is_to_minimise() -> None:
    """|X - X B|^2 + l2 |B|^2 with a zero diagonal: no small step away is better."""
    X = log().matrix.toarray().astype(float)
    B = EASE(EASEConfig(l2=2.0), inputs()).solve()["weights"].numpy().astype(float)
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
        EASE(EASEConfig(max_items=8), inputs()).solve()


def test_ease_with_a_penalty_that_float32_cannot_tell_from_none() -> None:
    """Two items watched by the same users: without a penalty there is no inverse."""
    users = np.repeat(np.arange(50, dtype=np.int32), 2)
    twins = Interactions(users, np.tile(np.arange(2, dtype=np.int32), 50), 50, 2)
    with pytest.raises(ConfigError, match=r"model\.l2"):
        EASE(EASEConfig(l2=1e-9), inputs(twins)).solve()


@pytest.mark.parametrize("beta", [0.0, 0.7])
def test_p3_is_a_walk_of_three_steps(beta: float) -> None:
    """D_u^-1 X D_i^-1 X^T D_u^-1 X, over popularity^beta."""
    X = log().matrix.toarray().astype(float)
    by_user = np.diag(1 / np.maximum(X.sum(1), 1))
    by_item = np.diag(1 / np.maximum(X.sum(0), 1))
    expected = by_user @ X @ by_item @ X.T @ by_user @ X / np.maximum(X.sum(0), 1) ** beta
    found = scores(RP3Beta(RP3BetaConfig(beta=beta), inputs()))
    assert found == pytest.approx(expected, abs=1e-6)
    if not beta:
        assert (found == scores(P3(P3Config(), inputs()))).all()
        assert found[X.any(1)].sum(1) == pytest.approx(1, abs=1e-5)  # a walk ends somewhere


def test_popularity_counts() -> None:
    assert (scores(Popularity(PopularityConfig(), inputs())) == log().item_counts).all()


def shrunk_cosine(first: np.ndarray, second: np.ndarray, shrink: float) -> np.float32:
    return np.float32(first @ second / (np.sqrt(first @ first) * np.sqrt(second @ second) + shrink))


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("paths", [1, 20, 1 << 24])
@pytest.mark.parametrize(("k", "shrink"), [(2, 0.0), (3, 5.0), (50, 1.0)])
def test_itemknn_is_a_loop_over_pairs(
    k: int, shrink: float, paths: int, unit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is taken at once."""
    monkeypatch.setattr(itemknn, "_PATHS_AT_ONCE", paths)
    X = log().matrix.toarray().astype(float)
    Y = X / np.sqrt(np.maximum(X.sum(1, keepdims=True), 1)) if unit else X
    expected = np.zeros((12, 9))
    for item in range(9):
        others = [other for other in range(9) if other != item and X[:, item] @ X[:, other]]
        pairs = [(shrunk_cosine(Y[:, item], Y[:, other], shrink), other) for other in others]
        for similarity, other in sorted(pairs, key=lambda pair: (-pair[0], pair[1]))[:k]:
            expected[:, item] += X[:, other] * similarity
    config = ItemKNNConfig(num_neighbours=k, shrink=shrink, normalize_users=unit)
    assert scores(ItemKNN(config, inputs())) == pytest.approx(expected, abs=1e-6)


@given(
    npst.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 8)), elements=st.integers(0, 3).map(float)),
    st.integers(1, 9),
)
def test_largest_of_rows(dense: np.ndarray, k: int) -> None:
    expected = np.zeros_like(dense)
    for row, values in enumerate(dense):
        for column in sorted(np.flatnonzero(values), key=lambda column: (-values[column], column))[:k]:
            expected[row, column] = values[column]
    assert (largest_of_rows(sparse.csr_array(dense), k).toarray() == expected).all()


def cosine(first: np.ndarray, second: np.ndarray) -> np.float32:
    return np.float32(first @ second / np.sqrt(first @ first) / np.sqrt(second @ second))


@pytest.mark.parametrize("k", [1, 3, 50])
def test_content_knn_is_a_loop_over_pairs(k: int) -> None:
    """All items, the one without users and the one without content among them."""
    X, features = log().matrix.toarray(), content()
    warm = X.any(0)
    expected = np.zeros((12, 9))
    for name, matrix in features.matrices.items():
        values, has = matrix.astype(float), features.present[name] & matrix.any(1)
        for item in np.flatnonzero(has):
            others = [other for other in np.flatnonzero(has & warm) if other != item]
            pairs = [(cosine(values[item], values[other]), other) for other in others]
            for similarity, other in sorted(pairs, key=lambda pair: (-pair[0], pair[1]))[:k]:
                modalities = sum(features.present[each][item] for each in features.modalities)
                expected[:, item] += max(similarity, 0) * X[:, other] / modalities
    config = ContentKNNConfig(num_neighbours=k, feature_scaling="none")
    found = scores(ContentKNN(config, inputs()))
    assert found == pytest.approx(expected, abs=1e-6)
    assert not found[:, 4].any()


def test_content_knn_takes_new_items_as_the_cold_one_of_today() -> None:
    model = ContentKNN(ContentKNNConfig(num_neighbours=2), inputs())
    state = model.with_items(model.solve(), content_of(content().select(np.array([8, 4]))))
    wider = Interactions(log().users, log().items, 12, 11)
    found = ContentKNN(model.config, inputs(wider)).scorer(state).scores(torch.arange(12)).numpy()
    assert np.array_equal(found[:, :9], scores(model))
    assert np.array_equal(found[:, 9:], found[:, [8, 4]])
    assert found[:, 9].any()


def test_content_knn_without_features() -> None:
    with pytest.raises(ConfigError, match="no features"):
        ContentKNN(ContentKNNConfig(), Inputs(log(), ItemFeatures({}, num_items=9))).solve()


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (ContentKNN, ContentKNNConfig()),
        (EASE, EASEConfig()),
        (ItemKNN, ItemKNNConfig()),
        (P3, P3Config()),
        (Popularity, PopularityConfig()),
        (RP3Beta, RP3BetaConfig()),
    ],
)
def test_state_is_enough(kind: type, config: object) -> None:
    model = kind(config, inputs())
    again = kind(config, inputs()).scorer(model.solve())
    assert np.array_equal(again.scores(torch.arange(12)).numpy(), scores(model))
    assert again.num_items == model.num_items == 9
