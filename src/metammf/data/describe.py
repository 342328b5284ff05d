"""What a data set holds, as plain data: counts, the long tail, modalities, parts, and what features say of taste."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from metammf.data.dataset import PARTS
from metammf.data.interactions import count
from metammf.data.lift import FeatureLift, feature_lift
from metammf.data.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from metammf.data.dataset import Dataset

_CHUNK_VALUES = 1 << 20


@dataclass(frozen=True)
class Activity:
    """Interactions per user or per item.

    Args:
        without: How many have no interaction.
        mean: Over all users or items.
        median: Likewise.
        most: The largest number.
    """

    without: int
    mean: float
    median: float
    most: int


@dataclass(frozen=True)
class LongTail:
    """How unequally interactions fall on items.

    Args:
        gini: Gini coefficient of the items' interactions: 0 all alike, near 1 all on one.
        share_top_1: Share of interactions on the most popular 1% of all items.
        share_top_10: On 10%.
        share_top_20: On 20%.
        items_below_5: Items with fewer than five interactions, none included.
    """

    gini: float
    share_top_1: float
    share_top_10: float
    share_top_20: float
    items_below_5: int


@dataclass(frozen=True)
class Part:
    """One part of the published split.

    Args:
        name: ``train``, ``validation`` or ``test``.
        interactions: In the part.
        users: With an interaction in the part.
        items: Likewise.
        cold_items: Of them, those without a train interaction.
        cold_interactions: Interactions with such items.
    """

    name: str
    interactions: int
    users: int
    items: int
    cold_items: int
    cold_interactions: int


@dataclass(frozen=True)
class ModalityDescription:
    """One feature matrix.

    Args:
        name: The modality.
        width: Features of an item.
        dtype: On disk.
        missing_share: Share of the items that lack the modality.
        constant_columns: Columns of one value for all items that have it: they tell nothing.
        constant_rows: Items all of whose features are one value, often a failed extraction.
        duplicate_rows: Items with the very features of an earlier item.
        lift: What the features say of who watches the items.
    """

    name: str
    width: int
    dtype: str
    missing_share: float
    constant_columns: int
    constant_rows: int
    duplicate_rows: int
    lift: FeatureLift


@dataclass(frozen=True)
class Description:
    """All of it; `to_dict` gives what JSON can hold.

    Args:
        name: The data set's.
        num_users: All users.
        num_items: All items.
        num_interactions: Distinct (user, item) pairs.
        density: Interactions over users times items.
        users: Interactions per user.
        items: Interactions per item.
        long_tail: How unequally they fall on items.
        parts: Of the published split; empty where there is none.
        modalities: In the data set's order.
        first_timestamp: Seconds since 1970, or None.
        last_timestamp: Likewise.
        titles: Share of the items that have a title, or None where there is no such column.
        licence: As recorded, or None.
        seed: Of the pairs that the lift is measured on.
    """

    name: str
    num_users: int
    num_items: int
    num_interactions: int
    density: float
    users: Activity
    items: Activity
    long_tail: LongTail
    parts: tuple[Part, ...]
    modalities: tuple[ModalityDescription, ...]
    first_timestamp: int | None
    last_timestamp: int | None
    titles: float | None
    licence: str | None
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values."""
        return asdict(self)


def describe(dataset: Dataset, *, seed: int = 0, progress: Progress = silent) -> Description:
    """Describe a data set; every feature value is read once, in chunks.

    Args:
        dataset: Of any size.
        seed: Of the pairs that the lift is measured on.
        progress: Called with the feature rows read.
    """
    log, stamps, titles = dataset.interactions, dataset.interactions.timestamps, dataset.catalog.titles
    return Description(
        name=dataset.name,
        num_users=dataset.num_users,
        num_items=dataset.num_items,
        num_interactions=len(log),
        density=len(log) / (dataset.num_users * dataset.num_items),
        users=_activity(log.user_counts),
        items=_activity(log.item_counts),
        long_tail=_long_tail(log.item_counts),
        parts=_parts(dataset),
        modalities=tuple(_modality(dataset, name, seed, progress) for name in dataset.features.modalities),
        first_timestamp=None if stamps is None else int(stamps.min()),
        last_timestamp=None if stamps is None else int(stamps.max()),
        titles=None if titles is None else sum(map(bool, titles)) / len(titles),
        licence=dataset.provenance.get("licence"),
        seed=seed,
    )


