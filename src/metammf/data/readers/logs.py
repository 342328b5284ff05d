"""Reading logs of many millions of rows in one streamed pass.

Text becomes numbers a batch at a time: ids become codes, other columns what their converter makes of them. So no column of
text is ever whole in memory, and a row costs four bytes an id and what its numbers take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from metammf.data.progress import Progress, silent
from metammf.data.readers import tables
from metammf.errors import FileFormatError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_SLICE = 1 << 21


@dataclass(frozen=True)
class Value:
    """What a column's text becomes.

    Args:
        convert: From a column, or some rows of it, to an array; raises `FileFormatError` at a bad value.
        dtype: Of the array.
    """

    convert: Callable[[pl.Series], NDArray[Any]]
    dtype: type[pl.DataType]


@dataclass(frozen=True)
class Codes:
    """A column of ids: each of them once, and which one each row holds.

    Args:
        name: The column's.
        codes: Places in `ids`, shape (n,).
        ids: The ids in order of first appearance, String or Int64.
        first: The row of the file that each of them first stands in, from 0, shape (len(ids),).
    """

    name: str
    codes: NDArray[np.int32]
    ids: pl.Series
    first: NDArray[np.int64]

    def typed(self, path: Path | str) -> Codes:
        """Return the same with ids that are whole numbers as such; see `tables.ids`."""
        return replace(self, ids=tables.ids(self.ids, path))

    def select(self, rows: NDArray[np.bool_]) -> Codes:
        """Return the rows of a mask; ids that stand in none of them are gone."""
        codes, used, first = _in_order(self.codes[rows], len(self.ids))
        return Codes(self.name, codes, self.ids.gather(used), np.flatnonzero(rows)[first])

    def places(self, known: pl.Series, path: Path | str, kind: str) -> NDArray[np.int32]:
        """Return the place of each row's id among the distinct ids `known`, shape (n,).

        Raises:
            FileFormatError: an id is not among them.
        """
        places = tables.places_of(self.ids, known)
        if places.null_count():
            unknown = int(places.is_null().arg_max() or 0)
            raise FileFormatError(
                path,
                f"row {self.first[unknown] + 1}, column {self.name!r} is {self.ids[unknown]!r}: unknown {kind} id",
                f"one of the {len(known)} {kind}s",
            )
        return places.to_numpy()[self.codes]


@dataclass(frozen=True)
class Rows:
    """What a log holds, row by row.

    Args:
        ids: The columns of ids.
        values: The other columns, shape (n,) each.
    """

    ids: Mapping[str, Codes]
    values: Mapping[str, NDArray[Any]]


def read_log(
    frame: pl.LazyFrame,
    path: Path,
    ids: Sequence[str],
    values: Mapping[str, Value],
    *,
    progress: Progress = silent,
) -> Rows:
    """Read the named columns of a scanned table, one at least.

    Args:
        frame: As `tables.scan_table` returns it.
        path: For messages.
        ids: Columns of ids.
        values: Other columns, and what becomes of them.
        progress: Called with the rows read; how many there are is not known.

    Raises:
        FileFormatError: the table cannot be read, an id is missing, or a converter refused a value: names the row.
    """
    schema = frame.collect_schema()
    for name in ids:
        tables.ids(pl.Series(name, [], dtype=schema[name]), path)  # says where the type is wrong
    columns = {name: _coded(name, schema[name]) for name in ids}
    for name, value in values.items():
        columns[name] = _batchwise(pl.col(name), partial(_convert, value), value.dtype), value.dtype
    first, (column, dtype) = next(iter(columns.items()))
    columns[first] = _batchwise(column, _counting(progress), dtype), dtype
    try:
        table = tables.collect(frame.select(column for column, _ in columns.values()), path)
    except FileFormatError:
        _refuse_value(frame, path, values)
        raise
    coded = {name: _codes_of(table.drop_in_place(name), frame, path) for name in ids}
    return Rows(coded, {name: table.drop_in_place(name).to_numpy() for name in values})


def one_after_another(columns: Sequence[Codes]) -> Codes:
    """Return the columns of several files as one: the rows of the first, then those of the next."""
    ids = pl.concat([column.ids for column in columns]).unique(maintain_order=True)
    codes = np.concatenate([tables.places_of(column.ids, ids).to_numpy()[column.codes] for column in columns])
    _, _, first = _in_order(codes, len(ids))
    return Codes(columns[0].name, codes, ids, first)


_Type = pl.DataType | type[pl.DataType]


class _RefusedError(ValueError):
    """A converter refused a batch: which row of the file that is, only the whole column tells."""


def _convert(value: Value, batch: pl.Series) -> pl.Series:
    try:
        return pl.Series(batch.name, value.convert(batch), dtype=value.dtype)
    except FileFormatError as error:
        raise _RefusedError(str(error)) from error


def _refuse_value(frame: pl.LazyFrame, path: Path, values: Mapping[str, Value]) -> None:
    for name, value in values.items():
        value.convert(tables.collect(frame.select(name), path)[name])


def _batchwise(column: pl.Expr, function: Callable[[pl.Series], pl.Series], dtype: _Type) -> pl.Expr:
    return column.map_batches(function, return_dtype=dtype, is_elementwise=True)


def _coded(name: str, dtype: pl.DataType) -> tuple[pl.Expr, _Type]:
    """Return what a column of ids is read as: text in categories of its own, which are no one else's."""
    if dtype.is_integer():
        return pl.col(name), dtype
    categories = pl.Categorical(pl.Categories.random())
    return pl.col(name).cast(pl.String).cast(categories), categories


