"""Train, validation and test: pure, seeded functions from a data set to a `Split`.

A `Split` is all of it; its `development` is the pair that training may see, and holds no trace of the test part.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from scipy import sparse

from metammf.data.interactions import PARTS
from metammf.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from metammf.data.dataset import Catalog, Dataset
    from metammf.data.features import ItemFeatures
    from metammf.data.interactions import Interactions

SplitMethod = Literal["published", "random", "leave-one-out", "user-time", "global-time", "cold-item", "cold-user"]
METHODS: tuple[str, ...] = get_args(SplitMethod)

_ROWS_AT_ONCE = 1 << 20
_HISTORY = 3
"""Label of what cold users come with, beside those of the parts."""


@dataclass(frozen=True, eq=False)
class Development:
    """What training and model selection may see: train and validation, apart from each other.

    Args:
        train: Weights, graph, popularity and co-occurrence come from here alone.
        validation: Chooses, and does nothing else; may be empty.
        catalog: Ids and features.
        history: What users without a train interaction come with when they are ranked for; nothing is learned of it.
    """

    train: Interactions
    validation: Interactions
    catalog: Catalog
    history: Interactions | None = None

    @cached_property
    def cold_items(self) -> NDArray[np.bool_]:
        """Mask of the items without a train interaction, shape (num_items,)."""
        return self.train.item_counts == 0

    def with_features(self, features: ItemFeatures) -> Development:
        """Return the same with other features of the same items."""
        return replace(self, catalog=replace(self.catalog, features=features))

    def refit(self) -> Development:
        """Train and validation joined into train, for a deployment at settings chosen before; nothing to validate on."""
        empty = self.validation.select(np.zeros(len(self.validation), dtype=np.bool_))
        return Development(self.train.union(self.validation), empty, self.catalog, self.history)


@dataclass(frozen=True, eq=False)
class Split:
    """Three disjoint parts over the same users and items.

    Args:
        train: What is learned from.
        validation: What chooses.
        test: What is measured on.
        catalog: Ids and features.
        method: How the parts were made.
        of_one_log: Whether each part was selected from one log by a label, so that the parts cannot overlap.
        history: What users without a train interaction come with when they are ranked for; see `Development`. Left out of their
            lists, as what was seen.

    Raises:
        DataError: parts overlap, differ in their counts, or train or test is empty.
    """

    train: Interactions
    validation: Interactions
    test: Interactions
    catalog: Catalog
    method: str
    of_one_log: InitVar[bool] = False
    history: Interactions | None = None

    def __post_init__(self, of_one_log: bool) -> None:
        shape = (self.catalog.num_users, self.catalog.num_items)
        for name, part in self._parts().items():
            if (part.num_users, part.num_items) != shape:
                raise DataError(
                    f"{name}: over {part.num_users} x {part.num_items}, the catalog over {shape[0]} x {shape[1]}"
                )
        for name in ("train", "test"):
            if not len(getattr(self, name)):
                raise DataError(f"split {self.method!r}: the {name} part is empty")
        if not of_one_log:
            self._refuse_overlap()

    def _parts(self) -> dict[str, Interactions]:
        parts: dict[str, Interactions] = {name: getattr(self, name) for name in PARTS}
        return parts if self.history is None else parts | {"history": self.history}

    def _refuse_overlap(self) -> None:
        parts = self._parts()
        for first, second in combinations(parts, 2):
            shared = np.intersect1d(parts[first].keys, parts[second].keys, assume_unique=True)
            if len(shared):
                user, item = divmod(int(shared[0]), self.catalog.num_items)
                raise DataError(
                    f"{first} and {second} overlap in {len(shared)} interactions, the first: user"
                    f" {self.catalog.user_ids.ids[user]!r}, item {self.catalog.item_ids.ids[item]!r}"
                )

    @cached_property
    def development(self) -> Development:
        """The pair (train, validation), without the test part."""
        return Development(self.train, self.validation, self.catalog, self.history)

    def seen(self, which: Literal["train", "train+validation"]) -> Interactions:
        """Return what a ranking leaves out: train, or train and validation, and what cold users come with."""
        seen = self.train if which == "train" else self.train.union(self.validation)
        return seen if self.history is None else seen.union(self.history)

    @property
    def cold_items(self) -> NDArray[np.bool_]:
        """Mask of the items without a train interaction, shape (num_items,)."""
        return self.development.cold_items


def split(dataset: Dataset, method: str | None = None, *, seed: int = 0, **options: Any) -> Split:
    """Split a data set.

    Args:
        dataset: What to split.
        method: ``published`` (the data set's own labels; the default where there are some), ``random`` (per user),
            ``leave-one-out`` (each user's last item is test, the one before it validation; by time where there are
            timestamps, else drawn at random), ``user-time`` (each user's last interactions by time), ``global-time``
            (one point in time for all users), ``cold-item`` (the published split, or a random one, in which a share of
            the items drawn at random loses its train interactions), or ``cold-user`` (likewise for a share of the users, each of
            which comes with its first few of them as a history when it is ranked for).
        seed: For the methods that draw.
        **options: ``validation_share`` and ``test_share`` (0.1 each; random, user-time, global-time, cold-item, cold-user),
            ``cold_share`` (0.2; cold-item, cold-user) and ``history_size`` (5; cold-user).

    Raises:
        ConfigError: the method or an option is unknown, or out of range.
        DataError: the data set lacks what the method needs, or a part comes out empty.
    """
    if method is None:
        if dataset.parts is None:
            raise ConfigError(f"{dataset.name} carries no split: name a method, one of {', '.join(METHODS[1:])}")
        method = "published"
    if method not in METHODS:
        raise ConfigError(
            f"unknown split method {method!r}{did_you_mean(method, METHODS)}; there are: {', '.join(METHODS)}"
        )
    defaults = {"validation_share": 0.1, "test_share": 0.1, "cold_share": 0.2, "history_size": 5}
    for name, value in options.items():
        if name not in defaults:
            raise ConfigError(f"unknown split option {name!r}{did_you_mean(name, defaults)}")
        if name == "history_size":
            if value < 1 or value != int(value):
                raise ConfigError(f"history_size: expected a whole number of at least 1, got {value}")
        elif not 0 <= float(value) < 1:
            raise ConfigError(f"{name} must be at least 0 and below 1, got {value}")
    if seed < 0:
        raise ConfigError(f"seed: expected a whole number of at least 0, got {seed}")
    shares = defaults | options
    if shares["validation_share"] + shares["test_share"] >= 1:
        raise ConfigError("validation_share and test_share leave nothing to train on")
    rng = np.random.default_rng(seed)
    parts = _LABELLERS[method](dataset, rng, shares)
    log = dataset.interactions
    train, validation, test = (log.select(parts == part) for part in range(3))
    for name, part in (("train", train), ("test", test)):
        if not len(part):
            why = _why_empty(dataset, method, name, shares)
            raise DataError(f"{dataset.name}, split {method!r}: the {name} part is empty: {why}")
    history = log.select(parts == _HISTORY) if method == "cold-user" else None
    return Split(train, validation, test, dataset.catalog, method, of_one_log=True, history=history)


def _why_empty(dataset: Dataset, method: str, part: str, shares: dict[str, float]) -> str:
    """Return the likely reason: what the data set has, and what the method needs."""
    log = dataset.interactions
    if part == "train" and method in ("cold-item", "cold-user"):
        of, count = ("items", dataset.num_items) if method == "cold-item" else ("users", dataset.num_users)
        lost = round(count * shares["cold_share"])
        return (
            f"{lost:,} of {count:,} {of} are cold, and all of train was theirs; expected a smaller cold_share than"
            f" {shares['cold_share']:g}, or more {of}"
        )
    if method == "published" or (method.startswith("cold") and dataset.parts is not None):
        return f"the data set's own labels leave it so; expected another method, one of {', '.join(METHODS[1:])}"
    if method != "leave-one-out" and part == "test" and not shares["test_share"]:
        return "test_share is 0; expected more"
    if method == "global-time":
        times, sizes = np.unique(_timestamps(dataset), return_counts=True)
        return (
            f"{sizes[0]:,} of {len(log):,} interactions are at the first of {len(times):,} distinct times; expected times that"
            " tell them apart, since those of one time stay in one part"
        )
    needed = "" if method == "leave-one-out" else f", and enough of them for test_share {shares['test_share']:g}"
    return (
        f"{len(log):,} interactions of {np.count_nonzero(log.user_counts):,} users, {log.user_counts.max():,} each at most;"
        f" expected users with two or more, since one of each user's stays in train{needed}"
    )


def _published(dataset: Dataset, _rng: np.random.Generator, _shares: dict[str, float]) -> NDArray[np.int8]:
    if dataset.parts is None:
        raise DataError(f"{dataset.name} carries no published split")
    return dataset.parts


def _random(dataset: Dataset, rng: np.random.Generator, shares: dict[str, float]) -> NDArray[np.int8]:
    return _by_order(dataset.interactions, rng.random(len(dataset.interactions)), rng, shares)


def _user_time(dataset: Dataset, rng: np.random.Generator, shares: dict[str, float]) -> NDArray[np.int8]:
    return _by_order(dataset.interactions, _timestamps(dataset), rng, shares)


def _global_time(dataset: Dataset, _rng: np.random.Generator, shares: dict[str, float]) -> NDArray[np.int8]:
    # Borders lie between moments, so that interactions of one moment never stand on both sides of one.
    when = _timestamps(dataset)
    count = len(when)
    test_at, validation_at = (
        min(count - 1, round(count * kept))
        for kept in (1 - shares["test_share"], 1 - shares["test_share"] - shares["validation_share"])
    )
    times = np.partition(when, sorted({validation_at, test_at}))
    test_from, validation_from = times[test_at], times[validation_at]
    parts = np.zeros(count, dtype=np.int8)
    if shares["validation_share"]:
        parts[when >= validation_from] = 1
    if shares["test_share"]:
        parts[when >= test_from] = 2
    return parts


def _leave_one_out(dataset: Dataset, rng: np.random.Generator, _shares: dict[str, float]) -> NDArray[np.int8]:
    log = dataset.interactions
    order_by = log.timestamps if log.timestamps is not None else rng.random(len(log))
    # A user keeps at least one interaction to train on: test from two on, validation from three on.
    return _hold_out_last(log, order_by, rng.random(len(log)), log.user_counts >= 3, log.user_counts >= 2)


def _cold_item(dataset: Dataset, rng: np.random.Generator, shares: dict[str, float]) -> NDArray[np.int8]:
    parts = _published_or_random(dataset, rng, shares)
    cold = _drawn(dataset.num_items, shares["cold_share"], rng)
    parts[(parts == 0) & cold[dataset.interactions.items]] = -1
    return parts


def _cold_user(dataset: Dataset, rng: np.random.Generator, shares: dict[str, float]) -> NDArray[np.int8]:
    log = dataset.interactions
    parts = _published_or_random(dataset, rng, shares)
    cold = _drawn(dataset.num_users, shares["cold_share"], rng)
    rows = np.flatnonzero((parts == 0) & cold[log.users])
    users, ties = log.users[rows], rng.random(len(rows))
    # The first that a user watched, where there are times: what comes later has no say in what it is given.
    order = np.lexsort((ties, users) if log.timestamps is None else (ties, log.timestamps[rows], users))
    places = np.empty(len(rows), dtype=np.int64)
    starts = np.searchsorted(users[order], users[order])
    places[order] = np.arange(len(rows)) - starts
    parts[rows] = np.where(places < shares["history_size"], _HISTORY, -1)
    return parts


def _published_or_random(dataset: Dataset, rng: np.random.Generator, shares: dict[str, float]) -> NDArray[np.int8]:
    """Labels to go on from, the caller's to change."""
    return dataset.parts.copy() if dataset.parts is not None else _random(dataset, rng, shares)


def _drawn(count: int, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return a mask of a share of `count` things, drawn at random."""
    chosen = np.zeros(count, dtype=np.bool_)
    chosen[rng.permutation(count)[: round(count * share)]] = True
    return chosen


def _timestamps(dataset: Dataset) -> NDArray[np.int64]:
    if dataset.interactions.timestamps is None:
        raise DataError(f"{dataset.name} has no timestamps: it cannot be split by time")
    return dataset.interactions.timestamps


def _by_order(
    log: Interactions, order_by: NDArray[Any], rng: np.random.Generator, shares: dict[str, float]
) -> NDArray[np.int8]:
    ties = rng.random(len(log))
    # A user's share is rounded by chance with the right mean, so that short histories are held out too, at the
    # asked rate over all; at least one interaction stays in train.
    lots = rng.random((2, log.num_users))
    counts, room = log.user_counts, np.maximum(log.user_counts - 1, 0)
    test = np.minimum(room, np.floor(counts * shares["test_share"] + lots[0])).astype(np.int64)
    validation = np.minimum(room - test, np.floor(counts * shares["validation_share"] + lots[1])).astype(np.int64)
    return _hold_out_last(log, order_by, ties, validation, test)


def _hold_out_last(
    log: Interactions,
    order_by: NDArray[Any],
    ties: NDArray[np.float64],
    validation: NDArray[Any],
    test: NDArray[Any],
) -> NDArray[np.int8]:
    """Label the last `test[u]` interactions of each user u as test, and the `validation[u]` before them.

    Sorted some users at a time, so that memory is bounded beside what is given.

    Args:
        log: All interactions, shape (n,).
        order_by: What they are put in order by, shape (n,).
        ties: Decides between equal ones, shape (n,).
        validation: How many of each user, shape (num_users,).
        test: Likewise.
    """
    by_user = _rows_by_user(log)
    ends = np.cumsum(log.user_counts)
    parts = np.zeros(len(log), dtype=np.int8)
    start = 0
    while start < len(log):
        last_user = min(int(np.searchsorted(ends, start + _ROWS_AT_ONCE)), len(ends) - 1)
        stop = int(ends[last_user])
        rows = by_user[start:stop]
        users = log.users[rows]
        rows = rows[np.lexsort((ties[rows], order_by[rows], users))]
        from_end = ends[users] - 1 - np.arange(start, stop)
        held_out = from_end < (test[users] + validation[users].astype(np.int64))
        parts[rows] = np.where(from_end < test[users], 2, held_out)
        start = stop
    return parts


def _rows_by_user(log: Interactions) -> NDArray[np.int32]:
    """Return the log's rows, those of each user together and in their order, shape (n,)."""
    rows = np.arange(len(log), dtype=np.int32)
    if (log.users[1:] >= log.users[:-1]).all():
        return rows
    # A matrix with row r of the log as its column r sorts by counting, in 32 bits.
    shape = (log.num_users, len(log))
    cells = sparse.coo_array((np.ones(len(log), dtype=np.int8), (log.users, rows)), shape=shape)
    cells.has_canonical_format = True
    return cells.tocsr().indices


_LABELLERS: dict[str, Callable[[Dataset, np.random.Generator, dict[str, float]], NDArray[np.int8]]] = {
    "published": _published,
    "random": _random,
    "leave-one-out": _leave_one_out,
    "user-time": _user_time,
    "global-time": _global_time,
    "cold-item": _cold_item,
    "cold-user": _cold_user,
}
