"""Products with a sparse matrix whose entries are learned. R rows, C columns, E entries, D width.

Entries are told in row order. The two operations are each other's derivative, so that no pass holds E x D numbers, forward or
backward, and every sum is made in one order, whatever the number of threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float

    from metammf.nn.graph import Pattern


def _products(pattern: Pattern, rows: Tensor, columns: Tensor) -> Tensor:
    places = pattern.matrix_of(rows.new_zeros(len(pattern.indices)))
    return torch.sparse.sampled_addmm(places, rows, columns.T, beta=0.0).values()


class _EntryProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pattern: Pattern, rows: Tensor, columns: Tensor) -> Tensor:
        ctx.pattern = pattern
        ctx.save_for_backward(rows, columns)
        return _products(pattern, rows, columns)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[None, Tensor | None, Tensor | None]:
        rows, columns = ctx.saved_tensors
        (gradient,) = grad_outputs
        to_rows = ctx.pattern.matrix_of(gradient) @ columns if ctx.needs_input_grad[1] else None
        to_columns = (
            ctx.pattern.transpose_of(gradient.index_select(0, ctx.pattern.order)) @ rows
            if ctx.needs_input_grad[2]
            else None
        )
        return None, to_rows, to_columns


class _WeightedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pattern: Pattern, entries: Tensor, x: Tensor) -> Tensor:
        ctx.pattern = pattern
        ctx.save_for_backward(entries, x)
        return pattern.matrix_of(entries) @ x

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[None, Tensor | None, Tensor | None]:
        entries, x = ctx.saved_tensors
        (gradient,) = grad_outputs
        to_entries = _products(ctx.pattern, gradient, x) if ctx.needs_input_grad[1] else None
        to_x = (
            ctx.pattern.transpose_of(entries.index_select(0, ctx.pattern.order)) @ gradient
            if ctx.needs_input_grad[2]
            else None
        )
        return None, to_entries, to_x


_entry_products: Callable[[Pattern, Tensor, Tensor], Tensor] = _EntryProducts.apply
_weighted_product: Callable[[Pattern, Tensor, Tensor], Tensor] = _WeightedProduct.apply


def _in_full(*tensors: Tensor) -> list[Tensor]:
    """The kernels know no half precision on a processor, and one that is strided is one that they need not copy twice."""
    wide = torch.promote_types(torch.promote_types(tensors[0].dtype, tensors[1].dtype), torch.float32)
    return [tensor.to(wide).contiguous() for tensor in tensors]


def entry_products(
    pattern: Pattern, rows: Float[Tensor, "rows dim"], columns: Float[Tensor, "columns dim"]
) -> Float[Tensor, " entries"]:
    """Return rows_i . columns_j for every entry (i, j) of the pattern, in full precision."""
    with torch.autocast(rows.device.type, enabled=False):
        return _entry_products(pattern, *_in_full(rows, columns))


def weighted_product(
    pattern: Pattern, entries: Float[Tensor, " entries"], x: Float[Tensor, "columns dim"]
) -> Float[Tensor, "rows dim"]:
    """Return A x, where A has these entries in the places of the pattern, in full precision."""
    with torch.autocast(x.device.type, enabled=False):
        return _weighted_product(pattern, *_in_full(entries, x))
