"""Many pieces of work, each with one thread, so that what comes of them does not depend on the machine's cores."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, TypeVar

import torch

from metammf.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

J = TypeVar("J")
R = TypeVar("R")

_GLANCE = 0.2  # seconds


def run_all(
    work: Callable[[J], R], jobs: Sequence[J], workers: int, done: Callable[[R], None], *, apart: bool = False
) -> list[R]:
    """Do all jobs and return what came of them, in their order.

    Args:
        work: What is done for each; a function of a module, where there are several processes.
        jobs: What it is done with.
        workers: Processes at a time; 1 stays in this one.
        done: Called after each job, in the order in which they finish.
        apart: Give each job a process of its own, even where there is one at a time: what one of them holds at its most is then
            its own figure.

    Raises:
        RunError: a process died.
        MetaMMFError: whatever a job raised.
    """
    found: dict[int, R] = {}
    here = workers == 1 and not apart
    outcomes = _serial(work, jobs) if here else _parallel(work, jobs, workers, apart)
    with contextlib.closing(outcomes):
        for place, outcome in outcomes:
            found[place] = outcome
            done(outcome)
    return [found[place] for place in range(len(jobs))]


def _serial(work: Callable[[J], R], jobs: Iterable[J]) -> Generator[tuple[int, R]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for place, job in enumerate(jobs):
            yield place, work(job)
    finally:
        torch.set_num_threads(threads)


def _parallel(work: Callable[[J], R], jobs: Iterable[J], workers: int, apart: bool) -> Generator[tuple[int, R]]:
    todo = deque(enumerate(jobs))
    running: dict[Future[R], tuple[int, ProcessPoolExecutor]] = {}
    with _pools() as start:
        shared = None if apart else start(workers)
        try:
            while todo or running:
                while todo and (shared is not None or len(running) < workers):
                    place, job = todo.popleft()
                    pool = shared or start(1)
                    running[pool.submit(work, job)] = place, pool
                # Polars restarts system calls that a signal interrupts, so that a wait without end would not hear of one.
                finished, _ = wait(running, timeout=_GLANCE, return_when=FIRST_COMPLETED)
                for future in finished:
                    place, pool = running.pop(future)
                    yield place, future.result()
                    if apart:
                        pool.shutdown()
        except BrokenProcessPool as error:
            raise RunError("a training process died; is there enough memory?") from error


@contextlib.contextmanager
def _pools() -> Iterator[Callable[[int], ProcessPoolExecutor]]:
    """Give what starts pools; they end at once on an error or an interrupt, whatever their processes are at."""
    others = set(multiprocessing.active_children())
    pools: list[ProcessPoolExecutor] = []

    def start(workers: int) -> ProcessPoolExecutor:
        # A fork of a process with threads, as torch starts them, may hang.
        context = multiprocessing.get_context("spawn")
        pools.append(ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)))
        return pools[-1]

    try:
        yield start
    except BaseException:
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        for pool in pools:
            pool.shutdown(wait=True, cancel_futures=True)
