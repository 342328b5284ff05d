from __future__ import annotations

import functools
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from metammf.experiments.demo_plan import DemoPlan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = functools.partial(
        DemoPlan, users=60, items=80, interactions=900, num_seeds=1, training={"epochs": 1}, workers=1
    )
    monkeypatch.setattr("metammf.experiments.demo_plan.DemoPlan", plan)


def test_a_demo_from_end_to_end(metammf: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "my demo"
    told = metammf("demo", "--out", out, "--seed", 3)
    assert told.status == 0, told.err
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert results["seed"] == 3
    assert results["command"] == f"metammf demo --seed 3 --out '{out}'"
    for model in results["models"]:
        line = next(line for line in told.out.splitlines() if line.startswith(model["label"] + " "))
        assert line.removeprefix(model["label"]).split()[:2] == [
            "1",
            f"{model['tables']['all']['ndcg@20']['mean']:.4f}",
        ]
    assert told.err.startswith("10 runs on a generated world, 1 at a time: about half an hour on two cores")
    assert told.out.splitlines()[-1] == str(out / "report.html")
    assert "metammf demo --seed 3" in (out / "report.html").read_text(encoding="utf-8")


def test_without_the_extra_nothing_is_begun(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "altair", None)
    message = refused("demo", "--out", tmp_path / "demo")
    assert message == "the report needs altair: pip install 'metammf[report]'"
    assert list(tmp_path.iterdir()) == []


def test_a_seed_below_zero(refused: Callable[..., str], tmp_path: Path) -> None:
    assert refused("demo", "--out", tmp_path / "demo", "--seed=-1").startswith("--seed: expected a whole number")


def test_somebody_elses_folder(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    assert "is not a demo's folder" in refused("demo", "--out", tmp_path)


def test_an_interrupt(metammf: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("metammf.experiments.demo.run_jobs", interrupted)
    told = metammf("demo", "--out", tmp_path / "demo")
    assert told.status == 130
    assert told.out == ""
    assert list(tmp_path.iterdir()) == []
