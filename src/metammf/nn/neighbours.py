"""Neighbours by content for items that have none by interactions. I isolated items, J connected ones, W key width, D width."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from jaxtyping import Float

_WEIGHTS_AT_ONCE = 1 << 24
"""Attention weights that are held at a time: 64 MB of float32."""


class ContentNeighbours(nn.Module):
    r"""Let an isolated item borrow from connected items that are like it by content.

    v_i <- v_i + alpha sum_j softmax_j(cos(k_i, k_j) / t) v_j, with fused content as keys k and alpha learned. What a graph
    gives to a connected item (the taste of its users), an item without edges has to take from those it resembles.

    Args:
        temperature: t of the softmax.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = temperature
        self.weight = nn.Parameter(torch.ones(()))

    def forward(
        self,
        vectors: Float[Tensor, "isolated dim"],
        keys: Float[Tensor, "isolated width"],
        known_keys: Float[Tensor, "connected width"],
        known_vectors: Float[Tensor, "connected dim"],
    ) -> Float[Tensor, "isolated dim"]:
        """Return the isolated items' vectors with what they borrow.

        Never isolated x connected in memory at once: in training a sample of the connected items stands for all where there
        are too many, elsewhere isolated items are taken in blocks.
        """
        if not len(known_keys):
            return vectors
        most = max(1, _WEIGHTS_AT_ONCE // max(1, len(vectors)))
        if torch.is_grad_enabled() and len(known_keys) > most:
            chosen = torch.randperm(len(known_keys), device=known_keys.device)[:most]
            known_keys, known_vectors = known_keys[chosen], known_vectors[chosen]
        known_keys = functional.normalize(known_keys, dim=1)
        rows = max(1, _WEIGHTS_AT_ONCE // len(known_keys))
        borrowed = [
            torch.softmax(functional.normalize(block, dim=1) @ known_keys.T / self.temperature, dim=1) @ known_vectors
            for block in torch.split(keys, rows)
        ]
        return vectors + self.weight * torch.cat(borrowed) if borrowed else vectors
