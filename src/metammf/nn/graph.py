"""The user-item graph as a binary matrix in CSR form, with its transpose at hand.

U users, N items, D width. Row and column scalings (mean, symmetric) are applied to the dense side, so that one binary
matrix and its transpose serve every normalisation, in both directions, forward and backward.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
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


class Pattern:
    """The places of a sparse matrix's entries, in row order, and where its transpose has them.

    Attributes:
        shape: (rows, columns).
        indptr: Where each row begins, CSR.
        indices: Column of each entry.
        transposed_indptr: Where each row of the transpose begins.
        transposed_indices: Column of each entry of the transpose.
        order: Which entry of the matrix each entry of the transpose is.
    """

    shape: tuple[int, int]
    indptr: Tensor
    indices: Tensor
    transposed_indptr: Tensor
    transposed_indices: Tensor
    order: Tensor

    def matrix_of(self, data: Float[Tensor, " entries"]) -> Tensor:
        """Return the matrix with these values in its entries, CSR."""
        return torch.sparse_csr_tensor(self.indptr, self.indices, data, size=self.shape, check_invariants=False)

    def transpose_of(self, data: Float[Tensor, " entries"]) -> Tensor:
        """Return the transpose with values that come in the order of the transpose, CSR."""
        return torch.sparse_csr_tensor(
            self.transposed_indptr, self.transposed_indices, data, size=self.shape[::-1], check_invariants=False
        )

    def reweighted(self, data: Float[Tensor, " entries"]) -> tuple[Tensor, Tensor]:
        """Return the matrix with other values in its entries, in row order, and its transpose, both in CSR form."""
        return self.matrix_of(data), self.transpose_of(data[self.order])


class SparseMatrix(nn.Module, Pattern):
    """A constant sparse matrix and its transpose, as buffers that follow the module to a device.

    Args:
        matrix: Shape (rows, columns).
    """

    data: Tensor
    transposed_data: Tensor

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

    def forward(self, x: Float[Tensor, "columns dim"]) -> Float[Tensor, "rows dim"]:
        """Return the product with `x`."""
        return _multiply(self.matrix_of(self.data), self.transpose_of(self.transposed_data), x)

    def transposed(self, x: Float[Tensor, "rows dim"]) -> Float[Tensor, "columns dim"]:
        """Return the product of the transpose with `x`."""
        return _multiply(self.transpose_of(self.transposed_data), self.matrix_of(self.data), x)


@dataclass(frozen=True)
class Edges(Pattern):
    """The edges of a graph from one side: a row a node that receives, a column a node that sends. E edges.

    Args:
        shape, indptr, indices, transposed_indptr, transposed_indices, order: See `Pattern`.
        rows: Row of each edge, (E,).
        kept: (E,): False for an edge that this step leaves out; None where there are all.
    """

    shape: tuple[int, int]
    indptr: Tensor
    indices: Tensor
    transposed_indptr: Tensor
    transposed_indices: Tensor
    order: Tensor
    rows: Tensor
    kept: Tensor | None = None


def edges_of(matrix: SparseMatrix) -> tuple[Edges, Edges]:
    """Return the entries of a matrix as edges that its rows receive, and as edges that its columns receive."""
    ours = matrix.indptr, matrix.indices
    theirs = matrix.transposed_indptr, matrix.transposed_indices
    inverse = torch.empty_like(matrix.order)
    inverse[matrix.order] = torch.arange(len(inverse), device=inverse.device)
    # The column of an entry of the transpose is the row of the same entry of the matrix.
    return (
        Edges(matrix.shape, *ours, *theirs, matrix.order, matrix.transposed_indices[inverse]),
        Edges(matrix.shape[::-1], *theirs, *ours, inverse, matrix.indices[matrix.order]),
    )


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

    @abstractmethod
    def edges(self) -> tuple[Edges, Edges]:
        """Return the edges that users receive from items, and those that items receive from users."""

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
        return self.symmetric_to_users(items), item_scale * self.sum_to_items(user_scale * users)

    def symmetric_to_users(self, items: Float[Tensor, "num_items dim"]) -> Float[Tensor, "num_users dim"]:
        """Return the users' part of `symmetric_neighbours` alone."""
        return self._scale(self.user_degrees) * self.sum_to_users(self._scale(self.item_degrees) * items)


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
        self._edges: dict[torch.device, tuple[Edges, Edges]] = {}
        for name, axis in (("user_degrees", 1), ("item_degrees", 0)):
            degrees = torch.as_tensor(matrix.sum(axis=axis), dtype=torch.float32).reshape(-1, 1)
            self.register_buffer(name, degrees, persistent=False)

    @classmethod
    def of_histories(cls, histories: Histories, num_items: int) -> BipartiteGraph:
        """Return the graph of users who watched these, and of `num_items` items."""
        items, indptr = histories.items.cpu().numpy(), histories.indptr.cpu().numpy()
        ones = np.ones(len(items), dtype=np.float32)
        matrix = sparse.csr_array((ones, items, indptr), shape=(len(histories), num_items))
        return cls(matrix).to(histories.items.device)

    def _apply(self, *arguments: Any, **options: Any) -> Self:
        # Made anew of what the buffers have been moved or cast to.
        self._symmetric.clear()
        self._edges.clear()
        return super()._apply(*arguments, **options)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def sum_to_users(self, items: Float[Tensor, "num_items dim"]) -> Float[Tensor, "num_users dim"]:
        """Return, for each user, the sum over the items it watched."""
        return self.adjacency(items)

    def sum_to_items(self, users: Float[Tensor, "num_users dim"]) -> Float[Tensor, "num_items dim"]:
        """Return, for each item, the sum over its users."""
        return self.adjacency.transposed(users)

    def edges(self) -> tuple[Edges, Edges]:
        """Return the edges that users receive from items, and those that items receive from users."""
        device = self.adjacency.data.device
        if device not in self._edges:
            self._edges[device] = edges_of(self.adjacency)
        return self._edges[device]

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
        return _ThinnedGraph(*self.adjacency.reweighted(kept), self)

    def pruned(self, count: int, generator: torch.Generator) -> BipartiteGraph:
        """Return the graph of some of its edges, degrees counted anew.

        Edges are drawn one after another, each time in proportion to 1 / sqrt(degree * degree) among those that are left, so
        that an edge between popular nodes is the likelier to go (Zhou and Shen, FREEDOM, MM 2023).

        Args:
            count: Edges to keep.
            generator: Of the draws.
        """
        counts = (self.adjacency.indptr[1:] - self.adjacency.indptr[:-1]).long()
        user_roots, item_roots = (degrees.flatten().sqrt() for degrees in (self.user_degrees, self.item_degrees))
        roots = user_roots.repeat_interleave(counts) * item_roots[self.adjacency.indices.long()]
        # The first to come of exponential arrivals at these rates: the same distribution, for any number of edges.
        arrivals = torch.empty_like(roots).exponential_(generator=generator) * roots
        kept = arrivals.topk(count, largest=False, sorted=False).indices
        users = torch.arange(self.num_users, device=counts.device).repeat_interleave(counts)[kept]
        ends = users.cpu().numpy(), self.adjacency.indices[kept].cpu().numpy()
        matrix = sparse.csr_array((np.ones(count, np.float32), ends), shape=self.adjacency.shape)
        return BipartiteGraph(matrix).to(counts.device)

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
        to_users: (U, N), CSR, zero in the places of the edges that are left out.
        to_items: Its transpose, CSR.
        whole: The graph with all its edges.
    """

    def __init__(self, to_users: Tensor, to_items: Tensor, whole: BipartiteGraph) -> None:
        self.to_users, self.to_items, self.whole = to_users, to_items, whole
        ones = to_users.values().new_ones
        self.user_degrees = to_users @ ones(to_users.shape[1], 1)
        self.item_degrees = to_items @ ones(to_items.shape[1], 1)

    def sum_to_users(self, items: Float[Tensor, "num_items dim"]) -> Float[Tensor, "num_users dim"]:
        """Return, for each user, the sum over the items it watched."""
        return _multiply(self.to_users, self.to_items, items)

    def sum_to_items(self, users: Float[Tensor, "num_users dim"]) -> Float[Tensor, "num_items dim"]:
        """Return, for each item, the sum over its users."""
        return _multiply(self.to_items, self.to_users, users)

    def edges(self) -> tuple[Edges, Edges]:
        """Return the edges of the whole graph from both sides, marked where they are left out."""
        to_users, to_items = self.whole.edges()
        return (
            replace(to_users, kept=self.to_users.values() != 0),
            replace(to_items, kept=self.to_items.values() != 0),
        )
