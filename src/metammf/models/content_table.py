"""Rows of the item features as tensors, on the device where they are asked for."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from metammf.nn.content import Content

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from metammf.data.features import ItemFeatures

RESIDENT_BYTES = 1 << 30
"""Features up to this size are kept as tensors; beyond it, rows are read from the memory map as they are needed."""


class ContentTable:
    """Read rows of `features`, in their own precision on disk and in float32 when given out.

    Args:
        features: One row an item.
    """

    def __init__(self, features: ItemFeatures) -> None:
        self.features = features
        self._resident: dict[torch.device, Content] = {}

    def rows(self, items: Tensor) -> Content:
        """Return the content of these items (int64, shape (B,)) on their device."""
        if not len(items):  # nothing need be brought into memory
            return content_of(self.features.select(np.zeros(0, dtype=np.int64))).map(lambda part: part.to(items.device))
        if self._size() <= RESIDENT_BYTES:
            table = self._table(items.device)
            return Content(
                {name: value[items].float() for name, value in table.values.items()},
                {name: mask[items] for name, mask in table.present.items()},
            )
        chosen = items.cpu().numpy()
        return content_of(self.features.select(chosen)).map(lambda tensor: tensor.to(items.device))

    def _size(self) -> int:
        return sum(matrix.nbytes for matrix in self.features.matrices.values())

    def _table(self, device: torch.device) -> Content:
        if device not in self._resident:
            table = content_of(self.features, full_precision=False)
            self._resident[device] = table.map(lambda tensor: tensor.to(device))
        return self._resident[device]


def content_of(features: ItemFeatures, *, full_precision: bool = True) -> Content:
    """Return all rows of `features` as tensors, in float32 unless told otherwise."""
    values = {name: _tensor(matrix) for name, matrix in features.matrices.items()}
    if full_precision:
        values = {name: value.float() for name, value in values.items()}
    return Content(values, {name: torch.from_numpy(np.array(mask)) for name, mask in features.present.items()})


def _tensor(matrix: NDArray[Any]) -> Tensor:
    with warnings.catch_warnings():
        # The memory map is read-only and stays so: nothing here writes to the tensor.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(matrix))
