"""Losses as pure functions of scores. B positives, K negatives each, M shared negatives."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jaxtyping import Float, Int

_BLOCK_SCORES = 1 << 20
"""Scores that are held at once on a processor, whose cache they fit."""
_BLOCK_SCORES_ON_DEVICE = 1 << 27
"""The same elsewhere, where it is memory that they are to fit."""


def bpr_loss(
    positives: Float[Tensor, " batch"],
    negatives: Float[Tensor, "batch count"],
) -> Float[Tensor, ""]:
    """Return -log sigmoid(positive - negative), the mean over all triples.

    Source: Rendle et al., *BPR*, UAI 2009, BPR-Opt. In the stable form: a logarithm of a rounded sigmoid would lose the
    gradient of triples that are far wrong.
    """
    return -functional.logsigmoid(positives.unsqueeze(1) - negatives).mean()


def bce_loss(
    positives: Float[Tensor, " batch"],
    negatives: Float[Tensor, "batch count"],
) -> Float[Tensor, ""]:
    """Return binary cross-entropy: positives against 1, the mean of each one's negatives against 0."""
    return (functional.softplus(-positives) + functional.softplus(negatives).mean(1)).mean()


def sampled_softmax_loss(
    positives: Float[Tensor, " batch"],
    others: Float[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """Return the cross-entropy of each positive among itself and its negatives.

    Scores come divided by the temperature and corrected for how the negatives were sampled (logQ; Bengio and Senécal,
    *Adaptive Importance Sampling*, 2008).

    Args:
        positives: Scores of the positives.
        others: log-sum-exp of the scores of each one's negatives, as `masked_logsumexp` gives it.
    """
    return functional.softplus(others - positives).mean()


class _MaskedLogSumExp(torch.autograd.Function):
    """In blocks of rows whose scores fit a cache; the backward pass computes them again rather than keeping them."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor, bias: Tensor, masked: Tensor, scale: float) -> Tensor:
        out = torch.cat([scores.logsumexp(1) for _, _, scores in _blocks(rows, columns, bias, masked, scale)])
        ctx.save_for_backward(rows, columns, bias, masked, out)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, Tensor, Tensor, None, None]:
        rows, columns, bias, masked, out = ctx.saved_tensors
        to_rows, to_columns, to_bias = torch.empty_like(rows), torch.zeros_like(columns), torch.zeros_like(bias)
        for block, inside, scores in _blocks(rows, columns, bias, masked, ctx.scale):
            weights = scores.sub_(out[block].unsqueeze(1)).exp_().mul_(grad_outputs[0][block].unsqueeze(1))
            weights[inside] = 0
            torch.mm(weights, columns, out=to_rows[block])
            to_columns.addmm_(weights.T, rows[block])
            to_bias += weights.sum(0)
        return to_rows.mul_(ctx.scale), to_columns.mul_(ctx.scale), to_bias, None, None


def _blocks(
    rows: Tensor, columns: Tensor, bias: Tensor, masked: Tensor, scale: float
) -> Iterator[tuple[slice, tuple[Tensor, Tensor], Tensor]]:
    """Yield rows, the masked places among them, and the scores, some rows at a time."""
    size = max(16, (_BLOCK_SCORES if rows.device.type == "cpu" else _BLOCK_SCORES_ON_DEVICE) // max(1, len(columns)))
    # Not -inf: a row that is masked throughout would have no gradient that is a number.
    nothing = torch.finfo(rows.dtype).min / 2
    starts = range(0, len(rows), size)
    borders = torch.searchsorted(masked[0], torch.tensor([*starts, len(rows)], device=rows.device)).tolist()
    for start, (first, last) in zip(starts, itertools.pairwise(borders), strict=True):
        block = slice(start, start + size)
        inside = masked[0, first:last] - start, masked[1, first:last]
        scores = torch.addmm(bias, rows[block], columns.T, alpha=scale)
        scores[inside] = nothing
        yield block, inside, scores


_log_sum_exp: Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor] = _MaskedLogSumExp.apply


def masked_logsumexp(
    rows: Float[Tensor, "users dim"],
    columns: Float[Tensor, "count dim"],
    bias: Float[Tensor, " count"],
    masked: Int[Tensor, "2 pairs"],
    *,
    scale: float = 1.0,
) -> Float[Tensor, " users"]:
    """Return logsumexp over j of scale * rows_i . columns_j + bias_j, less the masked pairs (i, j), ascending by i.

    The scores of all rows are never held at once, neither for the backward pass: with many users and many negatives they would
    be the largest tensors of a step. Computed in full precision, also under autocast.
    """
    with torch.autocast(rows.device.type, enabled=False):
        wide = torch.promote_types(torch.promote_types(rows.dtype, columns.dtype), torch.float32)
        return _log_sum_exp(rows.to(wide), columns.to(wide), bias.to(wide), masked, scale)


def contrastive_loss(
    anchors: Float[Tensor, "anchors dim"],
    candidates: Float[Tensor, "candidates dim"],
    positives: Int[Tensor, " anchors"],
    temperature: float,
    *,
    masked: Int[Tensor, "2 pairs"] | None = None,
) -> Float[Tensor, ""]:
    """Return the mean over i of -log(exp(cos(a_i, c_p) / t) / sum_j exp(cos(a_i, c_j) / t)), p the positive of i.

    In blocks, like `masked_logsumexp`: anchors x candidates are never held at once.

    Args:
        anchors: Vectors of any length.
        candidates: Likewise.
        positives: Each anchor's own candidate.
        temperature: t.
        masked: Pairs (i, j) that are left out of the sum, ascending by i.

    Source: van den Oord et al., *Representation Learning with Contrastive Predictive Coding*, 2018, eq. 4 (InfoNCE).
    """
    anchors, candidates = functional.normalize(anchors, dim=1), functional.normalize(candidates, dim=1)
    if masked is None:
        masked = positives.new_empty(2, 0)
    none = candidates.new_zeros(len(candidates))
    others = masked_logsumexp(anchors, candidates, none, masked, scale=1 / temperature)
    own = (anchors * functional.embedding(positives, candidates)).sum(1) / temperature
    return (others - own).mean()
