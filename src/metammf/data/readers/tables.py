"""Reading CSV, TSV and Parquet tables of others: every failure names the file, the row and the column.

Text is read as text and turned into numbers here, so that no value is guessed, dropped or rounded on the way: ids are
whole numbers where all of them are written as whole numbers are ("7", not "007"), and strings otherwise. Parquet columns keep
the type that they have.

What a file claims is held against its size before the table library reads it: see `metammf.data.readers.parquet`; a text
that is packed, or whose header has thousands of columns, is refused.
"""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from metammf.data.readers.parquet import check_parquet
from metammf.data.readers.text_faults import find_fault
from metammf.errors import FileFormatError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_WITHOUT_QUOTES = (".inter", ".item", ".user")
_MAX_HEADER = 1 << 20
_MAX_COLUMNS = 4096
# The table library would unpack these by itself, however much comes out: gzip, Zstandard, zlib at its three strengths.
_PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x78\x01", b"\x78\x9c", b"\x78\xda")
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}

_WHOLE = r"^(0|-?[1-9][0-9]{0,17})$"


def scan_table(path: Path | str) -> pl.LazyFrame:
    """Scan a table lazily: Parquet by its extension, anything else as text with a header, all columns strings.

    Columns stand apart by a comma in ``.csv`` and ``.txt``, by a tab in others; RecBole's and MMRec's files know no quotes.

    Raises:
        FileFormatError: the file is missing, empty, or its header cannot be read.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise FileFormatError(path, "is a folder", "a table")
        if not path.stat().st_size:
            raise FileFormatError(path, "is empty", "a table with a header")
    except OSError as error:
        raise FileFormatError(path, f"cannot be read ({error.strerror or error})") from error
    if _is_parquet(path):
        _guard(path, lambda: check_parquet(path))
        frame = _guard(path, lambda: pl.scan_parquet(path, glob=False))
        _guard(path, frame.collect_schema)
        return frame
    separator, quote = _form_of(path)
    _check_header(path, separator.encode(), quote.encode() if quote else None)
    frame = _guard(
        path, lambda: pl.scan_csv(path, separator=separator, quote_char=quote, infer_schema=False, glob=False)
    )
    names = _guard(path, frame.collect_schema).names()
    for name in names:
        if f"{name}_duplicated_0" in names:
            raise FileFormatError(path, f"has two columns {name!r}", "each column once")
    # A blank line is no row. That every column is looked at also finds lines with more fields than the header has.
    return frame.filter(~pl.all_horizontal(pl.all().is_null()))


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _form_of(path: Path) -> tuple[str, str | None]:
    """Return a text file's separator of columns, and its quoting character if it has one, by its extension."""
    suffix = path.suffix.lower()
    return "," if suffix in (".csv", ".txt") else "\t", None if suffix in _WITHOUT_QUOTES else '"'


def _check_header(path: Path, separator: bytes, quote: bytes | None) -> None:
    """Refuse a text that is packed, or whose first row is no header: the table library takes some KiB for every column.

    Raises:
        FileFormatError: says which.
    """
    with path.open("rb") as stream:
        start = stream.read(_MAX_HEADER)
    if start.startswith(_PACKED):
        raise FileFormatError(path, "is compressed", "plain text: unpack it first")
    if start.startswith(_UTF_16):
        raise FileFormatError(path, "is UTF-16 text", "UTF-8: save it so")
    columns = 1
    for outside in start.split(quote)[::2] if quote else [start]:  # what is quoted may hold line ends
        row, ends, _ = outside.partition(b"\n")
        columns += row.count(separator)
        if ends:
            break
    else:
        if len(start) == _MAX_HEADER:
            raise FileFormatError(path, f"its first row is longer than {_MAX_HEADER} bytes", "a header")
        if quote and start.count(quote) % 2:
            raise FileFormatError(path, "a quote that opens in the header is never closed", "quotes in pairs")
    if columns > _MAX_COLUMNS:
        raise FileFormatError(path, f"its header has {columns} columns", f"at most {_MAX_COLUMNS}")


def columns_of(frame: pl.LazyFrame) -> list[str]:
    """Return the column names of a scanned table."""
    return frame.collect_schema().names()


