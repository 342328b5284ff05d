"""Losses as pure functions of scores. B positives, K negatives each, M shared negatives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


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
    negatives: Float[Tensor, "rows count"],
    masked: Bool[Tensor, "rows count"],
    rows: Int[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """Return the cross-entropy of each positive among itself and the negatives that are not masked.

    Scores come divided by the temperature and corrected for how the negatives were sampled (logQ; Bengio and Senécal,
    *Adaptive Importance Sampling*, 2008).

    Args:
        positives: Scores of the positives.
        negatives: Scores of the shared negatives, a row a user.
        masked: Which of them are positives of that user.
        rows: Each positive's row among the negatives, where positives of one user share a row; row by row by default.
    """
    # Not -inf: a row that is masked throughout would have no gradient that is a number.
    others = torch.logsumexp(negatives.masked_fill(masked, torch.finfo(negatives.dtype).min / 2), dim=1)
    if rows is not None:
        others = others[rows]
    return functional.softplus(others - positives).mean()
