"""The comparison with peers: both sides of the door, and a run in which no peer is there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import sys
from door import Door

door = Door("numpy")
print("what a library prints is not the driver's")
for _ in range(2):
    door.next_epoch()
door.serve(add=lambda: door.settings["one"] + 1, fail=lambda: sys.exit("it broke"))
"""


@pytest.fixture
def worker(benchmarks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A process at its door."""
    from peers import worker

    monkeypatch.setattr(worker, "HERE", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(benchmarks / "peers"))
    (tmp_path / "script.py").write_text(SCRIPT)
    settings = {"threads": 1, "scratch": str(tmp_path), "one": 1}
    return worker.Worker("it", Path(sys.executable), "script.py", settings)


def test_a_worker_goes_on_when_told(worker: Any) -> None:
    assert worker.start_up > 0
    assert [worker.ask("epoch")["seconds"] >= 0 for _ in range(2)] == [True, True]
    assert worker.ask("add")["result"] == 2
    found = worker.finish()
    assert found["peak_mib"] > 1
    assert set(found["versions"]) == {"python", "numpy"}


def test_a_worker_s_last_words_are_shown(worker: Any) -> None:
    worker.ask("epoch")
    worker.ask("epoch")
    with pytest.raises(SystemExit, match=r"it ended with 1:\n(.|\n)*it broke"):
        worker.ask("fail")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["lightgcn", "vbpr"])
def test_peers_that_are_not_there_are_left_out(
    model: str, benchmarks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(benchmarks / "peers"))
    import compare

    path = tmp_path / "peers.json"
    words = [
        compare.__file__,
        model,
        "--quick",
        "--envs",
        "nowhere",
        "--epochs",
        "2",
        "--repeats",
        "1",
        "--json",
        str(path),
    ]
    monkeypatch.setattr(sys, "argv", words)
    compare.main()
    (table,) = json.loads(path.read_text())["tables"]
    (ours,) = table["rows"]
    assert ours["s/epoch"] > 0
    assert 0 < ours["recall@20"] < 1
    assert len(table["notes"]) == len(compare.PEERS[model])
