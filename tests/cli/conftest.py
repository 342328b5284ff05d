"""Two groups of users with a taste each, on disk; the command line as a call and as a process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from metammf.cli.main import main
from metammf.data.dataset import Dataset
from metammf.data.features import absent_features
from metammf.data.folder import save_dataset
from metammf.testing.data import taste_groups

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SMALL = (
    *("--set", "model.hidden_dims=[8]"),
    *("--set", "model.embedding_dim=16"),
    *("--set", "training.batch_size=200"),
    *("--set", "training.learning_rate=0.02"),
    *("--set", "training.metric=ndcg@5"),
)
"""Settings of MetaMMF that learn the two groups in a blink."""


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit status, stdout and stderr."""

    status: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The one message on stderr of a command that failed."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("metammf: ")
        return lines[0].removeprefix("metammf: ")


@pytest.fixture
def metammf(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command in this process."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        told = capsys.readouterr()
        return Outcome(status, told.out, told.err)

    return run


@pytest.fixture
def refused(metammf: Callable[..., Outcome]) -> Callable[..., str]:
    """Run a command that must end with status 2 and one message, and return that."""

    def run(*arguments: object) -> str:
        outcome = metammf(*arguments)
        assert outcome.status == 2
        assert outcome.out == ""
        return outcome.message

    return run


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command as a process of its own, which the test's end ends."""
    processes = []

    def start(*arguments: object, **options: object) -> subprocess.Popen[str]:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "metammf", *map(str, arguments)]
        settings: dict[str, object] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, env=environment, **(settings | options)))  # type: ignore[call-overload]  # options of the caller's
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        with process:  # closes its pipes
            pass


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., None]:
    """Wait until something has come about in a running process."""

    def wait(process: subprocess.Popen[str], there: Callable[[], bool], seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while not there():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end, "it did not come about"
            time.sleep(0.02)

    return wait


def two_groups(*, parts: bool = True) -> Dataset:
    """The known answer of `taste_groups` as a data set: 17 users, the last without history, and 20 items, 4 of them cold."""
    split = taste_groups(cold=2, lacking=True)
    sizes = [len(split.train), len(split.validation), len(split.test)]
    labels = np.repeat(np.arange(3, dtype=np.int8), sizes) if parts else None
    log = split.train.union(split.validation).union(split.test)
    return Dataset("two groups", log, split.catalog, labels, {"licence": "CC0"})


@pytest.fixture(scope="session")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set's folder that carries a split."""
    folder = tmp_path_factory.mktemp("data") / "groups"
    save_dataset(two_groups(), folder)
    return folder


@pytest.fixture(scope="session")
def unsplit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without a split."""
    folder = tmp_path_factory.mktemp("data") / "unsplit"
    save_dataset(two_groups(parts=False), folder)
    return folder


@pytest.fixture(scope="session")
def featureless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without features."""
    folder = tmp_path_factory.mktemp("data") / "featureless"
    whole = two_groups()
    catalog = replace(whole.catalog, features=absent_features({}, whole.num_items))
    save_dataset(replace(whole, catalog=catalog), folder)
    return folder


@pytest.fixture(scope="session")
def small() -> tuple[str, ...]:
    """Settings of MetaMMF that learn the two groups in a blink."""
    return SMALL


@pytest.fixture(scope="session")
def dynamic(groups: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of MetaMMF; tests leave it as it is."""
    run = tmp_path_factory.mktemp("runs") / "dynamic"
    assert (
        main(["train", str(groups), "--recipe", "metammf-mf", *SMALL, "--set", "training.epochs=15", "--out", str(run)])
        == 0
    )
    return run


@pytest.fixture(scope="session")
def popular(groups: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a solved model; tests leave it as it is."""
    run = tmp_path_factory.mktemp("runs") / "popular"
    assert main(["train", str(groups), "--recipe", "popularity", "--out", str(run)]) == 0
    return run
