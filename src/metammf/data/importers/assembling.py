"""What every importer ends with: pairs made distinct, parts checked, features gathered, and a `Dataset` made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from metammf.data.dataset import PARTS, Catalog, Dataset
from metammf.data.features import ItemFeatures
from metammf.data.interactions import Interactions, count
from metammf.data.progress import Progress, silent
from metammf.data.readers import tables
from metammf.data.readers.features import in_usual_order, read_features
from metammf.errors import ConfigError, FileFormatError
from metammf.files import sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from metammf.data.ids import IdMap

# A matrix may have empty rows, but one that is nearly all of them is a damaged or hostile file.
_MAX_EMPTY = 1_000_000

_SLICE = 1 << 21

_USUAL_NAMES = {"image_feat": "visual", "audio_feat": "acoustic", "text_feat": "textual"}


class PartsError(FileFormatError):
    """Parts that are no split: one is empty, or a pair stands in two.

    Args:
        path: The file.
        reason: What is wrong.
        expected: What would have been right.
        example: Where, in words that follow the reason.
    """

    def __init__(self, path: Path | str, reason: str, expected: str, example: str = "") -> None:
        self.reason = reason
        super().__init__(path, reason + example, expected)


@dataclass(frozen=True)
class Pairs:
    """Interactions as read: repeats are still in.

    Args:
        users: User indices, shape (n,).
        items: Item indices, shape (n,).
        parts: Index into `PARTS` of each, or None.
        timestamps: Seconds since 1970, or None.
        ratings: Or None.
    """

    users: NDArray[Any]
    items: NDArray[Any]
    parts: NDArray[np.int8] | None = None
    timestamps: NDArray[np.int64] | None = None
    ratings: NDArray[Any] | None = None

    def select(self, chosen: NDArray[Any]) -> Pairs:
        """Return some of the rows."""

        def of(column: Any) -> Any:
            return None if column is None else column[chosen]

        return Pairs(self.users[chosen], self.items[chosen], of(self.parts), of(self.timestamps), of(self.ratings))


def distinct(pairs: Pairs, num_items: int, path: Path | str) -> Pairs:
    """Keep each pair once: the earliest by time, the first in the file where times are equal or absent.

    Raises:
        PartsError: a part is empty (validation may be), or a pair stands in two parts.
    """
    keys = pairs.users.astype(np.int64)
    keys *= num_items
    keys += pairs.items
    if pairs.parts is not None:
        _refuse_empty_parts(pairs.parts, path)
    rows = _repeating(keys)
    if not len(rows):
        return pairs
    keys = keys[rows]
    by = (keys,) if pairs.timestamps is None else (pairs.timestamps[rows], keys)
    order = np.lexsort(by)  # stable
    rows, again = rows[order], np.zeros(len(rows), dtype=np.bool_)
    again[1:] = keys[order][1:] == keys[order][:-1]
    if pairs.parts is not None:
        _refuse_crossing(pairs, rows, again, path)
    kept = np.ones(len(pairs.users), dtype=np.bool_)
    kept[rows[again]] = False
    return pairs.select(kept)


def _repeating(keys: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the places of keys that come more than once: few, as a rule, so that little is put in order."""
    ascending = np.sort(keys)
    repeated = np.unique(ascending[1:][ascending[1:] == ascending[:-1]])
    del ascending
    if not len(repeated):
        return np.empty(0, dtype=np.intp)
    found = np.empty(len(keys), dtype=np.bool_)
    for start in range(0, len(keys), _SLICE):
        some = keys[start : start + _SLICE]
        places = np.minimum(np.searchsorted(repeated, some), len(repeated) - 1)
        found[start : start + _SLICE] = repeated[places] == some
    return np.flatnonzero(found)


def _refuse_empty_parts(parts: NDArray[np.int8], path: Path | str) -> None:
    sizes = np.bincount(parts, minlength=len(PARTS))
    for part in (0, 2):
        if not sizes[part]:
            raise PartsError(path, f"the {PARTS[part]} part is empty", "at least one interaction")


def _refuse_crossing(pairs: Pairs, rows: NDArray[np.intp], again: NDArray[np.bool_], path: Path | str) -> None:
    """Look for a pair in two parts: `rows` holds those of one pair together, `again` marks all but its first."""
    assert pairs.parts is not None
    parts = pairs.parts[rows]
    crossing = np.flatnonzero(again[1:] & (parts[1:] != parts[:-1])) + 1
    if len(crossing):
        row = rows[crossing[0]]
        names = sorted(PARTS[part] for part in parts[crossing[0] - 1 : crossing[0] + 1])
        raise PartsError(
            path,
            f"parts overlap: {len(crossing)} pairs stand in two of them",
            "each interaction in one part",
            f", the first: user {pairs.users[row]}, item {pairs.items[row]}, in {names[0]} and {names[1]}",
        )


def check_extent(count: int, interactions: int, kind: str, path: Path | str) -> int:
    """Return `count`, the rows or columns that a file declares, or refuse it where next to none of them is used.

    Raises:
        FileFormatError: more than a million, and a hundred times the interactions.
    """
    if count > _MAX_EMPTY + 100 * interactions:
        raise FileFormatError(path, f"declares {count} {kind}s for {interactions} interactions")
    return count


