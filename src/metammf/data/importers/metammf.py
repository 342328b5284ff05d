"""The folder of the public MMGCN and MetaMMF code.

Interactions, either of:

- ``train.npy``, pairs [user, item] of shape (n, 2), with ``val_full.npy`` and ``test_full.npy`` (or ``val.npy`` and
  ``test.npy``): pairs again, or rows [user, item, item, ...] of unequal length: the published split;
- ``user_item_dict.npy``, a pickled dict of the items of each user: a log without a split.

Each name may end in ``_sample``. That code numbers items from ``num_users`` on, since users and items are nodes of one
graph; here both begin at 0. Where the numbering begins is told by the rows of the features. Features: ``v_feat.npy``,
``feat_v.npy`` or ``FeatureVideo_normal.npy`` (visual), likewise ``a`` and ``FeatureAudio_*`` (acoustic), ``t`` and
``FeatureText_*`` (textual), and any other ``*_feat.npy``. Row numbers from 0 are the ids, those that do not occur included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from metammf.data.features import ItemFeatures
from metammf.data.ids import IdMap
from metammf.data.importers.assembling import Pairs, check_extent, hashes, make_dataset
from metammf.data.readers.features import in_usual_order, read_features
from metammf.data.readers.pickles import load_object_npy
from metammf.errors import FileFormatError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from metammf.data.dataset import Dataset

_SAMPLED_NEGATIVES = 1_000
_MODALITIES = {
    **dict.fromkeys(("v", "video", "visual", "image"), "visual"),
    **dict.fromkeys(("a", "audio", "acoustic"), "acoustic"),
    **dict.fromkeys(("t", "text", "textual"), "textual"),
}


def recognise(source: Path) -> bool:
    """Whether the folder holds `train.npy` or `user_item_dict.npy`."""
    return any(_find(source, name) is not None for name in ("train", "user_item_dict"))


def read(source: Path, num_users: int | None = None) -> Dataset:
    """Import a folder of this form.

    Args:
        source: The folder.
        num_users: Where items are numbered from, for the rare folder that does not tell; 0 where they begin at 0 and
            users are counted by their highest number.

    Raises:
        FileFormatError: a file is missing or damaged, a number is out of range, parts overlap or are empty.
    """
    files = _interaction_files(source)
    rows = [_read_pairs(path) for path in files]
    pairs = np.concatenate(rows)
    parts = np.repeat(np.arange(3, dtype=np.int8), [len(part) for part in rows]) if len(rows) == 3 else None
    if not len(pairs):
        raise FileFormatError(files[0], "holds no interaction", "at least one")
    feature_files = _feature_files(source)
    matrices: dict[str, NDArray[Any]] = {}
    num_items: int | None = None
    for name in in_usual_order(feature_files):
        matrices[name] = read_features(feature_files[name], num_items)
        num_items = len(matrices[name])
    offset = _first_item(pairs, num_items, num_users, files[0])
    users, items = pairs[:, 0], pairs[:, 1] - offset
    num_items = int(items.max()) + 1 if num_items is None else num_items
    num_users = max(int(users.max()) + 1, offset)
    if items.min() < 0 or items.max() >= num_items:
        bad = int(items.min() if items.min() < 0 else items.max()) + offset
        raise FileFormatError(files[0], f"item number {bad} is out of range", f"{offset} to {offset + num_items - 1}")
    check_extent(num_users, len(pairs), "user", files[0])
    check_extent(num_items, len(pairs), "item", files[0])
    return make_dataset(
        source.resolve().name,
        Pairs(users, items, parts),
        IdMap.of_range(num_users, kind="user"),
        ItemFeatures(matrices, num_items=num_items),
        IdMap.of_range(num_items),
        provenance={
            "format": "metammf",
            "licence": None,
            "options": {"items_numbered_from": offset},
            "sources": hashes([*files, *feature_files.values()]),
        },
        path=files[0],
    )


def _find(source: Path, *names: str) -> Path | None:
    candidates = (source / f"{name}{ending}.npy" for name in names for ending in ("", "_sample"))
    return next((path for path in candidates if path.is_file()), None)


def _interaction_files(source: Path) -> list[Path]:
    train, validation, test = (
        _find(source, "train"),
        _find(source, "val_full", "val"),
        _find(source, "test_full", "test"),
    )
    if train is not None:
        for path, name in ((validation, "val_full.npy"), (test, "test_full.npy")):
            if path is None:
                raise FileFormatError(source / name, "no such file", f"the part that goes with {train.name}")
        assert validation is not None
        assert test is not None
        return [train, validation, test]
    whole = _find(source, "user_item_dict")
    if whole is None:
        raise FileFormatError(source / "train.npy", "no such file", "train.npy or user_item_dict.npy")
    return [whole]


def _feature_files(source: Path) -> dict[str, Path]:
    for path in sorted(source.glob("feat_*.pt")):
        raise FileFormatError(path, "is a file of torch, which is not read", f"{path.stem}.npy, saved by numpy.save")
    named: dict[str, Path] = {}
    for path in sorted(source.glob("*.npy")):
        name = _modality(path.stem.removesuffix("_sample"))
        if name is None:
            continue
        if name in named:
            raise FileFormatError(path, f"is of modality {name!r}, and so is {named[name].name}")
        named[name] = path
    return named


def _modality(stem: str) -> str | None:
    """Return the modality of a feature file's stem, or None where it is none."""
    if stem.startswith("Feature"):
        bare = stem.removeprefix("Feature").partition("_")[0]
    elif stem.endswith("_feat") or stem.startswith("feat_"):
        bare = stem.removesuffix("_feat").removeprefix("feat_")
    else:
        return None
    return _MODALITIES.get(bare.lower(), bare)


