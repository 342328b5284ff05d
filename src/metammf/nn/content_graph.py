"""Graphs of the items that are alike in one modality, and where an item that is new stands in them.

N known items, B new ones, F feature width, D width of what is propagated, k neighbours. With S_ij = cos(f_i, f_j), negative ones
set to zero, or 1 throughout, where j is one of the k nearest items of i, itself among them, and 0 elsewhere, a graph is
D^-1/2 S D^-1/2 with D_ii = sum_j S_ij. A new item is a further row: it finds its k nearest among the known ones, and none of
them finds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from metammf.nn.edge_weights import entry_products, weighted_product
from metammf.nn.graph import SparseMatrix
from metammf.nn.item_graph import BLOCK, half_directions, nearest, nearest_known, normalized_graph

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

_NOTHING = 1e-12
"""A row sum that is none: below what rounding leaves of an item's cosine with itself."""


def has_direction(features: Float[Tensor, "batch width"], present: Bool[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
    """Return which items can be compared: a row of zeros is no nearer to one item than to another."""
    return present & features.ne(0).any(1)


def _strengths(found: Tensor, cosines: Tensor, *, weighted: bool) -> Tensor:
    strengths = cosines.clamp(min=0) if weighted else torch.ones_like(cosines)
    return strengths.masked_fill(found < 0, 0)


def _inverse_root(degrees: Tensor) -> Tensor:
    # An item that is like nobody has no row; the clamp keeps the gradient of the other branch a number.
    return torch.where(degrees > _NOTHING, degrees.clamp(min=_NOTHING).rsqrt(), 0)


def _rows_of_new(
    found: Int[Tensor, "new k"],
    strengths: Float[Tensor, "new k"],
    degrees: Float[Tensor, " items"],
    x: Float[Tensor, "items dim"],
) -> Float[Tensor, "new dim"]:
    found = found.clamp(min=0)  # of nobody, with a strength of zero
    weights = _inverse_root(strengths.sum(1, keepdim=True)) * strengths * _inverse_root(degrees)[found]
    return torch.einsum("bk,bkd->bd", weights, x[found])


class ContentGraph(nn.Module):
    """Who is like whom by features that do not change, so that the graph does not either.

    Known items keep their directions in half precision, which moves a cosine by less than 0.001, for the items that come
    later; the graph itself is built of the features as given.

    Args:
        features: One row an item.
        members: Items that may be neighbours; the others have an empty row.
        num_neighbours: k.
        weighted: Whether S holds cosines or ones.

    Attributes:
        members: Those that have a direction.
    """

    directions: Tensor
    members: Tensor
    degrees: Tensor

    def __init__(
        self,
        features: Float[Tensor, "items width"],
        members: Bool[Tensor, " items"],
        num_neighbours: int,
        *,
        weighted: bool,
    ) -> None:
        super().__init__()
        self.num_neighbours, self.weighted = num_neighbours, weighted
        members = has_direction(features, members)
        found, cosines = nearest(features, num_neighbours, present=members, include_self=True, block=BLOCK)
        self.adjacency = SparseMatrix(normalized_graph(found, cosines, weighted=weighted))
        self.register_buffer("directions", half_directions(features, members))
        self.register_buffer("members", members)
        self.register_buffer("degrees", _strengths(found, cosines, weighted=weighted).sum(1))

    def forward(self, x: Float[Tensor, "items dim"]) -> Float[Tensor, "items dim"]:
        """Return each item's sum over its neighbours."""
        return self.adjacency(x)

    def of_new(
        self,
        features: Float[Tensor, "new width"],
        present: Bool[Tensor, " new"],
        x: Float[Tensor, "items dim"],
    ) -> Float[Tensor, "new dim"]:
        """Return the same for items that are new, by the vectors `x` of the known ones."""
        found, cosines = nearest_known(
            features, self.directions, self.num_neighbours, new_present=present, known_present=self.members, block=BLOCK
        )
        return _rows_of_new(found, _strengths(found, cosines, weighted=self.weighted), self.degrees, x)


@dataclass(frozen=True)
class Weights:
    """Entries of a learned graph: strengths in the places of a pattern, and what both sides are scaled by.

    Args:
        pattern: The places.
        strengths: (E,), S in row order.
        scale: (N, 1), the inverse roots of the row sums.
    """

    pattern: SparseMatrix
    strengths: Tensor
    scale: Tensor

    def propagate(self, x: Float[Tensor, "items dim"]) -> Float[Tensor, "items dim"]:
        """Return each item's sum over its neighbours, with gradients for the strengths and for x."""
        return self.scale * weighted_product(self.pattern, self.strengths, self.scale * x)


class LearnedGraph(nn.Module):
    """Who is like whom by vectors that are learned.

    Which items are the nearest is found anew by `rebuild`; how near they are follows the vectors at each call, with gradient.

    Args:
        num_items: N.
        dim: Width of the vectors.
        num_neighbours: k.
    """

    directions: Tensor
    degrees: Tensor

    def __init__(self, num_items: int, dim: int, num_neighbours: int) -> None:
        super().__init__()
        self.num_neighbours = num_neighbours
        self.pattern: SparseMatrix | None = None
        self.register_buffer("directions", torch.zeros(num_items, dim))
        self.register_buffer("degrees", torch.zeros(num_items))

    @torch.no_grad()
    def rebuild(self, vectors: Float[Tensor, "items width"], members: Bool[Tensor, " items"]) -> None:
        """Find the nearest items of each member."""
        found, _ = nearest(vectors, self.num_neighbours, present=members, include_self=True, block=BLOCK)
        rows, places = np.nonzero(found.cpu().numpy() >= 0)
        columns = found.cpu().numpy()[rows, places]
        ones = np.ones(len(rows), dtype=np.float32)
        pattern = sparse.csr_array((ones, (rows, columns)), (len(found), len(found)))
        self.pattern = SparseMatrix(pattern).to(vectors.device)

    def forward(self, vectors: Float[Tensor, "items width"]) -> Weights:
        """Return the graph's entries; outside training also note what a new item will be held against."""
        assert self.pattern is not None  # rebuilt before
        unit = functional.normalize(vectors.float(), dim=1)
        strengths = entry_products(self.pattern, unit, unit).clamp(min=0)
        degrees = weighted_product(self.pattern, strengths, unit.new_ones(len(unit), 1))
        if not self.training:
            self.directions.copy_(unit.detach())
            self.degrees.copy_(degrees.detach().squeeze(1))
        return Weights(self.pattern, strengths, _inverse_root(degrees))

    def of_new(
        self,
        vectors: Float[Tensor, "new width"],
        present: Bool[Tensor, " new"],
        members: Bool[Tensor, " items"],
        x: Float[Tensor, "items dim"],
    ) -> Float[Tensor, "new dim"]:
        """Return the sums over the neighbours of items that are new, by the vectors `x` of the known ones."""
        found, cosines = nearest_known(
            vectors, self.directions, self.num_neighbours, new_present=present, known_present=members, block=BLOCK
        )
        return _rows_of_new(found, _strengths(found, cosines, weighted=True), self.degrees, x)


def shares(weights: Float[Tensor, " modalities"], present: Bool[Tensor, "batch modalities"]) -> Tensor:
    """Return the weights of the modalities that each item has, scaled to a sum of one; zeros where it has none."""
    kept = weights * present
    total = kept.sum(1, keepdim=True)
    return torch.where(total > 0, kept / total.clamp(min=torch.finfo(kept.dtype).tiny), 0)
