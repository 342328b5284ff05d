"""Losses as pure functions of scores. B positives, K negatives each, M shared negatives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


def bpr_loss(positives: Float[Tensor, " batch"], negatives: Float[Tensor, "batch count"]) -> Float[Tensor, ""]:
    """Return -log sigmoid(positive - negative), the mean over all triples.

    Source: Rendle et al., *BPR*, UAI 2009, BPR-Opt. In the stable form: a logarithm of a rounded sigmoid would lose the
    gradient of triples that are far wrong.
    """
    return -functional.logsigmoid(positives.unsqueeze(1) - negatives).mean()


def bce_loss(positives: Float[Tensor, " batch"], negatives: Float[Tensor, "batch count"]) -> Float[Tensor, ""]:
    """Return binary cross-entropy: positives against 1, the mean of each one's negatives against 0."""
    return (functional.softplus(-positives) + functional.softplus(negatives).mean(1)).mean()


def sampled_softmax_loss(
    positives: Float[Tensor, " batch"],
    negatives: Float[Tensor, "batch count"],
    masked: Bool[Tensor, "batch count"],
) -> Float[Tensor, ""]:
    """Return the cross-entropy of each positive among itself and the negatives that are not masked.

    Scores come divided by the temperature and corrected for how the negatives were sampled (logQ; Bengio and Senécal,
    *Adaptive Importance Sampling*, 2008).
    """
    logits = torch.cat([positives.unsqueeze(1), negatives.masked_fill(masked, -torch.inf)], dim=1)
    return (torch.logsumexp(logits, dim=1) - positives).mean()
