"""Which of many equal values are taken."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from metammf.nn.selection import exactly_top

VALUES = st.sampled_from([-float("inf"), -1.0, 0.0, 2.0])


@given(st.lists(VALUES, min_size=1, max_size=9), st.integers(1, 9))
def test_the_first_of_equal_ones(row: list[float], k: int) -> None:
    k = min(k, len(row))
    best = sorted(range(len(row)), key=lambda place: (-row[place], place))[:k]
    expected = [place in best and row[place] > -float("inf") for place in range(len(row))]
    assert exactly_top(torch.tensor([row]), k)[0].tolist() == expected
