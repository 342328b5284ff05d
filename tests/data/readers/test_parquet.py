"""What a Parquet file's footer and page headers may say: files made by hand, since no writer makes them."""

from __future__ import annotations

import struct

import pytest

from metammf.data.readers.parquet import check_parquet
from metammf.errors import FileFormatError

# Thrift's compact protocol: a header of (field id's step << 4 | kind), and zigzag numbers.
I32, I64, BINARY, LIST, STRUCT = 5, 6, 8, 9, 12


def varint(number):
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def field(step, kind, content):
    return bytes([step << 4 | kind]) + content


def number(value):
    return varint(value << 1)


def items(kind, *contents):
    return bytes([15 << 4 | kind]) + varint(len(contents)) + b"".join(contents)


def struct_of(*fields):
    return b"".join(fields) + b"\0"


def text(value):
    return varint(len(value)) + value


def column_of_empty_pages(pages, groups):
    """A file of one column: every group of rows refers to the same pages, which hold nothing."""
    about = struct_of(*(field(1, I32, number(0)) for _ in range(4)))
    page = struct_of(*(field(1, I32, number(0)) for _ in range(3)), field(2, STRUCT, about))
    body = page * pages
    chunk = struct_of(
        field(1, I32, number(1)), field(1, LIST, items(I32)), field(1, LIST, items(BINARY, text(b"a"))),
        field(1, I32, number(0)), field(1, I64, number(0)), field(1, I64, number(0)),
        field(1, I64, number(len(body))), field(2, I64, number(4)),
    )  # fmt: skip
    columns = items(STRUCT, struct_of(field(2, I64, number(4)), field(1, STRUCT, chunk)))
    group = struct_of(field(1, LIST, columns), field(1, I64, number(0)), field(1, I64, number(0)))
    root = struct_of(field(4, BINARY, text(b"root")), field(1, I32, number(1)))
    leaf = struct_of(field(1, I32, number(1)), field(2, I32, number(0)), field(1, BINARY, text(b"a")))
    footer = struct_of(
        field(1, I32, number(1)), field(1, LIST, items(STRUCT, root, leaf)), field(1, I64, number(0)),
        field(1, LIST, items(STRUCT, *[group] * groups)),
    )  # fmt: skip
    return b"PAR1" + body + footer + struct.pack("<I", len(footer)) + b"PAR1"


def test_pages_are_walked_once(tmp_path):
    path = tmp_path / "log.parquet"
    path.write_bytes(column_of_empty_pages(pages=50, groups=1))
    check_parquet(path)
    path.write_bytes(column_of_empty_pages(pages=50, groups=50))
    with pytest.raises(FileFormatError, match="columns that overlap"):
        check_parquet(path)


@pytest.mark.parametrize("byte", [b"\x19", b"\x1c"], ids=["lists", "structures"])
def test_what_is_nested_without_end_is_refused(tmp_path, byte):
    path = tmp_path / "log.parquet"
    path.write_bytes(b"PAR1" + byte * 50_000 + struct.pack("<I", 50_000) + b"PAR1")
    with pytest.raises(FileFormatError, match="nested too deeply"):
        check_parquet(path)
