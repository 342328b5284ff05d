"""Graphs of items that are alike against dense ones, and items that are new against rows of a larger graph."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from metammf.nn import content_graph
from metammf.nn.content_graph import ContentGraph, LearnedGraph, shares
from metammf.testing.probes import LargestTensor


def world(count: int = 9) -> tuple[Tensor, Tensor]:
    """Features that a half of the pairs share no sign in, items that lack them, and one of no direction."""
    torch.manual_seed(0)
    features, members = torch.randn(count, 4), torch.ones(count, dtype=torch.bool)
    features[2] = 0
    members[5] = False
    return features, members


def dense(features: Tensor, members: Tensor, k: int, *, weighted: bool, asking: Tensor | None = None) -> Tensor:
    """The formula of the module; `asking` are rows beside the members."""
    members = members & features.ne(0).any(1)
    asking = members if asking is None else asking
    strengths = torch.zeros(len(features), len(features))
    for i in torch.nonzero(asking).flatten().tolist():
        cosines = functional.cosine_similarity(features[i : i + 1], features)
        order = sorted(torch.nonzero(members).flatten().tolist(), key=lambda j: -float(cosines[j]))
        for j in order[:k]:
            strengths[i, j] = cosines[j].clamp(min=0) if weighted else 1.0
    roots = strengths.sum(1).clamp(min=1e-30).rsqrt()
    return torch.where(strengths > 0, roots.unsqueeze(1) * strengths * roots, 0)


@pytest.mark.parametrize("weighted", [False, True])
def test_known_items(weighted: bool) -> None:
    features, members = world()
    graph = ContentGraph(features, members, 4, weighted=weighted)
    x = torch.randn(9, 3)
    torch.testing.assert_close(graph(x), dense(features, members, 4, weighted=weighted) @ x)
    assert graph.members.tolist() == [item not in (2, 5) for item in range(9)]
    assert not graph(x)[[2, 5]].any()


@pytest.mark.parametrize("weighted", [False, True])
def test_new_items_are_rows_beside_the_graph(weighted: bool) -> None:
    features, members = world()
    new, x = torch.randn(3, 4), torch.randn(9, 3)
    found = ContentGraph(features, members, 4, weighted=weighted).of_new(new, torch.tensor([True, True, False]), x)
    all_features, all_members = torch.cat([features, new]), torch.cat([members, torch.zeros(3, dtype=torch.bool)])
    asking = all_members & all_features.ne(0).any(1)
    asking[9:11] = True
    expected = dense(all_features, all_members, 4, weighted=weighted, asking=asking)[9:, :9] @ x
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)  # directions in half precision
    assert not found[2].any()


def test_a_new_item_that_is_unlike_all_gets_nothing() -> None:
    graph = ContentGraph(torch.tensor([[1.0, 0.1], [1.0, 0.2]]), torch.ones(2, dtype=torch.bool), 2, weighted=True)
    assert not graph.of_new(torch.tensor([[-1.0, 0.0]]), torch.tensor([True]), torch.ones(2, 3)).any()


def test_learned_graph_follows_its_vectors() -> None:
    _, members = world()
    vectors = torch.randn(9, 4, requires_grad=True)
    graph = LearnedGraph(9, 4, 3)
    graph.rebuild(vectors, members)
    x = torch.randn(9, 3, requires_grad=True)
    weight = torch.randn(9, 3)
    expected = dense_learned(vectors, members, 3) @ x
    found = graph(vectors).propagate(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad((found * weight).sum(), (vectors, x)),
        torch.autograd.grad((expected * weight).sum(), (vectors, x)),
    )
    assert not graph.degrees.any()  # training notes nothing
    graph.eval()
    with torch.no_grad():
        moved = vectors + 0.1
        torch.testing.assert_close(graph.train()(moved).propagate(x), dense_learned(moved, members, 3, vectors) @ x)


def dense_learned(vectors: Tensor, members: Tensor, k: int, neighbours_of: Tensor | None = None) -> Tensor:
    """Its formula with gradients; the neighbours are those of other vectors, where these have moved since."""
    unit = functional.normalize(vectors, dim=1)
    by = functional.normalize(vectors if neighbours_of is None else neighbours_of, dim=1).detach()
    similar = (by @ by.T).masked_fill(~members, -2)
    kept = torch.zeros_like(similar).scatter_(1, similar.topk(k, dim=1).indices, 1) * members.unsqueeze(1)
    strengths = (unit @ unit.T).clamp(min=0) * kept
    roots = strengths.sum(1).clamp(min=1e-30).rsqrt() * members
    return roots.unsqueeze(1) * strengths * roots


def test_learned_graph_of_new_items() -> None:
    _, members = world()
    vectors, new, x = torch.randn(9, 4), torch.randn(2, 4), torch.randn(9, 3)
    graph = LearnedGraph(9, 4, 3).eval()
    graph.rebuild(vectors, members)
    graph(vectors)
    found = graph.of_new(new, torch.tensor([True, True]), members, x)
    everything = torch.cat([vectors, new])
    asking = torch.cat([members, torch.ones(2, dtype=torch.bool)])
    known = torch.cat([members, torch.zeros(2, dtype=torch.bool)])
    expected = dense(everything, known, 3, weighted=True, asking=asking)[9:, :9] @ x
    torch.testing.assert_close(found, expected)


def test_shares() -> None:
    present = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    expected = torch.tensor([[0.2, 0.8], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    torch.testing.assert_close(shares(torch.tensor([0.2, 0.8]), present), expected)


def test_never_items_by_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_graph, "BLOCK", 4000)
    features, members = torch.randn(400, 8), torch.ones(400, dtype=torch.bool)
    vectors = torch.randn(400, 8, requires_grad=True)
    with LargestTensor() as largest:
        graph, learned = ContentGraph(features, members, 5, weighted=True), LearnedGraph(400, 8, 5)
        learned.rebuild(vectors, members)
        (graph(vectors) + learned(vectors).propagate(vectors)).sum().backward()
        graph.of_new(features, members, vectors.detach())
    assert largest.numel <= 5 * 400 * 8 < 400 * 400 / 5, largest.operation
