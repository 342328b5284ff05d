"""Products with learned entries against dense ones, and their gradients; the softmax of a row's edges against a loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor

from metammf.nn.attention import at_receiving, at_sending, edge_softmax
from metammf.nn.edge_weights import entry_products, weighted_product
from metammf.nn.graph import BipartiteGraph, Edges, SparseMatrix
from metammf.testing.probes import LargestTensor


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def binary(shape: tuple[int, int] = (6, 5), share: float = 0.5) -> np.ndarray:
    """The last user and the last item have no edges."""
    dense = np.random.default_rng(0).random(shape) < share
    dense[-1] = dense[:, -1] = False
    return dense


def graph(dense: np.ndarray | None = None) -> BipartiteGraph:
    return BipartiteGraph(sparse.csr_array((binary() if dense is None else dense).astype(np.float32)))


def doubles(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


SIDES = pytest.mark.parametrize("side", [0, 1], ids=["users", "items"])


def dense_of(edges: Edges, values: Tensor) -> Tensor:
    """The values in their places, zero elsewhere."""
    out = torch.zeros(edges.shape, dtype=values.dtype)
    return out.index_put((edges.rows.long(), edges.indices.long()), values)


@SIDES
def test_both_sides_hold_the_same_edges_in_row_order(side: int) -> None:
    edges, other = graph().edges()[side], graph().edges()[1 - side]
    expected = binary() if side == 0 else binary().T
    assert np.array_equal(dense_of(edges, torch.ones(len(edges.rows))).numpy(), expected)
    assert edges.rows.tolist() == np.nonzero(expected)[0].tolist()
    told = torch.randn(len(edges.rows))
    assert torch.equal(dense_of(other, told[edges.order]), dense_of(edges, told).T)
    assert torch.equal(edges.reweighted(told)[1].to_dense(), dense_of(edges, told).T)


@SIDES
def test_products_equal_dense_ones(side: int) -> None:
    edges = graph().edges()[side]
    rows, columns = torch.randn(edges.shape[0], 3), torch.randn(edges.shape[1], 3)
    entries = torch.randn(len(edges.rows))
    places = edges.rows.long(), edges.indices.long()
    torch.testing.assert_close(entry_products(edges, rows, columns), (rows @ columns.T)[places])
    torch.testing.assert_close(weighted_product(edges, entries, columns), dense_of(edges, entries) @ columns)


def test_a_sparse_matrix_is_a_pattern_as_well() -> None:
    matrix = SparseMatrix(sparse.csr_array(binary().astype(np.float32)))
    x = torch.randn(5, 3)
    torch.testing.assert_close(weighted_product(matrix, matrix.data, x), matrix(x))


@SIDES
def test_gradients(side: int) -> None:
    edges = graph().edges()[side]
    rows, columns, count = edges.shape[0], edges.shape[1], len(edges.rows)
    check = torch.autograd.gradcheck
    assert check(lambda a, b: entry_products(edges, a, b), (doubles(rows, 3), doubles(columns, 3)))
    assert check(lambda w, x: weighted_product(edges, w, x), (doubles(count), doubles(columns, 3)))
    assert check(lambda x: at_receiving(edges, x), (doubles(rows, 2),))
    assert check(lambda x: at_sending(edges, x), (doubles(columns, 2),))
    assert check(lambda s: edge_softmax(edges, s)[0], (doubles(count, 2),))
    assert check(lambda s, own: edge_softmax(edges, s, own), (doubles(count, 2), doubles(rows, 2)))


@pytest.mark.parametrize("own", [False, True])
@SIDES
def test_softmax_equals_a_loop_over_rows(side: int, own: bool) -> None:
    edges = graph().edges()[side]
    scores, self_scores = 30 * torch.randn(len(edges.rows), 2), 30 * torch.randn(edges.shape[0], 2)
    weights, self_weights = edge_softmax(edges, scores, self_scores if own else None)
    for row in range(edges.shape[0]):
        mine = edges.rows == row
        told = torch.cat([scores[mine], self_scores[row : row + 1]]) if own else scores[mine]
        expected = told.softmax(0)
        torch.testing.assert_close(weights[mine], expected[: int(mine.sum())])
        torch.testing.assert_close(self_weights[row], expected[-1] if own else torch.zeros(2))


@SIDES
def test_edges_that_are_left_out_have_no_weight(side: int) -> None:
    whole = graph()
    users, items = (torch.from_numpy(found) for found in np.nonzero(binary()))
    gone = users == 0  # all of the first user's, and its share of every item's
    edges = whole.without((users[gone], items[gone])).edges()[side]
    scores = torch.randn(len(edges.rows), 1, requires_grad=True)
    weights, _ = edge_softmax(edges, scores)
    left_out = (edges.rows if side == 0 else edges.indices) == 0
    assert not weights[left_out].any()
    rest = edge_softmax(whole.edges()[side], scores.masked_fill(left_out.unsqueeze(1), -torch.inf))[0]
    assert torch.equal(weights, rest)
    (weights * torch.randn_like(weights)).sum().backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
    assert not scores.grad[left_out].any()


def attended(edges: Edges, rows: Tensor, columns: Tensor) -> Tensor:
    ends = at_receiving(edges, rows[:, :1]) + at_sending(edges, columns[:, :1])
    scores = entry_products(edges, rows, columns).unsqueeze(1) + ends
    return weighted_product(edges, edge_softmax(edges, scores)[0][:, 0], columns)


def test_gradients_equal_those_of_a_dense_twin() -> None:
    edges = graph().edges()[0]
    rows, columns = doubles(6, 3), doubles(5, 3)
    scores = rows @ columns.T + rows[:, :1] + columns[:, :1].T
    weights = scores.masked_fill(~torch.from_numpy(binary()), -torch.inf).softmax(1).nan_to_num(0)
    expected = weights @ columns
    found = attended(edges, rows, columns)
    torch.testing.assert_close(found, expected)
    away = torch.randn_like(found)
    ours = torch.autograd.grad(found, (rows, columns), away)
    # The row without edges is no number in the twin's backward pass.
    twins = torch.autograd.grad(expected[:-1], (rows, columns), away[:-1])
    torch.testing.assert_close(ours[0][:-1], twins[0][:-1])
    torch.testing.assert_close(ours[1], twins[1].nan_to_num(0) if twins[1].isnan().any() else twins[1])


def test_the_same_bits_on_any_number_of_threads() -> None:
    dense = np.random.default_rng(0).random((400, 300)) < 0.2
    edges = graph(dense).edges()[0]
    rows, columns, away = torch.randn(400, 16), torch.randn(300, 16), torch.randn(400, 16)

    def run() -> list[Tensor]:
        leaves = rows.clone().requires_grad_(), columns.clone().requires_grad_()
        out = attended(edges, *leaves)
        return [out, *torch.autograd.grad(out, leaves, away)]

    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(run())
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_memory_is_that_of_the_edges() -> None:
    """A vector an edge would be 16 times as much."""
    edges = graph(binary((100, 100), 0.6)).edges()[0]
    rows, columns = torch.randn(100, 16, requires_grad=True), torch.randn(100, 16, requires_grad=True)
    with LargestTensor() as largest:
        attended(edges, rows, columns).square().sum().backward()
    assert largest.numel <= max(len(edges.rows), rows.numel()), largest.operation


def test_autocast_does_not_reach_the_products() -> None:
    edges = graph().edges()[0]
    rows, columns = torch.randn(6, 4), torch.randn(5, 4)
    expected = attended(edges, rows, columns)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(attended(edges, rows, columns), expected)
        assert weighted_product(edges, torch.ones(len(edges.rows)), columns.bfloat16()).dtype == torch.float32


def test_half_precision_is_weighed_in_full_and_given_back() -> None:
    edges = graph().edges()[0]
    rows, columns = (torch.randn(size, 2).bfloat16().requires_grad_() for size in edges.shape)
    weights, _ = edge_softmax(edges, at_receiving(edges, rows) * at_sending(edges, columns), rows)
    assert weights.dtype == torch.float32
    weights.square().sum().backward()
    assert rows.grad is not None
    assert rows.grad.dtype == torch.bfloat16
    assert torch.isfinite(rows.grad).all()


def test_edges_follow_a_move() -> None:
    whole = graph()
    before = whole.edges()[0]
    assert whole.edges()[0] is before
    whole.double()
    assert whole.edges()[0] is not before
