"""Reading feature matrices: floats, finite, one row an item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from metammf.data.readers.arrays import read_npy
from metammf.errors import FileFormatError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

_CHUNK_BYTES = 32 << 20


def read_features(path: Path | str, rows: int | None = None) -> NDArray[Any]:
    """Memory-map a feature matrix and read every value of it once.

    float16 and float32 stay as they are, on disk; other numbers come as float32 in memory.

    Args:
        path: An `.npy` file.
        rows: How many items there are, where that is known already.

    Raises:
        FileFormatError: it is no whole `.npy` file, not of shape (rows, width), or a value is NaN, infinite or beyond float32.
    """
    return as_features(read_npy(path), path, rows)


def as_features(matrix: NDArray[Any], path: Path | str, rows: int | None = None) -> NDArray[Any]:
    """Return a matrix as features are kept, after it has been held against what they must be; `path` is for messages.

    Raises:
        FileFormatError: see `read_features`.
    """
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiub" or matrix.shape[1] == 0:
        wanted = f"numbers of shape ({'rows' if rows is None else rows}, width)"
        raise FileFormatError(path, f"holds {matrix.dtype} of shape {matrix.shape}", wanted)
    if rows is not None and len(matrix) != rows:
        raise FileFormatError(path, f"has {len(matrix)} rows", f"{rows}, one an item")
    if matrix.dtype.kind == "f":
        _refuse_infinite(matrix, path)
    if matrix.dtype in (np.float16, np.float32) and matrix.dtype.isnative:
        return matrix
    with np.errstate(over="ignore"):
        converted = np.asarray(matrix, dtype=np.float32)
    if matrix.dtype.kind == "f":
        _refuse_infinite(converted, path, matrix)
    return converted


def _refuse_infinite(matrix: NDArray[Any], path: Path | str, before: NDArray[Any] | None = None) -> None:
    """Refuse what is not finite, or, given the finite numbers `before` they became float32, what did not fit."""
    step = max(1, _CHUNK_BYTES // (matrix.shape[1] * matrix.itemsize))
    for start in range(0, len(matrix), step):
        finite = np.isfinite(np.asarray(matrix[start : start + step]))
        if not finite.all():
            row, column = (int(axis[0]) for axis in np.nonzero(~finite))
            value = (matrix if before is None else before)[start + row, column]
            expected = "finite numbers" if before is None else "numbers that single precision holds"
            raise FileFormatError(path, f"row {start + row}, column {column} (from 0) is {value}", expected)


def in_usual_order(names: Iterable[str]) -> list[str]:
    """Return modality names with visual, acoustic and textual first, the others by name."""
    usual = {"visual": 0, "acoustic": 1, "textual": 2}
    return sorted(names, key=lambda name: (usual.get(name, len(usual)), name))
