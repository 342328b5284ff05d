"""Objectives: from a model and a batch to named terms of a loss. B positives, K or M negatives, D width."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from metammf.models.base import Batch
from metammf.nn.losses import bce_loss, bpr_loss, masked_logsumexp, sampled_softmax_loss
from metammf.training.parallel import Parallel

if TYPE_CHECKING:
    from collections.abc import Callable

    from metammf.models.base import Model, Objective, VectorSource
    from metammf.training.config import TrainingConfig
    from metammf.training.sampling import NegativeSampler


def draw_batch(
    users: Tensor,
    positives: Tensor,
    sampler: NegativeSampler,
    config: TrainingConfig,
    generator: torch.Generator,
    parallel: Parallel | None = None,
) -> Batch:
    """Add negatives to positives, as the objective needs them; return this process's share where several divide it."""
    mine, part = (parallel or Parallel()).share(users)
    if config.objective != "softmax":
        drawn = sampler.per_positive(users, config.num_negatives, generator)
        if mine is not None:
            users, positives, drawn = users[mine], positives[mine], drawn[mine]
        return Batch(users, positives, drawn, part=part)
    negatives, correction = sampler.shared(config.shared_negatives, generator)
    if mine is not None:
        users, positives = users[mine], positives[mine]
    return Batch(
        users,
        positives,
        negatives,
        masked=sampler.watched_pairs(torch.unique(users), negatives),
        negative_correction=correction if config.logq else None,
        positive_correction=-sampler.log_expected(positives, config.shared_negatives) if config.logq else None,
        part=part,
    )


class PointObjective:
    """A loss of the scores of positives and of their own negatives: BPR, BCE.

    Args:
        name: Of the term.
        loss: From scores (B,) and (B, K) to a scalar.
        l2_reg: Penalty on the batch's free vectors.
    """

    def __init__(self, name: str, loss: Callable[[Tensor, Tensor], Tensor], l2_reg: float) -> None:
        self.name, self.loss, self.l2_reg = name, loss, l2_reg

    def __call__(self, model: VectorSource, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of the loss."""
        users, positives, negatives = batch.vectors(model)
        positive_scores = _with_offsets(model, batch.positives, (users * positives).sum(1))
        negative_scores = _with_offsets(model, batch.negatives, torch.einsum("bd,bkd->bk", users, negatives))
        terms = {self.name: self.loss(positive_scores, negative_scores)}
        return terms | batch.penalty(model, self.l2_reg)


class SoftmaxObjective:
    """Sampled softmax over negatives that the whole step shares.

    Args:
        temperature: What scores are divided by.
        l2_reg: Penalty on the batch's free vectors.
    """

    def __init__(self, temperature: float, l2_reg: float) -> None:
        self.temperature, self.l2_reg = temperature, l2_reg

    def __call__(self, model: VectorSource, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of the loss."""
        assert batch.masked is not None
        # A user's scores of the shared negatives serve all of its positives.
        users, places, positives, negatives = batch.distinct_vectors(model)
        nothing = torch.zeros(len(negatives), device=negatives.device)
        scores = _with_offsets(model, batch.positives, (functional.embedding(places, users) * positives).sum(1))
        scores, bias = scores / self.temperature, _with_offsets(model, batch.negatives, nothing) / self.temperature
        if batch.negative_correction is not None and batch.positive_correction is not None:
            scores, bias = scores + batch.positive_correction, bias + batch.negative_correction
        others = masked_logsumexp(users, negatives, bias, batch.masked, scale=1 / self.temperature)
        # As an embedding's rows, for the reason that `Batch.distinct_vectors` gives.
        others = functional.embedding(places, others.unsqueeze(1)).squeeze(1)
        loss = sampled_softmax_loss(scores, others)
        return {"softmax": loss} | batch.penalty(model, self.l2_reg)


def _with_offsets(model: VectorSource, items: Tensor, scores: Tensor) -> Tensor:
    offsets = model.item_offsets(items)
    return scores if offsets is None else scores + offsets


def make_objective(config: TrainingConfig) -> Objective:
    """Build the objective that the config names."""
    if config.objective == "softmax":
        return SoftmaxObjective(config.temperature, config.l2_reg)
    return PointObjective(config.objective, bpr_loss if config.objective == "bpr" else bce_loss, config.l2_reg)


def objective_of(model: Model, config: TrainingConfig) -> Objective:
    """Return what a model is trained by: its own objective, or the one that the config names with the model's terms added."""
    return model.objective(config) or model.extended(make_objective(config))
