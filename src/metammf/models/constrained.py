"""Shared by the models that descend UltraGCN's losses. B positives, K negatives each, S neighbours of an item, D width."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from metammf.errors import ConfigError
from metammf.models.config import ModelConfig, Search
from metammf.nn.constraint import ConstraintLoss
from metammf.nn.cooccurrence import CooccurrenceGraph

if TYPE_CHECKING:
    from metammf.models.base import Batch, Inputs, Model, VectorSource


class ConstrainedConfig(ModelConfig):
    """What all of them can be told."""

    constraint_weight: Annotated[float, Field(ge=0), Search(0.1, 10, log=True)] = 1.0
    """Weight lambda of the constraint L_C."""
    negative_weight: Annotated[float, Field(gt=0), Search(1, 500, log=True)] = 1.0
    """Weight of a positive's negatives, whose losses are averaged; as many as `training.num_negatives` makes it their sum."""
    item_weight: Annotated[float, Field(ge=0), Search(0, 4)] = 0.0
    """Weight gamma of the item-item loss L_I; with 0 the graph of items is not built."""
    item_neighbours: Annotated[int, Field(ge=1), Search(5, 20, needs="item_weight")] = 10
    """Neighbours S of each item in that graph."""


class ConstraintLosses(nn.Module):
    """What the losses know of the train interactions.

    Args:
        config: Weights.
        inputs: The train interactions.
    """

    def __init__(self, config: ConstrainedConfig, inputs: Inputs) -> None:
        super().__init__()
        self.constraint_weight, self.item_weight = config.constraint_weight, config.item_weight
        train = inputs.train
        self.pairs = ConstraintLoss(
            torch.from_numpy(train.user_counts).float(),
            torch.from_numpy(train.item_counts).float(),
            config.negative_weight,
        )
        self.graph = CooccurrenceGraph(train.matrix, config.item_neighbours) if config.item_weight else None


class ConstraintObjective:
    r"""L_O + lambda L_C + gamma L_I, each the mean over the positives.

    The neighbours of the item-item loss are asked of the model itself, so that batches of one step may share their vectors.

    Args:
        model: Whose neighbours' vectors are asked for.
        losses: What they know of the train interactions.
        training: How the model is trained.

    Raises:
        ConfigError: negatives are shared by the step, whereas each positive's own are wanted.
    """

    def __init__(self, model: Model, losses: ConstraintLosses, training: Any) -> None:
        if training.objective == "softmax":
            raise ConfigError(
                f"{type(model).__name__} descends a loss of its own, over negatives of each positive:"
                ' training.objective = "softmax" shares them, set it to "bce"'
            )
        self.model, self.losses, self.l2_reg = model, losses, training.l2_reg

    def __call__(self, model: VectorSource, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of the loss."""
        users, positives, negatives = batch.vectors(model)
        main, constraint = self.losses.pairs(
            batch.users,
            batch.positives,
            batch.negatives,
            (users * positives).sum(1),
            torch.einsum("bd,bkd->bk", users, negatives),
        )
        terms = {"main": main.mean(), "constraint": self.losses.constraint_weight * constraint.mean()}
        if self.losses.graph is not None:
            terms["items"] = self.losses.item_weight * self._item_loss(self.losses.graph, batch, users).mean()
        return terms | batch.penalty(model, self.l2_reg)

    def _item_loss(self, graph: CooccurrenceGraph, batch: Batch, users: Tensor) -> Tensor:
        items, places = torch.unique(graph.neighbours[batch.positives], return_inverse=True)
        vectors = self.model(batch.users[:0], items)[1]
        scores = torch.einsum("bd,bsd->bs", users, functional.embedding(places, vectors))
        return graph.loss(batch.positives, scores)
