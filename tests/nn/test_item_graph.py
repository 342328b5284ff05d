"""Nearest items against a loop over pairs, in blocks of any size, and the graph of them against its formula."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from torch import Tensor

from metammf.errors import ConfigError, DataError
from metammf.nn import item_graph
from metammf.nn.graph import SparseMatrix
from metammf.nn.item_graph import half_directions, nearest, nearest_known, normalized_graph
from metammf.testing.probes import LargestTensor

if TYPE_CHECKING:
    from collections.abc import Sequence

Lists = list[list[tuple[int, float]]]


def cosine(first: Sequence[float], second: Sequence[float]) -> float:
    """As float32, so that what is mathematically equal is equal."""
    product = math.fsum(a * b for a, b in zip(first, second, strict=True))
    lengths = math.sqrt(math.fsum(a * a for a in first)) * math.sqrt(math.fsum(b * b for b in second))
    return float(np.float32(product / lengths))


def by_hand(new: np.ndarray, known: np.ndarray, k: int, here: np.ndarray, there: np.ndarray, *, skip: bool) -> Lists:
    """One pair after another; items of no length are nobody's neighbours."""
    lists: Lists = []
    for i, row in enumerate(new.tolist()):
        pairs = [
            (j, cosine(row, other))
            for j, other in enumerate(known.tolist())
            if here[i] and there[j] and any(row) and any(other) and not (skip and i == j)
        ]
        lists.append(sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:k])
    return lists


def told(found: tuple[Tensor, Tensor]) -> Lists:
    """What was found, without the places that nobody fills."""
    items, similarities = (part.tolist() for part in found)
    for row, values in zip(items, similarities, strict=True):
        assert row == [item for item in row if item >= 0] + [-1] * row.count(-1)
        assert all((item < 0) == (value == -math.inf) for item, value in zip(row, values, strict=True))
    return [
        [(item, value) for item, value in zip(*pair, strict=True) if item >= 0]
        for pair in zip(items, similarities, strict=True)
    ]


def random_features(count: int = 40, width: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((count, width)).astype(np.float32)
    features[5] = features[3]  # two that nothing tells apart
    features[7] = 2 * features[3]
    features[9] = 0
    return features, rng.random(count) < 0.8


@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("block", [1, 70, 1 << 20])
@pytest.mark.parametrize("k", [1, 4, 60])
def test_nearest_equals_a_loop_over_pairs(k: int, block: int, include_self: bool) -> None:
    features, present = random_features()
    found = nearest(
        torch.from_numpy(features), k, present=torch.from_numpy(present), include_self=include_self, block=block
    )
    assert found[0].shape == found[1].shape == (len(features), k)
    assert found[1].dtype == torch.float32
    assert told(found) == by_hand(features, features, k, present, present, skip=not include_self)


@settings(max_examples=60, deadline=None)
@given(
    npst.arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 3)), elements=st.integers(-2, 2).map(float)),
    st.integers(1, 14),
    st.integers(1, 200),
    st.booleans(),
    st.data(),
)
def test_ties_go_to_the_lower_index_whatever_the_block(
    features: np.ndarray, k: int, block: int, crowded: bool, data: st.DataObject
) -> None:
    """Small whole numbers have many equal cosines, and rows of zeros."""
    present = np.array(data.draw(st.lists(st.booleans(), min_size=len(features), max_size=len(features))))
    with pytest.MonkeyPatch.context() as patch:
        if crowded:  # every row is computed anew in float64
            patch.setattr(item_graph, "_FEW", -4 * k - 1)
        found = nearest(torch.from_numpy(features), k, present=torch.from_numpy(present), block=block)
    assert told(found) == by_hand(features, features, k, present, present, skip=True)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(1, 60), st.integers(0, 99))
