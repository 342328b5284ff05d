"""A plain log of interactions: one CSV, TSV or Parquet file, a row an interaction.

Ids keep their type: whole numbers stay whole numbers where every one of them is written as one, anything else is a
string, so "007" stays what it is. Users and items are numbered in order of first appearance.

A column ``split`` of train, validation and test is the published split. One that holds anything else, leaves train or test
empty or has a pair in two parts is not read, since the log is good without it: the provenance says so under ``notes``.

Order of work: rows below `min_rating` are left out; a pair that comes several times is kept once, with its earliest
timestamp (the first row where there are none) and that row's rating; then the k-core: users and items with fewer than
`k_core` interactions are left out until none is left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from metammf.data.features import ItemFeatures
from metammf.data.ids import IdMap
from metammf.data.importers.assembling import (
    Pairs,
    PartsError,
    distinct,
    gather_features,
    hashes,
    k_core_of,
    make_dataset,
    masked,
)
from metammf.data.interactions import PARTS
from metammf.data.progress import Progress, silent
from metammf.data.readers import tables
from metammf.data.readers.logs import Codes, Rows, Value, read_log
from metammf.errors import ConfigError, FileFormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from metammf.data.dataset import Dataset

_SUFFIXES = (".csv", ".tsv", ".txt", ".parquet")
_SPLIT = "split"
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}
_YEAR_10000 = 253_402_300_800


def recognise(source: Path) -> bool:
    """Whether the source is a file with the ending of a table."""
    return source.is_file() and source.suffix.lower() in _SUFFIXES


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
    *,
    progress: Progress = silent,
) -> Dataset:
    """Import a log of any number of rows: one streamed pass, and a few numbers a row in memory.

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
            a k-core is asked for. ``has_<modality>`` says true or false of each item: whether it has these features.
        features: A folder of ``.npy`` files, a modality each, rows in the order of `items`.
        progress: Called with the rows read, then with what the k-core left out.

    Raises:
        ConfigError: options that do not go together.
        FileFormatError: a column is missing, a value is not what it should be, nothing is left, an item is unknown.
    """
    if features is not None and items is None:
        raise ConfigError("features need items: the table that says which row is which item")
    if not source.is_file():
        raise FileFormatError(source, "is not a file", "the CSV, TSV or Parquet file of the log")
    options = {"min_rating": min_rating, "k_core": k_core, "timestamp_unit": timestamp_unit}
    columns = (user_column, item_column, timestamp_column, rating_column)
    users, items_seen, rest, notes = _read_rows(source, columns, min_rating, timestamp_unit, progress)
    files = [source]
    if items is None:
        places, item_ids = items_seen.codes, items_seen.ids
        content, table = ItemFeatures({}, num_items=len(item_ids)), pl.DataFrame()
    else:
        table = _read_items(Path(items), item_column)
        item_ids = table[item_column]
        places = items_seen.places(item_ids, source, "item")
        content, table = _read_features(features, table, Path(items))
        table = table.drop(item_column)
        files += [Path(items), *(sorted(Path(features).glob("*.npy")) if features is not None else ())]
    log = _Log(Pairs(users.codes, places, **rest), users.ids, item_ids, content, table)
    del users, items_seen, places, rest
    provenance = {"format": "log", "licence": None, "options": options, "sources": hashes(files)}
    try:
        return _finish(log, k_core, source, provenance | notes, progress)
    except PartsError as error:
        log = replace(log, pairs=replace(log.pairs, parts=None))
        return _finish(log, k_core, source, provenance | _not_read(error.reason), progress)


@dataclass(frozen=True)
class _Log:
    pairs: Pairs
    user_ids: pl.Series
    item_ids: pl.Series
    features: ItemFeatures
    items: pl.DataFrame


def _finish(log: _Log, k_core: int | None, source: Path, provenance: dict[str, Any], progress: Progress) -> Dataset:
    if k_core is not None:
        pairs = distinct(log.pairs, len(log.item_ids), source)
        provenance["repeats_merged"] = len(log.pairs.users) - len(pairs.users)
        pairs, users, items = k_core_of(pairs, k_core, len(log.user_ids), len(log.item_ids), source, progress)
        kept = log.items[items] if log.items.width else log.items
        log = _Log(pairs, log.user_ids.gather(users), log.item_ids.gather(items), log.features.select(items), kept)
    return make_dataset(
        source.stem,
        log.pairs,
        IdMap(log.user_ids.to_numpy(), kind="user"),
        log.features,
        IdMap(log.item_ids.to_numpy()),
        items=log.items,
        provenance=provenance,
        path=source,
    )


def _read_rows(
    source: Path,
    columns: tuple[str, str, str | None, str | None],
    min_rating: float | None,
    unit: str,
    progress: Progress,
) -> tuple[Codes, Codes, dict[str, Any], dict[str, Any]]:
    """Return users, items, and what there is of timestamps, ratings and parts, of the rows that count; and notes."""
    user, item, timestamp, rating = columns
    frame = tables.scan_table(source)
    there = tables.columns_of(frame)
    timestamp = timestamp or ("timestamp" if "timestamp" in there else None)
    rating = rating or ("rating" if "rating" in there else None)
    if min_rating is not None and rating is None:
        raise FileFormatError(source, "has no column 'rating'", "one, since min_rating is asked for")
    wanted = _refuse_clash({"user": user, "item": item, "timestamp": timestamp, "rating": rating})
    tables.require_columns(frame, wanted, source, {user: "user_column", item: "item_column"})
    values = {}
    if rating:
        values[rating] = Value(partial(tables.ratings, path=source), pl.Float32)
    if timestamp:
        values[timestamp] = Value(_reader_of_moments(frame, timestamp, source, unit), pl.Int64)
    if _SPLIT in there and _SPLIT not in wanted:
        values[_SPLIT] = Value(lambda column: tables.labels(column, PARTS).fill_null(-1).to_numpy(), pl.Int8)
    rows = read_log(frame, source, (user, item), values, progress=progress)
    users, items = rows.ids[user].typed(source), rows.ids[item].typed(source)
    if not len(users.codes):
        raise FileFormatError(source, "holds no interaction", "at least one row below the header")
    parts, notes = _parts_of(rows, frame, source)
    ratings = rows.values[rating] if rating else None
    rest = {"parts": parts, "timestamps": rows.values[timestamp] if timestamp else None, "ratings": ratings}
    if min_rating is not None and ratings is not None:
        kept = ratings >= min_rating
        if not kept.any():
            raise FileFormatError(source, f"none of {len(ratings)} ratings reaches {min_rating:g}", "an interaction")
        users, items = users.select(kept), items.select(kept)
        rest = {name: None if column is None else column[kept] for name, column in rest.items()}
    return users, items, rest, notes


def _refuse_clash(columns: Mapping[str, str | None]) -> list[str]:
    """Return the columns that are asked for, each of which is one thing."""
    meant: dict[str, str] = {}
    for what, name in columns.items():
        if name in meant:
            raise ConfigError(
                f"column {name!r} is asked for as both {meant[name]}_column and {what}_column; expected two columns"
            )
        if name:
            meant[name] = what
    return list(meant)


def _parts_of(rows: Rows, frame: pl.LazyFrame, source: Path) -> tuple[NDArray[np.int8] | None, dict[str, Any]]:
    """Return the part of each row, or None; where there is a column of another meaning, a note of what it holds."""
    parts = rows.values.get(_SPLIT)
    if parts is None or parts.min() >= 0:
        return parts, {}
    row = int((parts < 0).argmax())
    cell = tables.collect(frame.select(_SPLIT).slice(row, 1), source)[_SPLIT][0]
    return None, _not_read(f"row {row + 1} {'is missing' if cell is None else f'is {cell!r:.60}'}")


def _not_read(reason: str) -> dict[str, Any]:
    return {"notes": [f"column {_SPLIT!r} was not read as a split of {', '.join(PARTS)}: {reason}"]}


def _reader_of_moments(
    frame: pl.LazyFrame, name: str, source: Path, unit: str
) -> Callable[[pl.Series], NDArray[np.int64]]:
    """Return what reads a column of moments: text that begins with a date is dates all the way, other text numbers."""
    if unit not in _PER_SECOND:
        raise ConfigError(f"timestamp_unit {unit!r}: expected one of {', '.join(_PER_SECOND)}")
    first = tables.collect(frame.select(name).head(1), source)[name]
    if first.dtype == pl.String and first.cast(pl.Float64, strict=False).null_count():
        return partial(_dates, source=source)
    return partial(_moments, source=source, unit=unit)


def _dates(column: pl.Series, source: Path) -> NDArray[np.int64]:
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


def _moments(column: pl.Series, source: Path, unit: str) -> NDArray[np.int64]:
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
    tables.require_columns(frame, (item_column,), path, {item_column: "item_column"})
    table = tables.collect(frame, path)
    table = table.with_columns(tables.ids(table[item_column], path).alias(item_column))
    repeated = table[item_column].is_first_distinct().not_()
    if repeated.any():
        row = int(repeated.arg_max() or 0)
        raise FileFormatError(path, f"row {row + 1}: item id {table[item_column][row]!r} comes a second time")
    return table


def _read_features(folder: Path | str | None, table: pl.DataFrame, path: Path) -> tuple[ItemFeatures, pl.DataFrame]:
    """Return the features of a table's items, and the columns that say nothing of them."""
    if folder is None:
        return ItemFeatures({}, num_items=table.height), table
    found, packed = (sorted(Path(folder).glob(f"*.{ending}")) for ending in ("npy", "npz"))
    if packed:
        raise FileFormatError(
            packed[0], "is an .npz file, which holds several arrays", "an .npy file for each modality"
        )
    if not found:
        raise FileFormatError(folder, "holds no .npy file", "one a modality")
    return masked(gather_features(found, table.height), table, path)
