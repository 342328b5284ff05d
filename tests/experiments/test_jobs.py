"""Jobs come back in their order, in this process or in others; the next may depend on those before."""

from __future__ import annotations

import operator
import os

import pytest
import torch

from metammf.errors import ConfigError, RunError
from metammf.experiments.jobs import run_all, run_as_they_come


def double(number):
    if number < 0:
        raise ConfigError(f"{number} is negative")
    return 2 * number, torch.get_num_threads()


def test_outcomes_come_in_the_order_of_the_jobs():
    told = []
    assert run_all(double, [3, 1, 2], 1, told.append) == [(6, 1), (2, 1), (4, 1)] == told


def test_what_a_job_raises_comes_out_and_threads_are_given_back():
    threads = torch.get_num_threads()
    with pytest.raises(ConfigError, match="-1 is negative"):
        run_all(double, [1, -1], 1, lambda _: None)
    assert torch.get_num_threads() == threads


def test_a_process_that_dies_is_told():
    with pytest.raises(RunError, match="a training process died"):
        run_all(os._exit, [3], 1, lambda _: None, apart=True)


def test_the_next_job_may_depend_on_the_one_before():
    found = []

    def take():
        if len(found) == 4:
            return None
        return len(found), found[-1] if found else 1, False

    def done(number, outcome):
        assert number == len(found)
        found.append(outcome[0])

    run_as_they_come(double, take, done, 1, here=True)
    assert found == [2, 4, 8, 16]


def test_nothing_is_begun_while_nothing_can_be():
    """One chain of jobs on two workers: the second waits until the first is back."""
    found, running = [], []

    def take():
        if running or len(found) == 3:
            return None
        running.append(len(found))
        return len(found), len(found), False

    def done(number, outcome):
        running.remove(number)
        found.append(outcome)

    run_as_they_come(operator.neg, take, done, 2, here=False)
    assert found == [0, -1, -2]
