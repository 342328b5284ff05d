from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from metammf.errors import DataError
from metammf.experiments.comparison_results import DataSummary, PairTest, SeedResult, Trial
from metammf.experiments.study_results import ClusterQuality, Mapped, StudyResults, StudyRow
from metammf.report.again import write_again
from metammf.report.study_page import findings, study_page, write_study

if TYPE_CHECKING:
    from pathlib import Path

ENVIRONMENT = {
    "python": "3.11.7",
    "platform": "Linux",
    "processor": "A processor",
    "cores": 2,
    "packages": {"metammf": "0.1"},
}
DATA = DataSummary(
    "two groups", "0" * 64, 17, 20, 130, {"train": 98, "test": 16}, 4, 16, {"visual": 5}, {"visual": 0.0}
)


def row(key: str, ndcg: float, x: float | None = None, **more: Any) -> StudyRow:
    seeds = tuple(
        SeedResult(
            seed,
            {"ndcg@20": ndcg, "recall@20": 2 * ndcg},
            {
                name: {"ndcg@20": ndcg + 0.01 * seed, "recall@20": 2 * ndcg}
                for name in ("all", "warm", "cold among all")
            },
            6,
            4 + seed,
            0.5,
            3.0,
            400.0,
            ((1, ndcg),),
        )
        for seed in (0, 1)
    )
    plain = {"settings": {"model.cp_rank": x} if x else {}, "placebo": None, "parameters": 1_234, "trials": ()}
    base = {"series": "CP" if x else key, "recipe": "metammf-mf", "chosen": {}, "seeds": seeds}
    return StudyRow(key=key, label=f"the {key}", x=x, **(base | plain | more))


def pair_of(a: str, b: str, p: float, table: str = "all") -> PairTest:
    return PairTest("ndcg@20", table, a, b, 16, 0.2, 0.1, 0.1, 0.05, 0.15, 0.4, p, p, 100.0)


def study(**changes: Any) -> StudyResults:
    rank = StudyResults(
        name="rank",
        title="CP rank against dense",
        question="What does it cost?",
        data=DATA,
        split="published",
        seen="train",
        metric="ndcg@20",
        seed_numbers=(0, 1),
        axis="CP rank R",
        log_axis=True,
        rows=(row("one", 0.1, 1), row("four", 0.2, 4), row("dense", 0.15)),
        tests=(pair_of("four", "dense", 0.01), pair_of("one", "dense", 0.6)),
        mapped=None,
        command="metammf study rank data --out '<b>'",
        environment=ENVIRONMENT,
    )
    return replace(rank, **changes)


BARS = {"axis": None, "log_axis": False, "name": "map"}


def specs_and_places(page: str) -> tuple[dict[str, Any], list[str]]:
    found = re.search(r'id="specs">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found.group(1)), re.findall(r'data-chart="([^"]+)"', page)


def test_an_axis_has_its_costs_beside_it() -> None:
    specs, places = specs_and_places(study_page(study()))
    assert sorted(specs) == sorted(places)
    assert list(specs) == [
        "metric/All test items",
        "metric/Cold among all",
        "cost/Parameters",
        "cost/Seconds an epoch",
        "cost/Peak memory",
        "cost/Convergence",
    ]
    chart = specs["metric/All test items"]
    line, spread, level = chart["layer"]
    points = line.get("data", chart.get("data"))["values"]
    assert [point["x"] for point in points] == [1, 4]
    assert line["encoding"]["x"]["scale"]["type"] == "log"
    assert spread["mark"]["type"] == "rule"
    assert [point["series"] for point in level["data"]["values"]] == ["dense"]
    assert [points[0][key] for key in ("mean", "low")] == pytest.approx([0.105, 0.105 - 0.005 * 2**0.5])


def test_without_an_axis_there_are_bars() -> None:
    specs, places = specs_and_places(study_page(study(**BARS)))
    assert sorted(specs) == sorted(places) == ["metric/All test items", "metric/Cold among all"]


def test_a_map_has_a_panel_a_variant_and_its_numbers() -> None:
    quality = ClusterQuality(-0.25, 0.5, 0.4)
    mapped = Mapped("communities", (1, 2), ("</script>", None), ("a", "b"), {"one": {"x": (0.0, 1.0), "y": (1.0, 0.0)}})
    page = study_page(study(**BARS, rows=(row("one", 0.1, clusters=(quality, quality)),), mapped=mapped, tests=()))
    specs, _ = specs_and_places(page)
    assert [point["group"] for point in specs["map/one"]["data"]["values"]] == ["a", "b"]
    assert "the one: 50% of an item&#39;s ten nearest are of its group (40% by chance), silhouette −0.25." in page


def test_findings_name_what_is_preferred_told_apart_and_failed() -> None:
    failed = replace(row("static", 0.9), seeds=(), parameters=None, failed="no room")
    placebo = replace(row("noise", 0.9), placebo="noise")
    told = findings(study(rows=(*study().rows, failed, placebo)))
    assert told == [
        "Validation prefers the four by NDCG@20, 0.2050 on test.",
        "All test items: the four is ahead of the dense (+0.1000, p\u00a0=\u00a00.010) and 1 of 2 pairs cannot be told apart.",
        "the static failed: no room",
    ]


def test_the_files_of_a_study(tmp_path: Path) -> None:
    trials = (Trial(0, {"training.learning_rate": 0.1}, "finished", 2.0, 3, 0.2),)
    results = study(rows=(replace(row("one", 0.1, 1), trials=trials), *study().rows[1:]))
    page = write_study(results, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "report.html",
        "table.csv",
        "table.tex",
        "tests.csv",
        "figure.svg",
    }
    assert "&#39;&lt;b&gt;&#39;" in page.read_text(encoding="utf-8")
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [line["variant"] for line in rows] == ["the one", "the four", "the dense"]
    assert [float(rows[1][name]) for name in ("x", "ndcg@20 all mean", "parameters", "best epoch")] == pytest.approx(
        [4, 0.205, 1234, 4.5]
    )
    latex = (tmp_path / "table.tex").read_text(encoding="utf-8")
    assert r"the four & .4000 & .2050" in latex
    svg = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    assert svg.startswith("<svg")
    assert "CP rank against dense" in svg


def test_the_report_of_a_folder_is_made_again(tmp_path: Path) -> None:
    results = study()
    results.write(tmp_path / "study.json")
    page = write_again(tmp_path)
    assert page.read_text(encoding="utf-8") == study_page(StudyResults.read(tmp_path / "study.json"))


def test_a_folder_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected one of comparison\.json, study\.json and results\.json"):
        write_again(tmp_path)
