"""Every benchmark runs at its small size, in this process, and writes figures that the README can show."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


RUNS = {
    "fusion": [],
    "propagation": [],
    "item_graph": [],
    "models": [],
    "negatives": [],
    "ranking": ["--looped", "50", "--users", "200", "--items", "150"],
    "literal": ["--backbone", "mf"],
    "growth": ["--axis", "items"],
    "startup": [],
    "device": ["--device", "cpu"],
}


def here(work: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """In place of a process of its own, which takes seconds to start."""
    return work(*args, **options)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """Run a benchmark and return what it wrote."""
    import harness

    monkeypatch.setattr(harness, "alone", here)

    def run(name: str) -> dict[str, Any]:
        module = importlib.import_module(name)
        if hasattr(module, "alone"):
            monkeypatch.setattr(module, "alone", here)
        path = tmp_path / f"{name}.json"
        words = [
            str(Path(module.__file__ or "")),
            *RUNS[name],
            "--quick",
            "--repeats",
            "1",
            "--threads",
            "1",
            "--json",
            str(path),
        ]
        monkeypatch.setattr(sys, "argv", words)
        module.main()
        return json.loads(path.read_text())

    return run


@pytest.mark.parametrize("name", list(RUNS))
def test_runs_and_tells(name: str, run: Callable[[str], dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    import fill_tables

    found = run(name)
    assert found["command"].startswith(f"python benchmarks/{name}.py")
    assert "--json" not in found["command"]
    lines = fill_tables.section(found, None)
    printed = capsys.readouterr().out
    for table in found["tables"]:
        assert table["title"] in printed
        assert table["rows"]
        assert all(row.keys() == table["rows"][0].keys() for row in table["rows"])
        assert fill_tables.rows(table)[1] in lines


def test_no_benchmark_is_left_out(benchmarks: Path) -> None:
    import run_all

    scripts = {job.script for job in run_all.jobs(benchmarks, benchmarks)}
    tested_apart = {"large_log.py", "peers/compare.py"}
    started_in_processes = {"distributed.py"}  # two minutes at its smallest; what it starts has tests of its own
    assert scripts - tested_apart - started_in_processes == {f"{name}.py" for name in RUNS}
    assert all((benchmarks / script).is_file() for script in scripts)
    with_parser = {path.stem for path in benchmarks.glob("*.py") if "parser(__doc__)" in path.read_text()}
    assert with_parser - {"distributed"} == set(RUNS)


def test_what_is_absent_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import harness

    def measured() -> None:
        raise harness.Absent("there is no such card")

    with pytest.raises(SystemExit) as left:
        harness.run_or_say(measured)
    assert left.value.code == harness.ABSENT
    assert capsys.readouterr().out == "not run: there is no such card\n"
