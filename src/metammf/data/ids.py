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
    since a command line knows strings alone.

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
            self.ids: NDArray[Any] = np.array(values, dtype=np.int64)
        elif values.dtype.kind in "UO":
            for row, value in enumerate(values.tolist()):
                if not isinstance(value, str):
                    raise DataError(f"{kind} ids: expected strings or whole numbers, got {value!r} in row {row}")
            self.ids = np.array(values, dtype=object)
        else:
            raise DataError(f"{kind} ids: expected strings or whole numbers, got dtype {values.dtype}")
        self.ids.setflags(write=False)
        if len(self._index) != len(self.ids):
            unique, counts = np.unique(self.ids, return_counts=True)
            twice = unique[counts.argmax()]
            raise DataError(f"{kind} id {_plain(twice)!r} comes {counts.max()} times; ids must be unique")

    @classmethod
    def of_range(cls, count: int, *, kind: str = "item") -> IdMap:
        """Ids 0..count-1: row or column numbers of a matrix-shaped source."""
        return cls(np.arange(count, dtype=np.int64), kind=kind)

    @cached_property
    def _index(self) -> dict[Id, int]:
        return {value: index for index, value in enumerate(self.ids.tolist())}

    @property
    def is_integer(self) -> bool:
        """Whether the ids are whole numbers."""
        return self.ids.dtype.kind == "i"

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, outside: object) -> bool:
        return self._coerce(outside) in self._index

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
        try:
            return self._index[self._coerce(outside)]
        except (KeyError, TypeError):
            hint = "" if self.is_integer or len(self) > 200_000 else did_you_mean(str(outside), self._index)  # type: ignore[arg-type]
            raise UnknownIdError(f"unknown {self.kind} id {outside!r}{hint}") from None

    def indices(self, outside: Iterable[Any]) -> NDArray[np.int64]:
        """Return the indices of many outside ids, shape (n,).

        Raises:
            UnknownIdError: an id is not known.
        """
        return np.fromiter((self.index(value) for value in outside), dtype=np.int64)

    def extend(self, ids: Iterable[Any]) -> IdMap:
        """Return a map with further ids behind the present ones.

        Raises:
            DataError: an id is there already, or is of another type.
        """
        new = [self._coerce(value) for value in ids]
        for value in new:
            if value in self._index:
                raise DataError(f"{self.kind} id {value!r} is in the data set already")
            if isinstance(value, str) == self.is_integer and len(self):
                kind = "a whole number" if self.is_integer else "a string"
                raise DataError(f"{self.kind} id {value!r}: expected {kind}, as the ids that are there")
        return IdMap([*self.ids.tolist(), *new], kind=self.kind)


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
