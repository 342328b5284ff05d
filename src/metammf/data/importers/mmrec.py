"""The MMRec form: one table of interactions with the published split in it, one feature file a modality.

``NAME.inter``: tab-separated, ``userID itemID rating [timestamp] x_label``, where ``x_label`` is 0, 1 or 2 for train,
validation and test. Every ``*.npy`` beside it is a modality, row = itemID: ``image_feat``, ``audio_feat`` and
``text_feat`` by their usual names, others by their file's. ``titles.csv``: ``itemID,title``. The numbers from 0 are the
ids, those that do not occur included.

Our own export adds ``user_ids.csv`` and ``item_ids.csv``, which bring back the outside ids and which items lack what.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from metammf.data.features import ItemFeatures
from metammf.data.ids import IdMap
from metammf.data.importers.assembling import Pairs, check_extent, gather_features, hashes, make_dataset, masked
from metammf.data.progress import Progress, silent
from metammf.data.readers import tables
from metammf.data.readers.logs import Value, read_log
from metammf.errors import FileFormatError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from metammf.data.dataset import Dataset

USER_IDS, ITEM_IDS = "user_ids.csv", "item_ids.csv"


def recognise(source: Path) -> bool:
    """Whether the folder holds one `.inter` file whose header has no types."""
    found = list(source.glob("*.inter"))
    header = tables.first_line(found[0]) if len(found) == 1 else b""
    return b":" not in header and b"userID" in header


def read(source: Path, *, progress: Progress = silent) -> Dataset:
    """Import a folder of this form.

    Args:
        source: The folder.
        progress: Called with the rows read.

    Raises:
        FileFormatError: a file is missing or damaged, a column is missing, a number is out of range, parts overlap.
    """
    found = sorted(source.glob("*.inter"))
    if len(found) != 1:
        raise FileFormatError(source, f"holds {len(found)} .inter files", "one")
    inter, feature_files = found[0], sorted(source.glob("*.npy"))
    pairs = _read_pairs(inter, progress)
    features = gather_features(feature_files)
    num_items = features.num_items if feature_files else int(pairs.items.max()) + 1
    too_large = np.flatnonzero(pairs.items >= num_items)
    if len(too_large):
        row = int(too_large[0])
        raise FileFormatError(
            inter, f"row {row + 1}: itemID {pairs.items[row]}", f"below {num_items}, the rows of the features"
        )
    num_users = check_extent(int(pairs.users.max()) + 1, len(pairs.users), "user", inter)
    check_extent(num_items, len(pairs.users), "item", inter)
    item_ids = _outside_ids(source / ITEM_IDS, "item", num_items)
    if feature_files and len(item_ids) != num_items:
        raise FileFormatError(source / ITEM_IDS, f"lists {len(item_ids)} items", f"{num_items}, as the features")
    features = _with_masks(features, source / ITEM_IDS) if feature_files else ItemFeatures({}, num_items=len(item_ids))
    extras = [path for path in (source / "titles.csv", source / USER_IDS, source / ITEM_IDS) if path.is_file()]
    return make_dataset(
        inter.stem,
        pairs,
        _outside_ids(source / USER_IDS, "user", num_users),
        features,
        item_ids,
        items=_titles(source / "titles.csv", len(item_ids)),
        provenance={"format": "mmrec", "licence": None, "sources": hashes([inter, *feature_files, *extras])},
        path=inter,
    )


def _read_pairs(inter: Path, progress: Progress) -> Pairs:
    frame = tables.scan_table(inter)
    tables.require_columns(frame, ("userID", "itemID"), inter)
    whole = Value(partial(tables.whole, path=inter), pl.Int64)
    ratings = Value(partial(tables.ratings, path=inter), pl.Float32)
    known = {"rating": ratings, "timestamp": whole, "x_label": whole, "userID": whole, "itemID": whole}
    there = tables.columns_of(frame)
    columns = {name: value for name, value in known.items() if name in there}
    found = dict(read_log(frame, inter, (), columns, progress=progress).values)
    if not len(found["userID"]):
        raise FileFormatError(inter, "holds no interaction", "at least one row below the header")
    narrow = {"x_label": (2, np.int8), "userID": (2**31 - 2, np.int32), "itemID": (2**31 - 2, np.int32)}
    for name, (highest, dtype) in narrow.items():
        if name in found:
            _refuse_outside(found[name], highest, name, inter)
            found[name] = found[name].astype(dtype)
    return Pairs(found["userID"], found["itemID"], found.get("x_label"), found.get("timestamp"), found.get("rating"))


def _refuse_outside(values: NDArray[np.int64], highest: int, column: str, path: Path) -> None:
    bad = np.flatnonzero((values < 0) | (values > highest))
    if len(bad):
        row = int(bad[0])
        raise FileFormatError(path, f"row {row + 1}, column {column!r} is {values[row]}", f"0 to {highest}")


def _titles(path: Path, num_items: int) -> pl.DataFrame | None:
    if not path.is_file():
        return None
    table = tables.read_table(path, ("itemID", "title"))
    items = tables.whole(table["itemID"], path)
    _refuse_outside(items, num_items - 1, "itemID", path)
    titles: list[str | None] = [None] * num_items
    for item, title in zip(items.tolist(), table["title"].to_list(), strict=True):
        if titles[item] is not None:
            raise FileFormatError(path, f"itemID {item} comes twice", "each item once")
        titles[item] = title
    return pl.DataFrame({"title": pl.Series(titles, dtype=pl.String)})


def _outside_ids(path: Path, kind: str, count: int) -> IdMap:
    if not path.is_file():
        return IdMap.of_range(count, kind=kind)
    table = tables.read_table(path, (f"{kind}ID", f"{kind}_id"))
    if not np.array_equal(tables.whole(table[f"{kind}ID"], path), np.arange(table.height)) or table.height < count:
        raise FileFormatError(path, f"does not list the {kind} numbers 0 to {count - 1} in order")
    ids = tables.ids(table[f"{kind}_id"], path)
    if ids.n_unique() < len(ids):
        row = int(ids.is_first_distinct().not_().arg_max() or 0)
        raise FileFormatError(path, f"row {row + 1}: {kind} id {ids[row]!r} comes a second time", "each id once")
    return IdMap(ids.to_numpy(), kind=kind)


def _with_masks(features: ItemFeatures, path: Path) -> ItemFeatures:
    if not path.is_file():
        return features
    table = tables.read_table(path, (), [f"has_{name}" for name in features.modalities])
    return masked(features, table, path)[0]
