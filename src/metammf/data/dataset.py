"""A data set: interactions, features and the ids of the outside world, all of one size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from metammf.data.features import absent_features
from metammf.data.interactions import PARTS as PARTS
from metammf.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from metammf.data.features import ItemFeatures
    from metammf.data.ids import IdMap
    from metammf.data.interactions import Interactions
    from metammf.data.splitting import Split


@dataclass(frozen=True, eq=False)
class Catalog:
    """What is known apart from who watched what: ids, features and the items' own columns.

    Args:
        user_ids: Outside user ids, index by index.
        item_ids: Outside item ids, likewise.
        features: One row an item.
        items: One row an item: optional ``title``, ``path``, ``cover``, ``uploaded_at``, ...

    Raises:
        DataError: the counts of items differ.
    """

    user_ids: IdMap
    item_ids: IdMap
    features: ItemFeatures
    items: pl.DataFrame = field(default_factory=pl.DataFrame)

    def __post_init__(self) -> None:
        if self.features.num_items != self.num_items:
            raise DataError(f"features of {self.features.num_items} items, but there are {self.num_items} item ids")
        if self.items.width and self.items.height != self.num_items:
            raise DataError(f"items table of {self.items.height} rows, but there are {self.num_items} item ids")

    @property
    def num_users(self) -> int:
        """All users, with or without interactions."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """All items, with or without interactions."""
        return len(self.item_ids)

    @property
    def titles(self) -> list[str | None] | None:
        """Title of each item, or None where the data set has no titles."""
        return self.items["title"].to_list() if "title" in self.items.columns else None

    def with_items(self, item_ids: Sequence[Any], titles: Sequence[str] | None = None) -> Catalog:
        """Return the catalog with further items after those that it has, and without the features of any.

        Raises:
            DataError: an id is there already, or is of another type.
        """
        ids, items = self.item_ids.extend(item_ids), self.items
        if items.width:
            new = items.clear(len(item_ids))
            if "title" in items.columns and titles is not None:
                new = new.with_columns(pl.Series("title", list(titles), dtype=pl.String))
            items = pl.concat([items, new])
        return Catalog(self.user_ids, ids, absent_features(self.features.widths, len(ids)), items)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A log and what its items look, sound and read like.

    Args:
        name: For people.
        interactions: All parts together.
        catalog: Ids and features.
        parts: Published part of each interaction as an index into `PARTS`, shape (n,), or None.
        provenance: Licence, source, import options: plain values, kept with what is made of the data.
        path: The folder it was read from.
        hashes: SHA-256 of the files it was read from.

    Raises:
        DataError: the counts of users, items or parts differ, or there is no interaction.
    """

    name: str
    interactions: Interactions
    catalog: Catalog
    parts: NDArray[np.int8] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        log, catalog = self.interactions, self.catalog
        if (log.num_users, log.num_items) != (catalog.num_users, catalog.num_items):
            raise DataError(
                f"{self.name}: interactions over {log.num_users} x {log.num_items}, ids over {catalog.num_users} x"
                f" {catalog.num_items}"
            )
        if not len(log):
            raise DataError(f"{self.name}: there is no interaction")
        if self.parts is not None:
            if len(self.parts) != len(log):
                raise DataError(f"{self.name}: {len(log)} interactions, but {len(self.parts)} part labels")
            if self.parts.min() < 0 or self.parts.max() >= len(PARTS):
                raise DataError(
                    f"{self.name}: part labels must be 0, 1 or 2, got {self.parts.min()}..{self.parts.max()}"
                )

    @property
    def num_users(self) -> int:
        """All users, with or without interactions."""
        return self.catalog.num_users

    @property
    def num_items(self) -> int:
        """All items, with or without interactions."""
        return self.catalog.num_items

    @property
    def features(self) -> ItemFeatures:
        """Content features, one row an item."""
        return self.catalog.features

    def split(self, method: str | None = None, *, seed: int = 0, **options: Any) -> Split:
        """Split into train, validation and test; see `metammf.data.splitting.split`."""
        from metammf.data.splitting import split

        return split(self, method, seed=seed, **options)
