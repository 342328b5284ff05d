"""Repeats and the k-core, against loops over the pairs one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metammf.data.importers import assembling
from metammf.data.importers.assembling import Pairs, distinct, k_core_of
from metammf.errors import FileFormatError

rows = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3), st.integers(0, 2)), max_size=40)


def pairs_of(rows, *, stamps=True, parts=False):
    columns = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    return Pairs(
        columns[0].astype(np.int32),
        columns[1].astype(np.int32),
        columns[3].astype(np.int8) if parts else None,
        columns[2] if stamps else None,
        np.arange(len(rows), dtype=np.float32),
    )


@given(rows, st.booleans(), st.integers(1, 7))
def test_of_a_pair_the_earliest_row_is_kept(rows, stamps, chunk):
    best: dict[tuple[int, int], int] = {}
    for place, (user, item, when, _) in enumerate(rows):
        known = best.get((user, item))
        if known is None or (stamps and when < rows[known][2]):
            best[user, item] = place
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembling, "_SLICE", chunk)
        found = distinct(pairs_of(rows, stamps=stamps), 6, "log.csv")
    assert found.ratings.tolist() == sorted(best.values())


@given(rows)
def test_a_pair_in_two_parts_is_refused(rows):
    parts = {row[3] for row in rows}
    where: dict[tuple[int, int], set[int]] = {}
    for user, item, _, part in rows:
        where.setdefault((user, item), set()).add(part)
    crossing = any(len(found) > 1 for found in where.values())
    if {0, 2} <= parts and not crossing:
        assert len(distinct(pairs_of(rows, parts=True), 6, "log.csv").users) == len(where)
        return
    with pytest.raises(FileFormatError, match="parts overlap" if {0, 2} <= parts else "part is empty"):
        distinct(pairs_of(rows, parts=True), 6, "log.csv")


@given(rows, st.integers(1, 4))
def test_the_k_core_is_what_taking_away_one_by_one_leaves(rows, k):
    pairs = distinct(pairs_of(rows), 6, "log.csv")
    left = list(zip(pairs.users.tolist(), pairs.items.tolist(), pairs.ratings.tolist(), strict=True))
    gone = True
    while gone:
        gone = [
            row
            for row in left
            if sum(other[0] == row[0] for other in left) < k or sum(other[1] == row[1] for other in left) < k
        ][:1]
        left = [row for row in left if row not in gone]
    told = []
    if not left:
        with pytest.raises(FileFormatError, match=f"nothing is left of the {k}-core"):
            k_core_of(pairs, k, 6, 6, "log.csv")
        return
    core, users, items = k_core_of(pairs, k, 6, 6, "log.csv", lambda *now: told.append(now))
    assert list(zip(users[core.users], items[core.items], core.ratings, strict=True)) == left
    assert (users.tolist(), items.tolist()) == (sorted({row[0] for row in left}), sorted({row[1] for row in left}))
    assert [done for _, done, _ in told][-1:] == [len(pairs.users) - len(left)] * (len(left) < len(pairs.users))
