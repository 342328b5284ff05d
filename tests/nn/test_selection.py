"""Which of many equal values are taken."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import sparse

from metammf.nn.selection import exactly_top, largest_of_rows

VALUES = st.sampled_from([-float("inf"), -1.0, 0.0, 2.0])


@given(st.lists(VALUES, min_size=1, max_size=9), st.integers(1, 9))
def test_the_first_of_equal_ones(row: list[float], k: int) -> None:
    k = min(k, len(row))
    best = sorted(range(len(row)), key=lambda place: (-row[place], place))[:k]
    expected = [place in best and row[place] > -float("inf") for place in range(len(row))]
    assert exactly_top(torch.tensor([row]), k)[0].tolist() == expected


@given(
    npst.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 8)), elements=st.integers(0, 3).map(float)),
    st.integers(1, 9),
)
def test_largest_of_rows(dense: np.ndarray, k: int) -> None:
    expected = np.zeros_like(dense)
    for row, values in enumerate(dense):
        for column in sorted(np.flatnonzero(values), key=lambda column: (-values[column], column))[:k]:
            expected[row, column] = values[column]
    assert (largest_of_rows(sparse.csr_array(dense), k).toarray() == expected).all()
