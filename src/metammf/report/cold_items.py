"""Who has something to say of cold items among themselves, and a comparison without the others' say in that table.

A cold item has no train interaction. A model that reads no content has nothing that would tell one of them from another: it
scores all alike, so that its list is the order of the item index, or recommends none. Neither is a measure of the model. So
with one whose features were dropped.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from metammf.evaluation.significance import holm
from metammf.experiments.pair_tests import improvements

if TYPE_CHECKING:
    from collections.abc import Iterable

    from metammf.experiments.comparison_results import ComparisonResults, ModelResult, PairTest, SeedResult
    from metammf.experiments.study_results import StudyResults, StudyRow

    Row = TypeVar("Row", ModelResult, StudyRow)

AMONG_COLD = "cold among cold"


def recommends_none(seeds: Iterable[SeedResult]) -> bool:
    """Whether no run has brought any user a cold item that is right, in a ranking of cold items alone.

    So it is with a model that reads content and yet never recommends an item without interactions.
    """
    return not any(value for one in seeds for value in one.test.get(AMONG_COLD, {}).values())


def tells_apart(model: ModelResult) -> bool:
    """Whether a model has anything to rank cold items by."""
    return model.content and model.placebo != "drop" and not recommends_none(model.seeds)


def without_guesses(results: ComparisonResults) -> ComparisonResults:
    """Return a comparison in whose table of cold items among themselves stand those alone that can tell them apart.

    The others have no value there, are in no test, and Holm's correction is over the pairs that are left.
    """
    silent = {model.name for model in results.models if not tells_apart(model)}
    models = tuple(_without_table(model) if model.name in silent else model for model in results.models)
    metrics = dict.fromkeys(one.metric for one in results.improvements if one.table == AMONG_COLD)
    elsewhere = (one for one in results.improvements if one.table != AMONG_COLD)
    return replace(
        results,
        models=models,
        tests=_tests(results.tests, silent),
        improvements=(*elsewhere, *improvements(models, metrics, (AMONG_COLD,))),
    )


def study_without_guesses(results: StudyResults) -> StudyResults:
    """Return a study the same way.

    Rows that are older than their word of who reads content are silent where they had their features dropped or never recommend
    a cold item, and else are taken to read it.
    """
    silent = {
        row.key for row in results.rows if row.content is False or row.placebo == "drop" or recommends_none(row.seeds)
    }
    rows = tuple(_without_table(row) if row.key in silent else row for row in results.rows)
    kept = [one for one in results.tests if one.table != AMONG_COLD or not silent & {one.a, one.b}]
    adjusted = holm([one.p for one in kept]).tolist()  # one correction over all tests of a study
    tests = tuple(replace(one, p_holm=p) for one, p in zip(kept, adjusted, strict=True))
    return replace(results, rows=rows, tests=tests)


def _without_table(model: Row) -> Row:
    def kept(one: SeedResult) -> SeedResult:
        return replace(one, test={table: values for table, values in one.test.items() if table != AMONG_COLD})

    return replace(model, seeds=tuple(map(kept, model.seeds)))


def _tests(tests: Iterable[PairTest], silent: set[str]) -> tuple[PairTest, ...]:
    kept = [one for one in tests if one.table != AMONG_COLD or not silent & {one.a, one.b}]
    for metric in {one.metric for one in kept if one.table == AMONG_COLD}:
        places = [place for place, one in enumerate(kept) if (one.metric, one.table) == (metric, AMONG_COLD)]
        for place, p in zip(places, holm([kept[place].p for place in places]), strict=True):
            kept[place] = replace(kept[place], p_holm=float(p))
    return tuple(kept)
