"""Sparse products against dense ones, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from metammf.nn.graph import BipartiteGraph, SparseMatrix
from metammf.testing.probes import LargestTensor


def binary(seed: int = 0, shape: tuple[int, int] = (6, 5), *, dtype: type = np.float32) -> sparse.csr_array:
    """The last user and the last item have no edges."""
    dense = np.random.default_rng(seed).random(shape) < 0.5
    dense[-1] = dense[:, -1] = False
    return sparse.csr_array(dense.astype(dtype))


def test_products_equal_dense_ones() -> None:
    rng = np.random.default_rng(0)
    weighted = binary()
    weighted.data[:] = rng.standard_normal(weighted.nnz)
    matrix, dense = SparseMatrix(weighted), torch.from_numpy(weighted.toarray())
    columns, rows = torch.randn(5, 3), torch.randn(6, 3)
    torch.testing.assert_close(matrix(columns), dense @ columns)
    torch.testing.assert_close(matrix.transposed(rows), dense.T @ rows)


def test_gradients() -> None:
    matrix = SparseMatrix(binary(dtype=np.float64))
    assert torch.autograd.gradcheck(matrix, (torch.randn(5, 3, dtype=torch.float64, requires_grad=True),))
    assert torch.autograd.gradcheck(matrix.transposed, (torch.randn(6, 3, dtype=torch.float64, requires_grad=True),))


def test_unsorted_and_empty_matrices() -> None:
    unsorted = sparse.csr_array((np.ones(3, np.float32), np.array([2, 0, 1]), np.array([0, 2, 3])), shape=(2, 3))
    x = torch.randn(3, 2)
    torch.testing.assert_close(SparseMatrix(unsorted)(x), torch.from_numpy(unsorted.toarray()) @ x)
    assert not SparseMatrix(sparse.csr_array((2, 3), dtype=np.float32))(x).any()


def test_half_precision_is_computed_in_full_and_given_back() -> None:
    matrix, x = SparseMatrix(binary()), torch.randn(5, 3).bfloat16().requires_grad_()
    out = matrix(x)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16


def test_autocast_does_not_reach_the_product() -> None:
    source = binary()
    x = torch.randn(5, 3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = SparseMatrix(source)(x)
        loss = out.square().sum()
    loss.backward()
    torch.testing.assert_close(out, torch.from_numpy(source.toarray()) @ x)


def test_the_matrix_is_no_part_of_the_state() -> None:
    assert not BipartiteGraph(binary()).state_dict()


def neighbours(dense: np.ndarray, x: torch.Tensor, *, mean: bool) -> torch.Tensor:
    """One node after another: the mean over its neighbours, or their sum weighed by 1 / sqrt(degree * degree)."""
    rows = []
    for node in range(len(dense)):
        total = torch.zeros(x.shape[1])
        for other in np.flatnonzero(dense[node]):
            weight = dense[node].sum() if mean else (dense[node].sum() * dense[:, other].sum()) ** 0.5
            total = total + x[other] / weight
        rows.append(total)
    return torch.stack(rows)


@pytest.mark.parametrize("mean", [True, False])
def test_neighbours_equal_a_loop_over_nodes(mean: bool) -> None:
    source = binary()
    graph, dense = BipartiteGraph(source), source.toarray()
    users, items = torch.randn(6, 3), torch.randn(5, 3)
    method = graph.mean_neighbours if mean else graph.symmetric_neighbours
    around_users, around_items = method(users, items)
    torch.testing.assert_close(around_users, neighbours(dense, items, mean=mean))
    torch.testing.assert_close(around_items, neighbours(dense.T, users, mean=mean))
    assert not around_users[-1].any()
    assert not around_items[-1].any()


def test_memory_is_that_of_the_vectors() -> None:
    """An edge list would hold a vector an edge: 30 times as much here."""
    dense = np.random.default_rng(0).random((100, 100)) < 0.6
    graph = BipartiteGraph(sparse.csr_array(dense.astype(np.float32)))
    users, items = torch.randn(100, 8, requires_grad=True), torch.randn(100, 8, requires_grad=True)
    with LargestTensor() as largest:
        around_users, around_items = graph.symmetric_neighbours(users, items)
        (around_users.square().sum() + around_items.square().sum()).backward()
    assert largest.numel <= max(users.numel(), dense.sum()), largest.operation


def test_symmetric_weights_follow_a_change_of_precision() -> None:
    graph = BipartiteGraph(binary())
    users, items = torch.randn(6, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    graph.symmetric_neighbours(users.float(), items.float())
    graph.double()
    dense = torch.from_numpy(binary().toarray()).double()
    weighted = dense / (dense.sum(1, keepdim=True).clamp(min=1) * dense.sum(0, keepdim=True).clamp(min=1)).sqrt()
    found = graph.symmetric_neighbours(users, items)
    torch.testing.assert_close(found[0], weighted @ items, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[1], weighted.T @ users, rtol=1e-12, atol=1e-12)


def test_pruned_keeps_so_many_edges_each_the_likelier_the_rarer_its_nodes() -> None:
    """One edge of each draw: kept in proportion to 1 / sqrt(degree * degree)."""
    matrix = sparse.csr_array(np.array([[1, 1, 1], [1, 0, 0], [1, 1, 0]], dtype=np.float32))
    graph, generator = BipartiteGraph(matrix), torch.Generator().manual_seed(0)
    kept = sum(graph.pruned(1, generator).sum_to_users(torch.eye(3)) for _ in range(4000)) / 4000
    rates = matrix.toarray() / np.sqrt(np.outer([3, 1, 2], [3, 2, 1]))
    assert kept.numpy() == pytest.approx(rates / rates.sum(), abs=0.03)
    four = graph.pruned(4, generator)
    edges = four.sum_to_users(torch.eye(3))
    assert edges.sum() == 4
    assert four.user_degrees.flatten().tolist() == edges.sum(1).tolist()
    assert four.item_degrees.flatten().tolist() == edges.sum(0).tolist()
