"""Errors that go on record, and those that end all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from metammf.errors import ConfigError, DataError, NonFiniteLossError, RunError, TrainingError, WriteError
from metammf.experiments.failures import why_failed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("kind", [ConfigError, DataError, NonFiniteLossError])
def test_what_says_something_of_a_run_goes_on_record(kind: type[Exception], folder: Path) -> None:
    assert why_failed(kind("so it is"), folder) == "so it is"


def test_memory_that_is_not_there_goes_on_record_in_one_line(folder: Path) -> None:
    told = "CUDA out of memory. Tried to allocate 9 GiB\nand more"
    assert why_failed(torch.OutOfMemoryError(told), folder) == f"out of memory: {told.partition(chr(10))[0]}"
    assert why_failed(MemoryError(), folder) == "out of memory"


@pytest.mark.parametrize("error", [WriteError("it", "no room"), RunError("in use"), RuntimeError("shapes"), OSError()])
def test_what_says_nothing_of_a_run_is_raised_again(error: Exception, folder: Path) -> None:
    assert why_failed(error, folder) is None


def test_data_that_are_gone_end_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        why_failed(TrainingError("first"), tmp_path / "nowhere")
