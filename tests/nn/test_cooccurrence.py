"""The item-item graph of co-occurrences, against its definition in loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from metammf.nn import cooccurrence
from metammf.nn.cooccurrence import CooccurrenceGraph, cooccurrence_neighbours

USERS, ITEMS = 14, 9


def watched(seed: int = 0) -> np.ndarray:
    """Item 7 is watched by one user, who has watched nothing else; item 8 by nobody."""
    x = (np.random.default_rng(seed).random((USERS, ITEMS)) < 0.35).astype(np.float32)
    x[:, 7:] = 0
    x[-1] = 0
    x[-1, 7] = 1
    return x


def strength(x: np.ndarray, i: int, j: int) -> float:
    """omega_ij = G_ij / (g_i - G_ii) sqrt(g_i / g_j)."""
    together = {(a, b): sum(x[u, a] * x[u, b] for u in range(USERS)) for a in range(ITEMS) for b in range(ITEMS)}
    g = [sum(together[a, b] for b in range(ITEMS)) for a in range(ITEMS)]
    if i == j or not together[i, j]:
        return 0.0
    return together[i, j] / (g[i] - together[i, i]) * (g[i] / g[j]) ** 0.5


@pytest.mark.parametrize("count", [1, 3, 20])
@pytest.mark.parametrize("cells", [1, 20, 1 << 20])
def test_neighbours_are_those_of_the_definition(count: int, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cooccurrence, "_BLOCK_CELLS", cells)
    x = watched()
    neighbours, strengths = cooccurrence_neighbours(sparse.csr_array(x), count)
    assert neighbours.shape == strengths.shape == (ITEMS, count)
    for i in range(ITEMS):
        others = sorted((-strength(x, i, j), j) for j in range(ITEMS) if strength(x, i, j))[:count]
        assert neighbours[i].tolist() == [j for _, j in others] + [i] * (count - len(others))
        assert strengths[i] == pytest.approx([-value for value, _ in others] + [0] * (count - len(others)), rel=1e-6)


def test_an_item_alone_is_its_own_neighbour_at_no_strength() -> None:
    neighbours, strengths = cooccurrence_neighbours(sparse.csr_array(watched()), 2)
    assert (neighbours[7:] == [[7, 7], [8, 8]]).all()
    assert not strengths[7:].any()


def test_loss_is_the_sum_over_neighbours() -> None:
    graph = CooccurrenceGraph(sparse.csr_array(watched()), 3)
    items, scores = torch.tensor([0, 3, 7]), torch.randn(3, 3)
    expected = [
        sum(float(graph.strengths[i, s]) * float(torch.log1p(torch.exp(-row[s]))) for s in range(3))
        for i, row in zip(items.tolist(), scores, strict=True)
    ]
    assert graph.loss(items, scores).tolist() == pytest.approx(expected, rel=1e-5)
