"""Our own layout on disk: a folder that other tools read too.

::

    interactions.parquet   user_id, item_id, optional timestamp (seconds), rating, split (train, validation, test)
    users.parquet          user_id: all users in index order, those without interactions included
    items.parquet          item_id, optional title, path, cover, uploaded_at, ...; has_<modality> where some item lacks it
    features/<name>.npy    one matrix a modality, rows in items.parquet's order, float16 or float32
    dataset.json           name, licence, provenance, counts, and size and SHA-256 of each file

Only ``interactions.parquet`` and ``items.parquet`` are needed, so that such a folder can be written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from metammf.data.dataset import PARTS, Catalog, Dataset
from metammf.data.features import ItemFeatures
from metammf.data.ids import IdMap
from metammf.data.interactions import Interactions
from metammf.data.progress import Progress, silent
from metammf.data.readers import tables
from metammf.data.readers.features import in_usual_order, read_features
from metammf.data.readers.logs import Rows, Value, read_log
from metammf.errors import DataError, FileFormatError
from metammf.files import atomic_folder, read_json, require_replaceable, sha256, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

MARKER = "dataset.json"
_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CHUNK_BYTES = 64 << 20
_GROUP_ROWS = 1 << 18


def load_dataset(path: Path | str, *, progress: Progress = silent) -> Dataset:
    """Load a data set from a folder in our layout; the features stay on disk, memory-mapped.

    All that is there is checked, every feature value included. Hashes are those of `dataset.json` where a file is as
    old and as large as it says, and are computed when first asked for otherwise.

    Args:
        path: The folder.
        progress: Called with the rows read.

    Raises:
        DataError: there is no such folder, or it is of a foreign format: names the command that imports it.
        FileFormatError: a file is not what it should be.
    """
    path = Path(path)
    _require_folder(path)
    about = _read_about(path)
    item_ids, features, items = load_features(path, modalities=about.get("modalities"))
    source = path / "interactions.parquet"
    rows = _read_rows(source, progress)
    user_ids = _read_users(path / "users.parquet", rows.ids["user_id"].ids)
    log = _log_of(rows, user_ids, item_ids, source)
    parts = rows.values.get("split")
    provenance = about.get("provenance") or {}
    return Dataset(
        str(about.get("name") or path.resolve().name),
        log,
        Catalog(user_ids, item_ids, features, items),
        parts,
        provenance,
        path,
        _FileHashes(path, about.get("files") or {}),
    )


def load_features(path: Path | str, *, modalities: list[str] | None = None) -> tuple[IdMap, ItemFeatures, pl.DataFrame]:
    """Load items and their features alone: `items.parquet` and ``features/``.

    Args:
        path: A folder that may hold interactions or not.
        modalities: Their order; None: visual, acoustic, textual, then the others by name.

    Returns:
        Item ids, features, and the items' other columns.

    Raises:
        DataError: there is no such folder.
        FileFormatError: a file is not what it should be.
    """
    path = Path(path)
    if not path.is_dir():
        raise DataError(f"{path}: no such folder")
    source = path / "items.parquet"
    frame = tables.scan_table(source)
    tables.require_columns(frame, ("item_id",), source)
    table = tables.collect(frame, source)
    ids = tables.ids(table["item_id"], source)
    item_ids = _id_map(ids, "item", source)
    files = {file.stem: file for file in (path / "features").glob("*.npy")}
    order = modalities if modalities is not None else in_usual_order(files)
    for name in order:
        if name not in files:
            raise FileFormatError(path / "features" / f"{name}.npy", "no such file", f"as {MARKER} says")
    matrices = {
        name: read_features(files[name], len(item_ids)) for name in [*order, *in_usual_order(set(files) - set(order))]
    }
    masks = {}
    for column in [name for name in table.columns if name.startswith("has_")]:
        modality = column.removeprefix("has_")
        if modality in matrices:
            if table[column].dtype != pl.Boolean or table[column].null_count():
                raise FileFormatError(
                    source, f"column {column!r} is of {table[column].dtype}", "booleans, none missing"
                )
            masks[modality] = table[column].to_numpy()
    items = table.drop("item_id", *(f"has_{name}" for name in masks))
    if "title" in items.columns:
        if items["title"].dtype not in (pl.String, pl.Categorical, pl.Enum, pl.Null):
            raise FileFormatError(source, f"column 'title' is of {items['title'].dtype}", "strings")
        items = items.with_columns(pl.col("title").cast(pl.String))
    return item_ids, ItemFeatures(matrices, masks, num_items=len(item_ids)), items


def save_dataset(dataset: Dataset, path: Path | str, *, progress: Progress = silent) -> None:
    """Write a data set as a folder in our layout, whole or not at all; features are copied in chunks.

    Args:
        dataset: Of any size.
        path: The folder; one that metammf wrote before is replaced.
        progress: Called with the files written.

    Raises:
        DataError: `path` exists and is not a folder that metammf wrote, or cannot be written.
    """
    features = dataset.features
    check_target(path, features.modalities)
    with atomic_folder(path, marker=MARKER) as part:
        try:
            _write_files(dataset, part, progress)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(f"cannot write {path}: {error}") from error
        files = sorted(file for file in part.rglob("*") if file.is_file())
        about = {
            "format": "metammf",
            "version": _VERSION,
            "name": dataset.name,
            "licence": dataset.provenance.get("licence"),
            "provenance": dict(dataset.provenance),
            "counts": {
                "users": dataset.num_users,
                "items": dataset.num_items,
                "interactions": len(dataset.interactions),
            },
            "modalities": list(features.modalities),
            "files": {
                file.relative_to(part).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256(file)}
                for file in files
            },
        }
        write_json(part / MARKER, about)


def check_target(path: Path | str, modalities: Iterable[str] = ()) -> None:
    """Say before the work is done that a data set cannot be saved.

    Raises:
        DataError: `path` exists and is not a folder that metammf wrote, or a modality's name is none for a file.
    """
    for name in modalities:
        if not _NAME.fullmatch(name):
            raise DataError(f"modality {name!r}: a name of letters, digits, '.', '_' and '-' is needed for its file")
    require_replaceable(path, marker=MARKER)


def _write_files(dataset: Dataset, folder: Path, progress: Progress) -> None:
    matrices = dataset.features.matrices
    written = {
        "interactions": log_table(dataset),
        "users": pl.LazyFrame({"user_id": id_series(dataset.catalog.user_ids)}),
        "items": _items_table(dataset.catalog).lazy(),
    }
    count = len(written) + len(matrices)
    for done, (name, frame) in enumerate(written.items()):
        progress(f"writing {name}", done, count)
        frame.sink_parquet(folder / f"{name}.parquet", row_group_size=_GROUP_ROWS)
    (folder / "features").mkdir()
    for done, (name, matrix) in enumerate(matrices.items(), start=len(written)):
        progress(f"writing {name} features", done, count)
        write_matrix(folder / "features" / f"{name}.npy", matrix)


class _FileHashes(Mapping[str, str]):
    """SHA-256 of a folder's files by relative name, each found out when first asked for."""

    def __init__(self, path: Path, recorded: Mapping[str, Any]) -> None:
        self._path, self._recorded = path, recorded
        names = ["interactions.parquet", "users.parquet", "items.parquet"]
        names += sorted(f"features/{file.name}" for file in (path / "features").glob("*.npy"))
        self._hashes: dict[str, str | None] = {name: None for name in names if (path / name).is_file()}

    def __getitem__(self, name: str) -> str:
        known = self._hashes[name]
        if known is None:
            known = self._hashes[name] = self._find(name)
        return known

    def __iter__(self) -> Iterator[str]:
        return iter(self._hashes)

    def __len__(self) -> int:
        return len(self._hashes)

    def _find(self, name: str) -> str:
        file, record = self._path / name, self._recorded.get(name)
        if isinstance(record, dict) and isinstance(record.get("sha256"), str):
            stat = file.stat()
            # Last touched before its record was written, and of the recorded size: unchanged. Otherwise the file is read.
            # The time of change tells of a file that was put there with an older time of modification.
            touched = max(stat.st_mtime_ns, stat.st_ctime_ns)
            if stat.st_size == record.get("bytes") and touched <= (self._path / MARKER).stat().st_ctime_ns:
                return str(record["sha256"])
        return sha256(file)


