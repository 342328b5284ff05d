from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from metammf.experiments.comparison_results import DataSummary, PairTest, SeedResult
from metammf.experiments.conditions_results import AxisResult, ConditionResult, ConditionsResults
from metammf.experiments.study_results import StudyRow
from metammf.report.again import write_again
from metammf.report.conditions_page import conditions_latex, conditions_page, findings, write_conditions
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
DATA = DataSummary("a world", "0" * 64, 10, 20, 130, {"train": 98, "test": 16}, 5, 4, {"visual": 5}, {"visual": 0.0})
LEVELS = {"dynamic": 0.30, "static": 0.25, "noise": 0.10}


def row(key: str, role: str) -> StudyRow:
    seeds = tuple(
        SeedResult(
            seed,
            {"ndcg@20": 0.2},
            {
                table: {"ndcg@20": LEVELS[role] + 0.01 * seed * (role == "dynamic"), "recall@20": 2 * LEVELS[role]}
                for table in ("all", "cold among all")
            },
            6,
            4,
            0.5,
            3.0,
            None,
        )
        for seed in (0, 1)
    )
    placebo = "noise" if role == "noise" else None
    return StudyRow(f"{key}-{role}", f"{key}: {role}", role, None, "metammf-mf", {}, placebo, 99, (), {}, seeds)


def condition(key: str, axis: str | None = None, value: float | None = None, **more: Any) -> ConditionResult:
    models = {role: row(key, role) for role in LEVELS}
    base: dict[str, Any] = {
        "world": {"users": 10},
        "diversity": (0.4, 0.6),
        "spread": (6.0, 7.0),
        "data": (DATA, DATA),
        "models": models,
    }
    base |= {"label": f"the {key}", "split": "published"} | more
    return ConditionResult(key=key, axis=axis, value=value, **base)


def pair_of(key: str, p: float, difference: float, table: str = "all", over: str = "static") -> PairTest:
    ends = difference - 0.01, difference + 0.01
    return PairTest(
        "ndcg@20", table, f"{key}-dynamic", f"{key}-{over}", 16, 0.3, 0.25, difference, *ends, 0.4, p, p, 20.0
    )


REAL = condition("songs", world=None, diversity=(), spread=(), data=(replace(DATA, name="Songs"),))
RESULTS = ConditionsResults(
    name="conditions",
    title="Where dynamic fusion pays",
    question="Where?",
    axes=(AxisResult("diversity", "mix sharpness", 1.0),),
    conditions=(condition("default"), condition("sharp", "diversity", 4.0), condition("none", "diversity", 0.0), REAL),
    seen="train+validation",
    metric="ndcg@20",
    metrics=("ndcg@20", "recall@20"),
    seed_numbers=(0, 1),
    tests=(
        pair_of("default", 0.01, 0.05),
        pair_of("sharp", 0.0001, 0.08),
        pair_of("none", 0.6, 0.001),
        pair_of("songs", 0.03, -0.02),
        pair_of("default", 0.01, 0.2, "cold among all"),
        pair_of("default", 0.001, 0.2, over="noise"),
    ),
    command="metammf study conditions --out '<b>'",
    environment=ENVIRONMENT,
)


def specs_and_places(page: str) -> tuple[dict[str, Any], list[str]]:
    found = re.search(r'id="specs">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found.group(1)), re.findall(r'data-chart="([^"]+)"', page)


def test_a_panel_an_axis_and_one_of_the_real_sets() -> None:
    specs, places = specs_and_places(conditions_page(RESULTS))
    assert list(specs) == places == ["diversity", "real"]
    layers = specs["diversity"]["layer"]
    spans = next(layer for layer in layers if layer["mark"]["type"] == "rule" and "y2" in layer["encoding"])
    points = (spans.get("data") or specs["diversity"]["data"])["values"]
    # In order of the axis, the default world among them, with its diversity below.
    assert [point["place"] for point in points] == ["0|0.50", "1|0.50", "1|0.50", "4|0.50"]
    assert spans["encoding"]["x"]["sort"] == ["0|0.50", "1|0.50", "4|0.50"]
    assert [point["significant"] for point in points] == [False, True, True, True]
    assert [point["agree"] for point in points] == ["2 of 2"] * 4
    singles = next(layer for layer in layers if layer["mark"].get("size") == 16)["data"]["values"]
    assert [dot["difference"] for dot in singles[:2]] == pytest.approx([0.05, 0.06])
    assert "line" in {layer["mark"]["type"] for layer in layers}
    assert "line" not in {layer["mark"]["type"] for layer in specs["real"]["layer"]}


def test_findings_tell_each_axis_and_each_real_set() -> None:
    assert findings(RESULTS) == [
        "All test items, NDCG@20: against its static twin, dynamic fusion is ahead in 2 and not to be told from it in 2 of 4"
        " conditions.",
        "Cold among all, NDCG@20: against its static twin, dynamic fusion is ahead in 1 of 1 conditions.",
        "Mix sharpness, all test items: +0.0010 at 0 (p\u00a0=\u00a00.60, +20.0%, 2 of 2 agree), +0.0500 at 1"
        " (p\u00a0=\u00a00.010, +20.0%, 2 of 2 agree) and +0.0800 at 4 (p\u00a0<\u00a00.001, +20.0%, 2 of 2 agree).",
        "Mix sharpness, cold among all: nothing to test at 0, +0.2000 at 1 (p\u00a0=\u00a00.010, +20.0%, 2 of 2 agree) and"
        " nothing to test at 4.",
        "the songs: −0.0200 on all test items (p\u00a0=\u00a00.030, +20.0%, 0 of 2 agree) and nothing to test on cold among all.",
        "All test items, NDCG@20: against itself fed noise, dynamic fusion is ahead in 1 of 1 conditions.",
    ]


