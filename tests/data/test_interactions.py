from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metammf.data.interactions import Interactions
from metammf.errors import DataError

pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), unique=True, max_size=30)


def log_of(cells, **columns):
    users, items = (np.array([cell[axis] for cell in cells], dtype=np.int64) for axis in (0, 1))
    return Interactions(users, items, 7, 5, **columns)


@given(pairs)
def test_counts_and_matrix_agree_with_the_pairs(cells):
    log = log_of(cells)
    dense = np.zeros((7, 5))
    for user, item in cells:
        dense[user, item] = 1
    np.testing.assert_array_equal(log.matrix.toarray(), dense)
    np.testing.assert_array_equal(log.user_counts, dense.sum(axis=1))
    np.testing.assert_array_equal(log.item_counts, dense.sum(axis=0))
    assert len(set(log.keys.tolist())) == len(log) == len(cells)


@given(pairs, st.data())
def test_select_and_union_are_inverse(cells, data):
    log = log_of(cells, timestamps=np.arange(len(cells)))
    chosen = np.array([data.draw(st.booleans()) for _ in cells], dtype=np.bool_)
    joined = log.select(chosen).union(log.select(~chosen))
    assert set(joined.keys.tolist()) == set(log.keys.tolist())
    assert dict(zip(joined.keys.tolist(), joined.timestamps.tolist(), strict=True)) == dict(
        zip(log.keys.tolist(), log.timestamps.tolist(), strict=True)
    )


@given(pairs, st.integers(1, 8), st.integers(0, 3))
def test_some_users_with_all_that_they_have(cells, count, seed):
    log = log_of(cells)
    some = log.of_some_users(count, seed)
    chosen = np.unique(some.users)
    assert len(chosen) == min(count, len(np.unique(log.users)))
    assert some.keys.tolist() == log.keys[np.isin(log.users, chosen)].tolist()
    assert log.of_some_users(count, seed).keys.tolist() == some.keys.tolist()
    assert log.of_some_users(None, seed) is log


def test_a_row_is_selected_once_and_in_the_order_asked_for():
    log = log_of([(0, 0), (1, 1), (2, 2)], ratings=[1.0, 2.0, 3.0])
    assert log.select(np.array([2, 0])).users.tolist() == [2, 0]
    assert log.select(np.array([-1])).ratings.tolist() == [3]
    for rows in ([1, 1], [0, -3]):
        with pytest.raises(DataError, match="selected twice"):
            log.select(np.array(rows))
    with pytest.raises(ValueError, match="read-only"):
        log.select(np.array([0])).users[0] = 1


def test_an_array_that_nobody_writes_to_is_shared():
    users = np.array([0, 1], dtype=np.int32)
    users.setflags(write=False)
    assert np.shares_memory(Interactions(users, [0, 0], 2, 1).users, users)


def test_union_refuses_what_overlaps_and_drops_what_one_lacks():
    with pytest.raises(DataError, match="comes twice"):
        log_of([(0, 0)]).union(log_of([(0, 0)]))
    with pytest.raises(DataError, match="counts differ"):
        log_of([(0, 0)]).union(Interactions([0], [0], 1, 1))
    assert log_of([(0, 0)], timestamps=[3]).union(log_of([(1, 0)])).timestamps is None


def test_it_is_frozen_and_leaves_the_callers_array_alone():
    users = np.array([0, 1], dtype=np.int32)
    log = Interactions(users, [0, 0], 2, 1, timestamps=np.array([1, 2]))
    with pytest.raises(ValueError, match="read-only"):
        log.users[0] = 1
    users[0] = 1
    assert log.users[0] == 0


@pytest.mark.parametrize(
    ("users", "items", "columns", "message"),
    [
        ([0, 7], [0, 0], {}, "user index 7 is out of range"),
        ([0, -1], [0, 0], {}, "user index -1 is out of range"),
        ([0, 1], [0, 5], {}, "item index 5 is out of range"),
        ([0, 1], [0], {}, "2 users but 1 items"),
        ([0], [0], {"timestamps": [1, 2]}, "1 users but 2 timestamps"),
        ([0.5], [0], {}, "expected whole numbers"),
        ([3, 3], [2, 2], {}, "user 3, item 2. comes twice"),
    ],
)
def test_bad_pairs_are_refused(users, items, columns, message):
    with pytest.raises(DataError, match=message):
        Interactions(users, items, 7, 5, **columns)
