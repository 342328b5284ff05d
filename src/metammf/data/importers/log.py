"""A plain log of interactions: one CSV, TSV or Parquet file, a row an interaction.

Ids keep their type: whole numbers stay whole numbers where every one of them is written as one, anything else is a
string, so "007" stays what it is. Users and items are numbered in order of first appearance.

Order of work: rows below `min_rating` are left out; a pair that comes several times is kept once, with its earliest
timestamp (the first row where there are none) and that row's rating; then the k-core: users and items with fewer than
`k_core` interactions are left out until none is left.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from metammf.data.features import ItemFeatures
from metammf.data.ids import IdMap
from metammf.data.importers.assembling import Pairs, distinct, gather_features, hashes, k_core_of, make_dataset
from metammf.data.readers import tables
from metammf.errors import ConfigError, FileFormatError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from metammf.data.dataset import Dataset

_SUFFIXES = (".csv", ".tsv", ".txt", ".parquet")
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}
_YEAR_10000 = 253_402_300_800


def recognise(source: Path) -> bool:
    """Whether the source is a file with the ending of a table."""
    return source.is_file() and source.suffix in _SUFFIXES


def read(
    source: Path,
    user_column: str = "user_id",
    item_column: str = "item_id",
    timestamp_column: str | None = None,
    rating_column: str | None = None,
    timestamp_unit: Literal["s", "ms", "us"] = "s",
    min_rating: float | None = None,
    k_core: int | None = None,
    items: Path | str | None = None,
    features: Path | str | None = None,
) -> Dataset:
    """Import a log.

    Args:
        source: A file with a header: ``.csv``, ``.tsv``, ``.txt`` (comma) or ``.parquet``.
        user_column: Column of user ids.
        item_column: Column of item ids.
        timestamp_column: None: ``timestamp``, where there is one.
        rating_column: None: ``rating``, where there is one.
        timestamp_unit: What a number in the timestamp column counts; dates and times are understood too.
        min_rating: The lowest rating that counts as an interaction; None: every row counts.
        k_core: At least so many interactions of each user and item.
        items: A table with `item_column` and others, such as ``title``: all its items are kept, watched or not, unless
            a k-core is asked for.
        features: A folder of ``.npy`` files, a modality each, rows in the order of `items`.

    Raises:
        ConfigError: options that do not go together.
        FileFormatError: a column is missing, a value is not what it should be, nothing is left, an item is unknown.
    """
    if features is not None and items is None:
        raise ConfigError("features need items: the table that says which row is which item")
    if not source.is_file():
        raise FileFormatError(source, "is not a file", "the CSV, TSV or Parquet file of the log")
    options = {"min_rating": min_rating, "k_core": k_core, "timestamp_unit": timestamp_unit}
    table, columns = _read_rows(
        source, user_column, item_column, timestamp_column, rating_column, min_rating, timestamp_unit
    )
    user_ids = IdMap(table[user_column].unique(maintain_order=True).to_numpy(), kind="user")
    item_table = _read_items(Path(items), item_column) if items is not None else None
    known = table[item_column].unique(maintain_order=True) if item_table is None else item_table[item_column]
    pairs = Pairs(
        tables.index_ids(table[user_column], pl.Series(user_ids.ids), source, "user"),
        tables.index_ids(table[item_column], known, source, "item"),
        None,
        **columns,
    )
    del table, columns
    content, files = _read_features(features, len(known)), [source]
    if items is not None:
        files += [Path(items), *(Path(features).glob("*.npy") if features is not None else ())]
    rest = pl.DataFrame() if item_table is None else item_table.drop(item_column)
    if k_core is not None:
        pairs = distinct(pairs, len(known), source)
        pairs, users_kept, items_kept = k_core_of(pairs, k_core, len(user_ids), len(known), source)
        user_ids, known = IdMap(user_ids.ids[users_kept], kind="user"), known.gather(items_kept)
        content, rest = content.select(items_kept), rest[items_kept] if rest.width else rest
    return make_dataset(
        source.stem,
        pairs,
        user_ids,
        content,
        IdMap(known.to_numpy()),
        items=rest,
        provenance={"format": "log", "licence": None, "options": options, "sources": hashes(files)},
        path=source,
    )


def _read_rows(
    source: Path,
    user: str,
    item: str,
    timestamp: str | None,
    rating: str | None,
    min_rating: float | None,
    unit: str,
) -> tuple[pl.DataFrame, dict[str, Any]]:
    frame = tables.scan_table(source)
    there = tables.columns_of(frame)
    timestamp = timestamp or ("timestamp" if "timestamp" in there else None)
    rating = rating or ("rating" if "rating" in there else None)
    if min_rating is not None and rating is None:
        raise FileFormatError(source, "has no column 'rating'", "one, since min_rating is asked for")
    wanted = list(dict.fromkeys(name for name in (user, item, timestamp, rating) if name))
    if len(wanted) < 2 + (timestamp is not None) + (rating is not None):
        raise ConfigError(f"one column cannot be two things: {', '.join(wanted)}")
    tables.require_columns(frame, wanted, source)
    table = tables.collect(frame.select(wanted), source)
    if not table.height:
        raise FileFormatError(source, "holds no interaction", "at least one row below the header")
    ratings = tables.ratings(table[rating], source) if rating else None
    moments = _moments(table[timestamp], source, unit) if timestamp else None
    # One column after the other, so that text and numbers are not both held for all of them.
    table = table.select(user, item)
    table = table.with_columns(tables.ids(table[user], source).alias(user))
    table = table.with_columns(tables.ids(table[item], source).alias(item))
    if min_rating is not None and ratings is not None:
        kept = ratings >= min_rating
        if not kept.any():
            raise FileFormatError(source, f"none of {len(ratings)} ratings reaches {min_rating:g}", "an interaction")
        table, ratings = table.filter(pl.Series(kept)), ratings[kept]
        moments = None if moments is None else moments[kept]
    return table, {"timestamps": moments, "ratings": ratings}


def _moments(column: pl.Series, source: Path, unit: str) -> NDArray[np.int64]:
    if unit not in _PER_SECOND:
        raise ConfigError(f"timestamp_unit {unit!r}: expected one of {', '.join(_PER_SECOND)}")
    if column.dtype == pl.String and column.cast(pl.Float64, strict=False).null_count() == len(column):
        parsed = column.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
        for form in ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"):
            parsed = parsed.fill_null(
                column.str.to_datetime(form, time_unit="us", strict=False).dt.replace_time_zone("UTC")
            )
        days = column.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        parsed = parsed.fill_null(days)
        if parsed.null_count():
            row = int(parsed.is_null().arg_max() or 0)
            raise FileFormatError(
                source, f"row {row + 1}, column {column.name!r} is {column[row]!r}", "a number or an ISO date and time"
            )
        return parsed.dt.epoch("s").to_numpy()
    if column.dtype.is_temporal():
        return tables.whole(column, source)
    moments = np.floor_divide(tables.whole(column, source, floor=True), _PER_SECOND[unit])
    beyond = np.flatnonzero(np.abs(moments) >= _YEAR_10000)
    if len(beyond):
        row = int(beyond[0])
        raise FileFormatError(
            source,
            f"row {row + 1}, column {column.name!r} is {column[row]!r}, beyond the year 9999",
            "seconds since 1970 (for milliseconds: timestamp_unit ms)",
        )
    return moments


def _read_items(path: Path, item_column: str) -> pl.DataFrame:
    frame = tables.scan_table(path)
    tables.require_columns(frame, (item_column,), path)
    table = tables.collect(frame, path)
    table = table.with_columns(tables.ids(table[item_column], path).alias(item_column))
    repeated = table[item_column].is_first_distinct().not_()
    if repeated.any():
        row = int(repeated.arg_max() or 0)
        raise FileFormatError(path, f"row {row + 1}: item id {table[item_column][row]!r} comes a second time")
    return table


def _read_features(folder: Path | str | None, num_items: int) -> ItemFeatures:
    if folder is None:
        return ItemFeatures({}, num_items=num_items)
    found = sorted(Path(folder).glob("*.npy"))
    if not found:
        raise FileFormatError(folder, "holds no .npy file", "one a modality")
    return gather_features(found, num_items)
