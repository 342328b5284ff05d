"""Many pieces of work, each with one thread, so that what comes of them does not depend on the machine's cores."""

from __future__ import annotations

import contextlib
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, TypeVar

import torch

from metammf.errors import RunError
from metammf.experiments.workers import Death, crew

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from metammf.experiments.workers import Worker

J = TypeVar("J")
R = TypeVar("R")

_GLANCE = 0.2  # seconds


def run_all(
    work: Callable[[J], R],
    jobs: Sequence[J],
    workers: int,
    done: Callable[[R], None],
    *,
    apart: bool = False,
    died: Callable[[J, Death], R] | None = None,
) -> list[R]:
    """Do all jobs and return what came of them, in their order.

    Args:
        work: What is done for each; a function of a module, where there are several processes.
        jobs: What it is done with.
        workers: Processes at a time; 1 stays in this one.
        done: Called after each job, in the order in which they finish.
        apart: Give each job a process of its own, even where there is one at a time: what one of them holds at its most is then
            its own figure.
        died: As in `run_as_they_come`.

    Raises:
        RunError: a process could not start, was told to end or left by itself, or died where `died` is None.
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

    run_as_they_come(work, take, note, workers, here=workers == 1 and not apart, died=died)
    return [found[place] for place in range(len(jobs))]


def run_as_they_come(
    work: Callable[[J], R],
    take: Callable[[], tuple[int, J, bool] | None],
    done: Callable[[int, R], None],
    workers: int,
    *,
    here: bool,
    died: Callable[[J, Death], R] | None = None,
) -> None:
    """Do jobs of which the next depends on what came of those before.

    Args:
        work: As in `run_all`.
        take: Gives the next job's number, the job, and whether it gets a process of its own; None where none can begin now. It
            is asked again after each job that ends; all is over when none runs and none can begin.
        done: Called with a job's number and what came of it, in the order in which they finish.
        workers: Processes at a time.
        here: Stay in this process, one job at a time.
        died: Says what came of a job whose process a signal has ended, killed for memory for one; by default that ends all. A
            process that was told to end (SIGTERM, SIGINT, SIGHUP) ends all in any case: the one that started it is being ended,
            as a rule. So does one that leaves by itself, without a word: that is no job's own doing.

    Raises:
        RunError: a process could not start, was told to end or left by itself, or died where `died` is None.
        MetaMMFError: whatever a job raised.
    """
    with contextlib.closing(_here(work, take) if here else _in_processes(work, take, workers, died)) as outcomes:
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
    work: Callable[[J], R],
    take: Callable[[], tuple[int, J, bool] | None],
    workers: int,
    died: Callable[[J, Death], R] | None,
) -> Generator[tuple[int, R]]:
    running: dict[object, tuple[int, J, Worker]] = {}
    with crew() as hired:
        while True:
            while len(running) < workers and (taken := take()) is not None:
                number, job, apart = taken
                worker = hired(apart)
                worker.begin(work, job)
                running[worker.link] = number, job, worker
            if not running:
                return
            # Polars restarts system calls that a signal interrupts, so that a wait without end would not hear of one.
            for link in wait([worker.link for _, _, worker in running.values()], timeout=_GLANCE):
                number, job, worker = running[link]
                told = worker.heard()
                if told is None:
                    continue
                del running[link]
                yield number, told[0] if isinstance(told, tuple) else _of_death(job, told, died)


def _of_death(job: J, death: Death, died: Callable[[J, Death], R] | None) -> R:
    if died is None:
        raise RunError(f"a training process died: {death.reason}")
    return died(job, death)
