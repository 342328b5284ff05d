"""The border between the outside world's ids and the indices 0..n-1 that everything else works on."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from metammf.errors import DataError, UnknownIdError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

Id = int | str


class IdMap:
    """A frozen, one-to-one map of outside ids to indices 0..n-1, in the order given.

    Ids are all whole numbers or all strings. A look-up accepts either spelling of a number (``42`` or ``"42"``),
    since a command line knows strings alone. Numbers are looked up in a sorted array, a quarter of the size of a
    dictionary; that of strings is made when the first of them is asked for.

    Args:
        ids: The ids, index by index.
        kind: What they name ("user", "item"), for messages.

    Raises:
        DataError: an id comes twice, is missing, or the ids are of mixed types.
    """

    def __init__(self, ids: Sequence[Any] | NDArray[Any], *, kind: str = "item") -> None:
        self.kind = kind
        values = ids if isinstance(ids, np.ndarray) else _as_array(list(ids), kind)
        if values.ndim != 1:
            raise DataError(f"{kind} ids: expected one axis, got shape {values.shape}")
        if values.dtype.kind in "iu":
            if values.dtype == np.uint64 and len(values) and values.max() >= 2**63:
                raise DataError(f"{kind} ids: expected whole numbers below 2^63, got {values.max()}")
            self.ids: NDArray[Any] = np.array(values, dtype=np.int64)
        elif values.dtype.kind in "UO":
            for row, value in enumerate(values.tolist()):
                if not isinstance(value, str):
                    raise DataError(f"{kind} ids: expected strings or whole numbers, got {value!r} in row {row}")
            self.ids = np.array(values, dtype=object)
        else:
            raise DataError(f"{kind} ids: expected strings or whole numbers, got dtype {values.dtype}")
        self.ids.setflags(write=False)
        if not self._all_differ():
            unique, counts = np.unique(self.ids, return_counts=True)
            twice = unique[counts.argmax()]
            raise DataError(f"{kind} id {_plain(twice)!r} comes {counts.max()} times; ids must be unique")

    @classmethod
    def of_range(cls, count: int, *, kind: str = "item") -> IdMap:
        """Ids 0..count-1: row or column numbers of a matrix-shaped source."""
        return cls(np.arange(count, dtype=np.int64), kind=kind)

    def _all_differ(self) -> bool:
        if self.is_integer:
            ascending, _ = self._ascending
            return bool((ascending[1:] != ascending[:-1]).all())
        return len(set(self.ids.tolist())) == len(self.ids)

    @cached_property
    def _ascending(self) -> tuple[NDArray[np.int64], NDArray[np.intp] | None]:
        """Whole-number ids in ascending order, and the index of each; None where they stand so already."""
        if (self.ids[1:] > self.ids[:-1]).all():
            return self.ids, None
        order = np.argsort(self.ids, kind="stable")
        return self.ids[order], order

    @cached_property
    def _named(self) -> dict[str, int]:
        return {value: index for index, value in enumerate(self.ids.tolist())}

    def _find(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the index of each whole number, or -1 where it is no id, shape (n,)."""
        ascending, order = self._ascending
        if not len(ascending):
            return np.full(len(numbers), -1, dtype=np.int64)
        places = np.minimum(np.searchsorted(ascending, numbers), len(ascending) - 1)
        found = places if order is None else order[places]
        return np.where(ascending[places] == numbers, found, -1)

    def _place(self, outside: Any) -> int:
        """Return the index of one outside id, or -1 where it is none."""
        value = self._coerce(outside)
        if not self.is_integer:
            return self._named.get(value, -1) if isinstance(value, str) else -1
        if not isinstance(value, int | float) or value != value // 1 or not -(2**63) <= value < 2**63:
            return -1
        return int(self._find(np.array([value], dtype=np.int64))[0])

    @property
    def is_integer(self) -> bool:
        """Whether the ids are whole numbers."""
        return self.ids.dtype.kind == "i"

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, outside: object) -> bool:
        return self._place(outside) >= 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdMap) and np.array_equal(self.ids, other.ids)

    def __hash__(self) -> int:
        return hash((self.kind, len(self.ids)))

    def __repr__(self) -> str:
        return f"IdMap({len(self)} {self.kind} ids)"

    def _coerce(self, outside: Any) -> Id:
        if self.is_integer and isinstance(outside, str):
            digits = outside.strip()
            return int(digits) if digits.removeprefix("-").isdecimal() and digits.isascii() else outside
        if not self.is_integer and isinstance(outside, int | np.integer):
            return str(outside)
        return int(outside) if isinstance(outside, np.integer) else outside

    def index(self, outside: Any) -> int:
        """Return the index of one outside id.

        Raises:
            UnknownIdError: the id is not known; names the nearest that is.
        """
        place = self._place(outside)
        if place < 0:
            hint = "" if self.is_integer or len(self) > 200_000 else did_you_mean(str(outside), self._named)
            known = (
                f"one of {len(self):,}, such as {_plain(self.ids[0])!r}" if len(self) else "none, since there is none"
            )
            raise UnknownIdError(f"unknown {self.kind} id {outside!r}{hint}; expected {known}")
        return place

    def indices(self, outside: Iterable[Any]) -> NDArray[np.int64]:
        """Return the indices of many outside ids, shape (n,).

        Raises:
            UnknownIdError: an id is not known.
        """
        values = outside if isinstance(outside, np.ndarray) else list(outside)
        numbers = np.asarray(values) if self.is_integer and _plain_numbers(values) else None
        if numbers is None or numbers.dtype.kind != "i":
            return np.fromiter((self.index(value) for value in values), dtype=np.int64, count=len(values))
        places = self._find(numbers.astype(np.int64))
        if len(places) and places.min() < 0:
            self.index(numbers[int(places.argmin())].item())  # says that it is unknown
        return places

    def extend(self, ids: Iterable[Any]) -> IdMap:
        """Return a map with further ids behind the present ones.

        Raises:
            DataError: an id is there already, or is of another type.
        """
        new = [self._coerce(value) for value in ids]
        for value in new:
            if self._place(value) >= 0:
                raise DataError(f"{self.kind} id {value!r} is in the data set already")
            if isinstance(value, str) == self.is_integer and len(self):
                kind = "a whole number" if self.is_integer else "a string"
                raise DataError(f"{self.kind} id {value!r}: expected {kind}, as the ids that are there")
        return IdMap([*self.ids.tolist(), *new], kind=self.kind)


def _plain_numbers(values: NDArray[Any] | list[Any]) -> bool:
    return isinstance(values, np.ndarray) or all(type(value) is int for value in values)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _as_array(values: list[Any], kind: str) -> NDArray[Any]:
    if all(isinstance(value, int | np.integer) and not isinstance(value, bool) for value in values):
        return np.array(values, dtype=np.int64)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise DataError(f"{kind} ids: expected all strings or all whole numbers, got {value!r} in row {row}")
    return array
