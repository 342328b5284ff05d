from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from metammf.evaluation.significance import holm
from metammf.report.cold_items import AMONG_COLD, tells_apart, without_guesses
from metammf.report.comparison_page import comparison_page
from metammf.report.comparison_table import columns, lines, main_latex
from metammf.report.comparison_words import findings

if TYPE_CHECKING:
    from metammf.experiments.comparison_results import ComparisonResults, ModelResult

SILENT = {"popularity", "ease"}


def never_recommending(model: ModelResult) -> ModelResult:
    nothing = dict.fromkeys(model.seeds[0].test[AMONG_COLD], 0.0)
    seeds = tuple(replace(one, test={**one.test, AMONG_COLD: nothing}) for one in model.seeds)
    return replace(model, seeds=seeds)


def test_who_can_tell_cold_items_apart(comparison: ComparisonResults) -> None:
    assert {model.name for model in comparison.models if not tells_apart(model)} == SILENT
    vbpr = next(model for model in comparison.models if model.name == "vbpr")
    assert not tells_apart(never_recommending(vbpr))
    assert not tells_apart(replace(vbpr, placebo="drop"))
    assert tells_apart(replace(vbpr, placebo="shuffle"))


def test_who_cannot_is_neither_shown_nor_best_nor_tested_there(comparison: ComparisonResults) -> None:
    strong = [replace(one, test={**one.test, AMONG_COLD: {"ndcg@20": 0.9}}) for one in comparison.models[0].seeds]
    models = (replace(comparison.models[0], seeds=tuple(strong)), *comparison.models[1:])
    found = without_guesses(replace(comparison, models=models))
    places = [place for place, column in enumerate(columns(found)) if column.table == AMONG_COLD]
    assert places
    for line in lines(found):
        entries = [line.entries[place] for place in places]
        assert all((one.cell is None) is (line.model.name in SILENT) for one in entries)
        assert not any(one.best or one.level or one.tested for one in entries if one.cell is None)
    there = [one for one in found.tests if one.table == AMONG_COLD]
    assert {name for one in there for name in (one.a, one.b)} == {"metammf-lightgcn", "metammf-lightgcn+noise", "vbpr"}
    assert not {one.best_other for one in found.improvements if one.table == AMONG_COLD} & SILENT
    assert "cold among cold: metammf-lightgcn, " in findings(found)[0]


def test_the_correction_is_over_the_pairs_that_are_left(comparison: ComparisonResults) -> None:
    odd = tuple(replace(one, p=0.01 * (place % 7 + 1)) for place, one in enumerate(comparison.tests))
    found = without_guesses(replace(comparison, tests=odd))
    for metric in ("recall@20", "ndcg@20"):
        left = [one for one in found.tests if (one.metric, one.table) == (metric, AMONG_COLD)]
        assert len(left) == 3
        assert [one.p_holm for one in left] == pytest.approx(holm([one.p for one in left]))
    assert [one for one in found.tests if one.table != AMONG_COLD] == [one for one in odd if one.table != AMONG_COLD]


def test_all_other_tables_stay_as_they_are(comparison: ComparisonResults) -> None:
    found = without_guesses(comparison)
    assert without_guesses(found) == found
    for before, after in zip(comparison.models, found.models, strict=True):
        for metric in ("recall@20", "ndcg@20"):
            assert after.mean(metric) == before.mean(metric)
            assert after.mean(metric, "cold among all") == before.mean(metric, "cold among all")
    kept = [one for one in found.improvements if one.table != AMONG_COLD]
    assert kept == [one for one in comparison.improvements if one.table != AMONG_COLD]


def test_page_and_latex_have_a_dash_there(comparison: ComparisonResults) -> None:
    assert comparison_page(comparison) == comparison_page(without_guesses(comparison))
    ease = next(line for line in main_latex(without_guesses(comparison)).splitlines() if line.startswith("EASE"))
    assert ease.endswith(r"& -- & -- \\")