def usual_name(stem: str) -> str:
    """Return the usual name of the three usual feature files' stems, any other stem as it is."""
    return _USUAL_NAMES.get(stem, stem)


def gather_features(
    files: Iterable[Path], num_items: int | None = None, *, name_of: Callable[[str], str] = usual_name
) -> ItemFeatures:
    """Read one feature file a modality, in the usual order: visual, acoustic, textual, then by name.

    Args:
        files: Of `.npy` form.
        num_items: How many rows they must have; None: as many as each other.
        name_of: From a file's stem to its modality.

    Raises:
        FileFormatError: two files are of one modality, or one of them is not what it should be.
    """
    named: dict[str, Path] = {}
    for path in sorted(files):
        name = name_of(path.stem)
        if name in named:
            raise FileFormatError(path, f"is of modality {name!r}, and so is {named[name].name}")
        named[name] = path
    matrices: dict[str, NDArray[Any]] = {}
    for name in in_usual_order(named):
        matrices[name] = read_features(named[name], num_items)
        num_items = len(matrices[name])
    return ItemFeatures(matrices, num_items=num_items or 0)


def masked(features: ItemFeatures, table: pl.DataFrame, path: Path | str) -> tuple[ItemFeatures, pl.DataFrame]:
    """Take from a table of items, a row each, the ``has_<modality>`` columns that say who lacks what.

    Args:
        features: Of the same items in the same order.
        table: Columns of modalities that there are not stay what they are.
        path: For messages.

    Returns:
        The features with these masks, and the table without these columns.

    Raises:
        FileFormatError: a value is missing or is neither true nor false.
    """
    columns = {f"has_{name}": name for name in features.modalities if f"has_{name}" in table.columns}
    masks = {name: tables.flags(table[column], path) for column, name in columns.items()}
    return ItemFeatures(features.matrices, masks, num_items=features.num_items), table.drop(columns)


def hashes(files: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 of each source file by its bare name."""
    return {path.name: sha256(path) for path in files}


def make_dataset(
    name: str,
    pairs: Pairs,
    user_ids: IdMap,
    features: ItemFeatures,
    item_ids: IdMap,
    *,
    items: pl.DataFrame | None = None,
    provenance: Mapping[str, Any],
    path: Path | str,
) -> Dataset:
    """Make the data set of pairs that may repeat.

    Raises:
        FileFormatError: there is none.
        PartsError: parts overlap or are empty.
    """
    if not len(pairs.users):
        raise FileFormatError(path, "holds no interaction", "at least one")
    kept = distinct(pairs, len(item_ids), path)
    repeats = len(pairs.users) - len(kept.users) + provenance.get("repeats_merged", 0)
    for column in (kept.users, kept.items):
        column.setflags(write=False)  # so that they are not copied
    log = Interactions(kept.users, kept.items, len(user_ids), len(item_ids), kept.timestamps, kept.ratings)
    catalog = Catalog(user_ids, item_ids, features, pl.DataFrame() if items is None else items)
    return Dataset(name, log, catalog, kept.parts, {**provenance, "repeats_merged": repeats})


def k_core_of(
    pairs: Pairs, k: int, num_users: int, num_items: int, path: Path | str, progress: Progress = silent
) -> tuple[Pairs, NDArray[np.int64], NDArray[np.int64]]:
    """Leave out users and items with fewer than `k` interactions, again and again until none is left.

    On whole numbers alone: a round looks at each pair that is left once, and counts anew only what has gone.

    Args:
        pairs: Distinct pairs.
        k: At least 1.
        num_users: Users before.
        num_items: Items before.
        path: For messages.
        progress: Called with the pairs left out, and all of them.

    Returns:
        What is left, over new indices, and the old indices of the users and items that are left.

    Raises:
        ConfigError: `k` is below 1.
        FileFormatError: nothing is left.
    """
    if k < 1:
        raise ConfigError(f"k_core must be at least 1, got {k}")
    user_counts, item_counts = count(pairs.users, num_users), count(pairs.items, num_items)
    left = np.ones(len(pairs.users), dtype=np.bool_)
    while True:
        going = (user_counts < k)[pairs.users]
        going |= (item_counts < k)[pairs.items]
        going &= left
        if not going.any():
            break
        user_counts -= count(pairs.users[going], num_users)
        item_counts -= count(pairs.items[going], num_items)
        left &= ~going
        progress(f"{k}-core", len(left) - int(left.sum()), len(left))
    if not left.any():
        raise FileFormatError(path, f"nothing is left of the {k}-core", "a smaller k_core")
    pairs = pairs.select(left)
    users, items = np.flatnonzero(user_counts), np.flatnonzero(item_counts)
    indexed = (_renumbered(pairs.users, users, num_users), _renumbered(pairs.items, items, num_items))
    return Pairs(*indexed, pairs.parts, pairs.timestamps, pairs.ratings), users, items


def _renumbered(indices: NDArray[Any], kept: NDArray[np.int64], size: int) -> NDArray[np.int32]:
    anew = np.zeros(size, dtype=np.int32)
    anew[kept] = np.arange(len(kept), dtype=np.int32)
    return anew[indices]
