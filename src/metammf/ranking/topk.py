"""The exact top-k with seen items left out: the one copy for evaluation, validation and serving.

Equal scores are ordered by the lower item index, on every device. B users, N items, k places.
"""

from __future__ import annotations

import contextlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from math import isqrt
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from metammf.errors import ConfigError, DataError
from metammf.nn.selection import exactly_top

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from concurrent.futures import Future

    from numpy.typing import ArrayLike, NDArray
    from scipy import sparse
    from torch import Tensor

# Scores of one block: small enough to stay in a processor's cache between the product and the search, and a floor of
# users under it, for a product with few rows is slow; the ceiling (256 MB of float32), over all threads, wins over both.
_CACHED_SCORES = 3 << 18
_FEWEST_USERS = 32
_MOST_SCORES = 1 << 26
# Blocks of a batch, whose few candidates are sorted together; many are sorted as they come.
_BLOCKS = 8
_MOST_CANDIDATES = 1 << 21
# Scores whose maximum stands for them in the search for a bound, and bounds likewise.
_CHUNK = 8
# Sorts behind every key.
_NO_KEY = np.iinfo(np.int64).max


class _NotANumberError(DataError):
    """A score is NaN.

    Args:
        row: Where, among those that were asked for together.
    """

    def __init__(self, row: int) -> None:
        super().__init__(f"scores: expected numbers, got NaN in row {row}")
        self.row = row


class ItemScorer(Protocol):
    """What a ranking needs of a model. Several threads ask at once, each for other users."""

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
    scores = _plain(scores)
    if seen is None or not len(seen[0]):
        return _top_k(scores, k)
    with _hidden(scores, seen[0] * scores.shape[1] + seen[1]):
        return _top_k(scores, k)


def _plain(scores: Tensor) -> Tensor:
    """Return scores in one piece that may be written to and that NumPy can hold."""
    if scores.ndim != 2 or not scores.is_floating_point():
        raise DataError(f"scores: expected floats of shape (users, items), got {scores.dtype} {tuple(scores.shape)}")
    scores = scores.detach().contiguous() if scores.dtype.itemsize >= 4 else scores.float()
    # A single row may be one that its scorer keeps, and others read.
    return scores.clone() if scores.is_inference() or len(scores) == 1 else scores


@contextlib.contextmanager
def _hidden(scores: Tensor, places: Tensor | None) -> Iterator[None]:
    """Hide entries, by their flat places, for as long as the context lasts.

    Masked in place and put back, for the scorer may keep what it gave: hidden entries are few, a copy of all scores is not.
    """
    if places is None:
        yield
        return
    flat = scores.view(-1)
    kept = flat.index_select(0, places)
    flat.index_fill_(0, places, -torch.inf)
    try:
        yield
    finally:
        flat.index_copy_(0, places, kept)


def _top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    count = len(scores)
    if not scores.numel():
        return scores.new_full((count, k), -1, dtype=torch.int64), scores.new_full((count, k), -torch.inf)
    if _in_numpy(scores):
        items, best = _sorted(*_few(scores, k), count, k)
        return torch.from_numpy(items), torch.from_numpy(best)
    return _filled(*_top_k_anywhere(scores, min(k, scores.shape[1])), k)


def _in_numpy(scores: Tensor) -> bool:
    """Tell whether the scores are of the one kind that the ways below in NumPy are for."""
    return scores.device.type == "cpu" and scores.dtype == torch.float32 and scores.shape[1] < 1 << 31


# In NumPy, for float32 where NumPy can read it -------------------------------------------------------------------


