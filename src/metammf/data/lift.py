"""Feature lift: do the features of items say anything about who watches them?

Users watch what is alike in some way. If features see that, two items of one user are more alike than an item of the
user and a stranger of like popularity. If rows are shuffled or shifted, so that each item carries the features of
another, the difference vanishes: a misaligned file is seen at once, before anything is trained on it.

    lift = mean over pairs of cos(x_i, x_j) - cos(x_i, x_j')

i, j: two items of one user, drawn user by user; j': the item next to j in the order of popularity, if that user has not
watched it. Features are centred,
since raw ones often point all one way. The z-score is against the same pairs under shuffled rows, which keeps what
popular items do to the spread. Where items are few, the pairs are drawn several times, each with a new order among equally
popular ones: one draw would say as much about itself as about the features.

No relation is shown by a lift that is small for certain, not by one that is uncertain: rows are doubted only where what was
found and twice the spread on top are still next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from metammf.data.interactions import count
from metammf.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from metammf.data.dataset import Dataset
    from metammf.data.interactions import Interactions

Verdict = Literal["follows taste", "weak", "unclear", "none", "constant", "too few pairs"]

_PAIRS = 10_000
_SHUFFLES = 30
_FEWEST_PAIRS = 100
_CENTRE_ROWS = 200_000
_FEW_ITEMS = 2_000
_ROUNDS = 10
# Rows in order lift by .04 to .12 on TikTok and Last.fm 2K; less than half of the least of these is next to nothing.
_LEAST_LIFT = 0.02


@dataclass(frozen=True)
class FeatureLift:
    """The lift of one modality; numbers are None where there are too few pairs, or all items look the same.

    Args:
        pairs: How many pairs were drawn.
        same_user: Mean cosine of two items of one user.
        like_popularity: Mean cosine with the second replaced by a stranger of like popularity.
        lift: The difference.
        z: The lift in standard deviations of the lifts under shuffled rows.
        shuffled_lift: The lift under one more shuffle.
        shuffled_z: Its z-score: what no relation looks like.
        verdict: ``follows taste`` (z of 4 or more), ``weak`` (2 to 4); below that ``none`` where the lift is small for certain:
            the rows may be those of other items; else ``unclear``: so little data cannot tell it from chance; or
            ``constant``: the items drawn all have one vector.
    """

    pairs: int
    same_user: float | None
    like_popularity: float | None
    lift: float | None
    z: float | None
    shuffled_lift: float | None
    shuffled_z: float | None
    verdict: Verdict


def feature_lift(dataset: Dataset, modality: str, *, seed: int = 0) -> FeatureLift:
    """Return the lift of one modality over the whole log, from pairs drawn with `seed`.

    Memory is bounded by the number of pairs, whatever the size of the log and the features.

    Raises:
        ConfigError: the seed is negative.
    """
    if seed < 0:
        raise ConfigError(f"seed: expected a whole number of at least 0, got {seed}")
    rng = np.random.default_rng(seed)
    present = dataset.features.present[modality]
    rounds = _ROUNDS if present.sum() <= _FEW_ITEMS else 1
    pairs = np.concatenate([_draw_pairs(dataset.interactions, present, rng) for _ in range(rounds)])
    if len(pairs) < _FEWEST_PAIRS * rounds:
        return _without_numbers(pairs, "too few pairs")
    items, places = np.unique(pairs, return_inverse=True)
    places = places.reshape(pairs.shape)
    matrix = dataset.features.matrices[modality]
    vectors = matrix[items].astype(np.float64)
    if (vectors == vectors[0]).all():
        return _without_numbers(pairs, "constant")
    vectors -= _mean_row(matrix, present, rng)
    mean_cosine = _mean_cosine_of(_unit_rows(vectors))
    del vectors

    def means(rows: NDArray[np.int64]) -> tuple[float, float]:
        first, second, stranger = rows[places.T]
        return mean_cosine(first, second), mean_cosine(first, stranger)

    same, other = means(np.arange(len(items)))
    null = -np.diff([means(rng.permutation(len(items))) for _ in range(_SHUFFLES + 1)])[:, 0]
    shuffled, null = float(null[0]), null[1:]
    spread = float(null.std(ddof=1))
    z, shuffled_z = (float((value - null.mean()) / spread) if spread else 0.0 for value in (same - other, shuffled))
    return FeatureLift(len(pairs), same, other, same - other, z, shuffled, shuffled_z, _verdict(z, spread))


def _verdict(z: float, spread: float) -> Verdict:
    if z >= 4:
        return "follows taste"
    if z >= 2:
        return "weak"
    return "none" if (z + 2) * spread < _LEAST_LIFT else "unclear"


def _without_numbers(pairs: NDArray[np.int64], verdict: Verdict) -> FeatureLift:
    return FeatureLift(len(pairs), None, None, None, None, None, None, verdict)


def _draw_pairs(log: Interactions, present: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return (item, item of the same user, stranger of like popularity), shape (pairs, 3), among items with features."""
    kept = present[log.items]
    counts = count(log.users[kept], log.num_users)
    several = np.flatnonzero(counts >= 2)
    if not len(several):
        return np.empty((0, 3), dtype=np.int64)
    drawn = rng.choice(several, size=min(_PAIRS, int(counts[several].sum()) // 2))
    one = rng.integers(counts[drawn])
    other = (one + rng.integers(1, counts[drawn])) % counts[drawn]
    users, items = _histories(log, kept, drawn)
    starts = np.searchsorted(users, drawn)
    first, second = items[starts + one], items[starts + other]
    # Items of equal popularity stand in an order drawn by lot.
    order = np.lexsort((rng.random(len(present)), log.item_counts))
    order = order[present[order]]
    rank = np.empty(len(present), dtype=np.int64)
    rank[order] = np.arange(len(order))
    step = rng.choice((-1, 1), size=len(second))
    place = rank[second] + step
    place = np.where((place < 0) | (place >= len(order)), rank[second] - step, place)
    stranger = order[np.clip(place, 0, len(order) - 1)]
    watched = np.unique(users * len(present) + items)
    asked = drawn * len(present) + stranger
    place = np.minimum(np.searchsorted(watched, asked), len(watched) - 1)
    distinct = (stranger != first) & (stranger != second) & (watched[place] != asked)
    return np.stack([first, second, stranger], axis=1)[distinct]


def _histories(
    log: Interactions, kept: NDArray[np.bool_], drawn: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the users, ascending, and items of the kept rows of the drawn users: a small part of a long log."""
    asked = np.zeros(log.num_users, dtype=np.bool_)
    asked[drawn] = True
    rows = np.flatnonzero(asked[log.users] & kept)
    rows = rows[np.argsort(log.users[rows], kind="stable")]
    return log.users[rows].astype(np.int64), log.items[rows].astype(np.int64)


def _mean_row(matrix: NDArray[Any], present: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the mean over the items that have the modality, or some of very many, shape (width,)."""
    holders = np.flatnonzero(present)
    if len(holders) > _CENTRE_ROWS:
        holders = np.sort(rng.choice(holders, size=_CENTRE_ROWS, replace=False))
    total = np.zeros(matrix.shape[1])
    step = max(1, (32 << 20) // (8 * matrix.shape[1]))
    for start in range(0, len(holders), step):
        total += matrix[holders[start : start + step]].sum(axis=0, dtype=np.float64)
    return total / len(holders)


def _unit_rows(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return rows of unit length, or zero.

    Each is divided by its largest entry first: the squares of numbers that float32 holds may be beyond it. `rows` is spent.
    """
    largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))[:, None]
    np.divide(rows, largest, out=rows, where=largest > 0)
    scaled = rows.astype(np.float32)
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    return np.divide(scaled, lengths, out=scaled, where=lengths > 0)


def _mean_cosine_of(rows: NDArray[np.float32]) -> Callable[[NDArray[np.int64], NDArray[np.int64]], float]:
    """Return what tells the mean cosine of pairs of rows; that of every two of a few rows is worked out once."""
    if len(rows) <= _FEW_ITEMS:
        cosines = rows @ rows.T
        return lambda first, second: float(cosines[first, second].mean(dtype=np.float64))
    return lambda first, second: float(np.einsum("pf,pf->p", rows[first], rows[second]).mean(dtype=np.float64))