def test_a_gain_whose_worlds_or_seeds_disagree_is_not_marked() -> None:
    seeds = REAL.models["dynamic"].seeds
    below = replace(seeds[0], test={"all": {"ndcg@20": 0.24}, "cold among all": {}})  # the static twin has .25
    models = REAL.models | {"dynamic": replace(REAL.models["dynamic"], seeds=(below, seeds[1]))}
    tests = (pair_of("default", 0.001, 0.05), pair_of("songs", 0.001, 0.025))
    results = replace(RESULTS, conditions=(condition("default"), replace(REAL, models=models)), tests=tests)
    gain = results.gain(results.conditions[1], "all")
    assert gain is not None
    assert gain.singles == pytest.approx((-0.01, 0.06))
    assert (gain.agreeing, gain.all_agree) == (1, False)
    assert findings(results)[0].endswith("ahead in 1 and not to be told from it in 1 of 2 conditions.")
    latex = conditions_latex(results)
    assert r"& \textbf{$+0.0500$} & 2 of 2 &" in latex
    assert "& $+0.0250$ & 1 of 2 &" in latex
    page = conditions_page(results)
    assert (
        '<span class="verdict-ahead">+0.0500</span> <span class="pm">+0.0400 to +0.0600</span> <span class="pm">2 of 2</span>'
        in page
    )
    assert (
        '<span class="verdict-level">+0.0250</span> <span class="pm">+0.0150 to +0.0350</span> <span class="pm">1 of 2</span>'
        in page
    )
    specs, _ = specs_and_places(page)
    spans = next(one for one in specs["real"]["layer"] if one["mark"]["type"] == "rule" and "y2" in one["encoding"])
    points = (spans.get("data") or specs["real"]["data"])["values"]
    assert [(point["significant"], point["agree"]) for point in points] == [(False, "1 of 2"), (True, "2 of 2")]


def alone(one: ConditionResult) -> ConditionResult:
    """The same with the first seed alone."""
    return replace(one, models={role: replace(row, seeds=row.seeds[:1]) for role, row in one.models.items()})


def test_one_seed_is_no_spread_and_agrees_with_nobody() -> None:
    results = replace(RESULTS, seed_numbers=(0,), conditions=tuple(map(alone, RESULTS.conditions)))
    told = findings(results)
    assert told[0] == ONE_SEED
    assert not any("agree" in sentence for sentence in told)
    assert "+0.0500 at 1 (p\u00a0=\u00a00.010, +20.0%)" in told[3]
    page = " ".join(conditions_page(results).split())
    for words in (
        '<span class="pm"></span>',
        "0 of 1",
        "agree in sign",
        "small dots",
        "± standard",
        "1 worlds",
        "disagree",
    ):
        assert words not in re.sub("<script.*?</script>", "", page), words
    assert (
        "With one world or seed a condition nothing here tells how much world and training decide beside users." in page
    )
    assert "One world or seed each; gains over the static twin" in page
    specs, _ = specs_and_places(page)
    assert not [layer for layer in specs["diversity"]["layer"] if layer["mark"].get("size") == 16]
    assert r"\textbf{$+0.0800$} & -- &" in conditions_latex(results)


def test_what_there_is_none_of_is_not_spoken_of() -> None:
    page = " ".join(conditions_page(RESULTS).split())
    assert "Small dots are the 2 worlds of a condition, or the 2 seeds on a real data set: where" in page
    worlds = " ".join(conditions_page(replace(RESULTS, conditions=RESULTS.conditions[:3])).split())
    assert "Small dots are the 2 worlds of a condition: where" in worlds


def test_a_condition_without_placebo_and_one_that_failed() -> None:
    lacking = condition("few")
    models = {"dynamic": lacking.models["dynamic"], "static": replace(lacking.models["static"], seeds=(), failed="why")}
    results = replace(RESULTS, conditions=(condition("default"), replace(lacking, models=models)))
    assert findings(results)[-1] == "few: static failed: why"
    assert "the few" in conditions_page(results)


def test_all_is_written_and_made_again(tmp_path: Path) -> None:
    RESULTS.write(tmp_path / "study.json")
    page = write_conditions(RESULTS, tmp_path)
    names = {"study.json", "report.html", "table.csv", "table.tex", "tests.csv", "figure.svg"}
    assert {path.name for path in tmp_path.iterdir()} == names
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [line["condition"] for line in rows] == ["the default", "the sharp", "the none", "the songs"]
    assert (rows[0]["data"], rows[-1]["data"]) == ("generated", "Songs")
    told = ("ndcg@20 all over static gain", "mix diversity", "spread", "cold test share")
    assert [float(rows[1][name]) for name in told] == pytest.approx([0.08, 0.5, 6.5, 0.25])
    assert float(rows[1]["interactions per user"]) == pytest.approx(13)
    assert rows[-1]["spread"] == ""
    assert (
        rows[1]["ndcg@20 all gain of each world or seed"] == "'+0.0500 +0.0600"
    )  # else a spreadsheet would add them up
    assert rows[1]["ndcg@20 cold among all over static gain"] == ""
    assert [line["ndcg@20 all over static agree"] for line in rows] == ["2 of 2", "2 of 2", "2 of 2", "0 of 2"]
    latex = (tmp_path / "table.tex").read_text(encoding="utf-8")
    assert r"the sharp & .3050 & .2500 & \textbf{$+0.0800$} & 2 of 2 & .3050 & .2500 & -- & -- \\" in latex
    text = page.read_text(encoding="utf-8")
    assert "&#39;&lt;b&gt;&#39;" in text
    page.unlink()
    write_again(tmp_path)
    assert page.read_text(encoding="utf-8") == text
