from __future__ import annotations

import copy
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from metammf.experiments.comparison_results import (
    Budget,
    Check,
    ComparisonResults,
    DataSummary,
    LeftOut,
    ModelResult,
    PairTest,
    ProfileSummary,
    PublishedFigure,
    SearchedSetting,
    SeedResult,
    Spread,
    Trial,
)
from metammf.experiments.demo import run_demo
from metammf.experiments.demo_plan import DemoPlan
from metammf.experiments.pair_tests import improvements

if TYPE_CHECKING:
    from collections.abc import Callable

METRICS = ("recall@10", "ndcg@10", "recall@20", "ndcg@20")
TESTED = ("recall@20", "ndcg@20")
ENVIRONMENT = {
    "python": "3.11.7",
    "platform": "Linux",
    "processor": "A processor",
    "cores": 2,
    "packages": {"metammf": "0.1", "torch": "2.13.0", "numpy": None},
}
DATA = DataSummary(
    "two_groups & more",
    "0" * 64,
    17,
    20,
    130,
    {"train": 98, "validation": 16, "test": 16},
    4,
    16,
    {"visual": 5, "textual": 3},
    {"visual": 0.0, "textual": 0.25},
)
NDCG = {
    "popularity": 0.0255,
    "ease": 0.0398,
    "metammf-lightgcn": 0.0489,
    "metammf-lightgcn+noise": 0.0441,
    "vbpr": 0.021,
}


def seed_result(seed: int, ndcg: float) -> SeedResult:
    rng = np.random.default_rng(seed)

    def table(scale: float) -> dict[str, float]:
        value = scale * ndcg * (1 + 0.02 * rng.standard_normal())
        return dict(zip(METRICS, (1.7 * value, 0.9 * value, 2.4 * value, value), strict=True))

    tables = {"all": table(1), "warm": table(1.1), "cold among all": table(0.3), "cold among cold": table(2)}
    validation = {name: value * 0.95 for name, value in tables["all"].items()}
    return SeedResult(seed, validation, tables, 12, 9, 0.8 + ndcg, 14.0, 512.5, ((3, 0.03), (9, ndcg)))


def model_result(name: str, ndcg: float) -> ModelResult:
    recipe, _, placebo = name.partition("+")
    solved = recipe in ("popularity", "ease")
    space = (
        {} if recipe == "popularity" else {"training.learning_rate": SearchedSetting(1e-4, 1e-2, True, False, (), 1e-3)}
    )
    trials = [Trial(0, {"training.learning_rate": 1e-3}, "finished", 30.0, 12, 0.8 * ndcg)]
    if space:
        trials += [
            Trial(1, {"training.learning_rate": 4e-3}, "pruned", 9.0, 4, ndcg),
            Trial(2, {"training.learning_rate": 1e-2}, "failed", 1.0, None, None, reason="the loss is not finite"),
        ]
    values = [trial.value for trial in trials if trial.value is not None]
    seeds = tuple(seed_result(seed, ndcg) for seed in ((0,) if solved else (0, 1, 2)))
    return ModelResult(
        name=name,
        model="metammf" if recipe.startswith("metammf") else recipe,
        recipe=recipe,
        overrides={},
        placebo=placebo or None,
        content=recipe not in ("popularity", "ease"),
        solved=solved,
        parameters=12_345,
        space=space,
        trials=tuple(trials),
        spread=Spread(len(values), min(values), min(values), max(values), max(values), max(values)),
        chosen={"training.learning_rate": 4e-3} if space else {},
        chosen_trial=len(values) - 1,
        config={"model": {"name": "metammf", "fusion": "cp"} if recipe.startswith("metammf") else {"name": recipe}},
        seeds=seeds,
    )


def pair_test(a: ModelResult, b: ModelResult, metric: str, table: str) -> PairTest:
    left, right = a.mean(metric, table) or 0.0, b.mean(metric, table) or 0.0
    difference = left - right
    p = 0.4 if abs(difference) < 0.1 * left else 0.0004
    span = (difference - 0.004, difference + 0.004)
    percent = 100 * difference / right
    return PairTest(metric, table, a.name, b.name, 16, left, right, difference, *span, 0.1, p, p, percent)


def made_up_comparison() -> ComparisonResults:
    """Models of every kind, cold items, figures of others; the numbers mean nothing."""
    models = tuple(model_result(name, ndcg) for name, ndcg in NDCG.items())
    tables = ("all", "cold among all", "cold among cold")
    return ComparisonResults(
        data=DATA,
        profile=ProfileSummary(
            "hkuds-tiktok",
            "The published split, train alone left out.",
            "Tables on this split.",
            {"method": "published", "seed": 0},
            "train",
            (10, 20),
            ("recall", "ndcg"),
            "ndcg@20",
            TESTED,
        ),
        budget=Budget(10.0, 20, (0, 1, 2)),
        command="metammf compare two-groups --models 'metammf-lightgcn,ease' --out '<b>'",
        environment=ENVIRONMENT,
        started="2026-01-01T00:00:00+00:00",
        updated="2026-01-01T01:00:00+00:00",
        complete=True,
        audit=(Check("parts overlap", "none of 130 interactions is in two parts"),),
        models=models,
        left_out=(LeftOut("gat", "the loss became infinite"),),
        tests=tuple(
            pair_test(a, b, metric, table) for a, b in combinations(models, 2) for metric in TESTED for table in tables
        ),
        improvements=improvements(models, METRICS),
        published=(
            PublishedFigure("VBPR", "ndcg@20", 0.0134, "DiffMM, Table 1", "test"),
            PublishedFigure("VBPR", "recall@20", 0.038, "DiffMM, Table 1", "test"),
            PublishedFigure("MMHCL", "ndcg@20", 0.0492, "its log", "validation"),
            PublishedFigure("MMHCL", "recall@20", 0.1139, "its log", "validation"),
            PublishedFigure("MDMNS", "ndcg@20", 0.0525, "its repository", "test"),
        ),
    )


@pytest.fixture(scope="session")
def comparison() -> ComparisonResults:
    """A comparison whose numbers are made up."""
    return made_up_comparison()


@pytest.fixture(scope="session")
def made_up_model() -> Callable[[str, float], ModelResult]:
    """Makes one more model of it, by name and NDCG@20."""
    return model_result


@pytest.fixture(scope="session")
def demo_results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    plan = DemoPlan(users=60, items=80, interactions=900, num_seeds=2, training={"epochs": 2}, workers=1)
    return run_demo(tmp_path_factory.mktemp("demo") / "demo", plan, render=str)


@pytest.fixture
def results(demo_results: dict[str, Any]) -> dict[str, Any]:
    """What a very small demo found, to be changed at will."""
    return copy.deepcopy(demo_results)