def require_columns(
    frame: pl.LazyFrame, columns: Sequence[str], path: Path | str, options: Mapping[str, str] | None = None
) -> None:
    """Refuse a table that lacks a column.

    Args:
        frame: As `scan_table` returns it.
        columns: The names that it must have.
        path: For messages.
        options: Of some columns, the importer's option that names another in its place.

    Raises:
        FileFormatError: names the columns that are missing, and those that are there; says where they stand apart by another
            separator than the file's ending says.
    """
    there = columns_of(frame)
    for name in columns:
        if name in there:
            continue
        _refuse_separator(Path(path), there)
        option = (options or {}).get(name)
        remedy = f"; {option} (--{option.replace('_', '-')}) names another" if option else ""
        raise FileFormatError(
            path, f"has no column {name!r}{did_you_mean(name, there)}; its columns are {_listed(there)}{remedy}"
        )


def _refuse_separator(path: Path, there: Sequence[str]) -> None:
    """Refuse a text whose header is one column since others separate its columns."""
    if _is_parquet(path) or len(there) != 1:
        return
    expected = _SEPARATORS[_form_of(path)[0]]
    other = next((words for separator, words in _SEPARATORS.items() if separator in there[0]), None)
    if other is not None:
        raise FileFormatError(
            path,
            f"its header {there[0]!r:.80} is one column: its columns seem to be separated by {other}",
            f"{expected} in a file that ends in {path.suffix}",
        )


def _listed(names: Sequence[str]) -> str:
    """Names as they can be shown: of what is no table they may be anything."""
    shown = [name if name.isprintable() else repr(name) for name in names[:20]]
    return ", ".join(name if len(name) <= 60 else f"{name[:60]}..." for name in shown) + (
        f" and {len(names) - 20} more" if len(names) > 20 else ""
    )


def collect(frame: pl.LazyFrame, path: Path | str) -> pl.DataFrame:
    """Read a scanned table.

    Raises:
        FileFormatError: it cannot be read whole.
    """
    return _guard(Path(path), lambda: frame.collect(engine="streaming"))


def read_table(path: Path | str, required: Sequence[str] = (), optional: Sequence[str] = ()) -> pl.DataFrame:
    """Read the named columns of a table: all the required ones and what there is of the optional ones.

    Raises:
        FileFormatError: the file cannot be read, or a required column is missing.
    """
    frame = scan_table(path)
    require_columns(frame, required, path)
    chosen = [*required, *(name for name in optional if name in columns_of(frame))]
    return collect(frame.select(chosen) if chosen else frame, path)


def first_line(path: Path) -> bytes:
    """Return a file's first line, or nothing where it cannot be read: for recognising what it is."""
    try:
        with path.open("rb") as stream:
            return stream.readline(1 << 16)
    except OSError:
        return b""


def _guard(path: Path, read: Any) -> Any:
    """Call `read` and turn what the table library raises into our error; its panics are no `Exception`."""
    try:
        return read()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        line = _line_not_utf8(path)
        if line:
            raise FileFormatError(path, f"line {line} is not UTF-8 text") from error
        if isinstance(error, pl.exceptions.PolarsError) and not _is_parquet(path) and path.is_file():
            fault = find_fault(path, *_form_of(path))
            if fault is not None:
                raise fault from error
        text = str(error).strip().partition("\n")[0] or type(error).__name__
        raise FileFormatError(path, f"cannot be read as a table: {text}") from error


def _line_not_utf8(path: Path) -> int:
    """Return the number of the first line of a text file that is not UTF-8, or 0."""
    if _is_parquet(path) or not path.is_file():
        return 0
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 0


def ids(column: pl.Series, path: Path | str) -> pl.Series:
    """Return a column of ids as Int64 where all are whole numbers, else as String.

    Text files know strings alone, so that there the spelling tells; Parquet says which of the two its ids are.

    Raises:
        FileFormatError: an id is missing, or the column holds something else than text and whole numbers.
    """
    if column.dtype.is_integer():
        _refuse_null(column, path, "an id")
        return _cast(column, pl.Int64, path, "a whole number below 2^63")
    if column.dtype not in (pl.String, pl.Categorical, pl.Enum):
        raise FileFormatError(path, f"column {column.name!r} is of {column.dtype}", "ids: whole numbers or strings")
    column = column.cast(pl.String)
    _refuse_null(column.replace("", None) if (column == "").any() else column, path, "an id")
    typed = _is_parquet(Path(path))
    return column if typed or not column.str.contains(_WHOLE).all() else column.cast(pl.Int64)


