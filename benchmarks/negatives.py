"""A negative for each positive: Python sets, as one would write it first, beside the library's sampler.

``python benchmarks/negatives.py``: 55,000 users, 6,000 items, 969,000 positives. Building what each way looks positives up in is
left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from harness import measure, parser, report
from logs import random_log
from metammf.training.sampling import NegativeSampler
from twin import SetSampler

if TYPE_CHECKING:
    from collections.abc import Callable

    from metammf.data.interactions import Interactions

SETS = "Python sets, a positive at a time"


def by_sets(log: Interactions) -> Callable[[], list[list[int]]]:
    """Draw until the item is not in the user's set."""
    sampler, users = SetSampler(log), log.users.tolist()
    return lambda: sampler.draw(users, 1)


def by_sampler(log: Interactions, weighting: Literal["uniform", "popularity"]) -> Callable[[], torch.Tensor]:
    """Draw all, look them up among the sorted keys of the positives, draw again what hit."""
    sampler = NegativeSampler(log, weighting)
    users, generator = torch.from_numpy(log.users.astype(np.int64)), torch.Generator().manual_seed(0)
    return lambda: sampler.per_positive(users, 1, generator)


def main() -> None:
    """Check that no negative is a positive, measure, report."""
    given = parser(__doc__).parse_args()
    torch.set_num_threads(given.threads)
    log = random_log(1000, 300, 10_000) if given.quick else random_log(55_000, 6_000, 969_000)
    runs: dict[str, Callable[[], object]] = {
        SETS: by_sets(log),
        "metammf.training, uniform": by_sampler(log, "uniform"),
        "metammf.training, popularity": by_sampler(log, "popularity"),
    }
    for name, run in runs.items():
        keys = log.users.astype(np.int64) * log.num_items + np.asarray(run()).ravel()
        assert not np.isin(keys, log.keys).any(), f"{name} draws positives"
    timings = measure(runs, against=SETS, units=float(len(log)), repeats=given.repeats)
    title = f"A negative for each of {len(log):,} positives"
    report(given, timings, unit="negatives", title=title, users=log.num_users, items=log.num_items, positives=len(log))


if __name__ == "__main__":
    main()
