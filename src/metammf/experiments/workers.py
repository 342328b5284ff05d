"""Processes that do one job after the other; the death of one is its own: it is told, and takes no other's job with it.

A worker runs with one thread, leaves an interrupt to the process that started it, and ends when that is gone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

import torch

from metammf.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

_GRACE = 0.5
"""Seconds between a worker's death and the word of it: what ends all processes, this one as well, has come by then."""
_TOLD_TO_END = ("SIGHUP", "SIGINT", "SIGTERM")


@dataclass(frozen=True)
class Death:
    """How a signal ended a process before it could say what came of its job.

    Args:
        reason: In words.
        seconds: That the job had taken, by the clock on the wall.
    """

    reason: str
    seconds: float


class Worker:
    """A process of its own.

    Args:
        apart: Whether it does one job alone.

    Attributes:
        link: Can be read when the worker has something to say, or has died.
    """

    def __init__(self, *, apart: bool) -> None:
        # A fork of a process with threads, as torch starts them, may hang.
        context = multiprocessing.get_context("spawn")
        self.link, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,))
        self._process.start()
        theirs.close()
        self._apart = apart
        self._started = self._busy = False
        self._begun = 0.0

    @property
    def free(self) -> bool:
        """Whether it can be given a job."""
        return not self._busy and not self.link.closed and self._process.is_alive()

    def begin(self, work: Callable[[Any], Any], job: Any) -> None:
        """Give it a job; what comes of it is the next that `heard` returns."""
        self._busy, self._begun = True, time.monotonic()
        with contextlib.suppress(ConnectionError):  # it has died: `heard` tells
            self.link.send((work, job))

    def heard(self) -> tuple[Any] | Death | None:
        """Return what came of the job, once there is something to read; None where that is but the word that it has started.

        Raises:
            RunError: the process could not start, was told to end, or left by itself.
            BaseException: whatever the job raised; a `RunError` with its name and words where it cannot be copied.
        """
        try:
            said = self.link.recv()
        except (EOFError, OSError):
            return self._death()
        if not self._started:
            self._started = True
            return None
        self._busy = False
        if self._apart:
            self.end()
        outcome, error = said
        if error is not None:
            raise error
        return (outcome,)

    def end(self) -> None:
        """Let it go; at once, where it is at something."""
        if self._busy:
            self._process.terminate()
        self.link.close()
        self._process.join()

    def _death(self) -> Death:
        seconds = time.monotonic() - self._begun
        self._process.join()
        self._busy = False
        self.end()
        time.sleep(_GRACE)
        code = self._process.exitcode or 0
        if not self._started:
            raise RunError(f"a training process could not start: {_words(code)}; what it said stands above")
        if code >= 0:  # no signal: a fault of ours, that would end the next job as well
            raise RunError(f"a training process died: {_words(code)}; what it said stands above")
        if _signal(code) in _TOLD_TO_END:
            raise RunError(f"a training process was told to end ({_signal(code)}); the same call goes on where it was")
        return Death(_words(code), seconds)


@contextlib.contextmanager
def crew() -> Iterator[Callable[[bool], Worker]]:
    """Give what hires: one that does a single job, where that is asked for, else one that is free or new.

    All are let go at the end; on an error or an interrupt at once, whatever they are at.
    """
    workers: list[Worker] = []

    def hired(apart: bool) -> Worker:
        workers[:] = [one for one in workers if not one.link.closed]
        free = None if apart else next((one for one in workers if one.free), None)
        if free is None:
            free = Worker(apart=apart)
            workers.append(free)
        return free

    try:
        yield hired
    finally:
        for worker in workers:
            worker.end()


def _serve(link: Connection) -> None:
    """Do what is asked for, until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal: one of them decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    link.send(None)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            link.send(_tried(*link.recv()))


def _tried(work: Callable[[Any], Any], job: Any) -> tuple[Any, BaseException | None]:
    """Return what came of a job, or what it raised."""
    try:
        return work(job), None
    except BaseException as error:  # all of it is raised again, where the job was given
        told = _portable(error)
        told.add_note(f"in a process of its own:\n{traceback.format_exc()}")  # a trace does not travel
        return None, told


def _portable(error: BaseException) -> BaseException:
    """Return an error that can be raised in another process: another one of its name and words, where it cannot be copied."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - written the moment before
    except Exception:
        return RunError(f"{type(error).__name__}: {error}")
    return error


def _end_with_parent() -> None:
    """End as soon as the process that started this one is gone: the same call would find the run's folder in use."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _words(code: int) -> str:
    """How a process ended, by its exit code: that of `multiprocessing`, below zero for a signal."""
    if code >= 0:
        return f"its process ended without a word (exit status {code})"
    if _signal(code) == "SIGKILL":
        return f"its process was killed (signal {-code}), perhaps for memory"
    return f"its process died (signal {-code}, {_signal(code)})"


def _signal(code: int) -> str:
    """The name of the signal that ended a process; empty where none did, or one without a name."""
    try:
        return signal.Signals(-code).name
    except ValueError:
        return ""
