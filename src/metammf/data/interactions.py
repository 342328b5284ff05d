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


@dataclass(frozen=True, eq=False)
class Interactions:
    """Distinct (user, item) pairs over fixed counts of users and items.

    Args:
        users: Internal user indices, shape (n,).
        items: Internal item indices, shape (n,).
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
        keys = np.sort(self.keys)
        twice = np.flatnonzero(keys[1:] == keys[:-1])
        if len(twice):
            user, item = divmod(int(keys[twice[0]]), self.num_items)
            raise DataError(f"interactions: the pair (user {user}, item {item}) comes twice ({len(twice)} repeats)")

    def __len__(self) -> int:
        return len(self.users)

    def __repr__(self) -> str:
        return f"Interactions({len(self)} of {self.num_users} users x {self.num_items} items)"

    @property
    def keys(self) -> NDArray[np.int64]:
        """user * num_items + item of each pair, shape (n,): one number a pair, for set operations."""
        return self.users.astype(np.int64) * self.num_items + self.items

    @cached_property
    def user_counts(self) -> NDArray[np.int64]:
        """Interactions of each user, shape (num_users,)."""
        return np.bincount(self.users, minlength=self.num_users)

    @cached_property
    def item_counts(self) -> NDArray[np.int64]:
        """Interactions of each item, shape (num_items,)."""
        return np.bincount(self.items, minlength=self.num_items)

    @cached_property
    def matrix(self) -> sparse.csr_array:
        """The binary user-item matrix in CSR form, float32, columns sorted, shape (num_users, num_items)."""
        ones = np.ones(len(self), dtype=np.float32)
        matrix = sparse.csr_array((ones, (self.users, self.items)), shape=(self.num_users, self.num_items))
        matrix.sort_indices()
        return matrix

    def select(self, chosen: NDArray[Any]) -> Interactions:
        """Return the rows of a boolean mask or of indices, over the same users and items."""
        return Interactions(
            self.users[chosen],
            self.items[chosen],
            self.num_users,
            self.num_items,
            None if self.timestamps is None else self.timestamps[chosen],
            None if self.ratings is None else self.ratings[chosen],
        )

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

        return Interactions(
            both("users"), both("items"), self.num_users, self.num_items, both("timestamps"), both("ratings")
        )


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
    return _frozen(array.astype(np.int32))
