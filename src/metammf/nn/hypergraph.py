"""Second-order neighbours by hyperedges, never written out as a graph. U users, N items, M modalities, D width, k neighbours.

With an incidence matrix H of nodes x hyperedges, two nodes are neighbours by as many hyperedges as they share: A = H H^T. A
popular hyperedge of n nodes would make n^2 entries of A; here A x is computed as H (H^T x), in time of the entries of H.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scipy import sparse
from torch import Tensor, nn

from metammf.nn.content import modality_key
from metammf.nn.graph import SparseMatrix
from metammf.nn.item_graph import half_directions, nearest, nearest_known

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from metammf.nn.content import Content
    from metammf.nn.graph import BipartiteGraph


class SharedItems(nn.Module):
    """Users as nodes, each item a hyperedge of those who watched it: the mean over the others, by the items that are shared.

    A = H H^T without its diagonal, each row divided by its sum.

    Args:
        graph: Who watched what.
    """

    shared: Tensor

    def __init__(self, graph: BipartiteGraph) -> None:
        super().__init__()
        self.graph = graph
        shared = graph.sum_to_users(graph.item_degrees) - graph.user_degrees
        self.register_buffer("shared", shared, persistent=False)

    @property
    def connected(self) -> Bool[Tensor, " num_users"]:
        """Users who share an item with somebody."""
        return self.shared.flatten() > 0

    def forward(self, x: Float[Tensor, "num_users dim"]) -> Float[Tensor, "num_users dim"]:
        """Return each user's mean over the others; zero for a user who shares nothing."""
        total = self.graph.sum_to_users(self.graph.sum_to_items(x)) - self.graph.user_degrees * x
        # Where nothing is shared the difference of two equal numbers is left, and it is not zero.
        return torch.where(self.shared > 0, total / self.shared.clamp(min=1), 0)


class SimilarItems(nn.Module):
    """Items as nodes, and in each modality a hyperedge an item: those that have it among their k nearest, itself among them.

    A = H H^T with H = [H^1 | ... | H^M], then D^-1/2 A D^-1/2 with D the row sums. Known items keep their directions in half
    precision, which moves a cosine by less than 0.001, for the items that come later; H itself is made of the features as given.

    Args:
        content: Features of the N items.
        known: Items that take part; the others have empty rows, and no hyperedge.
        num_neighbours: k.
    """

    degrees: Tensor
    sizes: Tensor

    def __init__(self, content: Content, known: Bool[Tensor, " num_items"], num_neighbours: int) -> None:
        super().__init__()
        self.num_neighbours, self.modalities = num_neighbours, content.modalities
        parts = []
        for name in self.modalities:
            values, present = content.values[name], content.present[name] & known
            found, cosines = nearest(values, num_neighbours, present=present, include_self=True)
            parts.append(_incidence(found, cosines))
            self.register_buffer(f"directions_{modality_key(name)}", half_directions(values, present))
            self.register_buffer(f"present_{modality_key(name)}", present & values.ne(0).any(1))
        self.incidence = SparseMatrix(sparse.csr_array(sparse.hstack(parts)))
        ones = torch.ones(len(known), 1)
        self.register_buffer("sizes", self.incidence.transposed(ones))
        self.register_buffer("degrees", self.incidence(self.sizes), persistent=False)

    @property
    def connected(self) -> Bool[Tensor, " num_items"]:
        """Items that are in a hyperedge."""
        return self.degrees.flatten() > 0

    def edge_sums(self, x: Float[Tensor, "num_items dim"]) -> Float[Tensor, "edges dim"]:
        """Return H^T D^-1/2 x: what each hyperedge, modality after modality, gives to its items."""
        return self.incidence.transposed(_inverse_root(self.degrees) * x)

    def forward(self, x: Float[Tensor, "num_items dim"]) -> Float[Tensor, "num_items dim"]:
        """Return D^-1/2 H H^T D^-1/2 x."""
        return _inverse_root(self.degrees) * self.incidence(self.edge_sums(x))

    def of_new(self, content: Content, edge_sums: Float[Tensor, "edges dim"]) -> Float[Tensor, "new dim"]:
        """Return the same for items that are further rows of H, in the hyperedges of their k nearest known items.

        Args:
            content: Of the new items.
            edge_sums: Of the known ones.
        """
        total = edge_sums.new_zeros(len(next(iter(content.present.values()))), edge_sums.shape[1])
        degrees = total.new_zeros(len(total), 1)
        count = len(edge_sums) // len(self.modalities)
        for place, name in enumerate(self.modalities):
            found, cosines = nearest_known(
                content.values[name],
                getattr(self, f"directions_{modality_key(name)}"),
                self.num_neighbours,
                new_present=content.present[name],
                known_present=getattr(self, f"present_{modality_key(name)}"),
            )
            joined = ((found >= 0) & (cosines > 0)).to(total.dtype)
            edges = found.clamp(min=0) + place * count
            total = total + torch.einsum("bk,bkd->bd", joined, edge_sums[edges])
            degrees = degrees + torch.einsum("bk,bkd->bd", joined, self.sizes[edges])
        return _inverse_root(degrees) * total


def _incidence(found: Tensor, cosines: Tensor) -> sparse.csr_array:
    """Row i has ones at i's nearest; an item that points the other way is none."""
    rows, places = ((found >= 0) & (cosines > 0)).nonzero(as_tuple=True)
    columns = found[rows, places]
    shape = (len(found), len(found))
    return sparse.csr_array((torch.ones(len(rows)).numpy(), (rows.numpy(), columns.numpy())), shape=shape)


def _inverse_root(degrees: Tensor) -> Tensor:
    return torch.where(degrees > 0, degrees.clamp(min=1).rsqrt(), 0)
