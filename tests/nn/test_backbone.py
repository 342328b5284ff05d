"""Backbones against a loop over nodes, and the path of a node without edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor

from metammf.nn.backbone import Backbone, GATBackbone, GraphSAGEBackbone, LightGCNBackbone
from metammf.nn.graph import BipartiteGraph
from metammf.nn.histories import Histories
from metammf.testing.naive import attentive

USERS, ITEMS, DIM = 6, 5, 4


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def dense() -> np.ndarray:
    """The last user and the last item have no edges."""
    matrix = np.random.default_rng(1).random((USERS, ITEMS)) < 0.5
    matrix[-1] = matrix[:, -1] = False
    return matrix.astype(np.float32)


def graph() -> BipartiteGraph:
    return BipartiteGraph(sparse.csr_array(dense()))


def adjacency() -> np.ndarray:
    """All nodes in one: users first."""
    square = np.zeros((USERS + ITEMS, USERS + ITEMS), dtype=np.float32)
    square[:USERS, USERS:] = dense()
    return square + square.T


def nodes() -> tuple[Tensor, Tensor]:
    return torch.randn(USERS, DIM), torch.randn(ITEMS, DIM)


@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_lightgcn_equals_a_loop_over_nodes(num_layers: int) -> None:
    users, items = nodes()
    edges = adjacency()
    degrees = edges.sum(1)
    hops = [torch.cat([users, items])]
    for _ in range(num_layers):
        after = torch.zeros_like(hops[0])
        for node in range(USERS + ITEMS):
            for other in np.flatnonzero(edges[node]):
                after[node] += hops[-1][other] / (degrees[node] * degrees[other]) ** 0.5
        hops.append(after)
    found = torch.cat(LightGCNBackbone(graph(), num_layers)(users, items))
    expected = torch.stack(hops).mean(0)
    connected = torch.from_numpy(degrees > 0)
    torch.testing.assert_close(found[connected], expected[connected])
    torch.testing.assert_close(found[~connected], hops[0][~connected])  # not shrunk by hops that were not made


@pytest.mark.parametrize("count_left_out", [False, True])
def test_lightgcn_of_a_node_that_a_step_leaves_without_edges(count_left_out: bool) -> None:
    users, items = nodes()
    edges = np.argwhere(dense())
    left = graph().without(tuple(torch.from_numpy(edges[edges[:, 0] == edges[0, 0]].T.copy())))
    found = LightGCNBackbone(graph(), 2, count_left_out=count_left_out)(users, items, left)[0]
    node = edges[0, 0]
    torch.testing.assert_close(found[node], users[node] / (3 if count_left_out else 1))
    torch.testing.assert_close(found[-1], users[-1])  # it has none in the whole graph either


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_graphsage_equals_a_loop_over_nodes(num_layers: int) -> None:
    backbone = GraphSAGEBackbone(graph(), num_layers, DIM).eval()
    users, items = nodes()
    edges = adjacency()
    x = torch.cat([users, items])
    for depth in range(num_layers):
        rows = []
        for node in range(USERS + ITEMS):
            around = [x[other] for other in np.flatnonzero(edges[node])]
            mean = torch.stack(around).mean(0) if around else torch.zeros(DIM)
            row = backbone.root[depth].weight @ x[node]
            row = row + backbone.neighbour[depth].weight @ mean + backbone.neighbour[depth].bias
            if depth < num_layers - 1:
                row = torch.where(row > 0, row, 0.01 * row)
            rows.append(row)
        x = torch.stack(rows)
    torch.testing.assert_close(torch.cat(backbone(users, items)), x)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_gat_equals_a_loop_over_nodes(num_layers: int, heads: int) -> None:
    backbone = GATBackbone(graph(), num_layers, DIM, heads).eval()
    users, items = nodes()
    expected = attentive(adjacency() > 0, torch.cat([users, items]), backbone)
    torch.testing.assert_close(torch.cat(backbone(users, items)), expected)


def test_gat_over_fewer_edges_is_that_of_the_smaller_graph() -> None:
    users, items = nodes()
    whole, edges = graph(), np.argwhere(dense())[::3]
    smaller = dense()
    smaller[tuple(edges.T)] = 0
    backbone = GATBackbone(whole, 2, DIM, 2).eval()
    left = whole.without(tuple(torch.from_numpy(edges.T.copy())))
    found = backbone(users, items, left)
    backbone.graph = BipartiteGraph(sparse.csr_array(smaller))
    torch.testing.assert_close(found, backbone(users, items))


BACKBONES = {
    "mf": Backbone,
    "lightgcn": lambda: LightGCNBackbone(graph(), 2),
    "graphsage": lambda: GraphSAGEBackbone(graph(), 2, DIM),
    "gat": lambda: GATBackbone(graph(), 2, DIM, num_heads=2),
}


@pytest.mark.parametrize("kind", BACKBONES)
def test_isolated_is_the_path_of_a_node_without_edges(kind: str) -> None:
    backbone = BACKBONES[kind]().eval()
    users, items = nodes()
    found_users, found_items = backbone(users, items)
    torch.testing.assert_close(backbone.isolated(users[-1:]), found_users[-1:])
    torch.testing.assert_close(backbone.isolated(items[-1:]), found_items[-1:])


@pytest.mark.parametrize("kind", ["lightgcn", "graphsage", "gat"])
def test_gradients_flow_along_edges_and_no_further(kind: str) -> None:
    users, items = (value.requires_grad_() for value in nodes())
    backbone = BACKBONES[kind]().eval()
    backbone(users, items)[1][-1].sum().backward()
    assert items.grad is not None
    assert items.grad[-1].any()
    assert not items.grad[:-1].any()
    assert users.grad is None or not users.grad.any()


@pytest.mark.parametrize("kind", BACKBONES)
def test_gradcheck(kind: str) -> None:
    backbone = BACKBONES[kind]().double().eval()
    inputs = tuple(value.double().requires_grad_() for value in nodes())
    assert torch.autograd.gradcheck(lambda users, items: torch.cat(backbone(users, items)), inputs)


def test_dropout_is_of_training_alone() -> None:
    backbone = GraphSAGEBackbone(graph(), 2, DIM, hidden_dropout=0.5, final_dropout=0.2)
    users, items = nodes()
    out = backbone(users, items)[0]
    assert (out == 0).any()
    backbone.eval()
    assert torch.equal(*(backbone(users, items)[0] for _ in range(2)))


def test_what_propagates_says_so() -> None:
    assert {kind: make().propagates for kind, make in BACKBONES.items()} == {
        "mf": False,
        "lightgcn": True,
        "graphsage": True,
        "gat": True,
    }


@pytest.mark.parametrize("kind", BACKBONES)
def test_users_are_folded_in_by_the_edges_that_they_have(kind: str) -> None:
    """One with the edges and the input of a known user has its vector, one without edges that of an isolated node."""
    backbone, (users, items) = BACKBONES[kind]().eval(), nodes()
    layers = backbone.item_layers(users, items)
    assert len(layers) == backbone.depth
    some = torch.tensor([4, 0, USERS - 1])
    known = backbone.fold_in(users[some], graph().histories(some), layers)
    torch.testing.assert_close(known, backbone(users, items)[0][some])
    alone = backbone.fold_in(users[:2], Histories.of([[], []]), layers)
    torch.testing.assert_close(alone, backbone.isolated(users[:2]))


@pytest.mark.parametrize("kind", ["lightgcn", "graphsage", "gat"])
def test_what_an_item_without_edges_sends_at_each_depth(kind: str) -> None:
    backbone, (users, items) = BACKBONES[kind]().eval(), nodes()
    whole, alone = backbone.item_layers(users, items), backbone.isolated_layers(items[-1:])
    for of_all, of_one in zip(whole, alone, strict=True):
        torch.testing.assert_close(of_all[-1:], of_one)
