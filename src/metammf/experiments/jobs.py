"""Many pieces of work, each with one thread, so that what comes of them does not depend on the machine's cores."""

from __future__ import annotations

import contextlib
import multiprocessing
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, TypeVar

import torch

from metammf.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

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
    places = iter(range(len(jobs)))

    def note(place: int, outcome: R) -> None:
        found[place] = outcome
        done(outcome)

    def take() -> tuple[int, J, bool] | None:
        place = next(places, None)
        return None if place is None else (place, jobs[place], apart)

    run_as_they_come(work, take, note, workers, here=workers == 1 and not apart)
    return [found[place] for place in range(len(jobs))]


def run_as_they_come(
    work: Callable[[J], R],
    take: Callable[[], tuple[int, J, bool] | None],
    done: Callable[[int, R], None],
    workers: int,
    *,
    here: bool,
) -> None:
    """Do jobs of which the next depends on what came of those before.

    Args:
        work: As in `run_all`.
        take: Gives the next job's number, the job, and whether it gets a process of its own; None where none can begin now. It
            is asked again after each job that ends; all is over when none runs and none can begin.
        done: Called with a job's number and what came of it, in the order in which they finish.
        workers: Processes at a time.
        here: Stay in this process, one job at a time.

    Raises:
        RunError: a process died.
        MetaMMFError: whatever a job raised.
    """
    with contextlib.closing(_here(work, take) if here else _in_processes(work, take, workers)) as outcomes:
        for number, outcome in outcomes:
            done(number, outcome)


def _here(work: Callable[[J], R], take: Callable[[], tuple[int, J, bool] | None]) -> Generator[tuple[int, R]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        while (taken := take()) is not None:
            number, job, _ = taken
            yield number, work(job)
    finally:
        torch.set_num_threads(threads)


def _in_processes(
    work: Callable[[J], R], take: Callable[[], tuple[int, J, bool] | None], workers: int
) -> Generator[tuple[int, R]]:
    running: dict[Future[R], tuple[int, ProcessPoolExecutor | None]] = {}
    with _pools() as start:
        shared = start(workers)
        try:
            while True:
                while len(running) < workers and (taken := take()) is not None:
                    number, job, apart = taken
                    own = start(1) if apart else None
                    running[(own or shared).submit(work, job)] = number, own
                if not running:
                    return
                # Polars restarts system calls that a signal interrupts, so that a wait without end would not hear of one.
                finished, _ = wait(running, timeout=_GLANCE, return_when=FIRST_COMPLETED)
                for future in finished:
                    number, own = running.pop(future)
                    yield number, future.result()
                    if own is not None:
                        own.shutdown()
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