def _read_pairs(path: Path) -> NDArray[np.int64]:
    """Return the interactions of one file, shape (n, 2), as numbered there."""
    value = load_object_npy(path)
    if isinstance(value, dict):
        rows = [[user, *_items_of(user, items, path)] for user, items in value.items()]
    elif isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.ndim == 2 and value.shape[1] == 2:
        return _numbers(value, path)
    elif isinstance(value, np.ndarray) and value.ndim in (1, 2):
        rows = [_row(row, place, path) for place, row in enumerate(value)]
    else:
        raise FileFormatError(path, f"holds {type(value).__name__}", "pairs, rows of items per user, or a dict of them")
    widest = max(map(len, rows), default=0)
    if path.stem in ("val", "test") and widest > _SAMPLED_NEGATIVES:
        raise FileFormatError(
            path,
            f"holds rows of {widest - 1} items, which is the form with sampled negatives",
            "val_full.npy, test_full.npy",
        )
    users = np.repeat(np.array([row[0] for row in rows], dtype=object), [len(row) - 1 for row in rows])
    items = np.array([item for row in rows for item in row[1:]], dtype=object)
    return _numbers(np.stack([users, items], axis=1), path)


def _items_of(user: Any, items: Any, path: Path) -> list[Any]:
    if not isinstance(items, list | tuple | set | np.ndarray):
        raise FileFormatError(path, f"user {user!r} has a {type(items).__name__}", "a list or set of items")
    return sorted(items) if isinstance(items, set) else list(items)


def _row(row: Any, place: int, path: Path) -> list[Any]:
    if not isinstance(row, list | tuple | np.ndarray) or not len(row):
        raise FileFormatError(path, f"row {place} (from 0) is a {type(row).__name__}", "a user and the items")
    return list(row)


def _numbers(values: NDArray[Any], path: Path) -> NDArray[np.int64]:
    if values.dtype.kind == "O":
        for value in values.ravel().tolist():
            if not isinstance(value, int | np.integer) or isinstance(value, bool):
                raise FileFormatError(path, f"holds {value!r} among its users and items", "whole numbers")
    if len(values) and (values.min() < 0 or values.max() >= 2**31 - 1):
        bad = values.min() if values.min() < 0 else values.max()
        raise FileFormatError(path, f"number {bad} is out of range", "0 to 2^31 - 2")
    return values.astype(np.int64)


def _first_item(pairs: NDArray[np.int64], num_items: int | None, num_users: int | None, path: Path) -> int:
    """Return the number of the first item: 0, or the number of users."""
    highest_user, lowest, highest = int(pairs[:, 0].max()), int(pairs[:, 1].min()), int(pairs[:, 1].max())
    if num_users is not None:
        return num_users
    after_users = highest_user + 1
    if num_items is None:
        return after_users if lowest >= after_users else 0
    from_zero = highest < num_items
    least, most = max(after_users, highest - num_items + 1), lowest
    if from_zero and least > most:
        return 0
    if not from_zero and least <= after_users <= most:
        return after_users
    if not from_zero and least == most:
        return least  # users without interactions come last
    if not from_zero and least > most:
        raise FileFormatError(
            path,
            f"items are numbered {lowest} to {highest} beside users 0 to {highest_user} and {num_items} rows of features",
            "items numbered from 0 or from the number of users",
        )
    raise FileFormatError(
        path, "does not tell whether items are numbered from 0 or from the number of users", "num_users"
    )
