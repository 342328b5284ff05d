"""Who watched what: a frozen, validated table of (user, item) pairs in internal indices."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from metammf.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


PARTS = ("train", "validation", "test")
"""What the interactions of a data set may be divided into."""

_SLICE = 1 << 22


@dataclass(frozen=True, eq=False)
class Interactions:
    """Distinct (user, item) pairs over fixed counts of users and items.

    Eight bytes a pair, and eight more for its time; what is selected of checked pairs is not checked again.

    Args:
        users: Internal user indices, shape (n,); copied, unless they are int32 and read-only already.
        items: Internal item indices, likewise.
        num_users: All users of the data set, those without an interaction included.
        num_items: All items of the data set, likewise.
        timestamps: Seconds since 1970 as whole numbers, shape (n,), or None.
        ratings: Shape (n,), or None.

    Raises:
        DataError: lengths differ, an index is out of range, or a pair comes twice.
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    num_users: int
    num_items: int
    timestamps: NDArray[np.int64] | None = None
    ratings: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        for name, kind, count in (("users", "user", self.num_users), ("items", "item", self.num_items)):
            values = _indices(getattr(self, name), kind, count)
            object.__setattr__(self, name, values)
        columns: dict[str, Any] = {"timestamps": np.int64, "ratings": np.float32}
        for name, dtype in columns.items():
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, _frozen(np.asarray(values, dtype=dtype)))
        for name in ("items", *columns):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.users):
                raise DataError(f"interactions: {len(self.users)} users but {len(values)} {name}")
        _refuse_repeats(self.keys, self.num_items)

    def __len__(self) -> int:
        return len(self.users)

    def __repr__(self) -> str:
        return f"Interactions({len(self)} of {self.num_users} users x {self.num_items} items)"

    @property
    def keys(self) -> NDArray[np.int64]:
        """user * num_items + item of each pair, shape (n,): one number a pair, for set operations."""
        keys = self.users.astype(np.int64)
        keys *= self.num_items
        keys += self.items
        return keys

    @cached_property
    def user_counts(self) -> NDArray[np.int64]:
        """Interactions of each user, shape (num_users,)."""
        return count(self.users, self.num_users)

    @cached_property
    def item_counts(self) -> NDArray[np.int64]:
        """Interactions of each item, shape (num_items,)."""
        return count(self.items, self.num_items)

    @cached_property
    def matrix(self) -> sparse.csr_array:
        """The binary user-item matrix in CSR form, float32, columns sorted, shape (num_users, num_items)."""
        ones = np.ones(len(self), dtype=np.int8)  # the narrowest, since the conversion holds them twice
        cells = sparse.coo_array((ones, (self.users, self.items)), shape=(self.num_users, self.num_items))
        cells.has_canonical_format = True  # distinct: nothing to sum
        matrix = cells.tocsr()
        matrix.sort_indices()
        matrix.data = np.ones(len(self), dtype=np.float32)
        return matrix

    def select(self, chosen: NDArray[Any]) -> Interactions:
        """Return the rows of a boolean mask or of indices, over the same users and items.

        Raises:
            DataError: an index comes twice.
        """
        if np.asarray(chosen).dtype != np.bool_:
            taken = np.zeros(len(self), dtype=np.bool_)
            taken[chosen] = True
            if int(taken.sum()) < len(chosen):
                raise DataError("interactions: a row is selected twice")
        return self._of_distinct(
            self.users[chosen],
            self.items[chosen],
            None if self.timestamps is None else self.timestamps[chosen],
            None if self.ratings is None else self.ratings[chosen],
        )

    def of_some_users(self, count: int | None, seed: int) -> Interactions:
        """Return all interactions of `count` users, drawn by the seed from those that have one; None, or enough, for all."""
        users = np.flatnonzero(self.user_counts)
        if count is None or count >= len(users):
            return self
        chosen = np.zeros(self.num_users, dtype=np.bool_)
        chosen[np.random.default_rng(seed).choice(users, count, replace=False)] = True
        return self.select(chosen[self.users])

    def union(self, other: Interactions) -> Interactions:
        """Return both parts together; a column that one of them lacks is dropped.

        Raises:
            DataError: the parts overlap or are over other counts.
        """
        if (self.num_users, self.num_items) != (other.num_users, other.num_items):
            raise DataError(f"interactions: cannot join {self!r} and {other!r}: the counts differ")

        def both(name: str) -> Any:
            mine, theirs = getattr(self, name), getattr(other, name)
            return None if mine is None or theirs is None else np.concatenate([mine, theirs])

        joined = self._of_distinct(both("users"), both("items"), both("timestamps"), both("ratings"))
        if len(self) and len(other):
            _refuse_repeats(joined.keys, self.num_items)
        return joined

    def _of_distinct(
        self,
        users: NDArray[np.int32],
        items: NDArray[np.int32],
        timestamps: NDArray[np.int64] | None,
        ratings: NDArray[np.float32] | None,
    ) -> Interactions:
        """Make interactions over the same counts of columns that need no check: they come from checked ones."""
        made = object.__new__(Interactions)
        columns = {"users": users, "items": items, "timestamps": timestamps, "ratings": ratings}
        for name, values in columns.items():
            object.__setattr__(made, name, None if values is None else _frozen(values))
        object.__setattr__(made, "num_users", self.num_users)
        object.__setattr__(made, "num_items", self.num_items)
        return made


def _refuse_repeats(keys: NDArray[np.int64], num_items: int) -> None:
    """Look for a pair that comes twice; sorts `keys` in place."""
    keys.sort()
    same = keys[1:] == keys[:-1]
    if same.any():
        user, item = divmod(int(keys[same.argmax()]), num_items)
        raise DataError(f"interactions: the pair (user {user}, item {item}) comes twice ({int(same.sum())} repeats)")


def count(values: NDArray[Any], size: int) -> NDArray[np.int64]:
    """Return how often each whole number below `size` comes among `values`, shape (size,)."""
    # In slices: np.bincount widens what it counts to 64 bits, all of it at once.
    counts = np.zeros(size, dtype=np.int64)
    for start in range(0, len(values), _SLICE):
        counts += np.bincount(values[start : start + _SLICE], minlength=size)
    return counts


def _frozen(values: NDArray[Any]) -> NDArray[Any]:
    view = values.view()
    view.setflags(write=False)
    return view


def _indices(values: ArrayLike, kind: str, count: int) -> NDArray[np.int32]:
    array = np.asarray(values)
    if array.size == 0:
        array = array.astype(np.int32)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"{kind} indices: expected whole numbers on one axis, got {array.dtype} {array.shape}")
    if len(array) and (array.min() < 0 or array.max() >= count):
        bad = array[(array < 0) | (array >= count)][0]
        raise DataError(f"{kind} index {bad} is out of range: the data set has {count} {kind}s")
    # Nobody can write to it, and it is what is wanted: it may be shared.
    shareable = array.dtype == np.int32 and not array.flags.writeable
    return _frozen(array.astype(np.int32, copy=not shareable))