def _require_folder(path: Path) -> None:
    if not path.is_dir():
        raise DataError(f"{path}: no such folder" if not path.exists() else f"{path}: is a file, not a folder")
    if (path / "interactions.parquet").is_file():
        return
    from metammf.data.importers.registry import recognise

    foreign = recognise(path)
    if foreign is not None:
        raise DataError(
            f"{path} looks like the {foreign.name} form: run `metammf data import {path} OUT --format {foreign.name}`"
            " and use OUT"
        )
    raise FileFormatError(path / "interactions.parquet", "no such file", "a data set in the layout of metammf")


def _read_about(path: Path) -> dict[str, Any]:
    if not (path / MARKER).is_file():
        return {}
    about = read_json(path / MARKER)
    kinds = {"modalities": list, "provenance": dict, "files": dict}
    if not isinstance(about, dict) or any(
        not isinstance(about[key], kind) for key, kind in kinds.items() if about.get(key) is not None
    ):
        raise FileFormatError(path / MARKER, "is not a description of a data set")
    if not all(isinstance(name, str) for name in about.get("modalities") or []):
        raise FileFormatError(path / MARKER, "names a modality that is no text")
    if about.get("version", _VERSION) != _VERSION:
        raise FileFormatError(path / MARKER, f"is of version {about['version']!r}", f"version {_VERSION}")
    return about


def _read_rows(source: Path, progress: Progress) -> Rows:
    frame = tables.scan_table(source)
    tables.require_columns(frame, ("user_id", "item_id"), source)
    known = {
        "timestamp": Value(partial(tables.whole, path=source), pl.Int64),
        "rating": Value(partial(tables.ratings, path=source), pl.Float32),
        "split": Value(partial(_part_labels, source=source), pl.Int8),
    }
    there = tables.columns_of(frame)
    values = {name: value for name, value in known.items() if name in there}
    rows = read_log(frame, source, ("user_id", "item_id"), values, progress=progress)
    if not len(rows.ids["user_id"].codes):
        raise FileFormatError(source, "holds no interaction", "at least one row")
    for part in (0, 2) if "split" in values else ():
        if not (rows.values["split"] == part).any():
            raise FileFormatError(source, f"the {PARTS[part]} part is empty", "at least one interaction")
    return rows


