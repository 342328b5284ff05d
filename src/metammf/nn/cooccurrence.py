"""Which items are watched by the same users. U users, N items, S neighbours of an item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from metammf.nn.selection import largest_of_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Float, Int
    from numpy.typing import NDArray

_BLOCK_CELLS = 1 << 21
"""Co-occurrences that are held at a time: about 250 MB with all that is made of them."""


def cooccurrence_neighbours(matrix: sparse.csr_array, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    r"""Return each item's strongest neighbours in the item-item graph of UltraGCN.

    With G = X^T X and g_i = sum_k G_ik, the strength of j for i is

    .. math:: \omega_{ij} = \frac{G_{ij}}{g_i - G_{ii}} \sqrt{\frac{g_i}{g_j}}, \quad j \ne i

    G is made some rows at a time and never whole: rows of popular items are nearly full.

    Source: Mao et al., *UltraGCN*, CIKM 2021, section 3.2.2.

    Args:
        matrix: Binary user-item matrix X, (U, N).
        count: Neighbours S of an item.

    Returns:
        Neighbours (N, S), the strongest first, the lower index where two are equal; and their strengths (N, S). An item with
        fewer neighbours is its own in the places that are left, with a strength of zero.
    """
    num_items = int(matrix.shape[1])
    by_item = sparse.csr_array(matrix.T)
    watched = np.asarray(matrix.sum(axis=0), dtype=np.float64).ravel()  # G_ii
    totals = by_item @ np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel()  # g
    neighbours = np.repeat(np.arange(num_items)[:, None], count, axis=1)
    strengths = np.zeros((num_items, count), dtype=np.float32)
    for start, stop in _blocks(np.minimum(totals, num_items)):
        cells = sparse.coo_array(by_item[start:stop] @ matrix)
        row, column = cells.row.astype(np.int64), cells.col.astype(np.int64)
        other = column != row + start
        row, column, times = row[other], column[other], cells.data[other].astype(np.float64)
        item = row + start
        strength = times / (totals[item] - watched[item]) * np.sqrt(totals[item] / totals[column])
        every = sparse.csr_array((strength, (row, column)), shape=(stop - start, num_items))
        found = largest_of_rows(every, count).tocoo()
        order = np.lexsort((found.col, -found.data, found.row))
        rows = found.row[order]
        place = np.arange(len(rows)) - np.searchsorted(rows, rows)
        neighbours[rows + start, place] = found.col[order]
        strengths[rows + start, place] = found.data[order]
    return neighbours, strengths


def _blocks(sizes: NDArray[Any]) -> Iterator[tuple[int, int]]:
    """Yield ranges of rows that have together no more cells than may be held, or are one row."""
    borders = np.concatenate([[0], np.cumsum(sizes)])
    start = 0
    while start < len(sizes):
        stop = int(np.searchsorted(borders, borders[start] + _BLOCK_CELLS, side="right")) - 1
        stop = min(max(stop, start + 1), len(sizes))
        yield start, stop
        start = stop


class CooccurrenceGraph(nn.Module):
    """The strongest neighbours of every item, as buffers that follow the module to a device.

    Args:
        matrix: Binary user-item matrix, (U, N).
        count: Neighbours S of an item.
    """

    neighbours: Tensor
    strengths: Tensor

    def __init__(self, matrix: sparse.csr_array, count: int) -> None:
        super().__init__()
        neighbours, strengths = cooccurrence_neighbours(matrix, count)
        self.register_buffer("neighbours", torch.from_numpy(neighbours), persistent=False)
        self.register_buffer("strengths", torch.from_numpy(strengths), persistent=False)

    def loss(self, items: Int[Tensor, " batch"], scores: Float[Tensor, "batch count"]) -> Float[Tensor, " batch"]:
        """Return -sum over j of omega_ij log sigmoid(score_uj), from the scores of these items' neighbours."""
        return (self.strengths[items] * functional.softplus(-scores)).sum(1)
