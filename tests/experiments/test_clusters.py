from __future__ import annotations

import numpy as np
import pytest

from metammf.experiments.clusters import cluster_quality, silhouette, taste_communities
from metammf.testing.data import taste_groups


def naive_silhouette(vectors: np.ndarray, groups: np.ndarray) -> float:
    """Item by item, as Rousseeuw defines it."""

    def distance(a: int, b: int) -> float:
        x, y = vectors[a], vectors[b]
        return float(1 - x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))

    values = []
    for item, group in enumerate(groups):
        own = [distance(item, other) for other in np.flatnonzero(groups == group) if other != item]
        if not own:
            values.append(0.0)
            continue
        others = [
            np.mean([distance(item, other) for other in np.flatnonzero(groups == name)])
            for name in set(groups.tolist()) - {group}
        ]
        a, b = np.mean(own), min(others)
        values.append((b - a) / max(a, b))
    return float(np.mean(values))


def test_the_silhouette_is_that_of_its_definition() -> None:
    rng = np.random.default_rng(0)
    vectors, groups = rng.standard_normal((40, 5)), rng.integers(4, size=40)
    groups[0] = 9  # alone
    assert silhouette(vectors, groups) == pytest.approx(naive_silhouette(vectors, groups))


def test_what_lies_apart_and_what_does_not() -> None:
    groups = np.repeat([0, 1], 20)
    rng = np.random.default_rng(1)
    apart = np.eye(2)[groups] + 0.01 * rng.standard_normal((40, 2))
    told, untold = cluster_quality(apart, groups), cluster_quality(rng.standard_normal((40, 8)), groups)
    assert told.silhouette > 0.9
    assert told.purity == 1
    assert abs(untold.silhouette) < 0.1
    assert told.purity_by_chance == untold.purity_by_chance == 0.5


def test_one_group_is_no_division() -> None:
    assert silhouette(np.eye(3), np.zeros(3, dtype=np.int64)) == 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_communities_are_who_watches_what(seed: int) -> None:
    train = taste_groups(cold=2).train
    found = taste_communities(train, 2, seed=seed)
    assert (found[16:] == -1).all()  # nobody watched them in train
    first, second = set(found[:16:2].tolist()), set(found[1:16:2].tolist())
    assert len(first) == len(second) == 1
    assert first != second
