"""Exact top-20 with the train items left out: how many users a second, ours beside what one would write first, and Cornac.

``python benchmarks/ranking.py``: 55,000 users and 6,000 items, 64-wide vectors, 20 train items a user. ``--large``: 10,000 users
and 1,000,000 items. The ways that go user by user are run on a part of them, and what they would take for all is extrapolated.
Cornac's evaluation joins where its environment is: ``--envs``, and peers/README.md.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import torch

from harness import Peak, Row, Table, parser, peak_memory, publish, timings
from metammf.data.interactions import Interactions
from metammf.evaluation.evaluate import rank_relevant
from metammf.evaluation.metrics import means, per_user_metrics
from metammf.ranking.topk import rank
from peers.worker import ENVIRONMENTS, Worker, interpreter

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from harness import Timing

K = 20
BATCH = 256
ARGSORT, OURS, PRODUCT, CORNAC = "argsort, a user at a time", "metammf.ranking", "bare product", "Cornac's evaluation"
MEASURED_MEMORY = 2_000
"""Users that memory is measured on: it is that of a batch, and of the lists."""
SAMPLED_SCORES = 2_000_000_000
"""Scores that a run of a way takes at most which is not the one in question: fewer users are run, and the rest extrapolated."""

Shape = tuple[int, int, int, int]


class DotProduct:
    """Scores as products of random vectors, random train items, and one relevant item a user.

    Args:
        num_users: U.
        num_items: N.
        dim: D.
        per_user: Train items drawn for each user.
    """

    def __init__(self, num_users: int, num_items: int, dim: int, per_user: int) -> None:
        rng = np.random.default_rng(0)
        self.num_items = num_items
        self.users = torch.from_numpy(rng.standard_normal((num_users, dim), dtype=np.float32))
        self.items = torch.from_numpy(rng.standard_normal((num_items, dim), dtype=np.float32))
        everybody = np.arange(num_users)
        train = np.unique(
            np.repeat(everybody, per_user) * num_items + rng.integers(num_items, size=num_users * per_user)
        )
        relevant = np.setdiff1d(everybody * num_items + rng.integers(num_items, size=num_users), train)
        self.train, self.relevant = (self._log(keys) for keys in (train, relevant))
        self.seen = self.train.matrix

    def _log(self, keys: np.ndarray) -> Interactions:
        users, items = np.divmod(keys, self.num_items)
        return Interactions(users, items, len(self.users), self.num_items)

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


def our_evaluation(model: DotProduct, count: int) -> dict[str, float]:
    """The library's ranking and its metrics, which is what Cornac's evaluation does."""
    users = np.flatnonzero(model.relevant.user_counts[:count])
    ranking = rank_relevant(model, model.relevant, model.train, K, users=users)
    return means(per_user_metrics(ranking.hits, ranking.relevant, (K,)))


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


def ways(model: DotProduct, count: int, looped: int) -> dict[str, tuple[int, Callable[[], object]]]:
    """Name what is compared: how many users each way is run on, and its run."""
    some = min(count, SAMPLED_SCORES // model.num_items)
    return {
        ARGSORT: (looped, lambda: per_user(model, looped, partition=False)),
        "argpartition, a user at a time": (looped, lambda: per_user(model, looped, partition=True)),
        "product, mask, torch.topk": (some, lambda: product_mask_topk(model, some)),
        OURS: (count, lambda: ours(model, count)),
        "metammf.evaluation": (some, lambda: our_evaluation(model, some)),
        PRODUCT: (count, lambda: bare_product(model, count)),
    }


def prepare(threads: int, name: str, shape: Shape, looped: int) -> Callable[[], object]:
    """Build a world and return the run of one way in it."""
    torch.set_num_threads(threads)
    model = DotProduct(*shape)
    return ways(model, min(len(model.users), MEASURED_MEMORY), looped)[name][1]


@contextlib.contextmanager
def cornac(model: DotProduct, looped: int, given: argparse.Namespace) -> Iterator[Worker | None]:
    """Start Cornac on the first users; None where its environment is not there."""
    python = interpreter(given.envs, "cornac")
    if python is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as scratch:
        arrays = Path(scratch, "arrays.npz")
        logs = {"seen": model.train, "relevant": model.relevant}
        pairs = {name: np.stack([log.users, log.items])[:, log.users < looped] for name, log in logs.items()}
        np.savez(arrays, users=model.users[:looped].numpy(), items=model.items.numpy(), **pairs)
        settings = {"arrays": str(arrays), "k": K, "threads": given.threads, "scratch": scratch}
        yield Worker(CORNAC, python, "cornac_ranking.py", settings)


def measured(model: DotProduct, given: argparse.Namespace, looped: int) -> list[Timing]:
    """Run all ways in turn, after each has been run on a few users."""
    runs = ways(model, given.users, looped)
    with cornac(model, looped, given) as peer:
        if peer is not None:
            runs = {ARGSORT: runs[ARGSORT], CORNAC: (looped, lambda: peer.ask("evaluate")), **runs}
        for _, warm_up in ways(model, min(given.users, BATCH), min(looped, BATCH)).values():
            warm_up()
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(given.repeats):
            for name, (_, run) in runs.items():
                start = perf_counter()
                run()
                seconds[name].append(perf_counter() - start)
        peaks = {} if peer is None else {CORNAC: Peak(float("nan"), peer.finish()["peak_mib"])}
    if not given.no_memory:
        shape = (given.users, given.items, given.dim, given.seen)
        peaks |= {name: peak_memory(prepare, given.threads, name, shape, looped) for name in runs if name != CORNAC}
    units = {name: float(count) for name, (count, _) in runs.items()}
    return timings(seconds, against=ARGSORT, units=units, peaks=peaks)


def row(timing: Timing, product: float, users: int) -> Row:
    """Set one way in a row, its seconds for all users; `product` is the rate of the bare product."""
    run = round(timing.seconds * timing.per_second)
    memory = timing.peak
    return {
        "way": f"{timing.name} ({run:,} users, extrapolated)" if run < users else timing.name,
        "s, all users": users / timing.per_second,
        "max/min": timing.spread,
        "users/s": timing.per_second,
        "x argsort": timing.ratio,
        "of the bare product": timing.per_second / product,
        "rise MiB": None if memory is None or memory.rise_mib != memory.rise_mib else memory.rise_mib,
        "peak MiB": None if memory is None else memory.resident_mib,
    }


def arguments() -> argparse.Namespace:
    """Read the command line."""
    options = parser(__doc__)
    options.add_argument("--large", action="store_true", help="10,000 users and 1,000,000 items")
    for name, value in (("users", 55_000), ("items", 6_000), ("dim", 64), ("seen", 20)):
        options.add_argument(f"--{name}", type=int, default=value)
    options.add_argument("--looped", type=int, help="users of the ways that go user by user: 2,000; 200 with --large")
    options.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    options.add_argument("--envs", type=Path, default=ENVIRONMENTS, help="folder of the peers' environments")
    given = options.parse_args()
    if given.large:
        given.users, given.items = 10_000, 1_000_000
    if given.quick:
        given.users, given.items = min(given.users, 1_000), min(given.items, 2_000)
    return given


def main() -> None:
    """Check that all agree, measure, report."""
    given = arguments()
    torch.set_num_threads(given.threads)
    looped = min(given.users, given.looped or (200 if given.large else 2_000))
    model = DotProduct(given.users, given.items, given.dim, given.seen)
    agree = ours(model, looped) == per_user(model, looped, partition=False)
    assert agree.mean() > 0.999, (
        "products of other shapes differ in the last bit, which may swap two items, but no more"
    )
    found = measured(model, given, looped)
    rates = {timing.name: timing.per_second for timing in found}
    share = rates[OURS] / rates[PRODUCT]
    notes = [f"metammf.ranking runs at {share:.2f} of the rate of the bare product."]
    if CORNAC not in rates:
        notes.append("Cornac's evaluation is left out: its environment is not there.")
    title = f"Top-{K} of {given.items:,} items for {given.users:,} users, D = {given.dim}"
    table = Table(title, [row(timing, rates[PRODUCT], given.users) for timing in found], notes)
    sizes = {name: getattr(given, name) for name in ("users", "items", "dim", "seen")}
    publish(given, title, [table], **sizes, looped=looped, k=K, share_of_bare_product=share)


if __name__ == "__main__":
    main()
