"""The demo: dynamic fusion against its static twin, placebos and controls on the embedded world.

::

    world/         the data set and its truth
    runs/          one run folder a model and seed, for `metammf recommend`, `similar`, `explain`
    results.json   all that was found, plain data
    report.html    the same to look at
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from metammf.data.folder import load_dataset
from metammf.data.synthetic import generate_world, save_world
from metammf.errors import DataError, RunError
from metammf.experiments.demo_jobs import Job, run_jobs
from metammf.experiments.demo_plan import DemoPlan
from metammf.experiments.demo_results import collect, describe_outcome, mapped_items
from metammf.files import atomic_open, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from metammf.data.synthetic import World
    from metammf.experiments.demo_jobs import Outcome

    Progress = Callable[[int, int, str], None]

RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"
MARKER = ".metammf-demo"
"""Tells a folder of the demo, finished or not, from anybody else's."""


def run_demo(
    out: Path | str,
    plan: DemoPlan | None = None,
    *,
    render: Callable[[Mapping[str, Any]], str],
    progress: Progress | None = None,
    command: str = "metammf demo",
) -> dict[str, Any]:
    """Generate the world, train and measure all models, and write the demo's folder.

    An older demo in `out` is replaced once the new one is whole; on an error or an interrupt it stays as it was.

    Args:
        out: The folder.
        plan: What is compared, and how large.
        render: Turns the results into the HTML page.
        progress: Called with the models trained, how many there are, and what was done last.
        command: What the page says made it.

    Returns:
        What results.json holds.

    Raises:
        DataError: `out` is somebody else's, or cannot be written.
        RunError: another demo is writing there, or a process died.
    """
    folder = str(out)
    plan, out = plan or DemoPlan(), Path(out).resolve()
    started = time.perf_counter()
    with _replacing(out):
        world = generate_world(users=plan.users, items=plan.items, interactions=plan.interactions, seed=plan.seed)
        save_world(world, out / "world")
        jobs = _jobs(plan, world, out)
        outcomes = run_jobs(jobs, _workers(plan, len(jobs)), _counting(len(jobs), progress))
        results = collect(world, load_dataset(out / "world").split(), plan, outcomes)
        results |= {"command": command, "folder": folder, "seconds": round(time.perf_counter() - started, 1)}
        plain = json.loads(json.dumps(results, allow_nan=False))  # the page is made of what the file holds
        page = render(plain)
        write_json(out / RESULTS_FILE, plain)
        with atomic_open(out / REPORT_FILE) as stream:
            stream.write(page)
    return plain


def _jobs(plan: DemoPlan, world: World, out: Path) -> list[Job]:
    mapped = mapped_items(plan, world)
    return [
        Job(
            entry.key,
            plan.config(entry, seed),
            out / "world",
            out / "runs" / f"{entry.key}-{seed}",
            mapped if entry.role in ("dynamic", "static") and seed == plan.seed else None,
        )
        for entry in plan.entries
        for seed in plan.seeds(entry)
    ]


def _counting(total: int, progress: Progress | None) -> Callable[[Outcome], None]:
    finished = itertools.count(1)

    def done(outcome: Outcome) -> None:
        if progress is not None:
            progress(next(finished), total, describe_outcome(outcome))

    if progress is not None:
        progress(0, total, "")
    return done


def _workers(plan: DemoPlan, most: int) -> int:
    # Each process holds torch, some 300 MiB.
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(plan.workers or min(usable, 4), most)


@contextlib.contextmanager
def _replacing(out: Path) -> Iterator[None]:
    """Hold a new folder at `out`; what was there before comes back unless the block ends well."""
    if out.exists() and not (out.is_dir() and ((out / MARKER).is_file() or not any(out.iterdir()))):
        raise DataError(f"{out} exists and is not a demo's folder (it has no {MARKER}): name another")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".old", dir=out.parent))
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror or error}") from error
    old = aside / out.name
    try:
        if out.exists():
            with _held(out):
                out.replace(old)
        with _new(out, old):
            yield
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def _new(out: Path, old: Path) -> Iterator[None]:
    """Make the folder `out` and hold it; unless the block ends well it is gone, and `old` stands there again."""
    try:
        out.mkdir()
        (out / MARKER).touch()
        with _held(out):
            yield
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        if old.exists():
            old.replace(out)
        raise


@contextlib.contextmanager
def _held(out: Path) -> Iterator[None]:
    try:
        with FileLock(out / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise RunError(f"{out} is being written by another demo") from error
