"""What every importer ends with: pairs made distinct, parts checked, features gathered, and a `Dataset` made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from metammf.data.dataset import PARTS, Catalog, Dataset
from metammf.data.features import ItemFeatures
from metammf.data.interactions import Interactions
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

_USUAL_NAMES = {"image_feat": "visual", "audio_feat": "acoustic", "text_feat": "textual"}


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
        FileFormatError: a part is empty (validation may be), or a pair stands in two parts.
    """
    keys = pairs.users.astype(np.int64) * num_items + pairs.items
    by = (keys,) if pairs.timestamps is None else (pairs.timestamps, keys)
    order = np.lexsort(by)  # stable
    first = np.ones(len(keys), dtype=np.bool_)
    first[1:] = keys[order][1:] != keys[order][:-1]
    if pairs.parts is not None:
        _check_parts(pairs, order, first, path)
    if first.all():
        return pairs
    return pairs.select(np.sort(order[first]))


def _check_parts(pairs: Pairs, order: NDArray[Any], first: NDArray[np.bool_], path: Path | str) -> None:
    assert pairs.parts is not None
    sizes = np.bincount(pairs.parts, minlength=len(PARTS))
    for part in (0, 2):
        if not sizes[part]:
            raise FileFormatError(path, f"the {PARTS[part]} part is empty", "at least one interaction")
    sorted_parts = pairs.parts[order]
    crossing = np.flatnonzero(~first[1:] & (sorted_parts[1:] != sorted_parts[:-1])) + 1
    if len(crossing):
        row = order[crossing[0]]
        names = sorted(PARTS[part] for part in sorted_parts[crossing[0] - 1 : crossing[0] + 1])
        raise FileFormatError(
            path,
            f"parts overlap: {len(crossing)} pairs stand in two of them, the first: user {pairs.users[row]}, item"
            f" {pairs.items[row]}, in {names[0]} and {names[1]}",
            "each interaction in one part",
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
        FileFormatError: there is none, or parts overlap or are empty.
    """
    if not len(pairs.users):
        raise FileFormatError(path, "holds no interaction", "at least one")
    kept = distinct(pairs, len(item_ids), path)
    repeats = len(pairs.users) - len(kept.users) + provenance.get("repeats_merged", 0)
    log = Interactions(kept.users, kept.items, len(user_ids), len(item_ids), kept.timestamps, kept.ratings)
    catalog = Catalog(user_ids, item_ids, features, pl.DataFrame() if items is None else items)
    return Dataset(name, log, catalog, kept.parts, {**provenance, "repeats_merged": repeats})


def k_core_of(
    pairs: Pairs, k: int, num_users: int, num_items: int, path: Path | str
) -> tuple[Pairs, NDArray[np.int64], NDArray[np.int64]]:
    """Leave out users and items with fewer than `k` interactions, again and again until none is left.

    Args:
        pairs: Distinct pairs.
        k: At least 1.
        num_users: Users before.
        num_items: Items before.
        path: For messages.

    Returns:
        What is left, over new indices, and the old indices of the users and items that are left.

    Raises:
        ConfigError: `k` is below 1.
        FileFormatError: nothing is left.
    """
    if k < 1:
        raise ConfigError(f"k_core must be at least 1, got {k}")
    while True:
        user_counts = np.bincount(pairs.users, minlength=num_users)
        item_counts = np.bincount(pairs.items, minlength=num_items)
        kept = (user_counts[pairs.users] >= k) & (item_counts[pairs.items] >= k)
        if kept.all():
            break
        pairs = pairs.select(kept)
    if not len(pairs.users):
        raise FileFormatError(path, f"nothing is left of the {k}-core", "a smaller k_core")
    users, items = np.flatnonzero(user_counts), np.flatnonzero(item_counts)
    indexed = (np.searchsorted(users, pairs.users), np.searchsorted(items, pairs.items))
    return Pairs(*indexed, pairs.parts, pairs.timestamps, pairs.ratings), users, items
