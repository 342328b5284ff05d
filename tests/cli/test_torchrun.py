"""The command line under `torchrun`: two processes on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from metammf.files import read_json

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="children are read from Linux's /proc"),
]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "metammf")
EPOCHS = 120


@pytest.fixture
def words(groups, small):
    recipe = ("--recipe", "metammf-mf", *small, "--set", "model.id_dropout=0", "--set", "training.patience=none")
    return ("train", groups, *recipe, "--device", "cpu", "--set", f"training.epochs={EPOCHS}")


@pytest.fixture
def alone(metammf, words, tmp_path):
    """What one process learns."""
    assert metammf(*words, "--out", tmp_path / "alone").status == 0
    return tmp_path / "alone"


def assert_alike(one, other):
    """Equal but for the order of sums."""
    first, second = (load_file(run / "recommender" / "tensors.safetensors") for run in (one, other))
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_allclose(second[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


def started(*words):
    command = [*TORCHRUN, *map(str, words)]
    return subprocess.Popen(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_two_processes_make_the_run_of_one(words, alone, tmp_path):
    run = tmp_path / "both"
    out, err = started(*words, "--out", run).communicate(timeout=120)
    assert out.count("trained in") == out.count("next: metammf evaluate") == 1, err
    assert_alike(alone, run)
    assert {path.name for path in run.iterdir()} == {path.name for path in alone.iterdir()}
    assert len((run / "log.jsonl").read_text().splitlines()) == EPOCHS
    assert read_json(run / "environment.json")["processes"] == 2


def test_where_one_is_killed_all_end_and_one_process_goes_on(metammf, words, alone, wait_for, tmp_path):
    run = tmp_path / "both"
    shards = run / "checkpoint.shards.json"
    launcher = started(*words, "--out", run, "--shard-tables")
    wait_for(launcher, shards.exists)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    assert len(children) == 2
    os.kill(int(children[1]), signal.SIGKILL)
    _, err = launcher.communicate(timeout=120)
    assert launcher.returncode != 0
    assert "SIGKILL" in err  # in torchrun's words; it may end the other one before that has a word of its own
    assert not (run / "recommender").exists()
    assert metammf(*words, "--out", run, "--resume").status == 0
    assert_alike(alone, run)
    assert not shards.exists()