def _counting(progress: Progress) -> Callable[[pl.Series], pl.Series]:
    rows = 0

    def count(batch: pl.Series) -> pl.Series:
        nonlocal rows
        rows += len(batch)
        progress("reading rows", rows, 0)
        return batch

    return count


def _codes_of(column: pl.Series, frame: pl.LazyFrame, path: Path) -> Codes:
    if column.dtype.is_integer():
        numbers = tables.ids(column, path).to_numpy()
        codes, distinct = _number(numbers)
        codes, used, first = _in_order(codes, len(distinct))
        return Codes(column.name, codes, pl.Series(column.name, distinct[used]), first)
    if column.null_count():
        _refuse_id(frame, column.name, path)
    physical = column.to_physical().to_numpy()
    codes, _, first = _in_order(physical, int(physical.max()) + 1 if len(physical) else 0)
    ids = column.gather(first).cast(pl.String)
    if (ids == "").any():
        _refuse_id(frame, column.name, path)
    return Codes(column.name, codes, ids, first)


def _refuse_id(frame: pl.LazyFrame, name: str, path: Path) -> None:
    tables.ids(tables.collect(frame.select(name), path)[name], path)


def _number(values: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the place of each value among the values that may occur, and these, in ascending order."""
    if not len(values):
        return values.astype(np.int32), values
    low, high = int(values.min()), int(values.max())
    if high - low < 2 * len(values) + _SLICE:  # dense: no search
        distinct = low + np.arange(high - low + 1)  # the end itself may be beyond 64 bits
        return _by_slice(values, lambda some: some - low), distinct
    distinct = np.unique(values)
    return _by_slice(values, lambda some: np.searchsorted(distinct, some)), distinct


def _by_slice(values: NDArray[Any], function: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[np.int32]:
    result = np.empty(len(values), dtype=np.int32)
    for start in range(0, len(values), _SLICE):
        result[start : start + _SLICE] = function(values[start : start + _SLICE])
    return result


def _in_order(codes: NDArray[Any], size: int) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Number codes below `size` anew, in order of first appearance.

    Returns:
        The new codes; of each of them the old one, and the row where it first appears.
    """
    first = np.full(size, len(codes), dtype=np.int64)
    for start in range(0, len(codes), _SLICE):
        some = codes[start : start + _SLICE].astype(np.int64)
        np.minimum.at(first, some, np.arange(start, start + len(some)))
    used = np.flatnonzero(first < len(codes))
    used = used[np.argsort(first[used])]
    anew = np.zeros(size, dtype=np.int32)
    anew[used] = np.arange(len(used), dtype=np.int32)
    return _by_slice(codes, lambda some: anew[some]), used, first[used]
