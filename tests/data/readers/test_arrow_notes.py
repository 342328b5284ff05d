"""The schema that Arrow's writers leave in Parquet files: those of writers pass, those made by hand to unfold do not."""

from __future__ import annotations

import base64
import io
import struct

import polars as pl
import pytest

from metammf.data.readers.arrow_notes import FoldedError, check_arrow_schema
from metammf.data.readers.parquet import check_parquet
from metammf.errors import FileFormatError

# How the tables below are laid out: bytes of this, of the table, then where each slot lies in it.
MESSAGE, SCHEMA, FIELD, LEAF = (10, 8, 0, 0, 4), (8, 8, 0, 4), (16, 8, 0, 0, 0, 0, 0, 4), (4, 4)


def folded(levels, width):
    """A schema of fields within fields: each level is one field, to which the level above refers `width` times."""
    layouts, data = {}, bytearray(4)
    for layout in (MESSAGE, SCHEMA, FIELD, LEAF):
        layouts[layout] = len(data)
        data += struct.pack(f"<{len(layout)}H", *layout)
    data += b"\0" * (-len(data) % 4)
    data[:4] = struct.pack("<I", len(data))

    def table(layout):
        data.extend(struct.pack("<i", len(data) - layouts[layout]))

    table(MESSAGE)
    data += struct.pack("<I", 4)  # the schema follows at once
    table(SCHEMA)
    for _ in range(levels):
        data += struct.pack("<II", 4, width)  # its vector follows at once, and then the one field of it
        data += struct.pack(f"<{width}I", *(4 * (width - place) for place in range(width)))
        table(FIELD)
    data[-4:] = b""
    table(LEAF)
    return base64.b64encode(b"\xff\xff\xff\xff" + struct.pack("<I", len(data)) + data)


def test_fields_within_fields_are_read():
    check_arrow_schema(folded(8, 1))


@pytest.mark.parametrize(("levels", "width"), [(14, 2), (60, 2), (3, 1000), (1000, 1)])
def test_what_unfolds_is_refused(levels, width):
    with pytest.raises(FoldedError, match=r"unfolds|nested"):
        check_arrow_schema(folded(levels, width))


@pytest.mark.parametrize("text", [b"", b"AAAA", b"no base 64", folded(2, 2)[:40], b"/" * 400])
def test_damage_is_refused(text):
    with pytest.raises(FoldedError, match="damaged"):
        check_arrow_schema(text)


def test_files_of_writers_pass_and_one_that_unfolds_does_not(tmp_path):
    table = pl.DataFrame({"user_id": ["a"], "nested": [[{"x": [1.0], "y": "z"}]], "when": [None]}).with_columns(
        pl.col("when").cast(pl.Datetime("us", "Europe/Berlin")), pl.col("user_id").cast(pl.Categorical)
    )
    path = tmp_path / "log.parquet"
    table.write_parquet(path)
    check_parquet(path)
    stream = io.BytesIO()
    table.write_parquet(stream, metadata={"ARROW:schema": folded(14, 2).decode()})
    path.write_bytes(stream.getvalue())
    with pytest.raises(FileFormatError, match="unfolds"):
        check_parquet(path)
