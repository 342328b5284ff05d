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
from metammf.report.cold_items import AMONG_COLD, study_without_guesses
from metammf.report.study_page import findings, study_figure, study_latex, study_page, write_study
from metammf.report.words import ONE_SEED

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
    results = study(**BARS, rows=(row("one", 0.1, clusters=(quality, quality)),), mapped=mapped, tests=())
    page = study_page(results)
    specs, _ = specs_and_places(page)
    assert [point["group"] for point in specs["map/one"]["data"]["values"]] == ["a", "b"]
    marks = specs["map/one"]["encoding"]["shape"]["scale"]
    assert (marks["domain"], marks["range"]) == (["a", "b"], ["circle", "square"])
    # Else the legend of the marks stands above the bars, and that of the colours apart from it.
    assert study_figure(results).to_dict()["resolve"]["scale"] == {"color": "independent", "shape": "independent"}
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


def test_who_has_the_most_on_test_is_told_where_validation_prefers_another() -> None:
    ahead = replace(
        row("static", 0.3), seeds=tuple(replace(one, validation={"ndcg@20": 0.1}) for one in row("x", 0.3).seeds)
    )
    assert findings(study(rows=(*study().rows, ahead)))[0] == (
        "Validation prefers the four by NDCG@20, 0.2050 on test, where the static has the most, 0.3050."
    )


def test_one_seed_is_said_to_be_one() -> None:
    rows = tuple(replace(one, seeds=one.seeds[:1]) for one in study().rows)
    single = study(rows=rows, seed_numbers=(0,))
    assert findings(single)[0] == ONE_SEED
    assert ONE_SEED not in findings(study())
    page = study_page(single)
    assert "One seed, so that nothing here tells what chance does in training." in page
    assert "standard deviation" not in page
    assert "two groups, one seed\n" in study_latex(single)
    assert "two groups, means over 2 seeds\n" in study_latex(study())


def test_axes_begin_at_nothing_and_epochs_are_not_joined() -> None:
    specs, _ = specs_and_places(study_page(study()))
    for chart in specs.values():
        assert chart["layer"][0]["encoding"]["y"]["scale"]["zero"] is True
    kinds = {name: chart["layer"][0]["mark"]["type"] for name, chart in specs.items()}
    assert [name for name, kind in kinds.items() if kind != "line"] == ["cost/Convergence"]


def test_a_split_that_comes_with_the_data_is_no_publication_of_a_world() -> None:
    assert "The split that the data set brings" in study_page(study())
    assert "Cold-item split" in study_page(study(split="cold-item"))


def test_what_cannot_tell_cold_items_apart_has_no_say_among_them() -> None:
    def among_cold(one: StudyRow, ndcg: float) -> StudyRow:
        return replace(one, seeds=tuple(replace(s, test={**s.test, AMONG_COLD: {"ndcg@20": ndcg}}) for s in one.seeds))

    rows = (among_cold(row("one", 0.1), 0.3), among_cold(row("ids", 0.1), 0.0), among_cold(row("two", 0.1), 0.2))
    rows += (among_cold(row("dropped", 0.1, placebo="drop"), 0.4), among_cold(row("ease", 0.1, content=False), 0.5))
    pairs = (("one", "ids"), ("one", "two"), ("one", "dropped"), ("one", "ease"))
    tests = tuple(pair_of(*pair, 0.01, table) for pair in pairs for table in ("all", AMONG_COLD))
    found = study_without_guesses(study(rows=rows, tests=tests))
    assert [row.key for row in found.rows if AMONG_COLD in row.seeds[0].test] == ["one", "two"]
    assert [(one.table, one.b) for one in found.tests if one.table == AMONG_COLD] == [(AMONG_COLD, "two")]
    assert [one.p_holm for one in found.tests] == pytest.approx([0.05] * 5)
    assert study_page(study(rows=rows, tests=tests)) == study_page(found)


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


def test_a_study_from_before_rows_told_who_reads_content_is_read(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    study().write(path)
    older = json.loads(path.read_text(encoding="utf-8"))
    for one in older["rows"]:
        del one["content"]
    path.write_text(json.dumps(older), encoding="utf-8")
    assert [one.content for one in StudyResults.read(path).rows] == [None] * 3
    assert write_again(tmp_path).is_file()


def test_the_report_of_a_folder_is_made_again(tmp_path: Path) -> None:
    results = study()
    results.write(tmp_path / "study.json")
    page = write_again(tmp_path)
    assert page.read_text(encoding="utf-8") == study_page(StudyResults.read(tmp_path / "study.json"))


def test_a_folder_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected one of comparison\.json, study\.json and results\.json"):
        write_again(tmp_path)
