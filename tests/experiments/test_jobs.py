from __future__ import annotations

import multiprocessing
import operator
import os
from typing import TYPE_CHECKING

import pytest
import torch

from metammf.errors import RunError
from metammf.experiments.jobs import run_all, run_as_they_come

if TYPE_CHECKING:
    from metammf.experiments.workers import Death

# Another process cannot import this file: what is done there is an expression.
PROCESS_AND_THREADS = "({}, __import__('os').getpid(), __import__('torch').get_num_threads())"


def test_here_with_one_thread_and_in_order() -> None:
    before, told = torch.get_num_threads(), []
    found = run_all(eval, [PROCESS_AND_THREADS.format(number) for number in (3, 1, 2)], 1, told.append)
    assert found == told == [(number, os.getpid(), 1) for number in (3, 1, 2)]
    assert torch.get_num_threads() == before


def test_apart_each_has_a_process_of_its_own() -> None:
    jobs = [PROCESS_AND_THREADS.format(number) for number in (5, 6)]
    found = run_all(eval, jobs, 1, lambda _: None, apart=True)
    assert [number for number, *_ in found] == [5, 6]
    assert len({process for _, process, _ in found} | {os.getpid()}) == 3
    assert {threads for *_, threads in found} == {1}


@pytest.mark.parametrize("apart", [False, True])
def test_what_a_job_raises_ends_it_all(apart: bool) -> None:
    with pytest.raises(ZeroDivisionError):
        run_all(eval, ["1", "1 / 0", "2"], 1, lambda _: None, apart=apart)
    for process in multiprocessing.active_children():  # told to end, and perhaps not there yet
        process.join(30)
        assert process.exitcode is not None


UNKNOWN_HERE = """
class Mine(RuntimeError):
    pass
raise Mine("a bug")
"""
CANNOT_BE_MADE_AGAIN = """
import builtins
class Mine(RuntimeError):
    def __init__(self, what, where):
        super().__init__(what)
Mine.__module__, builtins.Mine = "builtins", Mine
raise Mine("a bug", 3)
"""


@pytest.mark.parametrize("code", [UNKNOWN_HERE, CANNOT_BE_MADE_AGAIN])
def test_an_error_that_cannot_be_copied_is_told_by_its_name_and_words(code: str) -> None:
    with pytest.raises(RunError) as told:
        run_all(eval, [f"exec({code!r})"], 1, lambda _: None, apart=True, died=lambda *_: None)
    assert str(told.value) == "Mine: a bug"
    assert "in a process of its own:\nTraceback" in told.value.__notes__[0]


def test_a_process_that_dies_ends_it_all_unless_it_is_asked_for() -> None:
    with pytest.raises(RunError, match=r"a training process died: its process died \(signal 11, SIGSEGV\)"):
        run_all(eval, [killed_by("SIGSEGV")], 1, lambda _: None, apart=True)


def test_a_process_that_leaves_by_itself_ends_it_all() -> None:
    with pytest.raises(RunError, match=r"a training process died: its process ended without a word \(exit status 3\)"):
        run_all(eval, ["__import__('os')._exit(3)"], 1, lambda _: None, apart=True, died=lambda *_: None)


def test_the_death_of_a_process_is_its_own() -> None:
    """Of two at a time: the other's job is not lost, and what comes after finds a process to be done in."""
    jobs = [killed_by("SIGKILL"), "__import__('time').sleep(1) or 2", killed_by("SIGSEGV"), "4"]
    deaths: list[float] = []

    def died(job: str, death: Death) -> str:
        deaths.append(death.seconds)
        return death.reason

    assert run_all(eval, jobs, 2, lambda _: None, died=died) == [
        "its process was killed (signal 9), perhaps for memory",
        2,
        "its process died (signal 11, SIGSEGV)",
        4,
    ]
    assert all(seconds > 0 for seconds in deaths)


def test_a_process_that_is_told_to_end_ends_it_all() -> None:
    """So is the one that started it, as a rule: nothing is to be noted of the job."""
    with pytest.raises(RunError, match=r"told to end \(SIGTERM\); the same call goes on"):
        run_all(eval, [killed_by("SIGTERM")], 1, lambda _: None, apart=True, died=lambda *_: None)


def killed_by(name: str) -> str:
    return f"__import__('os').kill(__import__('os').getpid(), __import__('signal').{name})"


@pytest.mark.parametrize("here", [True, False])
def test_the_next_job_may_depend_on_the_one_before(here: bool) -> None:
    """One chain of jobs on two workers: the second has nothing to begin until the first is back."""
    found, running = [], []

    def take():
        if running or len(found) == 3:
            return None
        running.append(len(found))
        return len(found), found[-1] + 1 if found else 1, False

    def done(number, outcome):
        running.remove(number)
        found.append(outcome)

    run_as_they_come(operator.neg, take, done, 2, here=here)
    assert found == [-1, 0, -1]
