"""The k largest of each row where many are equal: the first of them, on every device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

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
