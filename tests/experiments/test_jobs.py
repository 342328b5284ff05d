from __future__ import annotations

import multiprocessing
import operator
import os

import pytest
import torch

from metammf.errors import RunError
from metammf.experiments.jobs import run_all, run_as_they_come

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


def test_a_process_that_dies_is_told() -> None:
    with pytest.raises(RunError, match="a training process died"):
        run_all(eval, ["__import__('os')._exit(1)"], 1, lambda _: None, apart=True)


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
