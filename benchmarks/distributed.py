"""Several processes: training by torchrun, and ranking by Ray, beside one process.

``python benchmarks/distributed.py``: MF on 200,000 users, 50,000 items and 2,000,000 interactions, steps of one process and of
two, what they send and hold; top-50 of 20,000 users, by one process and by two of Ray. ``--arithmetic`` prints what memory
and traffic come to by the formulas of docs/scaling.md, up to a billion interactions, and measures nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import distributed as dist

from harness import Absent, Table, alone, parser, publish, run_or_say
from metammf.data.dataset import Catalog
from metammf.data.features import absent_features
from metammf.data.ids import IdMap
from metammf.data.interactions import Interactions
from metammf.data.splitting import Development
from metammf.errors import MissingExtraError
from metammf.experiments.feed_files import OneProcess, write_feed_folder
from metammf.models.mf import MFConfig
from metammf.models.scorers import VectorScorer
from metammf.recommender import Recommender
from metammf.training.config import TrainingConfig
from metammf.training.fit import fit
from metammf.training.parallel import joined

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from metammf.training.checkpoint import EpochRecord, Progress

DIM = 64
WARM = 5
K = 50
MIB = 1 << 20


@dataclass(frozen=True)
class World:
    """Random interactions.

    Args:
        users: How many.
        items: How many.
        interactions: How many are drawn; repeats fall away.
    """

    users: int
    items: int
    interactions: int

    def development(self) -> Development:
        """Draw them."""
        keys = np.unique(np.random.default_rng(0).integers(self.users * self.items, size=self.interactions))
        train = Interactions(*np.divmod(keys, self.items), self.users, self.items)
        nothing = Interactions(np.zeros(0, np.int32), np.zeros(0, np.int32), self.users, self.items)
        ids = IdMap.of_range(self.users, kind="user"), IdMap.of_range(self.items)
        return Development(train, nothing, Catalog(*ids, absent_features({}, self.items)))


# Training ---------------------------------------------------------------------------------------------------------------


class Steps:
    """A listener that notes when each step ends, and what was held and had been sent then.

    Args:
        traffic: Of this process.
    """

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        self.at: list[float] = []
        self.sent: list[float] = []
        self.resident = 0.0

    def on_start(self, epochs: int, steps_per_epoch: int, progress: Progress) -> None:
        """Start the clock."""
        self.at.append(time.perf_counter())

    def on_step(self, epoch: int, step: int, loss: float) -> None:
        """Note the time."""
        self.at.append(time.perf_counter())
        self.sent.append(self.traffic.bytes)
        self.resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB

    def on_epoch(self, record: EpochRecord) -> None:
        """Nothing to do."""


class Traffic:
    """Counts the bytes that this process sends, as rings and direct exchange have it."""

    def __init__(self, size: int) -> None:
        self.bytes, self.size = 0.0, size
        share = (size - 1) / size
        self._watch("all_reduce", lambda tensor, *_: 2 * share * tensor.nbytes)
        self._watch("all_gather", lambda _, tensor, *__: (size - 1) * tensor.nbytes)
        self._watch("broadcast", lambda tensor, *_: tensor.nbytes)
        self._watch("all_to_all_single", lambda _, tensor, *__: share * tensor.nbytes)

    def _watch(self, name: str, count: Callable[..., float]) -> None:
        function = getattr(dist, name)

        def watched(*args: Any, **options: Any) -> Any:
            self.bytes += count(*args)
            return function(*args, **options)

        setattr(dist, name, watched)


def train(world: World, threads: int, updates: str, batch: int, steps: int, *, shard: bool = False) -> dict[str, float]:
    """Take some steps; return seconds a step and MiB, of this process among those that torchrun has started."""
    torch.set_num_threads(threads)
    training = TrainingConfig.model_validate(
        {
            "objective": "softmax",
            "batch_size": batch,
            "shared_negatives": 2048,
            "table_updates": updates,
            "max_steps": steps,
            "patience": None,
        }
    )
    with joined("cpu") as (parallel, _):
        told = Steps(Traffic(parallel.size))
        development = world.development()
        fit(
            MFConfig(embedding_dim=DIM, init_std=0.1),
            development,
            training=training,
            device="cpu",
            listeners=(told,),
            parallel=parallel,
            shard=shard,
        )
    return {
        "seconds": median(np.diff(told.at)[WARM:]),
        "sent": (told.sent[-1] - told.sent[0]) / (len(told.sent) - 1) / MIB if parallel.size > 1 else 0.0,
        "resident": told.resident,
    }


def trained_by_two(world: World, updates: str, batch: int, steps: int, *, shard: bool) -> dict[str, float]:
    """Return the same of two processes of one thread each: the slower, the one that sent more, the one that held more."""
    with tempfile.TemporaryDirectory() as folder:
        work = {"world": asdict(world), "updates": updates, "batch": batch, "steps": steps, "shard": shard}
        words = [*LAUNCHER, __file__, "--worker", json.dumps(work | {"out": folder})]
        subprocess.run(words, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        found = [json.loads(path.read_text()) for path in Path(folder).iterdir()]
    assert len(found) == 2
    return {name: max(one[name] for one in found) for name in found[0]}


LAUNCHER = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def worker(work: dict[str, Any]) -> None:
    """Do one process's part of `trained_by_two`."""
    out, world = Path(work.pop("out")), World(**work.pop("world"))
    found = train(world, 1, **work)
    (out / f"{os.environ['RANK']}.json").write_text(json.dumps(found))


