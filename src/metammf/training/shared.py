"""One fusion and one propagation for several batches. U distinct users of all batches, N distinct items, D width."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metammf.models.base import Batch, Model


class SharedVectors:
    """The vectors of all nodes of some batches, computed once.

    Gradients of the batches stop at the vectors and add up there, so that of the batches' own work no more than one is held at
    a time; `backward` sends the sums on into the model.

    Args:
        model: Is called once.
        batches: Whose nodes.
    """

    def __init__(self, model: Model, batches: Sequence[Batch]) -> None:
        self.model = model
        self.users = torch.unique(torch.cat([batch.users for batch in batches]))
        self.items = torch.unique(
            torch.cat([nodes.flatten() for batch in batches for nodes in (batch.positives, batch.negatives)])
        )
        self.roots: tuple[Tensor, Tensor] = model(self.users, self.items)
        # In full precision: many small gradients are added up.
        self.leaves = tuple(root.detach().float().requires_grad_() for root in self.roots)

    def __call__(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of some of the nodes."""
        places = torch.searchsorted(self.users, users), torch.searchsorted(self.items, items)
        return functional.embedding(places[0], self.leaves[0]), functional.embedding(places[1], self.leaves[1])

    def item_offsets(self, items: Tensor) -> Tensor | None:
        """Return the model's offsets."""
        return self.model.item_offsets(items)

    def embeddings(self, users: Tensor, items: Tensor) -> list[Tensor]:
        """Return the model's free vectors."""
        return self.model.embeddings(users, items)

    def backward(self) -> None:
        """Descend from the vectors into the model, by the gradients that the batches have left."""
        gradients = [
            None if leaf.grad is None else leaf.grad.to(root.dtype)
            for root, leaf in zip(self.roots, self.leaves, strict=True)
        ]
        reached = [place for place, gradient in enumerate(gradients) if gradient is not None]
        torch.autograd.backward([self.roots[place] for place in reached], [gradients[place] for place in reached])
