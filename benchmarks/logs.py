"""Random logs and features of any size: what they cost to learn from does not hang on what they mean."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from metammf.data.dataset import Catalog
from metammf.data.features import ItemFeatures
from metammf.data.ids import IdMap
from metammf.data.importers.registry import import_dataset
from metammf.data.interactions import Interactions
from metammf.data.splitting import Split


def random_log(num_users: int, num_items: int, count: int, *, seed: int = 0) -> Interactions:
    """Draw `count` distinct pairs: users alike, items with a long tail (density ~ rank^-1/2).

    Args:
        num_users: U.
        num_items: N.
        count: Interactions; at most half of all pairs.
        seed: Of the draws.
    """
    assert 2 * count <= num_users * num_items, "too dense to draw"
    rng = np.random.default_rng(seed)
    keys = np.zeros(0, dtype=np.int64)
    while len(keys) < count:
        more = count - len(keys) + count // 20
        items = (num_items * rng.random(more) ** 2).astype(np.int64)
        keys = np.union1d(keys, rng.integers(num_users, size=more) * num_items + items)
    keys = np.sort(rng.choice(keys, count, replace=False))
    users, items = np.divmod(keys, num_items)
    return Interactions(users.astype(np.int32), items.astype(np.int32), num_users, num_items)


def random_split(num_users: int, num_items: int, count: int, *, widths: tuple[int, ...] = (64, 64)) -> Split:
    """Return a random log with a twentieth of it for validation and a twentieth for test, and random features.

    Args:
        num_users: U.
        num_items: N.
        count: Interactions of all three parts together.
        widths: Feature width of each modality.
    """
    log, rng = random_log(num_users, num_items, count), np.random.default_rng(1)
    order, held = rng.permutation(count), count // 20
    train, validation, test = (
        log.select(np.sort(part)) for part in (order[2 * held :], order[:held], order[held : 2 * held])
    )
    features = ItemFeatures(
        {f"modality {place}": rng.standard_normal((num_items, width), np.float32) for place, width in enumerate(widths)}
    )
    catalog = Catalog(IdMap.of_range(num_users, kind="user"), IdMap.of_range(num_items, kind="item"), features)
    return Split(train, validation, test, catalog, "random")


def tiktok(*, quick: bool = False) -> tuple[Split, str]:
    """Return the published split of the public TikTok files, and its name.

    Where METAMMF_DATA names no folder that has them, a random log of the same size stands in, and the name says so; `quick`
    takes a small random one.
    """
    if quick:
        return random_split(120, 60, 1200, widths=(8, 8)), "a small random log"
    folder = Path(os.environ.get("METAMMF_DATA", Path(__file__).parents[2] / "shared" / "data")) / "tiktok"
    if folder.is_dir():
        return import_dataset(folder).split(), "TikTok"
    return random_split(9308, 6710, 66_157, widths=(128, 128)), "a random log of TikTok's size"
