from __future__ import annotations

import copy
from typing import Any

import pytest

from metammf.experiments.demo import run_demo
from metammf.experiments.demo_plan import DemoPlan


@pytest.fixture(scope="session")
def demo_results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    plan = DemoPlan(users=60, items=80, interactions=900, num_seeds=2, training={"epochs": 2}, workers=1)
    return run_demo(tmp_path_factory.mktemp("demo") / "demo", plan, render=str)


@pytest.fixture
def results(demo_results: dict[str, Any]) -> dict[str, Any]:
    """What a very small demo found, to be changed at will."""
    return copy.deepcopy(demo_results)