def training_table(world: World, batch: int, steps: int) -> Table:
    """Measure all ways of training."""
    rows = []
    for updates in ("dense", "touched"):
        for threads in (1, 2):
            found = alone(train, world, threads, updates, batch, steps)
            rows.append(_row(f"1 process, {threads} thread{'s' * (threads - 1)}, {updates}", found))
        for shard in (False, True):
            how = "sharded" if shard else "whole tables"
            found = trained_by_two(world, updates, batch, steps, shard=shard)
            rows.append(_row(f"2 processes, 1 thread each, {updates}, {how}", found))
    return Table(
        f"MF by sampled softmax, {world.users:,} users, {world.items:,} items, batch {batch:,}",
        rows,
        [
            "Sent: by one process a step, as a ring all-reduce and direct exchange have it, over the loopback of this machine.",
            "Resident: of one process, in the midst of training; the log is held by every process.",
        ],
    )


def _row(way: str, found: dict[str, float]) -> dict[str, Any]:
    return {
        "way": way,
        "s/step": found["seconds"],
        "sent MiB/step": found["sent"],
        "resident MiB": found["resident"],
    }


def held_by_the_log(worlds: tuple[World, World], batch: int) -> Table:
    """Measure what an interaction costs in memory, from two logs over the same tables."""
    found = [alone(train, world, 1, "touched", batch, WARM + 1)["resident"] for world in worlds]
    counts = [alone(_count, world) for world in worlds]
    slope = (found[1] - found[0]) * MIB / (counts[1] - counts[0])
    rows = [{"interactions": count, "resident MiB": resident} for count, resident in zip(counts, found, strict=True)]
    return Table("What the log holds in training", rows, [f"{slope:.0f} bytes an interaction and process."])


def _count(world: World) -> int:
    return len(world.development().train)


# Ranking ----------------------------------------------------------------------------------------------------------------


def recommender_of(users: int, items: int) -> Recommender:
    """Return one of random vectors, ten interactions a user."""
    rng = np.random.default_rng(1)
    vectors = (torch.from_numpy(rng.standard_normal((count, DIM), dtype=np.float32)) for count in (users, items))
    return Recommender(World(users, items, 10 * users).development(), MFConfig(), VectorScorer(*vectors))


