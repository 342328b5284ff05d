"""The k largest of each row where many are equal: the first of them, on every device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


def exactly_top(values: Float[torch.Tensor, "rows columns"], k: int) -> Bool[torch.Tensor, "rows columns"]:
    """Mark the k largest of each row and no more; of equal ones, those of lower index. -inf is never marked.

    Args:
        values: No NaN among them.
        k: At most the number of columns.
    """
    last = values.topk(k, dim=1).values[:, -1:]
    above = values > last
    level = (values == last) & (values > -torch.inf)
    room = k - above.sum(dim=1, keepdim=True)
    return above | (level & (level.cumsum(dim=1, dtype=torch.int32) <= room))


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
