"""The exact top-k with seen items left out: the one copy for evaluation, validation and serving.

Equal scores are ordered by the lower item index, on every device. B users, N items, k places.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from metammf.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from numpy.typing import ArrayLike, NDArray
    from scipy import sparse
    from torch import Tensor

# Scores held at once: small enough to stay in a processor's cache between the product and the ranking, and a floor of
# users under it, for a product with few rows is slow; the ceiling (256 MB of float32) wins over both.
_CACHED_SCORES = 1 << 21
_FEWEST_USERS = 32
_MOST_SCORES = 1 << 26
# Items whose maximum stands for them in the search for a bound.
_CHUNK = 16


class ItemScorer(Protocol):
    """What a ranking needs of a model."""

    @property
    def num_items(self) -> int:
        """Items N that are scored."""

    def scores(self, users: Tensor) -> Tensor:
        """Return the score of every item for each of the users: int64 (B,) to float (B, N)."""


@torch.no_grad()
def top_k(scores: Tensor, k: int, *, seen: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """Return each row's k items of highest score, the best first; equal scores, the lower item index first.

    The k-th largest of the maxima of disjoint chunks bounds the k-th largest score from below, so that a few dozen
    candidates a row, all that could tie for the last place among them, are left to be sorted.

    Args:
        scores: Floats of shape (B, N); -inf is an item that is not to come out. As it was when the call returns.
        k: Places to fill; may exceed N.
        seen: Row and item, int64 of shape (n,) each, of the entries to leave out.

    Returns:
        Items, int64 of shape (B, k), and their scores, likewise; -1 and -inf where a row has fewer than k candidates.

    Raises:
        ConfigError: k is below 1.
        DataError: the scores are not floats on two axes, or one of them is NaN.
    """
    if k < 1:
        raise ConfigError(f"k must be at least 1, got {k}")
    if scores.ndim != 2 or not scores.is_floating_point():
        raise DataError(f"scores: expected floats of shape (users, items), got {scores.dtype} {tuple(scores.shape)}")
    scores = scores.detach().contiguous() if scores.dtype.itemsize >= 4 else scores.float()
    if scores.is_inference() or len(scores) == 1:  # a single row may be one that its scorer keeps, and others read
        scores = scores.clone()
    if seen is None or not len(seen[0]):
        return _top_k(scores, k)
    # Masked in place and put back: seen entries are few, a copy of all scores is not.
    flat = scores.view(-1)
    places = seen[0] * scores.shape[1] + seen[1]
    kept = flat[places]
    try:
        flat.index_fill_(0, places, -torch.inf)
        return _top_k(scores, k)
    finally:
        flat[places] = kept


def _top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    count, num_items = scores.shape
    items = scores.new_full((count, k), -1, dtype=torch.int64)
    best = scores.new_full((count, k), -torch.inf)
    if not scores.numel():
        return items, best
    bound = _lower_bound(scores, min(k, num_items))
    if bound.isnan().any():
        raise DataError(f"scores: expected numbers, got NaN in row {int(bound.isnan().nonzero()[0, 0])}")
    flat, starts = _candidates(scores, bound, min(k, num_items))
    row = flat // num_items
    slot = torch.arange(len(flat), device=flat.device) - starts[row]
    width = int((starts[1:] - starts[:-1]).max())
    # One row of candidates a user, by item index: a stable sort keeps that order among equal scores.
    item = scores.new_full((count, width), -1, dtype=torch.int64)
    value = scores.new_full((count, width), -torch.inf)
    item[row, slot] = flat - row * num_items
    value[row, slot] = scores.view(-1)[flat]
    value, order = value.sort(dim=1, descending=True, stable=True)
    filled = min(k, width)
    items[:, :filled] = item.gather(1, order)[:, :filled]
    best[:, :filled] = value[:, :filled]
    return items, best


def _candidates(scores: Tensor, bound: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return flat places of few entries that hold every row's top k, ascending, and where each row starts (B + 1,)."""
    count, num_items = scores.shape
    chosen = _at_least(scores, bound.clamp(min=torch.finfo(scores.dtype).min))
    borders = torch.arange(count + 1, device=scores.device) * num_items
    flat = _true_places(chosen)
    starts = torch.searchsorted(flat, borders)
    crowded = (starts[1:] - starts[:-1] > 4 * k + 64).nonzero().squeeze(1)
    if len(crowded):
        chosen[crowded] = _exactly_top(scores[crowded], k)
        flat = _true_places(chosen)
        starts = torch.searchsorted(flat, borders)
    return flat, starts


