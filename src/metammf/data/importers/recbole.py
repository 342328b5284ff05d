"""RecBole's atomic files: tab-separated tables whose header gives each column a type, ``user_id:token``.

``NAME.inter``, or ``NAME.train.inter``, ``NAME.valid.inter`` and ``NAME.test.inter``: a published split. ``NAME.item`` and
``NAME.user``, where there are some, give the order of items and users, those without interactions included; a title
column becomes the titles, each ``float_seq`` column of the items a modality, where an empty cell says that an item lacks it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from metammf.data.features import ItemFeatures
from metammf.data.ids import IdMap
from metammf.data.importers.assembling import Pairs, hashes, make_dataset, usual_name
from metammf.data.readers import tables
from metammf.data.readers.features import in_usual_order
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
) -> Dataset:
    """Import a folder of this form.

    Args:
        source: The folder.
        user_column: Field of user ids, without its type.
        item_column: Field of item ids.
        timestamp_column: Field of timestamps in seconds; may be absent.
        rating_column: Field of ratings; may be absent.
        min_rating: The lowest rating that counts as an interaction; None: every row counts.

    Raises:
        FileFormatError: a file is missing or damaged, a column or its type is missing, parts overlap.
    """
    name, inters = _find_inters(source)
    fields = (user_column, item_column, timestamp_column, rating_column)
    table, parts = _read_inters(inters, fields, min_rating)
    user_file, item_file = source / f"{name}.user", source / f"{name}.item"
    item_table = _read_typed(item_file, (item_column,)) if item_file.is_file() else None
    user_table = _read_typed(user_file, (user_column,)) if user_file.is_file() else None
    user_ids, users = _number(table["user"], user_table, user_column, user_file, "user")
    item_ids, items = _number(table["item"], item_table, item_column, item_file, "item")
    extra = len(item_ids) - (0 if item_table is None else item_table.height)
    features, rest = _read_items(item_table, item_column, item_file, extra)
    stamps, ratings = (table[key].to_numpy() if key in table.columns else None for key in ("timestamp", "rating"))
    used = [*inters, *(path for path in (item_file, user_file) if path.is_file())]
    return make_dataset(
        name,
        Pairs(users, items, parts, stamps, ratings),
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


def _read_inters(
    paths: list[Path], fields: tuple[str, str, str, str], min_rating: float | None
) -> tuple[pl.DataFrame, NDArray[np.int8] | None]:
    """Return the rows of all files, with the columns that all of them have, and the part of each."""
    frames = [_read_inter(path, fields[0], fields[1], fields[2:], min_rating) for path in paths]
    columns = [name for name in frames[0].columns if all(name in frame.columns for frame in frames)]
    table = pl.concat([frame.select(columns) for frame in frames], how="vertical_relaxed")
    if not table.height:
        raise FileFormatError(paths[0], "holds no interaction" + ("" if min_rating is None else f" of {min_rating:g}"))
    sizes = [frame.height for frame in frames]
    return table, np.repeat(np.arange(3, dtype=np.int8), sizes) if len(paths) == 3 else None


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


def _read_typed(path: Path, required: tuple[str, ...]) -> pl.DataFrame:
    """Read an atomic file; columns are named ``field:type`` still."""
    frame = tables.scan_table(path, separator="\t", quote=None)
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
    return tables.collect(frame, path)


def _field(table: pl.DataFrame, field: str) -> pl.Series | None:
    return next((table[column] for column in table.columns if column.partition(":")[0] == field), None)


def _read_inter(path: Path, user: str, item: str, optional: tuple[str, str], min_rating: float | None) -> pl.DataFrame:
    table = _read_typed(path, (user, item))
    columns: dict[str, Any] = {}
    for key, field in (("user", user), ("item", item)):
        column = _field(table, field)
        assert column is not None
        tables.ids(column, path)
        columns[key] = column
    stamps, ratings = (_field(table, field) for field in optional)
    if stamps is not None:
        columns["timestamp"] = tables.whole(stamps, path, floor=True)
    if ratings is not None:
        columns["rating"] = tables.ratings(ratings, path)
    elif min_rating is not None:
        raise FileFormatError(path, f"has no field {optional[1]!r}", "one, since min_rating is asked for")
    frame = pl.DataFrame(columns)
    return frame if min_rating is None else frame.filter(pl.col("rating") >= min_rating)


def _number(
    column: pl.Series, table: pl.DataFrame | None, field: str, path: Path, kind: str
) -> tuple[IdMap, NDArray[np.int32]]:
    """Number ids in the order of their own file, those that it lacks after them in order of first appearance."""
    seen = column.unique(maintain_order=True)
    if table is not None:
        listed = _field(table, field)
        assert listed is not None
        tables.ids(listed, path)
        repeated = listed.is_first_distinct().not_()
        if repeated.any():
            row = int(repeated.arg_max() or 0)
            raise FileFormatError(path, f"row {row + 1}: {kind} id {listed[row]!r} comes a second time")
        seen = pl.concat([listed.rename(column.name), seen.filter(~seen.is_in(listed.implode()))])
    index = tables.index_ids(column, seen, path, kind)
    return IdMap(tables.ids(seen, path).to_numpy(), kind=kind), index


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
    matrix[np.flatnonzero(present)] = values.reshape(len(cells), -1)
    return matrix, np.concatenate([present, np.zeros(extra, dtype=np.bool_)])
