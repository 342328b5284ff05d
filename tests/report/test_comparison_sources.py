"""Which results are of which version of the code."""

from __future__ import annotations

import csv
from dataclasses import replace
from typing import TYPE_CHECKING

from metammf.report.comparison_page import comparison_page, ledger_csv
from metammf.report.comparison_sources import told_sources, versions
from metammf.report.comparison_words import findings

if TYPE_CHECKING:
    from metammf.experiments.comparison_results import ComparisonResults, ModelResult

FIRST, SECOND = "a" * 64, "b" * 64


def made_by(model: ModelResult, trials: list[str | None], seeds: list[str | None]) -> ModelResult:
    return replace(
        model,
        trials=tuple(replace(trial, source=source) for trial, source in zip(model.trials, trials, strict=True)),
        seeds=tuple(replace(one, source=source) for one, source in zip(model.seeds, seeds, strict=True)),
    )


def mixed(comparison: ComparisonResults, last: str | None) -> ComparisonResults:
    """Two models of which the second's first trial and first final run are of other code."""
    popularity, vbpr = (next(one for one in comparison.models if one.name == name) for name in ("popularity", "vbpr"))
    models = (
        made_by(popularity, [FIRST], [FIRST]),
        made_by(vbpr, [last, FIRST, FIRST], [last, FIRST, FIRST]),
    )
    return replace(comparison, models=models, tests=(), improvements=())


def test_each_version_is_told_with_what_it_made(comparison: ComparisonResults) -> None:
    results = mixed(comparison, SECOND)
    first, second = versions(results)
    assert (first.source, first.made) == (FIRST, "3 trials and 3 final runs")
    assert first.models == {"popularity": "trial 0, seed 0", "vbpr": "trials 1–2, seeds 1–2"}
    assert (second.source, second.made, second.models) == (
        SECOND,
        "1 trial and 1 final run",
        {"vbpr": "trial 0, seed 0"},
    )
    assert told_sources(results).startswith(
        "Made by 2 versions of the code: aaaaaaaaaaaa (3 trials and 3 final runs) and bbbbbbbbbbbb (1 trial and 1 final run)."
    )
    assert told_sources(results) in findings(results)
    page = comparison_page(results)
    assert "bbbbbbbbbbbb</dt><dd>1 trial and 1 final run: VBPR (trial 0, seed 0)</dd>" in page
    assert page.count('<td class="text">aaaaaaaaaaaa</td>') == 3


def test_what_was_not_noted_comes_last_and_may_be_of_any(comparison: ComparisonResults) -> None:
    results = mixed(comparison, None)
    assert [version.name for version in versions(results)] == ["aaaaaaaaaaaa", "not noted"]
    assert told_sources(results).startswith("Not known to be of one version of the code: aaaaaaaaaaaa (3 trials and 3")


def test_one_version_is_nothing_to_be_told(comparison: ComparisonResults) -> None:
    """Nor is a comparison of before results named their source."""
    for results, shown in ((mixed(comparison, FIRST), "aaaaaaaaaaaa"), (comparison, "not noted")):
        assert told_sources(results) == ""
        page = comparison_page(results)
        assert f"{shown}</dt>" in page
        assert ">Code</th>" not in page


def test_the_ledger_holds_the_whole_hash(comparison: ComparisonResults) -> None:
    rows = list(csv.DictReader(ledger_csv(mixed(comparison, None)).splitlines()))
    assert [row["source"] for row in rows] == [FIRST, "", FIRST, FIRST]
