"""Exact top-20 with the train items left out: how many users a second, ours beside what one would write first.

``python benchmarks/ranking.py``: 55,000 users and 6,000 items, 64-wide vectors, 20 train items a user. The ways that
loop over users are run on a part of them, and compared by rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse

from harness import measure, parser, peak_memory, report
from metammf.ranking.topk import rank

if TYPE_CHECKING:
    from collections.abc import Callable

K = 20
BATCH = 256
LOOPED_USERS = 2000


class DotProduct:
    """Scores as products of random vectors, and a random train matrix."""

    def __init__(self, num_users: int, num_items: int, dim: int, per_user: int) -> None:
        rng = np.random.default_rng(0)
        self.num_items = num_items
        self.users = torch.from_numpy(rng.standard_normal((num_users, dim), dtype=np.float32))
        self.items = torch.from_numpy(rng.standard_normal((num_items, dim), dtype=np.float32))
        count = num_users * per_user
        pairs = (rng.integers(num_users, size=count), rng.integers(num_items, size=count))
        self.seen = sparse.csr_array((np.ones(count, dtype=np.float32), pairs), shape=(num_users, num_items))

    def scores(self, users: torch.Tensor) -> torch.Tensor:
        """Return the products of the users' vectors and all items' vectors."""
        return self.users[users] @ self.items.T

    def batches(self, count: int) -> range:
        """Return where batches of users begin."""
        return range(0, count, BATCH)


def bare_product(model: DotProduct, count: int) -> None:
    """Only the scores: what no ranking can be faster than."""
    for start in model.batches(count):
        model.scores(torch.arange(start, min(start + BATCH, count)))


def ours(model: DotProduct, count: int) -> np.ndarray:
    """The library's ranking."""
    return rank(model, np.arange(count), K, seen=model.seen)[0]


def product_mask_topk(model: DotProduct, count: int) -> np.ndarray:
    """Batched product, mask by row and column, torch.topk (ties in any order)."""
    lists = []
    for start in model.batches(count):
        users = torch.arange(start, min(start + BATCH, count))
        scores = model.scores(users)
        rows, columns = model.seen[users.numpy()].nonzero()
        scores[torch.from_numpy(rows), torch.from_numpy(columns)] = -torch.inf
        lists.append(scores.topk(K).indices.numpy())
    return np.concatenate(lists)


def per_user(model: DotProduct, count: int, *, partition: bool) -> np.ndarray:
    """One user after another in NumPy: product, mask, argsort or argpartition."""
    users, items, seen = model.users.numpy(), model.items.numpy(), model.seen
    lists = np.empty((count, K), dtype=np.int64)
    for user in range(count):
        scores = items @ users[user]
        scores[seen.indices[seen.indptr[user] : seen.indptr[user + 1]]] = -np.inf
        if partition:
            best = np.argpartition(-scores, K)[:K]
            lists[user] = best[np.argsort(-scores[best])]
        else:
            lists[user] = np.argsort(-scores)[:K]
    return lists


def prepare(threads: int, name: str, shape: tuple[int, int, int, int]) -> Callable[[], object]:
    """Build a world and return the run of one way in it."""
    torch.set_num_threads(threads)
    return ways(DotProduct(*shape))[name]


def ways(model: DotProduct) -> dict[str, Callable[[], object]]:
    """Name what is compared."""
    count = len(model.users)
    looped = min(count, LOOPED_USERS)
    return {
        "argsort, a user at a time": lambda: per_user(model, looped, partition=False),
        "argpartition, a user at a time": lambda: per_user(model, looped, partition=True),
        "product, mask, torch.topk": lambda: product_mask_topk(model, count),
        "metammf.ranking": lambda: ours(model, count),
        "bare product": lambda: bare_product(model, count),
    }


def main() -> None:
    """Check that all agree, measure, report."""
    options = parser(__doc__)
    for name, value in (("users", 55_000), ("items", 6_000), ("dim", 64), ("seen", 20)):
        options.add_argument(f"--{name}", type=int, default=value)
    options.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    shape = (given.users, given.items, given.dim, given.seen)
    model = DotProduct(*shape)
    agree = ours(model, given.users)[:LOOPED_USERS] == per_user(model, min(given.users, LOOPED_USERS), partition=False)
    assert agree.mean() > 0.999, (
        "products of other shapes differ in the last bit, which may swap two items, but no more"
    )
    runs = ways(model)
    units = {name: float(min(given.users, LOOPED_USERS) if "at a time" in name else given.users) for name in runs}
    peaks = {} if given.no_memory else {name: peak_memory(prepare, given.threads, name, shape) for name in runs}
    timings = measure(runs, against="argsort, a user at a time", units=units, repeats=given.repeats, peaks=peaks)
    rates = {timing.name: timing.per_second for timing in timings}
    share = rates["metammf.ranking"] / rates["bare product"]
    report(given, timings, unit="users", shape=shape, k=K, share_of_bare_product=share)
    print(f"ours runs at {share:.2f} of the rate of the bare product")


if __name__ == "__main__":
    main()
