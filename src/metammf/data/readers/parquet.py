"""What a Parquet file claims, held against its size before the table library believes it.

A few bytes of Parquet can stand for billions of rows, and a page may claim any size once unpacked. So the footer and the
header of every page are read here, none of the data, in Thrift's compact protocol
(https://github.com/apache/parquet-format, `parquet.thrift`; the numbers below are its field ids).
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from metammf.data.readers.arrow_notes import FoldedError, check_arrow_schema
from metammf.errors import FileFormatError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_MAGIC = b"PAR1"
_MAX_DEPTH = 16  # of Thrift structs and lists; Parquet's own end at 9
_MAX_NESTING = 8  # of columns within columns
_MAX_COLUMNS = 4096
_MAX_FIXED = 64  # bytes of a value of fixed length: a UUID takes 16
_MAX_NOTE = 1024  # bytes of metadata a column, which holds the writer's own schema
_FREE_NOTES = 64 << 10

# A row of an honest table takes a byte at least: its ids are distinct, or the pairs of them are.
_FREE_ROWS, _ROWS_A_BYTE = 1_000_000, 8
_FREE_VALUES, _VALUES_A_BYTE = 4_000_000, 32
_FREE_BYTES, _MAX_RATIO = 64 << 20, 100

_DELTA_BYTE_ARRAY = 7  # each value a prefix of the one before: what it unpacks to is known when it is unpacked


class _DamagedError(Exception):
    """The bytes are not what they should be."""


@dataclass
class _Totals:
    """What all pages of a file claim together."""

    values: int = 0
    packed: int = 0
    unpacked: int = 0
    rows: int = 0


@dataclass
class _Thrift:
    """Reads values of Thrift's compact protocol from `data`, from `place` on; a struct becomes a dict by field id."""

    data: bytes | mmap.mmap
    place: int
    end: int
    depth: int = field(default=0)

    def byte(self) -> int:
        if self.place >= self.end:
            raise _DamagedError("it ends in the midst of a structure")
        self.place += 1
        return self.data[self.place - 1]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            part = self.byte()
            value |= (part & 0x7F) << shift
            if part < 0x80:
                return value
        raise _DamagedError("a number does not end")

    def whole(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def skip(self, count: int) -> bytes:
        """Step over `count` bytes and return the first of them: names are shown, and nothing else is needed."""
        if count > self.end - self.place:
            raise _DamagedError("it ends in the midst of a text")
        start, self.place = self.place, self.place + count
        return self.data[start : start + min(count, 80)]

    def value(self, kind: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self.byte()
        if kind in (4, 5, 6):
            return self.whole()
        if kind == 7:
            return self.skip(8)
        if kind == 8:
            count = self.varint()
            return (self.skip(count), count, self.place - count)
        if kind in (9, 10, 12):
            return self.nested(self.struct if kind == 12 else self.items)
        raise _DamagedError(f"a value of kind {kind}")

    def nested(self, read: Callable[[], Any]) -> Any:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise _DamagedError("structures nested too deeply")
        found = read()
        self.depth -= 1
        return found

    def items(self) -> list[Any]:
        head = self.byte()
        count, kind = head >> 4, head & 15
        count = self.varint() if count == 15 else count
        if count > self.end - self.place:  # each takes a byte at least
            raise _DamagedError(f"a list of {count} values")
        read = self.byte if kind in (1, 2) else lambda: self.value(kind)
        return [read() for _ in range(count)]

    def struct(self) -> dict[int, Any]:
        found: dict[int, Any] = {}
        number = 0
        while head := self.byte():
            number = number + (head >> 4) if head >> 4 else self.whole()
            found[number] = self.value(head & 15)
        return found


def check_parquet(path: Path) -> None:
    """Hold what a Parquet file claims against its size: rows, values, unpacked bytes, depth and number of columns.

    Raises:
        FileFormatError: it is no Parquet file, is damaged, or claims what a file of its size does not hold.
        OSError: it cannot be read.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            _check(data, path)
        except (_DamagedError, FoldedError, KeyError, TypeError, AttributeError, IndexError) as error:
            # A field that is missing, or is of another kind, shows in whatever looks for it.
            raise FileFormatError(path, f"cannot be read as a table: not a whole Parquet file ({error})") from error


def _check(data: mmap.mmap, path: Path) -> None:
    size = len(data)
    if size < 12 or data[:4] != _MAGIC or data[-4:] != _MAGIC:
        raise _DamagedError("it does not begin and end as one does")
    length = int.from_bytes(data[-8:-4], "little")
    if length > size - 12:
        raise _DamagedError(f"a footer of {length} bytes")
    footer = _Thrift(data, size - 8 - length, size - 8).struct()
    for note in footer.get(5) or []:
        if note[1][0] == b"ARROW:schema" and 2 in note:
            _, count, start = note[2]
            check_arrow_schema(data[start : start + count])
    flat = _check_schema(footer[2], footer.get(5) or [], path)
    totals = _Totals()
    for group in footer.get(4) or []:
        totals.rows += _count(group[3])
        for place, chunk in enumerate(group[1]):
            values = _check_chunk(data, chunk[3], totals, path)
            if flat and values != group[3]:
                raise _DamagedError(f"column {place} has {values} values in a group of {group[3]} rows")
    if totals.rows != footer[3]:
        raise _DamagedError(f"{footer[3]} rows are declared, the groups hold {totals.rows}")
    for found, allowed, what in (
        (totals.rows, _FREE_ROWS + _ROWS_A_BYTE * size, "rows"),
        (totals.values, _FREE_VALUES + _VALUES_A_BYTE * size, "values"),
        (totals.unpacked, _FREE_BYTES + _MAX_RATIO * size, "bytes once unpacked"),
    ):
        if found > allowed:
            raise FileFormatError(path, f"claims {found} {what} in {size} bytes", f"at most {allowed}")


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**62:
        raise _DamagedError(f"a count of {value!r}")
    return value


def _check_schema(schema: list[Any], notes: list[Any], path: Path) -> bool:
    """Check the tree of columns; return whether none lies within another."""
    open_levels = [1]  # how many elements are still to come on each level
    for number, element in enumerate(schema):
        while open_levels and not open_levels[-1]:
            open_levels.pop()
        if not open_levels:
            raise _DamagedError("more columns than are declared")
        open_levels[-1] -= 1
        children = _count(element.get(5) or 0)
        if number and not children and _count(element.get(2) or 0) > _MAX_FIXED:
            name = element[4][0].decode(errors="replace")
            raise FileFormatError(
                path, f"column {name!r} has values of {element[2]} bytes each", f"at most {_MAX_FIXED}"
            )
        if children:
            open_levels.append(children)
        if len(open_levels) > _MAX_NESTING or number > _MAX_COLUMNS:
            raise FileFormatError(
                path, "has too many or too deeply nested columns", f"at most {_MAX_COLUMNS}, {_MAX_NESTING} deep"
            )
    if any(open_levels):
        raise _DamagedError("fewer columns than are declared")
    told = sum(_size(note, 1) + _size(note, 2) for note in notes)
    if told > _FREE_NOTES + _MAX_NOTE * len(schema):
        raise FileFormatError(path, f"has {told} bytes of metadata for {len(schema) - 1} columns")
    return all(not element.get(5) for element in schema[1:]) and all(element.get(3) != 2 for element in schema[1:])


def _size(note: Any, number: int) -> int:
    return note[number][1] if number in note else 0


def _check_chunk(data: mmap.mmap, about: Any, totals: _Totals, path: Path) -> int:
    """Walk the pages of one column in one group of rows; return how many values they hold."""
    start = _count(about[9])
    if about.get(11):
        start = min(start, _count(about[11]))
    place, end = start, start + _count(about[7])
    if end > len(data):
        raise _DamagedError("a column that reaches beyond the file's end")
    totals.packed += end - start
    if totals.packed > len(data):  # or the same pages would be walked again and again
        raise _DamagedError("columns that overlap")
    values = 0
    while place < end:
        thrift = _Thrift(data, place, end)
        page = thrift.struct()
        packed, unpacked = _count(page[3]), _count(page[2])
        place = thrift.place + packed
        if place > end:
            raise _DamagedError("a page that reaches beyond its column's end")
        totals.unpacked += unpacked
        if 7 in page:
            if _count(page[7][1]) > unpacked:
                raise _DamagedError(f"a dictionary of {page[7][1]} values in {unpacked} bytes")
            continue
        about_data = page.get(5) or page.get(8)
        if about_data is None:
            continue
        values += _count(about_data[1])
        if about_data.get(2 if 5 in page else 4) == _DELTA_BYTE_ARRAY:
            raise FileFormatError(
                path,
                "has a column in the encoding DELTA_BYTE_ARRAY, which is not read",
                "the encodings that Polars, PyArrow and DuckDB write by themselves",
            )
    if values != about[5]:
        raise _DamagedError(f"a column of {about[5]} values whose pages hold {values}")
    totals.values += values
    return values
