"""The log of a synthetic world: a feed shows each user some clips, and the user watches those that appeal most.

Users have a taste vector for the content of each modality. The feed draws most of its clips by popularity and the
rest from the neighbourhoods of the user's favourite content; among what it shows, the user takes the clips of highest
utility, c sum_m a_im <t_um, z_im> with c the strength of content, plus Gumbel noise: a draw without replacement from
the softmax of the utilities.
Nothing here is of size users x items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from metammf.data.synthetic_content import LATENT_DIM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from metammf.data.progress import Progress
    from metammf.data.synthetic_content import Clips

TRAIN_DAYS, HELD_OUT_DAYS = 72, 18
HELD_OUT_SHARE = 0.2
CONTENT_STRENGTH = 8.0
"""How much content decides what is watched of what is shown, against noise of the scale 1."""

_DAY = 86_400
_EPOCH = 1_700_006_400  # midnight, 2023-11-15 UTC: the log's first second
_TRAIN_END = _EPOCH + TRAIN_DAYS * _DAY
_LOG_END = _TRAIN_END + HELD_OUT_DAYS * _DAY

_CHUNK_CANDIDATES = 1_000_000
_CHUNK_USERS = 16_384
_ACTIVITY_SPREAD = 0.8
_MAX_CATALOGUE_SHARE = 0.5
# The feed shows this many clips for each one watched, and some more.
_SHOWN_PER_WATCHED = 24
_SHOWN_ANYWAY = 20
_POPULAR_SHARE = 0.7
_FAVOURITES = 2
_COMMON_TASTE = 0.9
_FIRST_FAVOURITE = 0.65


@dataclass(frozen=True, eq=False)
class Tastes:
    """What users like: U users, M modalities, D latent width.

    Args:
        vectors: Shape (U, M, D); their length tells how much the modality matters to the user.
        favourites: Clusters that the user is drawn to, the best first, shape (U, M, 2).
    """

    vectors: NDArray[np.float32]
    favourites: NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class Log:
    """Who watched what and when, by user and time, with the published part (0 train, 1 validation, 2 test)."""

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    timestamps: NDArray[np.int64]
    parts: NDArray[np.int8]


def draw_tastes(count: int, clips: Clips, rng: np.random.Generator) -> Tastes:
    """Draw the tastes of `count` users: what they look for anywhere, and what they look for in one modality alone."""
    num_modalities = len(clips.centres)
    vectors = np.empty((count, num_modalities, LATENT_DIM), dtype=np.float32)
    favourites = np.empty((count, num_modalities, _FAVOURITES), dtype=np.int16)
    for start in range(0, count, _CHUNK_USERS):
        rows = slice(start, min(start + _CHUNK_USERS, count))
        shape = (rows.stop - start, num_modalities, LATENT_DIM)
        common = rng.standard_normal((shape[0], 1, LATENT_DIM), dtype=np.float32)
        tastes = _COMMON_TASTE**0.5 * common + (1 - _COMMON_TASTE) ** 0.5 * rng.standard_normal(shape, dtype=np.float32)
        tastes /= np.linalg.norm(tastes, axis=2, keepdims=True)
        liking = np.einsum("umd,mkd->umk", tastes, clips.centres, optimize=True)
        favourites[rows] = np.argsort(-liking, axis=2)[:, :, :_FAVOURITES]
        vectors[rows] = tastes * rng.lognormal(sigma=0.25, size=(*shape[:2], 1)).astype(np.float32)
    return Tastes(vectors, favourites)


def draw_activity(
    count: int, total: int, num_items: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw how many clips each user watches while training data are gathered, and after: two arrays of shape (U,).

    Together they sum to `total`; everybody watches one clip or more in training, and nobody more than half of the
    catalogue.
    """
    weights = rng.lognormal(sigma=_ACTIVITY_SPREAD, size=count)
    cap = max(1, int(num_items * _MAX_CATALOGUE_SHARE))
    low, high = 0.0, float(total)
    for _ in range(100):  # bisection to the last bit: the wanted counts, clipped, sum to the total
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(middle * weights, 1, cap).sum() < total else (low, middle)
    wanted = np.clip(high * weights, 1, cap)
    counts = np.floor(wanted).astype(np.int64)
    # What rounding down left over goes to the largest remainders that have room.
    order = np.argsort(counts - wanted + 10 * (counts >= cap), kind="stable")
    left = total - int(counts.sum())
    while left > 0:
        open_users = order[counts[order] < cap][:left]
        counts[open_users] += 1
        left -= len(open_users)
    held_out = np.floor(counts * HELD_OUT_SHARE + rng.random(count)).astype(np.int64)
    # The two most active make sure that, in the smallest world too, there is something to validate and to test on.
    busiest = np.argsort(-counts, kind="stable")[:2]
    held_out[busiest] = np.maximum(held_out[busiest], 2)
    held_out = np.minimum(held_out, counts - 1)
    return counts - held_out, held_out


