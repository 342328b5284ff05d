"""The exact top-k against sorting each row in plain Python."""

from __future__ import annotations

import math
import re
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from metammf.errors import ConfigError, DataError
from metammf.models.scorers import VectorScorer
from metammf.ranking.topk import entries_of, rank, rank_batches, top_k, users_at_once


class Scores:
    """A scorer that looks its scores up."""

    def __init__(self, matrix: torch.Tensor) -> None:
        self.matrix = matrix
        self.num_items = matrix.shape[1]
        self.batches: list[int] = []

    def scores(self, users: torch.Tensor) -> torch.Tensor:
        assert users.dtype == torch.int64
        self.batches.append(len(users))
        return self.matrix[users]


def naive(scores: np.ndarray, k: int, hidden: set[tuple[int, int]] = frozenset()) -> list[list[int]]:
    lists = []
    for user, row in enumerate(scores.tolist()):
        free = [item for item, score in enumerate(row) if (user, item) not in hidden and score != -math.inf]
        best = sorted(free, key=lambda item: (-row[item], item))[:k]
        lists.append(best + [-1] * (k - len(best)))
    return lists


def csr(pairs: set[tuple[int, int]], shape: tuple[int, int]) -> sparse.csr_array:
    rows, columns = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2).T
    return sparse.csr_array((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=shape)


@pytest.fixture(params=["cpu", "elsewhere"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go the way of a processor, and that of any other device."""
    if request.param == "elsewhere":
        monkeypatch.setattr("metammf.ranking.topk._in_numpy", lambda _: False)


# Levels: 1 ties everything, 3 nearly everything, the last nothing.
@pytest.mark.parametrize("levels", [1, 3, 50, 10**9])
@pytest.mark.parametrize(("count", "num_items"), [(1, 1), (3, 7), (5, 64), (4, 1003), (2, 5000)])
@pytest.mark.parametrize("k", [1, 3, 20, 100])
@pytest.mark.usefixtures("device")
def test_top_k_equals_sorting(levels: int, count: int, num_items: int, k: int) -> None:
    rng = np.random.default_rng(levels + num_items + k)
    scores = rng.integers(levels, size=(count, num_items)).astype(np.float32) - levels // 2
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    pairs = set(zip(*(axis.tolist() for axis in np.nonzero(rng.random(scores.shape) < 0.2)), strict=True))
    seen = tuple(torch.from_numpy(axis) for axis in entries_of(csr(pairs, scores.shape), np.arange(count)))
    items, best = top_k(torch.from_numpy(scores), k, seen=seen)
    assert items.tolist() == naive(scores, k, pairs)
    padded = np.concatenate([scores, np.full((count, 1), -np.inf)], axis=1)
    assert best.numpy() == pytest.approx(np.take_along_axis(padded, items.numpy(), axis=1))


@given(st.data())
@settings(deadline=None)
def test_top_k_equals_sorting_of_anything(data: st.DataObject) -> None:
    num_items = data.draw(st.integers(1, 40))
    values = st.sampled_from([-math.inf, -1.0, -0.0, 0.0, 1e-45, 0.5, 1.0, 3e38, math.inf])
    row = st.lists(values, min_size=num_items, max_size=num_items)
    scores = np.array(data.draw(st.lists(row, min_size=1, max_size=4)), dtype=np.float32)
    k = data.draw(st.integers(1, num_items + 3))
    items, _ = top_k(torch.from_numpy(scores), k)
    assert items.tolist() == naive(scores, k)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_top_k_of_other_floats(dtype: torch.dtype) -> None:
    scores = torch.randn(6, 300, generator=torch.Generator().manual_seed(0)).to(dtype)
    items, _ = top_k(scores, 10)
    assert items.tolist() == naive(scores.double().numpy(), 10)


def test_top_k_tells_doubles_apart_that_are_one_float() -> None:
    items, _ = top_k(torch.tensor([[1.0, 1.0 + 1e-12]], dtype=torch.float64), 1)
    assert items.tolist() == [[1]]


def test_top_k_leaves_the_scores_as_they_were() -> None:
    scores = torch.randn(4, 50)
    before = scores.clone()
    top_k(scores, 5, seen=(torch.tensor([0, 3]), torch.tensor([1, 49])))
    assert torch.equal(scores, before)


def test_top_k_of_scores_made_in_inference_mode() -> None:
    with torch.inference_mode():
        scores = torch.arange(4.0).reshape(1, 4) * 1
    items, _ = top_k(scores, 2, seen=(torch.tensor([0]), torch.tensor([3])))
    assert items.tolist() == [[2, 1]]


def test_top_k_of_one_row_broadcast() -> None:
    popularity = torch.tensor([1.0, 5.0, 5.0, 0.0]).expand(3, -1)
    items, _ = top_k(popularity, 2, seen=(torch.tensor([1]), torch.tensor([1])))
    assert items.tolist() == [[1, 2], [2, 0], [1, 2]]


def test_top_k_of_nothing() -> None:
    assert [part.shape for part in top_k(torch.zeros(0, 5), 3)] == [(0, 3), (0, 3)]
    assert top_k(torch.zeros(2, 0), 1)[0].tolist() == [[-1], [-1]]


@pytest.mark.parametrize("place", [0, 500, 1002])
@pytest.mark.usefixtures("device")
def test_top_k_refuses_nan(place: int) -> None:
    scores = torch.zeros(3, 1003)
    scores[2, place] = torch.nan
    with pytest.raises(DataError, match=r"NaN in row 2$"):
        top_k(scores, 5)


@pytest.mark.parametrize("scores", [torch.zeros(3), torch.zeros(2, 2, dtype=torch.int64)])
def test_top_k_refuses_what_is_not_scores(scores: torch.Tensor) -> None:
    with pytest.raises(DataError, match="expected floats of shape"):
        top_k(scores, 1)


def test_k_must_be_at_least_one() -> None:
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        top_k(torch.zeros(1, 1), 0)
    with pytest.raises(ConfigError, match="batch_size"):
        rank(Scores(torch.zeros(1, 1)), [0], 1, batch_size=0)


@given(st.data())
@settings(deadline=None)
def test_entries_of_equals_a_loop(data: st.DataObject) -> None:
    pairs = data.draw(st.sets(st.tuples(st.integers(0, 5), st.integers(0, 7))))
    rows = data.draw(st.lists(st.integers(0, 5), max_size=8))
    place, column = entries_of(csr(pairs, (6, 8)), np.array(rows, dtype=np.int64))
    wanted = [(p, c) for p, row in enumerate(rows) for r, c in sorted(pairs) if r == row]
    assert list(zip(place.tolist(), column.tolist(), strict=True)) == wanted


@pytest.fixture
def world() -> tuple[np.ndarray, set[tuple[int, int]]]:
    rng = np.random.default_rng(3)
    scores = rng.integers(30, size=(23, 90)).astype(np.float32)
    pairs = set(zip(*(axis.tolist() for axis in np.nonzero(rng.random(scores.shape) < 0.3)), strict=True))
    return scores, pairs


@pytest.mark.parametrize("batch_size", [None, 1, 5, 23, 1000])
def test_rank_is_the_same_in_batches_of_any_size(world, batch_size: int | None) -> None:
    scores, pairs = world
    users = np.array([22, 3, 3, 0, 7, 11])
    items, best = rank(Scores(torch.from_numpy(scores)), users, 8, seen=csr(pairs, scores.shape), batch_size=batch_size)
    assert items.tolist() == [naive(scores, 8, pairs)[user] for user in users]
    assert best.dtype == np.float32
    assert best.tolist() == np.take_along_axis(scores[users], items, axis=1).tolist()


def test_rank_within_candidates(world) -> None:
    scores, pairs = world
    seen = csr(pairs, scores.shape)
    scorer = Scores(torch.from_numpy(scores))
    candidates, exclude = np.array([80, 4, 5, 6, 7, 20]), np.array([5])
    mask = np.zeros(90, dtype=np.bool_)
    mask[[4, 6, 7, 20, 80]] = True
    hidden = pairs | {(user, item) for user in range(23) for item in range(90) if not mask[item]}
    wanted = naive(scores, 8, hidden)
    assert rank(scorer, np.arange(23), 8, seen=seen, candidates=candidates, exclude=exclude)[0].tolist() == wanted
    assert rank(scorer, np.arange(23), 8, seen=seen, candidates=mask)[0].tolist() == wanted
    assert rank(scorer, np.arange(23), 8, seen=seen, exclude=~mask)[0].tolist() == wanted
    assert (rank(scorer, [1], 3, candidates=[])[0] == -1).all()


def test_rank_tells_progress_and_batches(world) -> None:
    scores, _ = world
    scorer = Scores(torch.from_numpy(scores))
    told: list[tuple[int, int]] = []
    rank(scorer, torch.arange(23), 2, batch_size=10, progress=lambda done, total: told.append((done, total)))
    assert sorted(scorer.batches) == [3, 10, 10]
    assert told == [(10, 23), (20, 23), (23, 23)]
    assert [len(users) for users, _, _ in rank_batches(scorer, range(23), 2, batch_size=20)] == [20, 3]
    assert list(rank_batches(scorer, [], 2)) == []


def test_rank_refuses_what_does_not_fit(world) -> None:
    scorer = Scores(torch.from_numpy(world[0]))
    with pytest.raises(DataError, match="candidates: expected a mask of shape"):
        rank(scorer, [0], 1, candidates=np.ones(3, dtype=np.bool_))
    with pytest.raises(DataError, match="exclude: expected item indices from 0 to 89"):
        rank(scorer, [0], 1, exclude=[90])
    scorer.num_items = 91
    with pytest.raises(DataError, match=re.escape("expected shape (2, 91)")):
        rank(scorer, [0, 1], 1)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_batches_that_are_ranked_side_by_side(threads: int) -> None:
    """In the order asked for, whatever the number of threads, each batch on one; what goes wrong in one of them is told."""
    before = torch.get_num_threads()
    scores = np.random.default_rng(0).integers(0, 9, (50, 40)).astype(np.float32)
    seen = sparse.csr_array(np.random.default_rng(1).random((50, 40)) < 0.3)
    users = np.random.default_rng(2).permutation(50)
    expected = rank(Scores(torch.from_numpy(scores)), users, 5, seen=seen, batch_size=50)
    torch.set_num_threads(threads)
    try:
        found = rank(Scores(torch.from_numpy(scores)), users, 5, seen=seen, batch_size=7)
        broken = scores.copy()
        broken[users[31], 3] = np.nan
        with pytest.raises(DataError, match=rf"NaN for user {users[31]} \(by index\)"):
            rank(Scores(torch.from_numpy(broken)), users, 5, seen=seen, batch_size=7)
        assert torch.get_num_threads() == threads
        begun = rank_batches(Scores(torch.from_numpy(scores)), users, 5, batch_size=7)
        next(begun)
        begun.close()
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


class Kept(Scores):
    """A scorer that gives what it keeps, of a type of its own for each half of the users."""

    def scores(self, users: torch.Tensor) -> torch.Tensor:
        part = self.matrix[int(users[0]) : int(users[-1]) + 1]
        return part.double() if int(users[0]) >= len(self.matrix) // 2 else part


def test_what_a_scorer_keeps_stays_and_kinds_of_scores_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metammf.ranking.topk._CACHED_SCORES", 0)
    monkeypatch.setattr("metammf.ranking.topk._FEWEST_USERS", 3)
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((24, 60)).astype(np.float32)
    pairs = set(zip(*(axis.tolist() for axis in np.nonzero(rng.random(scores.shape) < 0.2)), strict=True))
    for most in (1 << 21, 0):
        monkeypatch.setattr("metammf.ranking.topk._MOST_CANDIDATES", most)
        kept = Kept(torch.from_numpy(scores.copy()))
        items, _ = rank(kept, range(24), 5, seen=csr(pairs, scores.shape), batch_size=24)
        assert items.tolist() == naive(scores, 5, pairs)
        assert torch.equal(kept.matrix, torch.from_numpy(scores))


def test_users_that_are_divided_get_the_same_bits() -> None:
    """Blocks are scored on one thread each, however many batches there are, and so by the same product."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        generator = torch.Generator().manual_seed(0)
        users, items = torch.randn(400, 64, generator=generator), torch.randn(20_000, 64, generator=generator)
        scorer = VectorScorer(users, items)
        size = users_at_once(20_000)
        assert size < len(users) - 7
        whole = rank(scorer, range(size + 7), 20)
        parts = [rank(scorer, range(start, end), 20) for start, end in ((0, size), (size, size + 7))]
    finally:
        torch.set_num_threads(before)
    for one, divided in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(one, np.concatenate(divided))


def test_what_breaks_leaves_the_threads_as_they_were() -> None:
    before, alive = torch.get_num_threads(), threading.active_count()
    torch.set_num_threads(2)

    def breaks(_done: int, _count: int) -> None:
        raise ValueError("enough")

    try:
        with pytest.raises(ValueError, match="enough") as caught:
            rank(Scores(torch.zeros(50, 40)), range(50), 5, batch_size=7, progress=breaks)
        assert threading.active_count() <= alive
        assert torch.get_num_threads() == 2
        assert caught.value.args == ("enough",)
    finally:
        torch.set_num_threads(before)


def test_rank_refuses_seen_items_that_there_are_not() -> None:
    with pytest.raises(DataError, match="seen: expected 40 items or fewer, got 41"):
        rank(Scores(torch.zeros(2, 40)), [0], 1, seen=csr({(0, 40)}, (2, 41)))
    with pytest.raises(ConfigError, match="at least 1"):
        rank(Scores(torch.zeros(2, 40)), [0], -1)
