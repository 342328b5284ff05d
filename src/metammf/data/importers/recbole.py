"""RecBole's atomic files: tab-separated tables whose header gives each column a type, ``user_id:token``.

``NAME.inter``, or ``NAME.train.inter``, ``NAME.valid.inter`` and ``NAME.test.inter``: a published split. ``NAME.item`` and
``NAME.user``, where there are some, give the order of items and users, those without interactions included; a title
column becomes the titles, each ``float_seq`` column of the items a modality, where an empty cell says that an item lacks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from metammf.data.features import ItemFeatures
from metammf.data.ids import IdMap
from metammf.data.importers.assembling import Pairs, hashes, make_dataset, usual_name
from metammf.data.progress import Progress, silent
from metammf.data.readers import tables
from metammf.data.readers.features import as_features, in_usual_order
from metammf.data.readers.logs import Codes, Value, one_after_another, read_log
from metammf.errors import FileFormatError, did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from metammf.data.dataset import Dataset

_TYPES = ("token", "token_seq", "float", "float_seq")
_TITLES = ("title", "movie_title", "item_title", "name", "item_name")
_PARTS = (".train", ".valid", ".test")


def recognise(source: Path) -> bool:
    """Whether the folder holds an `.inter` file whose header has types."""
    return any(b":token" in tables.first_line(path) for path in sorted(source.glob("*.inter"))[:1])


def read(
    source: Path,
    user_column: str = "user_id",
    item_column: str = "item_id",
    timestamp_column: str = "timestamp",
    rating_column: str = "rating",
    min_rating: float | None = None,
    *,
    progress: Progress = silent,
) -> Dataset:
    """Import a folder of this form.

    Args:
        source: The folder.
        user_column: Field of user ids, without its type.
        item_column: Field of item ids.
        timestamp_column: Field of timestamps in seconds; may be absent.
        rating_column: Field of ratings; may be absent.
        min_rating: The lowest rating that counts as an interaction; None: every row counts.
        progress: Called with the rows read, file by file.

    Raises:
        FileFormatError: a file is missing or damaged, a column or its type is missing, parts overlap.
    """
    name, inters = _find_inters(source)
    fields = (user_column, item_column, timestamp_column, rating_column)
    log = _read_inters(inters, fields, min_rating, progress)
    user_file, item_file = source / f"{name}.user", source / f"{name}.item"
    item_table = _read_typed(item_file, (item_column,)) if item_file.is_file() else None
    user_table = _read_typed(user_file, (user_column,)) if user_file.is_file() else None
    user_ids, users = _number(log.users, user_table, user_column, user_file, "user")
    item_ids, items = _number(log.items, item_table, item_column, item_file, "item")
    extra = len(item_ids) - (0 if item_table is None else item_table.height)
    features, rest = _read_items(item_table, item_column, item_file, extra)
    used = [*inters, *(path for path in (item_file, user_file) if path.is_file())]
    return make_dataset(
        name,
        Pairs(users, items, log.parts, log.timestamps, log.ratings),
        user_ids,
        features,
        item_ids,
        items=rest,
        provenance={
            "format": "recbole",
            "licence": None,
            "options": {"min_rating": min_rating},
            "sources": hashes(used),
        },
        path=inters[0],
    )


@dataclass(frozen=True)
class _Inter:
    """The rows of one `.inter` file, or of all."""

    users: Codes
    items: Codes
    timestamps: NDArray[np.int64] | None
    ratings: NDArray[np.float32] | None
    parts: NDArray[np.int8] | None = None


def _read_inters(
    paths: list[Path], fields: tuple[str, str, str, str], min_rating: float | None, progress: Progress
) -> _Inter:
    """Return the rows of all files, with the columns that all of them have, and the part of each."""
    files = [_read_inter(path, fields[0], fields[1], fields[2:], min_rating, progress) for path in paths]
    sizes = [len(file.users.codes) for file in files]
    if not sum(sizes):
        raise FileFormatError(paths[0], "holds no interaction" + ("" if min_rating is None else f" of {min_rating:g}"))

    def column(name: str) -> Any:
        columns = [getattr(file, name) for file in files]
        return None if any(values is None for values in columns) else np.concatenate(columns)

    return _Inter(
        one_after_another([file.users for file in files]),
        one_after_another([file.items for file in files]),
        column("timestamps"),
        column("ratings"),
        np.repeat(np.arange(3, dtype=np.int8), sizes) if len(paths) == 3 else None,
    )


def _find_inters(source: Path) -> tuple[str, list[Path]]:
    found = sorted(source.glob("*.inter"))
    parted = [[path for path in found if path.stem.endswith(part)] for part in _PARTS]
    if any(parted):
        names = {path.stem.removesuffix(part) for part, paths in zip(_PARTS, parted, strict=True) for path in paths}
        if len(names) > 1 or any(len(paths) != 1 for paths in parted):
            missing = [part for part, paths in zip(_PARTS, parted, strict=True) if not paths]
            what = f"has no file *{missing[0]}.inter" if missing else "holds several data sets"
            raise FileFormatError(source, what, "NAME.train.inter, NAME.valid.inter and NAME.test.inter")
        return names.pop(), [paths[0] for paths in parted]
    if len(found) != 1:
        raise FileFormatError(source, f"holds {len(found)} .inter files", "one, or one for each part of a split")
    return found[0].stem, found


def _scan_typed(path: Path, required: tuple[str, ...]) -> tuple[pl.LazyFrame, dict[str, str]]:
    """Scan an atomic file; return beside it the column ``field:type`` of each field."""
    frame = tables.scan_table(path)
    fields = {}
    for column in tables.columns_of(frame):
        field, _, kind = column.partition(":")
        if kind not in _TYPES:
            raise FileFormatError(
                path, f"column {column!r} has no known type", f"a field and one of {', '.join(_TYPES)}"
            )
        fields[field] = column
    for field in required:
        if field not in fields:
            raise FileFormatError(
                path, f"has no field {field!r}{did_you_mean(field, fields)}; its fields are {', '.join(fields)}"
            )
    return frame, fields


def _read_typed(path: Path, required: tuple[str, ...]) -> pl.DataFrame:
    return tables.collect(_scan_typed(path, required)[0], path)


def _field(table: pl.DataFrame, field: str) -> pl.Series | None:
    return next((table[column] for column in table.columns if column.partition(":")[0] == field), None)


def _read_inter(
    path: Path, user: str, item: str, optional: tuple[str, str], min_rating: float | None, progress: Progress
) -> _Inter:
    frame, fields = _scan_typed(path, (user, item))
    stamp, rating = (fields.get(field) for field in optional)
    if min_rating is not None and rating is None:
        raise FileFormatError(path, f"has no field {optional[1]!r}", "one, since min_rating is asked for")
    values = {}
    if stamp is not None:
        values[stamp] = Value(partial(tables.whole, path=path, floor=True), pl.Int64)
    if rating is not None:
        values[rating] = Value(partial(tables.ratings, path=path), pl.Float32)
    rows = read_log(frame, path, (fields[user], fields[item]), values, progress=progress)
    users, items = rows.ids[fields[user]], rows.ids[fields[item]]
    stamps, ratings = (None if column is None else rows.values[column] for column in (stamp, rating))
    if min_rating is None or ratings is None:
        return _Inter(users, items, stamps, ratings)
    kept = ratings >= min_rating
    return _Inter(users.select(kept), items.select(kept), None if stamps is None else stamps[kept], ratings[kept])


def _number(
    column: Codes, table: pl.DataFrame | None, field: str, path: Path, kind: str
) -> tuple[IdMap, NDArray[np.int32]]:
    """Number ids in the order of their own file, those that it lacks after them in order of first appearance."""
    seen = column.ids
    if table is not None:
        listed = _field(table, field)
        assert listed is not None
        tables.ids(listed, path)
        repeated = listed.is_first_distinct().not_()
        if repeated.any():
            row = int(repeated.arg_max() or 0)
            raise FileFormatError(path, f"row {row + 1}: {kind} id {listed[row]!r} comes a second time")
        seen = pl.concat([listed.rename(column.name), seen.filter(~seen.is_in(listed.implode()))])
    return IdMap(tables.ids(seen, path).to_numpy(), kind=kind), column.places(seen, path, kind)


def _read_items(
    table: pl.DataFrame | None, item_column: str, path: Path, extra: int
) -> tuple[ItemFeatures, pl.DataFrame]:
    """Return features and other columns; `extra` items that the file lacks follow, without either."""
    if table is None:
        return ItemFeatures({}, num_items=extra), pl.DataFrame()
    matrices, masks, rest = {}, {}, {}
    for column in table.columns:
        field, _, kind = column.partition(":")
        if kind == "float_seq":
            name = usual_name(field)
            matrices[name], masks[name] = _matrix(table[column], path, extra)
        elif field != item_column:
            name = "title" if field in _TITLES and "title" not in rest else field
            rest[name] = table[column].extend_constant(None, extra)
    order = in_usual_order(matrices)
    features = ItemFeatures({name: matrices[name] for name in order}, masks, num_items=table.height + extra)
    return features, pl.DataFrame(rest)


def _matrix(column: pl.Series, path: Path, extra: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Parse the cells of a ``float_seq`` column: numbers apart by a space, all of one width, or nothing."""
    present = (column.is_not_null() & (column != "")).fill_null(False).to_numpy()
    cells = column.filter(pl.Series(present)).str.split(" ")
    widths = np.unique(cells.list.len().to_numpy())
    if len(widths) != 1:
        found = f"rows of {widths[0]} to {widths[-1]} numbers" if len(widths) else "no number"
        raise FileFormatError(path, f"column {column.name!r} holds {found}", "as many in each row, or an empty cell")
    values = tables.floats(cells.explode().rename(column.name), path)
    matrix = np.zeros((len(column) + extra, int(widths[0])), dtype=np.float32)
    where = f"{path}, the cells of column {column.name!r} that hold numbers"
    matrix[np.flatnonzero(present)] = as_features(values.reshape(len(cells), -1), where)
    return matrix, np.concatenate([present, np.zeros(extra, dtype=np.bool_)])
