"""ItemKNN: the items whose users are the same. U users, N items.

Sources: Sarwar et al., *Item-based Collaborative Filtering Recommendation Algorithms*, WWW 2001 (cosine, the most similar kept);
Deshpande and Karypis, *Item-based Top-N Recommendation Algorithms*, TOIS 22(1), 2004 (users' rows brought to unit length first);
Ferrari Dacrema et al., *Are We Really Making Much Progress?*, RecSys 2019 (the shrink term in the cosine's denominator, with
which it is a strong baseline).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field
from scipy import sparse

from metammf.models.base import Scorer, SolvedModel
from metammf.models.config import ModelConfig, Search
from metammf.models.scorers import NeighbourScorer, csr_of, csr_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

_PATHS_AT_ONCE = 1 << 24
"""Pairs of interactions of one user that a block goes through, which bounds the entries of its product: 256 MB of them."""


class ItemKNNConfig(ModelConfig):
    """Settings of ItemKNN."""

    name: Literal["itemknn"] = "itemknn"
    num_neighbours: Annotated[int, Field(ge=1), Search(5, 1000, log=True)] = 100
    """Most similar items that are kept of each item."""
    shrink: Annotated[float, Field(ge=0), Search(1, 1000, log=True)] = 100.0
    """Added to the cosine's denominator, so that a similarity that few users speak for counts less."""
    normalize_users: bool = True
    """Whether each user's row has unit length first, so that one who watches everything tells little of what is alike."""


class ItemKNN(SolvedModel):
    """score(u, i) = sum of s_ij over the j that u has watched among the k most similar to i.

    s_ij = y_i . y_j / (|y_i| |y_j| + shrink), with y_i the column of item i in the train matrix, whose rows have unit length
    where `normalize_users` says so; in float64, rounded to float32, and equal ones, the lower index first. An item without a
    train interaction has no neighbours and scores zero.
    """

    config_type = ItemKNNConfig

    def solve(self) -> dict[str, Tensor]:
        """Find the neighbours of each item, a block of items at a time."""
        weights = np.maximum(self.train.user_counts, 1) ** (-0.5 if self.config.normalize_users else 0.0)
        Y = sparse.csr_array(sparse.diags_array(weights) @ self.train.matrix)
        by_item = Y.T.tocsr()
        lengths = np.sqrt(by_item.multiply(by_item).sum(axis=1))
        paths = self.train.matrix.T @ self.train.user_counts
        blocks = [self._block(by_item[items] @ Y, lengths, items) for items in _blocks(paths)]
        return csr_state(sparse.vstack(blocks, format="csr"))

    def _block(
        self, products: sparse.csr_array, lengths: NDArray[np.float64], items: NDArray[np.int64]
    ) -> sparse.csr_array:
        shared = products.tocoo()
        rows, columns = shared.coords
        others = columns != items[rows]
        rows, columns = rows[others], columns[others]
        scale = lengths[items[rows]] * lengths[columns] + self.config.shrink
        values = (shared.data[others] / scale).astype(np.float32)
        near = sparse.csr_array((values, (rows, columns)), shape=shared.shape)
        return largest_of_rows(near, self.config.num_neighbours)

    def scorer(self, state: Mapping[str, Tensor]) -> Scorer:
        """Return the finished scorer."""
        return NeighbourScorer(self.train.matrix, csr_of(state, self.num_items))


def _blocks(paths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield runs of items that have about so many paths together, but one item at least."""
    group = np.cumsum(paths) // _PATHS_AT_ONCE
    yield from np.split(np.arange(len(paths)), np.flatnonzero(np.diff(group)) + 1)


def largest_of_rows(matrix: sparse.csr_array, k: int) -> sparse.csr_array:
    """Return the k largest stored entries of each row; of equal ones, those of lower column.

    A row at a time: each is one partition, and a sort of all entries takes many times as long.
    """
    matrix.sort_indices()
    kept = np.ones(matrix.nnz, dtype=np.bool_)
    for row in np.flatnonzero(np.diff(matrix.indptr) > k):
        inside = slice(matrix.indptr[row], matrix.indptr[row + 1])
        values = matrix.data[inside]
        last = np.partition(values, -k)[-k]
        kept[inside] = values > last
        level = np.flatnonzero(values == last)
        kept[inside][level[: k - int(kept[inside].sum())]] = True
    ends = np.concatenate([[0], np.cumsum(kept)])[matrix.indptr]
    return sparse.csr_array((matrix.data[kept], matrix.indices[kept], ends), shape=matrix.shape)
