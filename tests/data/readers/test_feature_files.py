from __future__ import annotations

import numpy as np
import pytest

from metammf.data.readers.features import in_usual_order, read_features
from metammf.errors import FileFormatError


def save(folder, matrix):
    np.save(folder / "a.npy", matrix)
    return folder / "a.npy"


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_usual_floats_stay_on_disk(tmp_path, dtype):
    read = read_features(save(tmp_path, np.ones((3, 2), dtype=dtype)), 3)
    assert isinstance(read, np.memmap)
    assert read.dtype == dtype


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.uint8, np.bool_, ">f4"])
def test_other_numbers_become_float32(tmp_path, dtype):
    read = read_features(save(tmp_path, np.array([[1, 0], [0, 1]], dtype=dtype)))
    assert read.dtype == np.float32
    assert read.dtype.isnative
    assert read.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(tmp_path, value):
    matrix = np.zeros((5, 3), dtype=np.float32)
    matrix[3, 1] = value
    with pytest.raises(FileFormatError, match=r"a\.npy: row 3, column 1 .from 0. is (nan|-?inf); expected finite"):
        read_features(save(tmp_path, matrix))


def test_what_overflows_float32_is_refused(tmp_path):
    with pytest.raises(
        FileFormatError, match=r"row 1, column 0 .from 0. is -1e\+300; expected numbers that single precision holds"
    ):
        read_features(save(tmp_path, np.array([[0.0], [-1e300]])))


@pytest.mark.parametrize(
    ("matrix", "rows", "message"),
    [
        (np.zeros((3, 2)), 4, "has 3 rows; expected 4, one an item"),
        (np.zeros(3), None, r"holds float64 of shape \(3,\)"),
        (np.zeros((3, 0)), None, r"of shape \(3, 0\)"),
        (np.array([["a"]]), None, "holds <U1"),
    ],
)
def test_other_shapes_are_refused(tmp_path, matrix, rows, message):
    with pytest.raises(FileFormatError, match=message):
        read_features(save(tmp_path, matrix), rows)


def test_the_usual_order():
    names = ["whisper", "textual", "acoustic", "audio2", "visual"]
    assert in_usual_order(names) == ["visual", "acoustic", "textual", "audio2", "whisper"]
