"""Products with a sparse matrix whose entries are learned. E entries, D width.

Entries of a pattern are told in row order, as `SparseMatrix.reweighted` takes them. The two operations are each other's
derivative, so that no pass holds E x D numbers at once, forward or backward, and each sum is made in one order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float

    from metammf.nn.graph import SparseMatrix


def _products(pattern: SparseMatrix, rows: Tensor, columns: Tensor) -> Tensor:
    places, _ = pattern.reweighted(torch.zeros_like(pattern.data))
    return torch.sparse.sampled_addmm(places, rows, columns.T, beta=0).values()


class _EntryProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pattern: SparseMatrix, rows: Tensor, columns: Tensor) -> Tensor:
        ctx.pattern = pattern
        ctx.save_for_backward(rows, columns)
        return _products(pattern, rows, columns)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[None, Tensor, Tensor]:
        rows, columns = ctx.saved_tensors
        matrix, transposed = ctx.pattern.reweighted(grad_outputs[0])
        return None, matrix @ columns, transposed @ rows


class _WeightedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pattern: SparseMatrix, entries: Tensor, x: Tensor) -> Tensor:
        ctx.pattern = pattern
        ctx.save_for_backward(entries, x)
        return pattern.reweighted(entries)[0] @ x

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[None, Tensor | None, Tensor]:
        entries, x = ctx.saved_tensors
        (gradient,) = grad_outputs
        of_entries = _products(ctx.pattern, gradient, x) if ctx.needs_input_grad[1] else None
        return None, of_entries, ctx.pattern.reweighted(entries)[1] @ gradient


_entry_products: Callable[[SparseMatrix, Tensor, Tensor], Tensor] = _EntryProducts.apply
_weighted_product: Callable[[SparseMatrix, Tensor, Tensor], Tensor] = _WeightedProduct.apply


def entry_products(
    pattern: SparseMatrix, rows: Float[Tensor, "rows dim"], columns: Float[Tensor, "columns dim"]
) -> Float[Tensor, " entries"]:
    """Return rows_i . columns_j for every entry (i, j) of the pattern, in full precision."""
    with torch.autocast(rows.device.type, enabled=False):
        return _entry_products(pattern, rows.float(), columns.float())


def weighted_product(
    pattern: SparseMatrix, entries: Float[Tensor, " entries"], x: Float[Tensor, "columns dim"]
) -> Float[Tensor, "rows dim"]:
    """Return A x, where A has these entries in the places of the pattern, in full precision."""
    with torch.autocast(x.device.type, enabled=False):
        return _weighted_product(pattern, entries.float(), x.float())
