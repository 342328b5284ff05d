"""One model of the demo, trained and measured in a process of its own."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from metammf.errors import RunError
from metammf.experiments.config import Merged, RunConfig
from metammf.experiments.evaluating import evaluate_run
from metammf.experiments.projection import embed_2d
from metammf.experiments.run import Run, RunOptions, train_run
from metammf.explanation import Explainable, in_chunks, item_contributions
from metammf.models.content_table import content_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from metammf.evaluation.result import Evaluation
    from metammf.nn.content import Content

_GLANCE = 0.2  # seconds


@dataclass(frozen=True)
class Job:
    """What to train.

    Args:
        key: Which model of the demo.
        config: All that decides the outcome.
        data: The data set's folder.
        out: The run's folder.
        mapped: Items whose fused vectors are laid out in two dimensions; None for none of them.
    """

    key: str
    config: RunConfig
    data: Path
    out: Path
    mapped: NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of it.

    Args:
        key: Which model of the demo.
        seed: Its seed.
        evaluation: On the test part.
        curve: One record an epoch, ``epoch, loss, metric, best``; empty for a solved model.
        epoch: The epoch that validation chose; None for a solved model.
        parameters: Numbers that were learned or solved for.
        seconds: Of training, validation included.
        shares: Each modality's share in the fused vector of each item, (N, M); None where there is no fusion.
        fused: The fused vectors e^m of the items that are mapped, (n, width); None where there are none.
        layout: Their places on the map, (n, 2); likewise.
    """

    key: str
    seed: int
    evaluation: Evaluation
    curve: Sequence[dict[str, Any]]
    epoch: int | None
    parameters: int
    seconds: float
    shares: NDArray[np.float32] | None
    fused: NDArray[np.float32] | None
    layout: NDArray[np.float32] | None


def run_jobs(jobs: Sequence[Job], workers: int, done: Callable[[Outcome], None]) -> list[Outcome]:
    """Run all jobs and return what came of them, in their order.

    Each job has one thread, whatever the number of workers, so that the outcome does not depend on the machine's cores.

    Args:
        jobs: What to train.
        workers: Processes; 1 stays in this one.
        done: Called after each job, in the order in which they finish.

    Raises:
        RunError: a process died.
        MetaMMFError: whatever a job raised.
    """
    found: dict[int, Outcome] = {}
    with contextlib.closing(_serial(jobs) if workers == 1 else _parallel(jobs, workers)) as outcomes:
        for place, outcome in outcomes:
            found[place] = outcome
            done(outcome)
    return [found[place] for place in range(len(jobs))]


def run_job(job: Job) -> Outcome:
    """Train, evaluate on the test part, and look into the fusion."""
    merged = Merged(job.config, {})
    run = train_run(merged, job.data, job.out, RunOptions(device="cpu"))
    evaluation = evaluate_run(run)
    recommender = run.recommender()
    network = None if recommender.state else recommender.model
    learned = recommender.state.values() if network is None else network.parameters()
    fusion = network if isinstance(network, Explainable) else None
    content = None if fusion is None else _content(run)
    fused = None if fusion is None or content is None else _fused(fusion, content, job.mapped)
    return Outcome(
        key=job.key,
        seed=job.config.seed,
        evaluation=evaluation,
        curve=_curve(run),
        epoch=run.record["epochs"],
        parameters=sum(tensor.numel() for tensor in learned),
        seconds=run.record["seconds"],
        shares=None if fusion is None or content is None else _shares(fusion, content),
        fused=fused,
        layout=None if fused is None else embed_2d(fused),
    )


def _content(run: Run) -> Content:
    """The features that the run was trained on, which may be noise."""
    features = run.dataset().features
    if run.config.placebo is not None:
        features = features.placebo(run.config.placebo, run.config.seed)
    return content_of(features)


def _shares(fusion: Explainable, content: Content) -> NDArray[np.float32]:
    return in_chunks(lambda chunk: item_contributions(fusion, chunk), content).shares.numpy()


@torch.no_grad()
def _fused(fusion: Explainable, content: Content, items: NDArray[np.int64] | None) -> NDArray[np.float32] | None:
    if items is None:
        return None
    rows = torch.from_numpy(items)
    return fusion.fuse_scaled(fusion.scale(content.map(lambda tensor: tensor[rows]))).numpy()


def _curve(run: Run) -> list[dict[str, Any]]:
    path = run.path / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    metric = run.config.training.metric
    records = [json.loads(line) for line in lines]
    return [
        {"epoch": one["epoch"], "loss": one["loss"], "metric": one["metrics"].get(metric), "best": one["best"]}
        for one in records
    ]


def _serial(jobs: Iterable[Job]) -> Generator[tuple[int, Outcome]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for place, job in enumerate(jobs):
            yield place, run_job(job)
    finally:
        torch.set_num_threads(threads)


def _parallel(jobs: Sequence[Job], workers: int) -> Generator[tuple[int, Outcome]]:
    with _pool(workers) as pool:
        places = {pool.submit(run_job, job): place for place, job in enumerate(jobs)}
        pending = set(places)
        try:
            while pending:
                # Polars restarts system calls that a signal interrupts, so that a wait without end would not hear of one.
                finished, pending = wait(pending, timeout=_GLANCE, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield places[future], future.result()
        except BrokenProcessPool as error:
            raise RunError("a training process died; is there enough memory?") from error


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool that ends at once on an error or an interrupt, whatever its processes are at."""
    others = set(multiprocessing.active_children())
    # A fork of a process with threads, as torch starts them, may hang.
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    )
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