def whole(column: pl.Series, path: Path | str, *, floor: bool = False) -> NDArray[np.int64]:
    """Return a column of whole numbers; text may spell them as floats without a fraction ("1.0").

    Args:
        column: Text, numbers, or moments: these become seconds since 1970.
        path: For messages.
        floor: Leave out fractions instead of refusing them.

    Raises:
        FileFormatError: a value is missing or is no whole number.
    """
    if column.dtype in (pl.Date, pl.Datetime):  # no duration, no time of day
        column = column.cast(pl.Datetime("us")).dt.epoch("s")
    if column.dtype == pl.String:
        stripped = column.str.strip_chars()
        exact = stripped.cast(pl.Int64, strict=False)
        column = stripped if exact.null_count() else exact
    if not column.dtype.is_integer():
        values = floats(column, path)
        rounded = np.floor(values)
        bad = np.flatnonzero((np.abs(values) >= 2**53) | ((values != rounded) & (not floor)))
        if len(bad):
            raise FileFormatError(path, _cell(column, int(bad[0])), "a whole number")
        return rounded.astype(np.int64)
    _refuse_null(column, path, "a whole number")
    return _cast(column, pl.Int64, path, "a whole number below 2^63").to_numpy()


def flags(column: pl.Series, path: Path | str) -> NDArray[np.bool_]:
    """Return a column of truth values, spelt true or false in any case, or 1 or 0.

    Raises:
        FileFormatError: a value is missing or is none of these.
    """
    known = {"true": True, "1": True, "false": False, "0": False}
    found = column.cast(pl.String).str.to_lowercase().replace_strict(known, default=None, return_dtype=pl.Boolean)
    if found.null_count():
        raise FileFormatError(path, _cell(column, int(found.is_null().arg_max() or 0)), "true or false")
    return found.to_numpy()


def labels(column: pl.Series, known: Sequence[str]) -> pl.Series:
    """Return the place of each label among the known ones, null where it is none of them, as Int8."""
    if column.dtype not in (pl.String, pl.Categorical, pl.Enum):
        return pl.repeat(None, len(column), dtype=pl.Int8, eager=True)
    places = pl.Series(range(len(known)), dtype=pl.Int8)
    return column.cast(pl.String).replace_strict(pl.Series(known), places, default=None)


def floats(column: pl.Series, path: Path | str) -> NDArray[np.float64]:
    """Return a column of finite numbers.

    Raises:
        FileFormatError: a value is missing, no number, NaN or infinite.
    """
    if not (column.dtype.is_numeric() or column.dtype == pl.String):
        raise FileFormatError(path, f"column {column.name!r} is of {column.dtype}", "numbers")
    if column.dtype == pl.String:
        column = column.str.strip_chars()
    values = _cast(column, pl.Float64, path, "a number").to_numpy()
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise FileFormatError(path, _cell(column, int(bad[0])), "a finite number")
    return values


def ratings(column: pl.Series, path: Path | str) -> NDArray[np.float32]:
    """Return a column of finite numbers that single precision holds.

    Raises:
        FileFormatError: see `floats`.
    """
    values = floats(column, path)
    bad = np.flatnonzero(np.abs(values) > np.finfo(np.float32).max)
    if len(bad):
        raise FileFormatError(path, _cell(column, int(bad[0])), "a number that single precision holds")
    return values.astype(np.float32)


def index_ids(column: pl.Series, known: pl.Series, path: Path | str, kind: str) -> NDArray[np.int32]:
    """Return the place of each id of `column` among the distinct ids `known`.

    Raises:
        FileFormatError: an id is not among them.
    """
    index = places_of(column, known)
    if index.null_count():
        cell = _cell(column, int(index.is_null().arg_max() or 0))
        raise FileFormatError(path, f"{cell}: unknown {kind} id", f"one of the {len(known)} {kind}s")
    return index.to_numpy()


def places_of(column: pl.Series, known: pl.Series) -> pl.Series:
    """Return the place of each id of `column` among the distinct ids `known`, null where it is not there, as Int32."""
    if column.dtype != known.dtype:
        column, known = column.cast(pl.String), known.cast(pl.String)
    table = pl.DataFrame({"id": known, "index": np.arange(len(known), dtype=np.int32)})
    return pl.DataFrame({"id": column}).join(table, on="id", how="left", maintain_order="left")["index"]


def _cast(column: pl.Series, dtype: Any, path: Path | str, expected: str) -> pl.Series:
    cast = column.cast(dtype, strict=False)
    bad = cast.is_null()
    if bad.any():
        raise FileFormatError(path, _cell(column, int(bad.arg_max() or 0)), expected)
    return cast


def _refuse_null(column: pl.Series, path: Path | str, expected: str) -> None:
    if column.null_count():
        raise FileFormatError(path, _cell(column, int(column.is_null().arg_max() or 0)), expected)


def _cell(column: pl.Series, row: int) -> str:
    value = column[row]
    return f"row {row + 1}, column {column.name!r} {'is missing' if value is None else f'is {value!r}'}"
