"""The demo: dynamic fusion against its static twin, placebos and controls on the embedded world.

::

    world/         the data set and its truth
    runs/          one run folder a model and seed, for `metammf recommend`, `similar`, `explain`
    results.json   all that was found, plain data
    report.html    the same to look at
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
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
from metammf.experiments.run import LOG, METRICS
from metammf.files import atomic_open, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from metammf.data.synthetic import World
    from metammf.experiments.demo_jobs import Outcome

    Progress = Callable[[int, int, str], None]

RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"
MARKER = ".metammf-demo"
"""Tells a folder of the demo, finished or not, from anybody else's."""
LOOK_SECONDS = 60.0
"""Between two looks at how far the models are that are being trained."""


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
        progress: Called with the models trained, how many there are, and what was done last or, from a thread that looks, what is
            under way.
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
        teller = _Teller(jobs, progress or (lambda *_: None))
        with teller.watching():
            outcomes = run_jobs(jobs, num_workers(plan), teller.done)
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


class _Teller:
    """Tells of each model that is done and, now and then, how far those are that are being trained.

    Args:
        jobs: All of them.
        progress: Whom.
    """

    def __init__(self, jobs: Sequence[Job], progress: Progress) -> None:
        self._jobs, self._progress = jobs, progress
        self._done = 0

    def done(self, outcome: Outcome) -> None:
        """Tell of a model that is done."""
        self._done += 1
        self._progress(self._done, len(self._jobs), describe_outcome(outcome))

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Look at what is being trained while the block runs."""
        over = threading.Event()
        watch = threading.Thread(target=self._watch, args=(over,), daemon=True)
        self._progress(0, len(self._jobs), "")
        watch.start()
        try:
            yield
        finally:
            over.set()
            watch.join()

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(LOOK_SECONDS):
            if what := under_way(self._jobs):
                self._progress(self._done, len(self._jobs), what)


def under_way(jobs: Sequence[Job]) -> str:
    """Say of the models that are being trained how far they are, by their logs; an empty string where none is."""
    told = []
    for job in jobs:
        log = job.out / LOG
        if log.is_file() and not (job.out / METRICS).is_file():
            epoch = log.read_bytes().count(b"\n")
            told.append(f"{job.key} seed {job.config.seed}: epoch {epoch} of at most {job.config.training.epochs}")
    return f"training {', '.join(told)}" if told else ""


def num_workers(plan: DemoPlan) -> int:
    """Return how many processes train at once: by default one a core and four at most, since each holds torch, some 300 MiB."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(plan.workers or min(usable, 4), plan.num_runs)


@contextlib.contextmanager
def _replacing(out: Path) -> Iterator[None]:
    """Hold a new folder at `out`; what was there before comes back unless the block ends well.

    The older demo waits beside, in ``.NAME.old``, where the next demo finds it if a kill leaves it there.
    """
    old = out.with_name(f".{out.name}.old")
    for folder in (out, old):
        if folder.exists() and not (folder.is_dir() and ((folder / MARKER).is_file() or not any(folder.iterdir()))):
            raise DataError(f"{folder} exists and is not a demo's folder (it has no {MARKER}): name another")
    if out.exists():
        with _held(out):
            if (out / RESULTS_FILE).is_file():
                shutil.rmtree(old, ignore_errors=True)
                out.replace(old)
            else:  # what a kill has left is worth nothing, and the one that it was to replace may still wait
                shutil.rmtree(out)
    with _new(out, old):
        yield
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _new(out: Path, old: Path) -> Iterator[None]:
    """Make the folder `out` and hold it; unless the block ends well it is gone, and `old` stands there again."""
    try:
        out.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror or error}") from error
    try:
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
