"""Random logs and features of any size: what they cost to learn from does not hang on what they mean."""

from __future__ import annotations

import numpy as np

from metammf.data.dataset import Catalog
from metammf.data.features import ItemFeatures
from metammf.data.ids import IdMap
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
    catalog = Catalog(
        IdMap.of_range(num_users, kind="user"), IdMap.of_range(num_items, kind="item"), features
    )
    return Split(train, validation, test, catalog, "random")