def _few(scores: Tensor, k: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return row, item and score of few entries that hold every row's top k, (n,) each, the rows ascending.

    Chunk c holds the items c, c + chunks, c + 2 chunks, ...: the maximum runs along contiguous memory, and the only pass
    over all scores is that one. Then only the few chunks whose maximum reaches the bound are looked into.
    """
    count, num_items = scores.shape
    k = min(k, num_items)
    layered, size = _layered_maxima(scores, k)
    maxima, chunks = layered.numpy(), layered.shape[1]
    last = num_items - (size - 1) * chunks  # chunks that have an item in the last layer; the others are one short
    # Maxima of maxima bound as well, a little lower, and there are fewer to be sorted.
    bound = _kth_largest(_layered_maxima(layered, k)[0].numpy(), k)
    place = np.flatnonzero(maxima >= bound)
    row = place // chunks
    crowded = np.flatnonzero(np.bincount(row, minlength=count) > 4 * k + 64)
    if len(crowded):  # many equal scores: their rows are left to the exact way
        calm = ~np.isin(row, crowded)
        place, row = place[calm], row[calm]
    members = (place + row * (num_items - chunks))[:, None] + np.arange(size) * chunks
    flat = scores.numpy().reshape(-1)
    values = flat.take(members, mode="clip")
    chosen = values >= bound[row]
    if last < chunks:
        chosen[:, -1] &= place - row * chunks < last
    inside = np.flatnonzero(chosen)
    row, members, values = row[inside // size], members.reshape(-1)[inside], values.reshape(-1)[inside]
    if len(crowded):
        which, item = np.nonzero(exactly_top(scores[torch.from_numpy(crowded)], k).numpy())
        members = np.append(members, crowded[which] * num_items + item)
        row = np.append(row, crowded[which])
        order = np.argsort(row, kind="stable")
        row, members = row[order], members[order]
        values = flat[members]
    return row, members - row * num_items, values


def _sorted(
    row: NDArray[np.int64], item: NDArray[np.int64], value: NDArray[np.float32], count: int, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the lists (count, k) of entries whose rows ascend."""
    found = np.bincount(row, minlength=count)
    table = np.full((count, max(k, int(found.max()))), _NO_KEY)
    table[row, np.arange(len(row)) - (np.cumsum(found) - found)[row]] = _sort_keys(value, item)
    table.sort(axis=1)
    return _from_keys(table[:, :k])


def _layered_maxima(values: Tensor, k: int) -> tuple[Tensor, int]:
    """Return the maxima of chunks of each row, (B, chunks), at least k of them, and how large a chunk is.

    NaN where a value is. Chunk c holds the values at c, c + chunks, and so on. The last layer may end early; as long as there
    are no fewer chunks than layers, it is not empty.
    """
    width = values.shape[1]
    size = max(1, min(_CHUNK, width // (6 * k), isqrt(width)))
    chunks = -(-width // size)
    if size == 1:
        return values, size
    whole, rest = values[:, : (size - 1) * chunks], values[:, (size - 1) * chunks :]
    maxima = whole.view(-1, size - 1, chunks).amax(dim=1)
    short = maxima[:, : rest.shape[1]]
    torch.maximum(short, rest, out=short)
    return maxima, size


def _kth_largest(values: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Return the k-th largest value of each row, (B, 1), but never -inf.

    Raises:
        DataError: a value is NaN.
    """
    ordered = np.sort(values, axis=1)  # no slower than a partition of a few hundred; NaN comes last
    _refuse_nan(torch.from_numpy(ordered[:, -1]))
    return np.maximum(ordered[:, -k, None], np.finfo(np.float32).min)


def _sort_keys(values: NDArray[np.float32], items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return whole numbers that ascend as values descend and, among equal values, as items ascend."""
    bits = (values + np.float32(0)).view(np.int32).astype(np.int64)  # the sum makes -0 the 0 that it equals
    return (~_ordered(bits) << 32) | items


def _from_keys(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return items and values; -1 and -inf where there is no key."""
    empty = keys == _NO_KEY
    bits = _ordered(~(keys >> 32))
    values = bits.astype(np.int32).view(np.float32)
    return np.where(empty, -1, keys & 0xFFFFFFFF), np.where(empty, np.float32(-np.inf), values)


def _ordered(bits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Turn the bits of a float32, as a signed whole number, into one that is ordered as the float is, and back."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


# In torch, for any float on any device ----------------------------------------------------------------------------


def _filled(items: Tensor, best: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return lists of k places, the last of them empty where there were fewer."""
    short = k - items.shape[1]
    if not short:
        return items, best
    pad = torch.nn.functional.pad
    return pad(items, (0, short), value=-1), pad(best, (0, short), value=-torch.inf)


def _top_k_anywhere(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return items and scores of at most k <= N places."""
    count, num_items = scores.shape
    flat, starts = _candidates(scores, _lower_bound(scores, k), k)
    row = flat // num_items
    slot = torch.arange(len(flat), device=flat.device) - starts[row]
    width = int((starts[1:] - starts[:-1]).max())
    # One row of candidates a user, by item index: a stable sort keeps that order among equal scores.
    item = scores.new_full((count, width), -1, dtype=torch.int64)
    value = scores.new_full((count, width), -torch.inf)
    item[row, slot] = flat - row * num_items
    value[row, slot] = scores.view(-1)[flat]
    value, order = value.sort(dim=1, descending=True, stable=True)
    return item.gather(1, order)[:, :k], value[:, :k]


def _candidates(scores: Tensor, bound: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return flat places of few entries that hold every row's top k, ascending, and where each row starts (B + 1,)."""
    count, num_items = scores.shape
    chosen = scores >= bound.clamp(min=torch.finfo(scores.dtype).min)
    borders = torch.arange(count + 1, device=scores.device) * num_items
    flat = chosen.flatten().nonzero().squeeze(1)
    starts = torch.searchsorted(flat, borders)
    crowded = (starts[1:] - starts[:-1] > 4 * k + 64).nonzero().squeeze(1)
    if len(crowded):
        chosen[crowded] = exactly_top(scores[crowded], k)
        flat = chosen.flatten().nonzero().squeeze(1)
        starts = torch.searchsorted(flat, borders)
    return flat, starts


def _lower_bound(scores: Tensor, k: int) -> Tensor:
    """Return a number a row, shape (B, 1), that at least k of its scores reach.

    Raises:
        DataError: a score is NaN.
    """
    best = _layered_maxima(scores, k)[0].topk(k, dim=1).values
    _refuse_nan(best[:, 0])
    return best[:, -1:]


def _refuse_nan(rows: Tensor) -> None:
    broken = rows.isnan()
    if broken.any():
        raise _NotANumberError(int(broken.nonzero()[0, 0]))


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
) -> Generator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Rank all items for many users, batch by batch, in memory of a few batches.

    Args:
        scorer: Anything with `num_items` and `scores(users)`.
        users: Internal user indices, shape (n,).
        k: Places to fill; may exceed the number of items.
        seen: Matrix (num_users, num_items) whose stored entries are left out of their user's ranking.
        candidates: The only items that may come out: indices, or a mask of shape (num_items,). Default: all.
        exclude: Items that never come out, likewise. Default: none.
        batch_size: Users of a batch. Default: some blocks of what keeps scores within memory and cache.

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
    if min(batch_size, k) < 1:
        raise ConfigError(f"batch_size and k must be at least 1, got {batch_size} and {k}")
    batches = [users[start : start + batch_size] for start in range(0, len(users), batch_size)]
    threads = torch.get_num_threads()
    if threads == 1:
        for batch in batches:
            yield batch, *_ranked(scorer, batch, k, seen, allowed)
        return
    # A batch a thread, from its scores to its lists: threads that shared a product would wait for each other at its end,
    # and spin at the cost of whoever ranks; and a product's last bit may hang on how many share it. A thread of the pool
    # wants one of torch's, and the caller, and threads that begin meanwhile, what there was.
    workers = max(1, min(threads, len(batches), _MOST_SCORES // max(1, num_items * _block(num_items))))
    waiting: deque[tuple[NDArray[np.int64], Future[tuple[NDArray[np.int64], NDArray[np.float32]]]]] = deque()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        to_come = iter(batches)
        while True:
            for batch in islice(to_come, 2 * workers + 1 - len(waiting)):
                waiting.append((batch, pool.submit(_ranked, scorer, batch, k, seen, allowed)))
            if not waiting:
                return
            first, ranking = waiting.popleft()
            found = ranking.result()
            torch.set_num_threads(threads)
            yield first, *found
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


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
    items = np.empty((len(users), max(k, 0)), dtype=np.int64)
    scores = np.empty((len(users), max(k, 0)), dtype=np.float32)
    done = 0
    with contextlib.closing(
        rank_batches(scorer, users, k, seen=seen, candidates=candidates, exclude=exclude, batch_size=batch_size)
    ) as batches:
        for batch, batch_items, batch_scores in batches:
            items[done : done + len(batch)] = batch_items
            scores[done : done + len(batch)] = batch_scores
            done += len(batch)
            if progress is not None:
                progress(done, len(users))
    return items, scores


def users_at_once(num_items: int) -> int:
    """Return the users of a batch by default, by the number of items: whole blocks, so that batches give the same bits."""
    return _BLOCKS * _block(num_items)


def _block(num_items: int) -> int:
    """Return the users that are scored at once."""
    num_items = max(1, num_items)
    return max(1, min(max(_CACHED_SCORES // num_items, _FEWEST_USERS), _MOST_SCORES // num_items))


@torch.no_grad()
def _ranked(
    scorer: ItemScorer,
    users: NDArray[np.int64],
    k: int,
    seen: sparse.csr_array | None,
    allowed: NDArray[np.int64] | None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    num_items, block = scorer.num_items, _block(scorer.num_items)
    if seen is not None and seen.shape[1] > num_items:
        raise DataError(f"seen: expected {num_items} items or fewer, got {seen.shape[1]}")
    kept = None if allowed is None else torch.from_numpy(allowed)
    hidden = None if seen is None else entries_of(seen, users)
    if hidden is not None and allowed is not None:
        hidden = _among(hidden, allowed, num_items)
    width = num_items if kept is None else len(kept)
    starts = range(0, len(users), block)
    borders = None if hidden is None else np.searchsorted(hidden[0], [*starts, len(users)]).tolist()
    few: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
    lists: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
    begin = 0
    for number, start in enumerate(starts):
        scores = _scored(scorer, users[start : start + block])
        scores = _plain(scores if kept is None else scores[:, kept.to(scores.device)])
        places = None
        if hidden is not None and borders is not None:
            inside = slice(*borders[number : number + 2])
            places = torch.from_numpy((hidden[0][inside] - start) * width + hidden[1][inside]).to(scores.device)
        with _hidden(scores, places), _user_named(users[start:]):
            if _in_numpy(scores) and width:
                row, item, value = _few(scores, k)
                few.append((row + start - begin, item, value))
                found = None
            else:
                found = _top_k(scores, k)
        end = start + len(scores)
        # Those of some blocks are sorted together, unless they are many, or what follows is of another kind.
        if few and (found is not None or end == len(users) or sum(len(part[0]) for part in few) > _MOST_CANDIDATES):
            rows = end - begin - (0 if found is None else len(scores))
            row, item, value = (np.concatenate(part) for part in zip(*few, strict=True))
            lists.append(_sorted(row, item, value, rows, k))
            few, begin = [], begin + rows
        if found is not None:
            lists.append((found[0].cpu().numpy(), found[1].cpu().float().numpy()))
            begin = end
    items, best = (np.concatenate(part) for part in zip(*lists, strict=True))
    if allowed is not None:
        items = np.where(items >= 0, np.append(allowed, -1)[items], -1)
    return items, best


@contextlib.contextmanager
def _user_named(users: NDArray[np.int64]) -> Iterator[None]:
    """Name the user rather than the row of a block, which says nothing outside."""
    try:
        yield
    except _NotANumberError as error:
        raise DataError(f"scores: expected numbers, got NaN for user {users[error.row]} (by index)") from error


def _scored(scorer: ItemScorer, users: NDArray[np.int64]) -> Tensor:
    scores = scorer.scores(torch.from_numpy(users))
    expected = (len(users), scorer.num_items)
    if tuple(scores.shape) != expected:
        raise DataError(f"scores: expected shape {expected} of (users, items), got {tuple(scores.shape)}")
    return scores


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
