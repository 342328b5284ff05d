"""Second-order neighbours against matrices that are written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from metammf.nn.content import Content
from metammf.nn.graph import BipartiteGraph
from metammf.nn.hypergraph import SharedItems, SimilarItems
from metammf.testing.probes import LargestTensor


def watched(users: int = 12, items: int = 9) -> np.ndarray:
    matrix = (np.random.default_rng(0).random((users, items)) < 0.3).astype(np.float32)
    matrix[3] = 0  # no history
    matrix[4], matrix[:, 8] = 0, 0
    matrix[4, 8] = 1  # an item that nobody else watched
    return matrix


def content(count: int = 20, seed: int = 0) -> Content:
    draw = torch.Generator().manual_seed(seed)
    values = {name: torch.randn(count, width, generator=draw) for name, width in (("visual", 4), ("textual", 3))}
    present = {name: torch.rand(count, generator=draw) < 0.7 for name in values}
    return Content(values, present)


def test_users_by_the_items_that_they_share() -> None:
    matrix = watched()
    counts = matrix @ matrix.T
    np.fill_diagonal(counts, 0)
    expected = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    hops, x = SharedItems(BipartiteGraph(sparse.csr_array(matrix))), torch.randn(12, 5)
    torch.testing.assert_close(hops(x), torch.from_numpy(expected) @ x)
    assert hops.connected.tolist() == (counts.sum(1) > 0).tolist()
    assert not hops(x)[[3, 4]].any()


def incidence(features: Content, known: torch.Tensor, k: int, rows: Content) -> np.ndarray:
    """Which of `rows` are in the hyperedge of which known item."""
    parts = []
    for name in features.modalities:
        part = np.zeros((len(rows.values[name]), len(known)))
        unit = torch.nn.functional.normalize
        cosines = unit(rows.values[name], dim=1) @ unit(features.values[name], dim=1).T
        cosines[:, ~(features.present[name] & known)] = -torch.inf
        for row in torch.nonzero(rows.present[name]).flatten().tolist():
            for column in cosines[row].topk(k).indices.tolist():
                part[row, column] = float(cosines[row, column]) > 0
        parts.append(part)
    return np.concatenate(parts, axis=1)


def test_items_by_the_hyperedges_that_they_share() -> None:
    features, known = content(), torch.arange(20) < 17
    graph = SimilarItems(features, known, 3)
    masked = Content(features.values, {name: present & known for name, present in features.present.items()})
    matrix = incidence(features, known, 3, masked)
    shared = matrix @ matrix.T
    roots = np.where(shared.sum(1) > 0, np.maximum(shared.sum(1), 1), np.inf) ** -0.5
    x = torch.randn(20, 5)
    expected = torch.from_numpy(roots[:, None] * shared * roots).float() @ x
    torch.testing.assert_close(graph(x), expected)
    assert graph.connected.tolist() == (shared.sum(1) > 0).tolist()
    new = content(6, seed=1)
    of_new = incidence(features, known, 3, new) @ matrix.T
    own = np.where(of_new.sum(1) > 0, np.maximum(of_new.sum(1), 1), np.inf) ** -0.5
    found = graph.of_new(new, graph.edge_sums(x))
    torch.testing.assert_close(found, torch.from_numpy(own[:, None] * of_new * roots).float() @ x)


@pytest.mark.parametrize("side", ["users", "items"])
def test_a_popular_hyperedge_is_no_square(side: str) -> None:
    """An item that all watch, and items that are all alike."""
    count = 400
    if side == "users":
        hops: torch.nn.Module = SharedItems(BipartiteGraph(sparse.csr_array(np.ones((count, 1), dtype=np.float32))))
    else:
        ones = torch.ones(count, 1)
        hops = SimilarItems(Content({"visual": ones}, {"visual": ones.flatten() > 0}), ones.flatten() > 0, 2)
    x = torch.randn(count, 4, requires_grad=True)
    with LargestTensor() as largest:
        hops(x).sum().backward()
    assert largest.numel <= 4 * count, largest.operation
