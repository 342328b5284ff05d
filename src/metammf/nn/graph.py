"""The user-item graph as a binary matrix in CSR form, with its transpose at hand.

U users, N items, D width. Row and column scalings (mean, symmetric) are applied to the dense side, so that one binary
matrix and its transpose serve every normalisation, in both directions, forward and backward.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from metammf.nn.histories import Histories

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Bool, Float, Int


# Said by torch once a process, to whoever happens to train first; the products here are tested against dense ones.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")


class _SparseProduct(torch.autograd.Function):
    """A @ x for a constant sparse A whose transpose is known: the backward pass is one product as well.

    Left to itself, autograd would form the transpose anew at each step, or a gradient for A.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transposed: Tensor, x: Tensor) -> Tensor:
        ctx.transposed = transposed
        return _product(matrix, x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[None, None, Tensor]:
        return None, None, _product(ctx.transposed, grad_outputs[0])


_multiply: Callable[[Tensor, Tensor, Tensor], Tensor] = _SparseProduct.apply


def _product(matrix: Tensor, x: Tensor) -> Tensor:
    # The CSR kernels know no half precision on CPU; autocast would bring x, and the product, to bfloat16.
    with torch.autocast(x.device.type, enabled=False):
        return (matrix @ x.to(matrix.dtype)).to(x.dtype)


class SparseMatrix(nn.Module):
    """A constant sparse matrix and its transpose, as buffers that follow the module to a device.

    Args:
        matrix: Shape (rows, columns).
    """

    indptr: Tensor
    indices: Tensor
    data: Tensor
    transposed_indptr: Tensor
    transposed_indices: Tensor
    transposed_data: Tensor
    order: Tensor

    def __init__(self, matrix: sparse.csr_array) -> None:
        super().__init__()
        self.shape: tuple[int, int] = (int(matrix.shape[0]), int(matrix.shape[1]))
        matrix = sparse.csr_array(matrix)
        matrix.sort_indices()
        places = sparse.csr_array((np.arange(matrix.nnz), matrix.indices, matrix.indptr), shape=self.shape)
        places = places.T.tocsr()
        places.sort_indices()
        transposed = sparse.csr_array((matrix.data[places.data], places.indices, places.indptr), self.shape[::-1])
        for prefix, source in (("", matrix), ("transposed_", transposed)):
            for name in ("indptr", "indices", "data"):
                self.register_buffer(prefix + name, torch.as_tensor(getattr(source, name)).clone(), persistent=False)
        # Which entry of the matrix each entry of the transpose is.
        self.register_buffer("order", torch.from_numpy(places.data.astype(np.int64)), persistent=False)

    def _matrices(self, data: Tensor, transposed_data: Tensor) -> tuple[Tensor, Tensor]:
        return (
            torch.sparse_csr_tensor(self.indptr, self.indices, data, size=self.shape, check_invariants=False),
            torch.sparse_csr_tensor(
                self.transposed_indptr,
                self.transposed_indices,
                transposed_data,
                size=self.shape[::-1],
                check_invariants=False,
            ),
        )

    def reweighted(self, data: Float[Tensor, " entries"]) -> tuple[Tensor, Tensor]:
        """Return the matrix with other values in its entries, in row order, and its transpose, both in CSR form."""
        return self._matrices(data, data[self.order])

    def forward(self, x: Float[Tensor, "columns dim"]) -> Float[Tensor, "rows dim"]:
        """Return the product with `x`."""
        return _multiply(*self._matrices(self.data, self.transposed_data), x)

    def transposed(self, x: Float[Tensor, "rows dim"]) -> Float[Tensor, "columns dim"]:
        """Return the product of the transpose with `x`."""
        matrix, transposed = self._matrices(self.data, self.transposed_data)
        return _multiply(transposed, matrix, x)


class Neighbourhoods(ABC):
    """Sums over neighbours in both directions, and what is made of them."""

    user_degrees: Tensor
    item_degrees: Tensor

    @abstractmethod
    def sum_to_users(self, items: Float[Tensor, "num_items dim"]) -> Float[Tensor, "num_users dim"]:
        """Return, for each user, the sum over the items it watched."""

    @abstractmethod
    def sum_to_items(self, users: Float[Tensor, "num_users dim"]) -> Float[Tensor, "num_items dim"]:
        """Return, for each item, the sum over its users."""

    @staticmethod
    def _scale(degrees: Tensor) -> Tensor:
        return degrees.clamp(min=1).rsqrt()

    def mean_neighbours(
        self, users: Float[Tensor, "num_users dim"], items: Float[Tensor, "num_items dim"]
    ) -> tuple[Float[Tensor, "num_users dim"], Float[Tensor, "num_items dim"]]:
        """Return each node's mean over its neighbours; zero for a node without any."""
        return (
            self.sum_to_users(items) / self.user_degrees.clamp(min=1),
            self.sum_to_items(users) / self.item_degrees.clamp(min=1),
        )

    def symmetric_neighbours(
        self, users: Float[Tensor, "num_users dim"], items: Float[Tensor, "num_items dim"]
    ) -> tuple[Float[Tensor, "num_users dim"], Float[Tensor, "num_items dim"]]:
        """Return each node's sum over its neighbours, each weighed by 1 / sqrt(degree * degree)."""
        user_scale, item_scale = self._scale(self.user_degrees), self._scale(self.item_degrees)
        return (
            user_scale * self.sum_to_users(item_scale * items),
            item_scale * self.sum_to_items(user_scale * users),
        )


class BipartiteGraph(nn.Module, Neighbourhoods):
    """Who watched what.

    Args:
        matrix: Binary, shape (num_users, num_items).
    """

    def __init__(self, matrix: sparse.csr_array) -> None:
        super().__init__()
        self.num_users, self.num_items = int(matrix.shape[0]), int(matrix.shape[1])
        self.adjacency = SparseMatrix(matrix)
        self._symmetric: dict[torch.device, tuple[Tensor, Tensor]] = {}
        for name, axis in (("user_degrees", 1), ("item_degrees", 0)):
            degrees = torch.as_tensor(matrix.sum(axis=axis), dtype=torch.float32).reshape(-1, 1)
            self.register_buffer(name, degrees, persistent=False)

    def _apply(self, *arguments: Any, **options: Any) -> Self:
        self._symmetric.clear()  # made anew of what the buffers have been moved or cast to
        return super()._apply(*arguments, **options)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def sum_to_users(self, items: Float[Tensor, "num_items dim"]) -> Float[Tensor, "num_users dim"]:
        """Return, for each user, the sum over the items it watched."""
        return self.adjacency(items)

    def sum_to_items(self, users: Float[Tensor, "num_users dim"]) -> Float[Tensor, "num_items dim"]:
        """Return, for each item, the sum over its users."""
        return self.adjacency.transposed(users)

    def symmetric_neighbours(
        self, users: Float[Tensor, "num_users dim"], items: Float[Tensor, "num_items dim"]
    ) -> tuple[Float[Tensor, "num_users dim"], Float[Tensor, "num_items dim"]]:
        """Return each node's sum over its neighbours; the weights stand in the entries of the whole graph's matrix."""
        if users.device not in self._symmetric:
            counts = (self.adjacency.indptr[1:] - self.adjacency.indptr[:-1]).long()
            user_scale, item_scale = (self._scale(side).flatten() for side in (self.user_degrees, self.item_degrees))
            weights = user_scale.repeat_interleave(counts) * item_scale[self.adjacency.indices.long()]
            self._symmetric[users.device] = self.adjacency.reweighted(weights)
        to_users, to_items = self._symmetric[users.device]
        return _multiply(to_users, to_items, items), _multiply(to_items, to_users, users)

    def without(
        self,
        edges: tuple[Int[Tensor, " edges"], Int[Tensor, " edges"]] | None = None,
        items: Bool[Tensor, " num_items"] | None = None,
        *,
        share: float = 0.0,
    ) -> Neighbourhoods:
        """Return the graph less some edges, degrees counted anew.

        Args:
            edges: Users and items of edges to leave out; each must be in the graph.
            items: Items to leave without any edge.
            share: Share of all edges to leave out, drawn at random.
        """
        kept = self.adjacency.data.clone()
        if share:
            kept[torch.rand_like(kept) < share] = 0
        if edges is not None:
            kept[self._places(*edges)] = 0
        if items is not None:
            kept[items[self.adjacency.indices.long()]] = 0
        return _ThinnedGraph(*self.adjacency.reweighted(kept))

    def histories(
        self,
        users: Int[Tensor, " batch"],
        edges: tuple[Int[Tensor, " edges"], Int[Tensor, " edges"]] | None = None,
        items: Bool[Tensor, " num_items"] | None = None,
        *,
        share: float = 0.0,
    ) -> Histories:
        """Return what these users watched, in time of that alone; what is left out of it is told as in `without`."""
        borders, places = Histories(self.adjacency.indptr, self.adjacency.indices).places(users)
        watched = self.adjacency.indices[places].long()
        kept = torch.ones_like(places, dtype=torch.bool)
        if share:
            kept = torch.rand(len(places), device=users.device) >= share
        if edges is not None:
            kept &= ~torch.isin(places, self._places(*edges))
        if items is not None:
            kept &= ~items[watched]
        before = torch.cat([kept.new_zeros(1, dtype=torch.int64), kept.cumsum(0)])
        return Histories(before[borders], watched[kept])

    @cached_property
    def _keys(self) -> Tensor:
        counts = (self.adjacency.indptr[1:] - self.adjacency.indptr[:-1]).long()
        users = torch.arange(self.num_users, device=counts.device).repeat_interleave(counts)
        return users * self.num_items + self.adjacency.indices

    def _places(self, users: Tensor, items: Tensor) -> Tensor:
        return torch.searchsorted(self._keys, users * self.num_items + items)


class _ThinnedGraph(Neighbourhoods):
    """A graph less some edges, for one step.

    Args:
        to_users: (U, N), CSR.
        to_items: Its transpose, CSR.
    """

    def __init__(self, to_users: Tensor, to_items: Tensor) -> None:
        self.to_users, self.to_items = to_users, to_items
        ones = to_users.values().new_ones
        self.user_degrees = to_users @ ones(to_users.shape[1], 1)
        self.item_degrees = to_items @ ones(to_items.shape[1], 1)

    def sum_to_users(self, items: Float[Tensor, "num_items dim"]) -> Float[Tensor, "num_users dim"]:
        """Return, for each user, the sum over the items it watched."""
        return _multiply(self.to_users, self.to_items, items)

    def sum_to_items(self, users: Float[Tensor, "num_users dim"]) -> Float[Tensor, "num_items dim"]:
        """Return, for each item, the sum over its users."""
        return _multiply(self.to_items, self.to_users, users)