def draw_log(
    clips: Clips,
    tastes: Tastes,
    cold: NDArray[np.bool_],
    uploaded_at: NDArray[np.int64],
    total: int,
    rng: np.random.Generator,
    progress: Progress,
    *,
    content_strength: float = CONTENT_STRENGTH,
) -> Log:
    """Let the users watch `total` clips: clips that are not `cold` before the end of training, any after it."""
    num_items = len(cold)
    trained, held_out = draw_activity(len(tastes.vectors), total, num_items, rng)
    before = Feed(clips, np.where(cold, 0, clips.popularity))
    after = Feed(clips, clips.popularity)
    appeal = content_strength * (clips.mix[:, :, None] * clips.latents).reshape(num_items, -1)
    users, items = np.empty(total, dtype=np.int32), np.empty(total, dtype=np.int32)
    late = np.empty(total, dtype=np.bool_)
    filled = 0
    for chunk in _user_chunks(trained + held_out):
        seen = _watch(chunk, trained[chunk], before, tastes, appeal, np.empty(0, dtype=np.int64), rng)
        more = _watch(chunk, held_out[chunk], after, tastes, appeal, seen, rng)
        for keys, is_late in ((seen, False), (more, True)):
            rows = slice(filled, filled + len(keys))
            users[rows], items[rows] = np.divmod(keys, num_items)
            late[rows] = is_late
            filled += len(keys)
        progress("drawing interactions", filled, total)
    timestamps = _draw_times(late, uploaded_at[items], rng)
    parts = np.zeros(total, dtype=np.int8)
    by_time = np.flatnonzero(late)[np.argsort(timestamps[late], kind="stable")]
    parts[by_time[: len(by_time) // 2]] = 1
    parts[by_time[len(by_time) // 2 :]] = 2
    order = np.lexsort((timestamps, users))
    return Log(users[order], items[order], timestamps[order], parts[order])


def draw_uploads(cold: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw upload times: cold clips after the end of training, others in the months before it."""
    share = rng.random(len(cold))
    warm = _EPOCH - 90 * _DAY + share * (90 + 0.95 * TRAIN_DAYS) * _DAY
    return np.where(cold, _TRAIN_END + 0.6 * share**2 * HELD_OUT_DAYS * _DAY, warm).astype(np.int64)


class Feed:
    """What a platform shows: popular clips, and clips from the neighbourhood of a user's favourite content.

    A clip's neighbourhood is the modality that it is about and the cluster of its content there.

    Args:
        clips: The clips.
        popularity: How often each is shown, relative to others; zero for never. Shape (N,).
    """

    def __init__(self, clips: Clips, popularity: NDArray[Any]) -> None:
        self.num_items = len(popularity)
        self.num_modalities, self.num_clusters, _ = clips.centres.shape
        cells = clips.about * self.num_clusters + clips.clusters[np.arange(self.num_items), clips.about]
        self.order = np.argsort(cells, kind="stable")
        mass = np.cumsum(popularity[self.order], dtype=np.float64)
        # mass[start[c]] .. mass[start[c + 1]]: one number line of popularity, cell after cell
        self.mass = np.concatenate([[0.0], mass])
        self.start = np.searchsorted(cells[self.order], np.arange(self.num_modalities * self.num_clusters + 1))
        self.open = np.flatnonzero(popularity > 0)

    def show(self, users: NDArray[Any], tastes: Tastes, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw one clip for each entry of `users`, shape (n,)."""
        size = len(users)
        modality = rng.integers(self.num_modalities, size=size)
        place = (rng.random(size) >= _FIRST_FAVOURITE).astype(np.int64)
        cell = modality * self.num_clusters + tastes.favourites[users, modality, place]
        low, high = self.mass[self.start[cell]], self.mass[self.start[cell + 1]]
        popular = (rng.random(size) < _POPULAR_SHARE) | (high <= low)
        low, high = np.where(popular, 0, low), np.where(popular, self.mass[-1], high)
        point = low + rng.random(size) * (high - low)
        return self.order[np.minimum(np.searchsorted(self.mass, point, side="right") - 1, self.num_items - 1)]


def _user_chunks(counts: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Consecutive users whose candidates fit into memory together."""
    ends = np.cumsum(counts * _SHOWN_PER_WATCHED + _SHOWN_ANYWAY)
    bins = ends // _CHUNK_CANDIDATES
    yield from np.split(np.arange(len(counts)), np.flatnonzero(bins[1:] != bins[:-1]) + 1)


def _watch(
    users: NDArray[np.int64],
    counts: NDArray[np.int64],
    feed: Feed,
    tastes: Tastes,
    appeal: NDArray[np.float32],
    seen: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Return the keys user * N + item of what the users watch: `counts` clips each, none of the sorted keys `seen`."""
    keys = _candidates(users, counts, feed, tastes, seen, rng)
    watchers, items = np.divmod(keys, feed.num_items)
    vectors = tastes.vectors.reshape(len(tastes.vectors), -1)
    utility = np.einsum("nd,nd->n", vectors[watchers], appeal[items])
    utility += rng.gumbel(size=len(keys))
    local = watchers - users[0]
    shown = np.bincount(local, minlength=len(users))
    # `keys` are by user; so is `order`, and within a user by falling utility.
    order = np.argsort(_rank_keys(local, utility), kind="stable")
    place = np.arange(len(keys)) - np.repeat(np.cumsum(shown) - shown, shown)
    return np.sort(keys[order[place < counts[local]]])


def _rank_keys(groups: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return one number for each entry that sorts by group and then by falling value, several times quicker than lexsort.

    The bits of a float32 sort as whole numbers do, once those of negative numbers are turned around.
    """
    bits = (-values).astype(np.float32).view(np.int32)
    rising = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits).astype(np.int64) + (1 << 31)
    return (groups << 32) | rising


def _distinct(keys: NDArray[np.int64], seen: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the keys sorted, each once, without the sorted keys `seen`."""
    keys = np.sort(keys)
    keep = np.ones(len(keys), dtype=np.bool_)
    keep[1:] = keys[1:] != keys[:-1]
    if len(seen):
        keep &= seen[np.minimum(np.searchsorted(seen, keys), len(seen) - 1)] != keys
    return keys[keep]


def _candidates(
    users: NDArray[np.int64],
    counts: NDArray[np.int64],
    feed: Feed,
    tastes: Tastes,
    seen: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Return sorted, distinct keys of unseen clips: `counts` or more for each user."""
    shown = np.where(counts > 0, counts * _SHOWN_PER_WATCHED + _SHOWN_ANYWAY, 0)
    # Who watches a large part of the catalogue chooses from all of it; at most four keys for each clip watched.
    eager = counts * 4 > len(feed.open)
    drawn = np.repeat(users, np.where(eager, 0, shown))
    keys = drawn * feed.num_items + feed.show(drawn, tastes, rng)
    whole = (users[eager, None] * feed.num_items + feed.open).ravel()
    keys = _distinct(np.concatenate([keys, whole]), seen)
    while True:
        short = counts - np.bincount(keys // feed.num_items - users[0], minlength=len(users))
        if short.max(initial=0) <= 0:
            return keys
        again = np.repeat(users, np.maximum(4 * short, 0))
        extra = again * feed.num_items + feed.open[rng.integers(len(feed.open), size=len(again))]
        keys = _distinct(np.concatenate([keys, extra]), seen)


def _draw_times(late: NDArray[np.bool_], uploaded_at: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    # Most of a clip's views come soon after it is uploaded.
    start = np.maximum(uploaded_at, np.where(late, _TRAIN_END, _EPOCH))
    end = np.where(late, _LOG_END, _TRAIN_END)
    return (start + (end - start) * rng.random(len(late)) ** 1.5).astype(np.int64)
