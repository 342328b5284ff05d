from __future__ import annotations

import numpy as np
import pytest

from metammf.experiments.projection import embed_2d, neighbour_purity


@pytest.fixture(scope="module")
def groups() -> tuple[np.ndarray, np.ndarray]:
    """Three groups of directions in ten dimensions, and which is which."""
    rng = np.random.default_rng(0)
    labels = np.arange(150) % 3
    vectors = 3 * rng.standard_normal((3, 10))[labels] + rng.standard_normal((150, 10))
    return vectors.astype(np.float32), labels


def test_neighbours_stay_together(groups: tuple[np.ndarray, np.ndarray]) -> None:
    vectors, labels = groups
    places = embed_2d(vectors)
    assert places.shape == (150, 2)
    centres = np.stack([places[labels == label].mean(0) for label in range(3)])
    nearest = ((places[:, None] - centres) ** 2).sum(2).argmin(1)
    assert (nearest == labels).mean() > 0.97


def test_the_same_vectors_give_the_same_map(groups: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(embed_2d(groups[0][:40]), embed_2d(groups[0][:40]))


def test_only_directions_count(groups: tuple[np.ndarray, np.ndarray]) -> None:
    lengths = 2.0 ** np.arange(40)[:, None] / 2**20
    assert np.allclose(embed_2d(groups[0][:40] * lengths.astype(np.float32)), embed_2d(groups[0][:40]), atol=1e-2)


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (2, 4), (3, 4), (12, 1), (12, 2)])
def test_few_items_and_few_axes(shape: tuple[int, int]) -> None:
    places = embed_2d(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    assert places.shape == (shape[0], 2)
    assert np.isfinite(places).all()


def test_vectors_that_are_all_alike() -> None:
    assert np.isfinite(embed_2d(np.ones((20, 4), dtype=np.float32))).all()


def test_purity_is_the_share_of_neighbours_alike() -> None:
    vectors = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [1, 0.2]], dtype=np.float32)
    assert neighbour_purity(vectors, np.array([0, 0, 1, 1, 0]), k=1) == 1
    assert neighbour_purity(vectors, np.array([0, 1, 0, 0, 1]), k=1) == pytest.approx(4 / 5)
