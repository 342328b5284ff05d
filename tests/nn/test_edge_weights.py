"""Products with learned entries against dense ones, forward and backward."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from metammf.nn.edge_weights import entry_products, weighted_product
from metammf.nn.graph import SparseMatrix
from metammf.testing.probes import LargestTensor


def places(shape: tuple[int, int] = (6, 5), share: float = 0.5) -> np.ndarray:
    """The last row and the last column are empty."""
    dense = np.random.default_rng(0).random(shape) < share
    dense[-1] = dense[:, -1] = False
    return dense


def test_both_equal_dense_products() -> None:
    dense = places()
    pattern = SparseMatrix(sparse.csr_array(dense.astype(np.float32)))
    mask = torch.from_numpy(dense)
    rows, columns, x = (torch.randn(count, 3, requires_grad=True) for count in (6, 5, 5))
    weight = torch.randn(6, 3)

    entries = entry_products(pattern, rows, columns)
    found = weighted_product(pattern, entries, x)
    gradients = torch.autograd.grad((found * weight).sum(), (rows, columns, x))

    expected = (rows @ columns.T * mask) @ x
    torch.testing.assert_close(entries, (rows @ columns.T)[mask])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients, torch.autograd.grad((expected * weight).sum(), (rows, columns, x)))


def test_entries_that_need_no_gradient_get_none() -> None:
    pattern = SparseMatrix(sparse.csr_array(places().astype(np.float32)))
    x = torch.randn(5, 3, requires_grad=True)
    weighted_product(pattern, torch.ones(len(pattern.data)), x).sum().backward()
    torch.testing.assert_close(x.grad, torch.from_numpy(places().sum(0)).float().unsqueeze(1).expand(5, 3))


def test_half_precision_is_computed_in_full() -> None:
    pattern = SparseMatrix(sparse.csr_array(places().astype(np.float32)))
    rows, columns = torch.randn(6, 3).bfloat16(), torch.randn(5, 3).bfloat16()
    entries = entry_products(pattern, rows, columns)
    assert entries.dtype == weighted_product(pattern, entries, columns).dtype == torch.float32


def test_no_entries() -> None:
    pattern = SparseMatrix(sparse.csr_array((6, 5), dtype=np.float32))
    rows, columns = torch.randn(6, 3), torch.randn(5, 3)
    assert entry_products(pattern, rows, columns).shape == (0,)
    assert not weighted_product(pattern, torch.zeros(0), columns).any()


def test_no_tensor_of_entries_by_width() -> None:
    pattern = SparseMatrix(sparse.csr_array(places((40, 40), 0.9).astype(np.float32)))
    x = torch.randn(40, 32, requires_grad=True)
    with LargestTensor() as largest:
        weighted_product(pattern, entry_products(pattern, x, x), x).sum().backward()
    assert largest.numel <= max(x.numel(), len(pattern.data)) < 0.1 * len(pattern.data) * 32, largest.operation
