"""Losses as pure functions of scores. B positives, K negatives each, M shared negatives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


def bpr_loss(
    positives: Float[Tensor, " batch"],
    negatives: Float[Tensor, "batch count"],
    weights: Float[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """Return -log sigmoid(positive - negative), the (weighted) mean over all triples.

    Source: Rendle et al., *BPR*, UAI 2009, BPR-Opt. In the stable form: a logarithm of a rounded sigmoid would lose the
    gradient of triples that are far wrong.
    """
    return _mean(-functional.logsigmoid(positives.unsqueeze(1) - negatives).mean(1), weights)


def bce_loss(
    positives: Float[Tensor, " batch"],
    negatives: Float[Tensor, "batch count"],
    weights: Float[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """Return binary cross-entropy: positives against 1, the mean of each one's negatives against 0."""
    return _mean(functional.softplus(-positives) + functional.softplus(negatives).mean(1), weights)


def sampled_softmax_loss(
    positives: Float[Tensor, " batch"],
    negatives: Float[Tensor, "batch count"],
    masked: Bool[Tensor, "batch count"],
    weights: Float[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """Return the cross-entropy of each positive among itself and the negatives that are not masked.

    Scores come divided by the temperature and corrected for how the negatives were sampled (logQ; Bengio and Senécal,
    *Adaptive Importance Sampling*, 2008).
    """
    logits = torch.cat([positives.unsqueeze(1), negatives.masked_fill(masked, -torch.inf)], dim=1)
    return _mean(torch.logsumexp(logits, dim=1) - positives, weights)


def _mean(losses: Float[Tensor, " batch"], weights: Float[Tensor, " batch"] | None) -> Float[Tensor, ""]:
    return losses.mean() if weights is None else (losses * weights).sum() / weights.sum()