def gini(counts: NDArray[Any]) -> float:
    """Return the Gini coefficient of non-negative counts: half the mean difference of two of them over their mean."""
    ordered = np.sort(counts).astype(np.float64)
    total, size = ordered.sum(), len(ordered)
    if not total:
        return 0.0
    return float((2 * np.arange(1, size + 1) - size - 1) @ ordered / (size * total))


def _activity(counts: NDArray[np.int64]) -> Activity:
    return Activity(int((counts == 0).sum()), float(counts.mean()), float(np.median(counts)), int(counts.max()))


def _long_tail(counts: NDArray[np.int64]) -> LongTail:
    running = np.cumsum(np.sort(counts)[::-1])

    def share(of_items: float) -> float:
        return float(running[max(1, round(of_items * len(counts))) - 1] / running[-1])

    return LongTail(gini(counts), share(0.01), share(0.1), share(0.2), int((counts < 5).sum()))


def _parts(dataset: Dataset) -> tuple[Part, ...]:
    if dataset.parts is None:
        return ()
    users, items = dataset.interactions.users, dataset.interactions.items
    warm = np.zeros(dataset.num_items, dtype=np.bool_)
    warm[items[dataset.parts == 0]] = True
    described = []
    for part, name in enumerate(PARTS):
        chosen = dataset.parts == part
        user_counts = count(users[chosen], dataset.num_users)
        item_counts = count(items[chosen], dataset.num_items)
        described.append(
            Part(
                name,
                int(user_counts.sum()),
                int((user_counts > 0).sum()),
                int((item_counts > 0).sum()),
                int((item_counts[~warm] > 0).sum()),
                int(item_counts[~warm].sum()),
            )
        )
    return tuple(described)


def _modality(dataset: Dataset, name: str, seed: int, progress: Progress) -> ModalityDescription:
    matrix, present = dataset.features.matrices[name], dataset.features.present[name]
    width = matrix.shape[1]
    lowest, highest = np.full(width, np.inf), np.full(width, -np.inf)
    constant_rows, fingerprints = 0, []
    for stop, rows in _present_chunks(matrix, present):
        np.minimum(lowest, rows.min(axis=0), out=lowest)
        np.maximum(highest, rows.max(axis=0), out=highest)
        constant_rows += int((rows == rows[:, :1]).all(axis=1).sum())
        fingerprints.append(_fingerprints(rows))
        progress(f"reading {name} features", stop, len(matrix))
    prints = np.concatenate(fingerprints) if fingerprints else np.empty(0, dtype=np.uint64)
    return ModalityDescription(
        name,
        width,
        str(matrix.dtype),
        float(1 - present.mean()) if len(present) else 0.0,
        int((lowest == highest).sum()),
        constant_rows,
        len(prints) - len(np.unique(prints)),
        feature_lift(dataset, name, seed=seed),
    )


def _present_chunks(matrix: NDArray[Any], present: NDArray[np.bool_]) -> Iterator[tuple[int, NDArray[Any]]]:
    step = max(1, _CHUNK_VALUES // matrix.shape[1])
    for start in range(0, len(matrix), step):
        rows = np.asarray(matrix[start : start + step])[present[start : start + step]]
        if len(rows):
            yield min(start + step, len(matrix)), rows


def _fingerprints(rows: NDArray[Any]) -> NDArray[np.uint64]:
    """Return 64 bits of each row: equal for equal rows, and for others by a chance of 2^-64 or so."""
    words = np.ascontiguousarray(rows + 0).view(f"u{rows.itemsize}")  # adding 0 makes -0 a 0
    multipliers = np.random.default_rng(0).integers(2**63, size=words.shape[1], dtype=np.uint64) * 2 + 1
    mixed = words.astype(np.uint64) * multipliers
    return (mixed ^ (mixed >> np.uint64(29))).sum(axis=1, dtype=np.uint64)