def rank_here(users: int, items: int, threads: int) -> float:
    """Write recommendations for all users in this process; return users a second."""
    torch.set_num_threads(threads)
    feeds = recommender_of(users, items).feeds(K)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write_feed_folder(feeds, Path(folder) / "feeds", {}, OneProcess(), users_per_part=users // 16)
        return users / (time.perf_counter() - start)


def rank_by_ray(users: int, items: int) -> tuple[float, float]:
    """Write them by two processes of Ray; return users a second from the first part on, and seconds until that is there."""
    from metammf.experiments.ray_engine import RayEngine

    feeds = recommender_of(users, items).feeds(K)
    seen: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as folder, RayEngine(2) as pool:
        start = time.perf_counter()
        write_feed_folder(
            feeds,
            Path(folder) / "feeds",
            {},
            pool,
            users_per_part=users // 16,
            progress=lambda done, _: seen.append((time.perf_counter() - start, done)),
        )
    (first, before), (last, after) = seen[0], seen[-1]
    return (after - before) / (last - first), first


def ranking_table(users: int, items: int) -> Table:
    """Measure all ways of ranking."""
    rows: list[dict[str, Any]] = [
        {"way": f"1 process, {threads} thread{'s' * (threads - 1)}", "users/s": alone(rank_here, users, items, threads)}
        for threads in (1, 2)
    ]
    notes = []
    try:
        rate, first = alone(rank_by_ray, users, items)
        rows.append({"way": "Ray, 2 processes, 1 thread each", "users/s": rate})
        notes = [f"Ray's first part is there after {first:.1f} s; its rate is from there on."]
    except RuntimeError as error:
        if MissingExtraError.__name__ not in str(error):
            raise
        notes = ["Ray is not installed here."]
    return Table(f"Top-{K} of {users:,} users among {items:,} items, to Parquet", rows, notes)


# Arithmetic -------------------------------------------------------------------------------------------------------------


def arithmetic(processes: int, batch: int, negatives: int) -> Iterator[Table]:
    """Work the formulas of docs/scaling.md out, for logs with twenty interactions a user and five users an item."""
    log, table = 56, 4 * DIM
    memory, traffic = [], []
    for interactions in (20_000_000, 100_000_000, 300_000_000, 1_000_000_000):
        nodes = interactions // 20 + interactions // 100
        shown = {"interactions": float(interactions), "nodes": float(nodes)}
        memory.append(
            shown
            | {
                "log GB": log * interactions / 1e9,
                "dense GB": 4 * table * nodes / 1e9,
                "touched GB": (3 * table + 4) * nodes / 1e9,
                f"sharded by {processes}, touched GB": (3 * table + 4) * nodes / processes / 1e9,
                "graph GB": 24 * interactions / 1e9,
            }
        )
        mine = 2 * batch // processes + negatives
        share = (processes - 1) / processes
        traffic.append(
            shown
            | {
                "dense MB/step": 2 * share * table * nodes / 1e6,
                "touched MB/step": (processes - 1) * mine * (table + 8) / 1e6,
                "sharded MB/step": share * mine * (2 * table + 8) / 1e6,
            }
        )
    yield Table(f"Memory of a process, D = {DIM}", memory)
    yield Table(
        f"Sent by each of {processes} processes a step, D = {DIM}, batch {batch:,}, {negatives:,} shared negatives",
        traffic,
    )


def main() -> None:
    """Measure, report."""
    options = parser(__doc__)
    for name, value in (("users", 200_000), ("items", 50_000), ("interactions", 2_000_000), ("steps", 40)):
        options.add_argument(f"--{name}", type=int, default=value)
    options.add_argument("--batch", type=int, default=8192)
    options.add_argument("--ranked", type=int, nargs=2, default=(20_000, 50_000), metavar=("USERS", "ITEMS"))
    options.add_argument("--arithmetic", action="store_true", help="print what the formulas come to, measure nothing")
    options.add_argument("--worker", help="for this script's own use")
    given = options.parse_args()
    if given.worker:
        worker(json.loads(given.worker))
        return
    if given.arithmetic:
        publish(given, "Memory and traffic by arithmetic", list(arithmetic(8, 65_536, 8192)))
        return
    if not dist.is_available():
        raise Absent("this build of torch has no torch.distributed")
    if given.quick:
        given.users, given.items, given.interactions, given.steps = 20_000, 5_000, 200_000, 10
        given.ranked = (2_000, 5_000)
    world = World(given.users, given.items, given.interactions)
    larger = World(given.users, given.items, 4 * given.interactions)
    tables = [
        training_table(world, given.batch, given.steps),
        held_by_the_log((world, larger), given.batch),
        ranking_table(*given.ranked),
    ]
    publish(given, "Several processes", tables, world=asdict(world), batch=given.batch, steps=given.steps)


if __name__ == "__main__":
    run_or_say(main)
