"""The vectors of all nodes, for the objectives of models that need more than those of a batch. U users, N items, D width."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from metammf.models.base import VectorSource


class AllVectors:
    """What was computed once, handed out by rows.

    Args:
        users: (U, D).
        items: (N, D).
        model: Asked for all else.
    """

    def __init__(self, users: Tensor, items: Tensor, model: VectorSource) -> None:
        self.users, self.items, self.model = users, items, model

    def __call__(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of these nodes."""
        return self.users[users], self.items[items]

    def item_offsets(self, items: Tensor) -> Tensor | None:
        """Return the model's offsets."""
        return self.model.item_offsets(items)

    def embeddings(self, users: Tensor, items: Tensor) -> list[Tensor]:
        """Return the model's free vectors."""
        return self.model.embeddings(users, items)
