"""Popularity: the control that every other model has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from metammf.models.base import Scorer, SolvedModel
from metammf.models.config import ModelConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float, Int

    from metammf.nn.histories import Histories


class PopularityConfig(ModelConfig):
    """Popularity has no settings."""

    name: Literal["popularity"] = "popularity"


class PopularityScorer:
    """Score every item by one number, the same for all users.

    Args:
        counts: (N,).
    """

    def __init__(self, counts: Tensor) -> None:
        self.counts = counts

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.counts)

    def scores(self, users: Int[Tensor, " batch"]) -> Float[Tensor, "batch num_items"]:
        """Return the counts, once a user."""
        return self.counts.repeat(len(users), 1)

    def history_scores(self, histories: Histories) -> Float[Tensor, "batch num_items"]:
        """Return the counts, once a user, whatever was watched."""
        return self.counts.repeat(len(histories), 1)


class Popularity(SolvedModel):
    """Rank items by the number of their train interactions."""

    config_type = PopularityConfig

    def solve(self) -> dict[str, Tensor]:
        """Count."""
        return {"counts": torch.as_tensor(self.train.item_counts, dtype=torch.float32)}

    def scorer(self, state: Mapping[str, Tensor]) -> Scorer:
        """Return the finished scorer."""
        return PopularityScorer(state["counts"])