def test_new_rows_find_known_items(new: int, known: int, k: int, block: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ours, theirs = (rng.integers(-2, 3, (count, 3)).astype(np.float32) for count in (new, known))
    masks = [rng.random(count) < 0.7 for count in (new, known)]
    here, there = (torch.from_numpy(mask) for mask in masks)
    found = nearest_known(
        torch.from_numpy(ours), torch.from_numpy(theirs), k, new_present=here, known_present=there, block=block
    )
    assert told(found) == by_hand(ours, theirs, k, *masks, skip=False)


def test_many_that_are_alike_are_told_apart_by_float64() -> None:
    """All cosines within what float32 products can err by."""
    rng = np.random.default_rng(0)
    features = (np.ones(64) + 1e-3 * rng.standard_normal((300, 64))).astype(np.float32)
    everybody = np.ones(300, dtype=bool)
    expected = by_hand(features[:20], features, 3, everybody, everybody, skip=True)
    assert told(nearest(torch.from_numpy(features), 3))[:20] == expected


def test_directions_in_half_precision_keep_cosines_and_leave_out_who_is_no_member(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(item_graph, "_ROWS", 3)
    features = torch.randn(10, 6, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 10)[:, None]
    members = torch.arange(10) % 4 != 1
    found = half_directions(features, members)
    assert found.dtype == torch.float16
    for i in range(10):
        for j in range(10):
            expected = cosine(features[i].tolist(), features[j].tolist()) if members[i] and members[j] else 0.0
            assert float(found[i].double() @ found[j].double()) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_type(dtype: torch.dtype) -> None:
    features = torch.from_numpy(random_features()[0]).to(dtype)
    assert told(nearest(features, 3)) == told(nearest(features.double(), 3))


def test_what_an_item_lacks_is_not_read() -> None:
    features, present = (torch.from_numpy(part) for part in random_features())
    other = features.clone()
    other[~present] = torch.nan
    assert told(nearest(other, 4, present=present)) == told(nearest(features, 4, present=present))


def test_nobody_to_find() -> None:
    nothing = torch.zeros(3, dtype=torch.bool)
    assert told(nearest(torch.randn(3, 2), 2, present=nothing)) == [[], [], []]
    assert told(nearest(torch.randn(1, 2), 2)) == [[]]
    assert nearest(torch.zeros(0, 2), 2)[0].shape == (0, 2)
    assert told(nearest_known(torch.randn(2, 2), torch.randn(3, 2), 2, known_present=nothing)) == [[], []]


def test_never_items_by_items_in_memory() -> None:
    features = torch.randn(600, 8)
    with LargestTensor() as largest:
        nearest(features, 5, block=6000)
    assert largest.numel <= 6000, largest.operation


def test_what_does_not_fit_is_refused() -> None:
    features = torch.randn(4, 3)
    for k, block in ((0, 9), (1, 0)):
        with pytest.raises(ConfigError, match=f"got {k} and {block}"):
            nearest(features, k, block=block)
    with pytest.raises(DataError, match="expected 4 entries, got \\(3,\\)"):
        nearest(features, 1, present=torch.ones(3, dtype=torch.bool))
    with pytest.raises(DataError, match="expected width 3, got 2"):
        nearest_known(features[:, :2], features, 1)
    features[2, 1] = torch.inf
    with pytest.raises(DataError, match="row 2 has no finite length"):
        nearest(features, 1)


@pytest.mark.parametrize("weighted", [True, False])
def test_graph_is_its_formula(weighted: bool) -> None:
    """Entry by entry: a_ij / sqrt(d_i d_j), a_ij the cosine where j is among the nearest of i, d the row sums."""
    features, present = (torch.from_numpy(part) for part in random_features(12))
    neighbours, similarities = nearest(features, 6, present=present)
    assert (similarities[neighbours >= 0] < 0).any()
    lists = told((neighbours, similarities))
    entries = [{j: value if weighted else 1.0 for j, value in row if not weighted or value > 0} for row in lists]
    degrees = [sum(row.values()) for row in entries]
    expected = np.zeros((12, 12))
    for i, row in enumerate(entries):
        for j, value in row.items():
            expected[i, j] = value / math.sqrt(degrees[i] * degrees[j]) if degrees[j] else 0.0
    graph = normalized_graph(neighbours, similarities, weighted=weighted)
    assert graph.dtype == np.float32
    assert graph.toarray() == pytest.approx(expected, abs=1e-6)
    assert not graph.toarray()[~present.numpy()].any()
    x = torch.randn(12, 3)
    torch.testing.assert_close(SparseMatrix(graph)(x), torch.from_numpy(graph.toarray()) @ x)
