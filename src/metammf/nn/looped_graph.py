"""A user-item graph in which every node is its own neighbour too. U users, N items, D width."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from metammf.nn.graph import SparseMatrix

if TYPE_CHECKING:
    from jaxtyping import Float
    from scipy import sparse


class LoopedGraph(nn.Module):
    """D^-1/2 (A + I) D^-1/2, with D the row sums of A + I. A node without edges keeps what it has.

    Args:
        matrix: Binary, (U, N): the users' part of A.
    """

    user_scale: Tensor
    item_scale: Tensor

    def __init__(self, matrix: sparse.csr_array) -> None:
        super().__init__()
        self.edges = SparseMatrix(matrix)
        for name, axis in (("user_scale", 1), ("item_scale", 0)):
            degrees = torch.as_tensor(matrix.sum(axis=axis), dtype=torch.float32).reshape(-1, 1)
            self.register_buffer(name, (degrees + 1).rsqrt(), persistent=False)

    def forward(
        self, users: Float[Tensor, "num_users dim"], items: Float[Tensor, "num_items dim"]
    ) -> tuple[Float[Tensor, "num_users dim"], Float[Tensor, "num_items dim"]]:
        """Return each node's sum over its neighbours and itself."""
        users, items = self.user_scale * users, self.item_scale * items
        return (
            self.user_scale * (self.edges(items) + users),
            self.item_scale * (self.edges.transposed(users) + items),
        )