def _read_users(source: Path, seen: pl.Series) -> IdMap:
    if source.is_file():
        seen = tables.ids(tables.read_table(source, ("user_id",))["user_id"], source)
    return _id_map(seen, "user", source)


def _id_map(ids: pl.Series, kind: str, source: Path) -> IdMap:
    if ids.n_unique() < len(ids):
        row = int(ids.is_first_distinct().not_().arg_max() or 0)
        raise FileFormatError(source, f"row {row + 1}: {kind} id {ids[row]!r} comes a second time", "each id once")
    return IdMap(ids.to_numpy(), kind=kind)


def _log_of(rows: Rows, user_ids: IdMap, item_ids: IdMap, source: Path) -> Interactions:
    users = rows.ids["user_id"].places(id_series(user_ids), source, "user")
    items = rows.ids["item_id"].places(id_series(item_ids), source, "item")
    for column in (users, items):
        column.setflags(write=False)  # so that they are not copied
    stamps, ratings = rows.values.get("timestamp"), rows.values.get("rating")
    try:
        return Interactions(users, items, len(user_ids), len(item_ids), stamps, ratings)
    except DataError as error:
        raise _repeated(rows, users.astype(np.int64) * len(item_ids) + items, source) from error


def _repeated(rows: Rows, keys: NDArray[np.int64], source: Path) -> FileFormatError:
    """Say where a pair comes twice: the one fault that indices of known ids can have."""
    again = pl.Series(keys).is_first_distinct().not_().to_numpy()
    row = int(again.argmax())
    parts = rows.values.get("split")
    where = [
        f"{place + 1}" + ("" if parts is None else f" ({PARTS[parts[place]]})")
        for place in (int((keys == keys[row]).argmax()), row)
    ]
    user, item = (rows.ids[name].ids[int(rows.ids[name].codes[row])] for name in ("user_id", "item_id"))
    return FileFormatError(
        source,
        f"rows {where[0]} and {where[1]} are one pair, user {user!r} and item {item!r} ({int(again.sum())} such repeats)",
        "each pair once, in one part",
    )


def _part_labels(split: pl.Series, source: Path) -> NDArray[np.int8]:
    if split.dtype not in (pl.String, pl.Categorical, pl.Enum):
        raise FileFormatError(source, f"column 'split' is of {split.dtype}", "strings")
    parts = tables.labels(split, PARTS)
    if parts.null_count():
        row = int(parts.is_null().arg_max() or 0)
        raise FileFormatError(source, f"row {row + 1}, column 'split' is {split[row]!r}", "train, validation or test")
    return parts.to_numpy()


def id_series(ids: IdMap) -> pl.Series:
    """Return ids as a column, index by index."""
    return pl.Series(ids.ids, dtype=pl.Int64 if ids.is_integer else pl.String)


def log_table(dataset: Dataset) -> pl.LazyFrame:
    """Return the log in outside ids, a row an interaction; ids are put in batch by batch, as the rows are asked for."""
    log, catalog = dataset.interactions, dataset.catalog
    columns = {"user_id": pl.Series(log.users), "item_id": pl.Series(log.items)}
    named = {"user_id": id_series(catalog.user_ids), "item_id": id_series(catalog.item_ids)}
    if log.timestamps is not None:
        columns["timestamp"] = pl.Series(log.timestamps, dtype=pl.Int64)
    if log.ratings is not None:
        columns["rating"] = pl.Series(log.ratings, dtype=pl.Float32)
    if dataset.parts is not None:
        columns["split"], named["split"] = pl.Series(dataset.parts), pl.Series(PARTS)
    return pl.LazyFrame(columns).with_columns(
        pl.col(name).map_batches(values.gather, return_dtype=values.dtype, is_elementwise=True)
        for name, values in named.items()
    )


def _items_table(catalog: Catalog) -> pl.DataFrame:
    masks = {f"has_{name}": pl.Series(mask) for name, mask in catalog.features.present.items() if not mask.all()}
    kept = catalog.items.drop("item_id", *masks, strict=False)
    return pl.DataFrame({"item_id": id_series(catalog.item_ids), **kept.to_dict(), **masks})


def write_matrix(path: Path, matrix: NDArray[Any]) -> None:
    """Write an `.npy` file without holding the matrix in memory; what is neither float16 nor float32 becomes float32."""
    dtype = matrix.dtype if matrix.dtype in (np.float16, np.float32) else np.dtype(np.float32)
    target = np.lib.format.open_memmap(path, mode="w+", dtype=dtype.newbyteorder("="), shape=matrix.shape)
    step = max(1, _CHUNK_BYTES // max(1, matrix.shape[1] * dtype.itemsize))
    for start in range(0, len(matrix), step):
        target[start : start + step] = matrix[start : start + step]
    target.flush()