def _lower_bound(scores: Tensor, k: int) -> Tensor:
    """Return a number a row, shape (B, 1), that at least k of its scores reach; NaN where one of them is NaN."""
    num_items = scores.shape[1]
    size = max(1, min(_CHUNK, num_items // (4 * k)))
    chunks = num_items // size
    # Chunk c holds the items c, c + chunks, c + 2 chunks, ...: the maximum runs along contiguous memory. What is left
    # over at the end may only raise the k-th largest, never lower it.
    whole, rest = scores[:, : size * chunks].view(-1, size, chunks), scores[:, size * chunks :]
    if _in_numpy(scores):  # whose partition is several times as fast as torch.topk here
        maxima = whole.numpy().max(axis=1)
        bound = torch.from_numpy(np.partition(maxima, chunks - k, axis=1)[:, chunks - k, None])
        worst = torch.from_numpy(maxima.max(axis=1, keepdims=True))
    else:
        best = whole.amax(dim=1).topk(k, dim=1).values
        bound, worst = best[:, -1:], best[:, :1]
    # Both maxima are NaN where one of their values is.
    broken = worst.isnan() | (rest.isnan().any(dim=1, keepdim=True))
    return bound.masked_fill(broken, torch.nan)


def _in_numpy(values: Tensor) -> bool:
    """Tell whether NumPy can read the values where they lie."""
    return values.device.type == "cpu"


def _at_least(scores: Tensor, bound: Tensor) -> Tensor:
    if _in_numpy(scores):
        return torch.from_numpy(scores.numpy() >= bound.numpy())
    return scores >= bound


def _true_places(mask: Tensor) -> Tensor:
    """Return the flat places where `mask` holds, ascending."""
    if _in_numpy(mask):  # which looks at eight booleans at once, torch at each
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.flatten().nonzero().squeeze(1)


def _exactly_top(scores: Tensor, k: int) -> Tensor:
    """Mark the top k of each row and no more, for rows of many equal scores."""
    last = scores.topk(k, dim=1).values[:, -1:]
    above = scores > last
    level = (scores == last) & (scores > -torch.inf)
    room = k - above.sum(dim=1, keepdim=True)
    return above | (level & (level.cumsum(dim=1, dtype=torch.int32) <= room))


def entries_of(matrix: sparse.csr_array, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the stored entries of some rows of a CSR matrix: place of the row among `rows`, and column, (n,) each."""
    starts = matrix.indptr[rows].astype(np.int64)
    counts = matrix.indptr[rows + 1] - starts
    ends = np.cumsum(counts)
    place = np.repeat(np.arange(len(rows)), counts)
    inside = np.arange(len(place)) - (ends - counts)[place]
    return place, matrix.indices[starts[place] + inside].astype(np.int64)


def rank_batches(
    scorer: ItemScorer,
    users: ArrayLike | Tensor,
    k: int,
    *,
    seen: sparse.csr_array | None = None,
    candidates: ArrayLike | None = None,
    exclude: ArrayLike | None = None,
    batch_size: int | None = None,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Rank all items for many users, batch by batch, in memory of a few batches.

    Args:
        scorer: Anything with `num_items` and `scores(users)`.
        users: Internal user indices, shape (n,).
        k: Places to fill; may exceed the number of items.
        seen: Matrix (num_users, num_items) whose stored entries are left out of their user's ranking.
        candidates: The only items that may come out: indices, or a mask of shape (num_items,). Default: all.
        exclude: Items that never come out, likewise. Default: none.
        batch_size: Users at once. Default: what keeps a batch of scores within memory and cache.

    Yields:
        Users (B,), items (B, k) and scores (B, k); -1 and -inf where a user has fewer than k candidates.

    Raises:
        ConfigError: k or batch_size is below 1.
        DataError: scores are NaN or of the wrong shape, or an item is out of range.
    """
    users = np.asarray(users, dtype=np.int64)
    num_items = scorer.num_items
    allowed = _allowed(num_items, candidates, exclude)
    if batch_size is None:
        batch_size = users_at_once(num_items)
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    # While one batch is ranked, the next is scored: ranking keeps one processor busy, with the interpreter's lock released.
    ahead = _batches_ahead(num_items, batch_size) if len(users) > batch_size else 0
    waiting: deque[tuple[NDArray[np.int64], Future[tuple[NDArray[np.int64], NDArray[np.float32]]]]] = deque()
    with ThreadPoolExecutor(max(1, ahead)) as pool:
        for start in range(0, len(users), batch_size):
            batch = users[start : start + batch_size]
            work = (_scored(scorer, batch), batch, k, seen, allowed)
            if not ahead:
                yield batch, *_ranked(*work)
                continue
            waiting.append((batch, pool.submit(_ranked, *work)))
            if len(waiting) > ahead:
                first, ranking = waiting.popleft()
                yield first, *ranking.result()
        for batch, ranking in waiting:
            yield batch, *ranking.result()


def rank(
    scorer: ItemScorer,
    users: ArrayLike | Tensor,
    k: int,
    *,
    seen: sparse.csr_array | None = None,
    candidates: ArrayLike | None = None,
    exclude: ArrayLike | None = None,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rank all items for many users at once: items (n, k) and scores (n, k).

    `progress` is called after each batch with the users done and the users in all; for the rest, see `rank_batches`.
    """
    users = np.asarray(users, dtype=np.int64)
    items = np.empty((len(users), k), dtype=np.int64)
    scores = np.empty((len(users), k), dtype=np.float32)
    done = 0
    batches = rank_batches(scorer, users, k, seen=seen, candidates=candidates, exclude=exclude, batch_size=batch_size)
    for batch, batch_items, batch_scores in batches:
        items[done : done + len(batch)] = batch_items
        scores[done : done + len(batch)] = batch_scores
        done += len(batch)
        if progress is not None:
            progress(done, len(users))
    return items, scores


def users_at_once(num_items: int) -> int:
    """Return the users that are ranked at once by default, by the number of items."""
    num_items = max(1, num_items)
    return max(1, min(max(_CACHED_SCORES // num_items, _FEWEST_USERS), _MOST_SCORES // num_items))


def _batches_ahead(num_items: int, batch_size: int) -> int:
    """Batches that are ranked while another is scored: none on one thread, and no more than memory is meant for."""
    return min(torch.get_num_threads() // 2, max(1, _MOST_SCORES // max(1, num_items * batch_size)))


@torch.no_grad()
def _scored(scorer: ItemScorer, users: NDArray[np.int64]) -> Tensor:
    scores = scorer.scores(torch.from_numpy(users))
    expected = (len(users), scorer.num_items)
    if tuple(scores.shape) != expected:
        raise DataError(f"scores: expected shape {expected} of (users, items), got {tuple(scores.shape)}")
    return scores


@torch.no_grad()
def _ranked(
    scores: Tensor,
    users: NDArray[np.int64],
    k: int,
    seen: sparse.csr_array | None,
    allowed: NDArray[np.int64] | None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    num_items = scores.shape[1]
    hidden = None if seen is None else entries_of(seen, users)
    if allowed is not None:
        scores = scores[:, torch.from_numpy(allowed).to(scores.device)]
        hidden = None if hidden is None else _among(hidden, allowed, num_items)
    pair = None if hidden is None else (_on(hidden[0], scores), _on(hidden[1], scores))
    items, best = (result.cpu() for result in top_k(scores, k, seen=pair))
    places = items.numpy()
    if allowed is not None:
        places = np.where(places >= 0, np.append(allowed, -1)[places], -1)
    return places, best.float().numpy()


def _on(values: NDArray[np.int64], like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like.device)


def _among(
    entries: tuple[NDArray[np.int64], NDArray[np.int64]], allowed: NDArray[np.int64], num_items: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keep the entries whose item is allowed, the item told by its place among those."""
    position = np.full(num_items, -1, dtype=np.int64)
    position[allowed] = np.arange(len(allowed))
    rows, places = entries[0], position[entries[1]]
    return rows[places >= 0], places[places >= 0]


def _allowed(num_items: int, candidates: ArrayLike | None, exclude: ArrayLike | None) -> NDArray[np.int64] | None:
    if candidates is None and exclude is None:
        return None
    mask = np.ones(num_items, dtype=np.bool_) if candidates is None else _mask(candidates, num_items, "candidates")
    if exclude is not None:
        mask = mask & ~_mask(exclude, num_items, "exclude")
    return np.flatnonzero(mask)


def _mask(items: ArrayLike, num_items: int, name: str) -> NDArray[np.bool_]:
    values: NDArray[Any] = np.asarray(items)
    if values.dtype == np.bool_:
        if values.shape != (num_items,):
            raise DataError(f"{name}: expected a mask of shape ({num_items},), got {values.shape}")
        return values
    values = values.astype(np.int64) if values.size == 0 else values
    if values.dtype.kind not in "iu" or (values.size and (values.min() < 0 or values.max() >= num_items)):
        raise DataError(f"{name}: expected item indices from 0 to {num_items - 1}, got {values!r}")
    mask = np.zeros(num_items, dtype=np.bool_)
    mask[values] = True
    return mask
