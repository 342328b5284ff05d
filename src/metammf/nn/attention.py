"""Attention along the edges of a graph: a softmax over the edges that a node receives. R nodes that receive, E edges, H heads.

What is weighed is summed by `edge_weights.weighted_product`; nothing here is as wide as the vectors. Sums over the edges of a
node are made in the order of the edges, so that they do not hang on the number of threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float

    from metammf.nn.graph import Edges


def _sums(values: Tensor, starts: Tensor) -> Tensor:
    """The sum of each row's values, whose places begin at `starts`."""
    count = len(values)
    places = torch.arange(count, dtype=starts.dtype, device=starts.device)
    size = len(starts) - 1, count
    # The product knows no half precision on a processor; it is several times as fast as a segmented sum.
    with torch.autocast(values.device.type, enabled=False):
        wide = values.to(torch.promote_types(values.dtype, torch.float32))
        rows = torch.sparse_csr_tensor(starts, places, wide.new_ones(count), size=size, check_invariants=False)
        return (rows @ wide).to(values.dtype)


class _EdgeSoftmax(torch.autograd.Function):
    """Of the edges of a row, and of one score more that is the row's own."""

    @staticmethod
    def forward(ctx: Any, edges: Edges, scores: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        top = torch.segment_reduce(scores, "max", offsets=edges.indptr.long(), axis=0, initial=-torch.inf)
        # Where a row has nothing to weigh: exp(-inf - lowest) is 0, exp(-inf + inf) would be no number.
        top = torch.maximum(top, own).clamp(min=torch.finfo(scores.dtype).min)
        weights = (scores - top.index_select(0, edges.rows)).exp_()
        own_weights = (own - top).exp_()
        total = _sums(weights, edges.indptr) + own_weights
        total.clamp_(min=torch.finfo(scores.dtype).tiny)
        weights /= total.index_select(0, edges.rows)
        own_weights /= total
        ctx.edges = edges
        ctx.save_for_backward(weights, own_weights)
        return weights, own_weights

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[None, Tensor, Tensor]:
        weights, own_weights = ctx.saved_tensors
        to_weights, to_own = grad_outputs
        to_scores, to_own_scores = weights * to_weights, own_weights * to_own
        mean = _sums(to_scores, ctx.edges.indptr) + to_own_scores
        return None, to_scores - weights * mean.index_select(0, ctx.edges.rows), to_own_scores - own_weights * mean


_edge_softmax: Callable[[Edges, Tensor, Tensor], tuple[Tensor, Tensor]] = _EdgeSoftmax.apply


def edge_softmax(
    edges: Edges, scores: Float[Tensor, "edges heads"], own: Float[Tensor, "rows heads"] | None = None
) -> tuple[Float[Tensor, "edges heads"], Float[Tensor, "rows heads"]]:
    """Return the softmax over the edges that each row receives, and over its own score, where it attends to itself as well.

    In full precision. An edge that is left out, or has the score -inf, gets the weight 0; so does all of a row that has nothing
    else.

    Args:
        edges: Of the graph.
        scores: In the edges' order.
        own: Of the rows; none by default.

    Returns:
        Weights of the edges, and of the rows themselves.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if edges.kept is not None:
        scores = scores.masked_fill(~edges.kept.unsqueeze(1), -torch.inf)
    if own is None:
        own = scores.new_full((edges.shape[0], scores.shape[1]), -torch.inf)
    return _edge_softmax(edges, scores.contiguous(), own.to(scores.dtype))


class _AtReceiving(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, edges: Edges, values: Tensor) -> Tensor:
        ctx.starts = edges.indptr
        return values.index_select(0, edges.rows)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[None, Tensor]:
        return None, _sums(grad_outputs[0].contiguous(), ctx.starts)


class _AtSending(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, edges: Edges, values: Tensor) -> Tensor:
        ctx.edges = edges
        return values.index_select(0, edges.indices)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[None, Tensor]:
        return None, _sums(grad_outputs[0].index_select(0, ctx.edges.order), ctx.edges.transposed_indptr)


_at_receiving: Callable[[Edges, Tensor], Tensor] = _AtReceiving.apply
_at_sending: Callable[[Edges, Tensor], Tensor] = _AtSending.apply


def at_receiving(edges: Edges, values: Float[Tensor, "rows heads"]) -> Float[Tensor, "edges heads"]:
    """Return for each edge what the node that receives along it holds."""
    return _at_receiving(edges, values)


def at_sending(edges: Edges, values: Float[Tensor, "columns heads"]) -> Float[Tensor, "edges heads"]:
    """Return for each edge what the node that sends along it holds."""
    return _at_sending(edges, values)
