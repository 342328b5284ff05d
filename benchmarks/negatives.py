"""A negative for each positive: Python sets, as one would write it first, beside the library's sampler.

``python benchmarks/negatives.py``: 10,000 users, 3,000 items, 100,000 positives. ``--full``: 55,000 users, 6,000 items, 969,000
positives. Building what each way looks positives up in is left out.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import torch

from harness import measure, parser, report
from metammf.data.interactions import Interactions
from metammf.training.sampling import NegativeSampler

if TYPE_CHECKING:
    from collections.abc import Callable

SETS = "Python sets, a positive at a time"


def world(num_users: int, num_items: int, count: int) -> Interactions:
    """Draw a log with a long tail."""
    rng = np.random.default_rng(0)
    items = (num_items * rng.random(count) ** 2).astype(np.int64)
    keys = np.unique(rng.integers(num_users, size=count) * num_items + items)
    users, items = np.divmod(keys, num_items)
    return Interactions(users.astype(np.int32), items.astype(np.int32), num_users, num_items)


def by_sets(log: Interactions) -> Callable[[], list[int]]:
    """Draw until the item is not in the user's set."""
    watched: dict[int, set[int]] = {}
    for user, item in zip(log.users.tolist(), log.items.tolist(), strict=True):
        watched.setdefault(user, set()).add(item)
    users, draw = log.users.tolist(), random.Random(0)

    def run() -> list[int]:
        negatives = []
        for user in users:
            item = draw.randrange(log.num_items)
            while item in watched[user]:
                item = draw.randrange(log.num_items)
            negatives.append(item)
        return negatives

    return run


def by_sampler(log: Interactions, weighting: str) -> Callable[[], torch.Tensor]:
    """Draw all, look them up among the sorted keys of the positives, draw again what hit."""
    sampler = NegativeSampler(log, weighting)
    users, generator = torch.from_numpy(log.users.astype(np.int64)), torch.Generator().manual_seed(0)
    return lambda: sampler.per_positive(users, 1, generator)


def main() -> None:
    """Check that no negative is a positive, measure, report."""
    options = parser(__doc__)
    options.add_argument("--full", action="store_true", help="55,000 users, 6,000 items, 969,000 positives")
    for name, value in (("users", 10_000), ("items", 3_000), ("positives", 100_000)):
        options.add_argument(f"--{name}", type=int, default=value)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    shape = (55_000, 6_000, 969_000) if given.full else (given.users, given.items, given.positives)
    log = world(*shape)
    runs: dict[str, Callable[[], object]] = {
        SETS: by_sets(log),
        "metammf.training, uniform": by_sampler(log, "uniform"),
        "metammf.training, popularity": by_sampler(log, "popularity"),
    }
    for name, run in runs.items():
        keys = log.users.astype(np.int64) * log.num_items + np.asarray(run()).ravel()
        assert not np.isin(keys, log.keys).any(), f"{name} draws positives"
    timings = measure(runs, against=SETS, units=float(len(log)), repeats=given.repeats)
    report(given, timings, unit="negatives", users=log.num_users, items=log.num_items, positives=len(log))


if __name__ == "__main__":
    main()
