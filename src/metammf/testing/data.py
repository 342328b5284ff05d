"""Tiny data whose right answer is known by construction. No torch in here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from metammf.data.dataset import Catalog
from metammf.data.features import ItemFeatures
from metammf.data.ids import IdMap
from metammf.data.interactions import Interactions
from metammf.data.splitting import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

GROUPS = 2


def taste_groups(size: int = 8, *, cold: int = 0, lacking: bool = False, seed: int = 0) -> Split:
    """Two groups of users, each of which watches the items of its own group and nothing else.

    Each group has `size` users and `size` items. A user has watched all items of its group but two, one held out for test
    and one for validation, so that every item is watched equally often, held out equally often, and popularity
    knows nothing. Users and items of the two groups alternate: 0, 2, 4, ... are of the first. One user more, the
    last, has no history. All modalities tell the group of an item.

    Args:
        size: Users and items a group, at least 4.
        cold: Further items a group, at the end, that are in the test part of all users of the group and in no other.
        lacking: Whether some items lack a modality: items 3, 7, 11, ... "textual", items 1, 3, 9, 17, ... "visual".
        seed: Of the noise in the features.

    Returns:
        The split; titles name an item's group ("group 0", "group 1").
    """
    rng = np.random.default_rng(seed)
    warm = GROUPS * size
    num_users, num_items = warm + 1, warm + GROUPS * cold
    parts: dict[str, list[tuple[int, int]]] = {"train": [], "validation": [], "test": []}
    for user in range(warm):
        group, number = user % GROUPS, user // GROUPS
        for other in range(size):
            part = {number: "test", (number + 1) % size: "validation"}.get(other, "train")
            parts[part].append((user, GROUPS * other + group))
        parts["test"] += [(user, warm + GROUPS * other + group) for other in range(cold)]
    columns = {name: np.array(pairs, dtype=np.int32).T for name, pairs in parts.items()}
    logs = {name: Interactions(users, items, num_users, num_items) for name, (users, items) in columns.items()}
    groups = np.arange(num_items) % GROUPS
    catalog = Catalog(
        IdMap([f"user-{user}" for user in range(num_users)], kind="user"),
        IdMap([f"item-{item}" for item in range(num_items)], kind="item"),
        _features(groups, lacking, rng),
        pl.DataFrame({"title": [f"group {group}" for group in groups]}),
    )
    return Split(logs["train"], logs["validation"], logs["test"], catalog, "published")


def _features(groups: NDArray[Any], lacking: bool, rng: np.random.Generator) -> ItemFeatures:
    matrices = {}
    for name, width in (("visual", 5), ("textual", 3)):
        told = rng.standard_normal((GROUPS, width))[groups]
        matrices[name] = (told + 0.05 * rng.standard_normal((len(groups), width))).astype(np.float32)
    present = {name: np.ones(len(groups), dtype=np.bool_) for name in matrices}
    if lacking:
        present["textual"][3::4] = False
        present["visual"][1::8] = False
        present["visual"][3] = False
    return ItemFeatures(matrices, present)


def scrambled(part: Interactions, seed: int = 0, *, avoid: tuple[Interactions, ...] = ()) -> Interactions:
    """Return as many pairs drawn at random, over the same users and items, none of them in `avoid`."""
    free = np.arange(part.num_users * part.num_items)
    for log in avoid:
        free = np.setdiff1d(free, log.keys)
    users, items = np.divmod(np.random.default_rng(seed).choice(free, len(part), replace=False), part.num_items)
    return Interactions(users.astype(np.int32), items.astype(np.int32), part.num_users, part.num_items)
