"""The comparisons of ``results/`` as tables of the documents: all of one for docs/results.md, its head for the README."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))
from doc_tables import decimals, table
from metammf.report.comparison_table import chosen_told, columns, lines, published_only, ranked, trials_told
from metammf.report.comparison_words import TRIALS_NOTE, findings, searches
from metammf.report.names import in_words, label, labels
from metammf.report.tables import of_values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from metammf.experiments.comparison_results import ComparisonResults, PublishedFigure
    from metammf.report.comparison_table import Column, Entry, Line

FIRST = 5
"""Models at the head of a short table."""
CONTROLS = ("popularity", "itemknn", "p3", "ease", "content-knn", "lightgcn", "lightgcn-cold")
"""Recipes that a short table shows wherever they stand."""
_SHORT = {"recall": "R", "ndcg": "N", "precision": "P"}
_TABLES = {"all": "", "cold among all": "cold ", "cold users": "cold users "}


def whole_table(results: ComparisonResults) -> list[str]:
    """Return all models in the order of validation, with their costs, what others published, and what was found in words."""
    shown = [
        column
        for column in columns(results)
        if column.table in _TABLES and (column.table != "all" or column.metric.endswith(("@10", "@20")))
    ]
    head = ["model", f"validation {_heading(results.profile.chosen_by)}", *map(_title, shown)]
    head += [
        "trials (ended)",
        "chosen",
        "minutes",
        "s an epoch",
        "peak MiB",
        *(["published"] if results.published else []),
    ]
    rows = [
        [
            label(line.model.name),
            decimals(line.model.validation(results.profile.chosen_by)),
            *_cells(results, line, shown),
            *_costs(line),
            *([_theirs(results, line.published)] if results.published else []),
        ]
        for line in lines(results)
    ]
    rows += [
        [
            f"*{one['model']}, as published*",
            "",
            *(
                decimals(one["values"][at.metric]) if at.table == "all" and at.metric in one["values"] else ""
                for at in shown
            ),
            *[""] * 6,
        ]
        for one in published_only(results)
    ]
    told = [f"- {_in_words(results, text)}" for text in findings(results)]
    return [_budget(results), "", *table(head, rows), TRIALS_NOTE, "", *told, *_left_out(results), ""]


def short_table(results: ComparisonResults) -> list[str]:
    """Return the models that validation puts first, MetaMMF in all its forms, and the controls, each with its place there.

    Below them the models that the budget hardly searched, and those that were left out: a place is one among those that are in.
    """
    tested = results.profile.tested
    shown = [column for column in columns(results) if column.table in _TABLES and column.metric in tested]
    head = ["model", *map(_title, shown), *(["published"] if results.published else [])]
    real = [model.name for model in ranked(results) if model.placebo is None]
    rows = []
    for line in lines(results):
        model = line.model
        place = real.index(model.name) + 1 if model.name in real else None
        first = place is not None and place <= FIRST
        if first or model.model == "metammf" or model.recipe in CONTROLS:
            theirs = [_theirs(results, line.published)] if results.published else []
            name = label(model.name) if place is None else f"{place}. {label(model.name)}"
            rows.append([name, *_cells(results, line, shown), *theirs])
    below = [*(f"- {_in_words(results, text)}" for text in searches(results)), *_left_out(results)]
    return [_budget(results), "", *table(head, rows), *below, *([""] if below else [])]


def _left_out(results: ComparisonResults) -> list[str]:
    return [f"- Left out: {label(one.name)}: {one.reason}." for one in results.left_out]


def _budget(results: ComparisonResults) -> str:
    """What held for all models alike, and whether all are in."""
    budget, places = results.budget, len([model for model in results.models if model.placebo is None])
    seeds = f"{len(budget.seeds)} seeds" if len(budget.seeds) > 1 else "1 seed"
    text = (
        f"{places} models, {budget.minutes:g} minutes of one core and at most {budget.trials} trials each, {seeds}; ordered by"
        f" {_heading(results.profile.chosen_by)} on validation. Bold is the best of a column, placebos apart; † cannot be told"
        f" from it by a paired test over users, which {' and '.join(map(_heading, results.profile.tested))} alone had."
    )
    return text if results.complete else f"{text} Not all models are done."


def _heading(metric: str) -> str:
    name, _, k = metric.partition("@")
    return f"{_SHORT.get(name, name)}@{k}"


def _title(column: Column) -> str:
    return _TABLES[column.table] + _heading(column.metric)


def _cells(results: ComparisonResults, line: Line, shown: list[Column]) -> list[str]:
    entries = dict(zip(columns(results), line.entries, strict=True))
    return [_cell(entries[column]) for column in shown]


def _cell(entry: Entry) -> str:
    if entry.cell is None:
        return ""
    text = decimals(entry.cell.mean, entry.cell.std)
    return f"**{text}**" if entry.best else f"{text} †" if entry.level else text


def _costs(line: Line) -> list[str]:
    """Trials, the one chosen, minutes of search, seconds an epoch and the peak of memory; an epoch of a solved model is none."""
    model = line.model
    epoch = of_values(one.seconds_per_epoch for one in model.seeds)
    peak = max((one.peak_mib for one in model.seeds if one.peak_mib is not None), default=None)
    return [
        trials_told(model),
        chosen_told(model),
        f"{sum(trial.seconds for trial in model.trials) / 60:.1f}",
        "" if epoch is None else f"{epoch.mean:.2g}" if epoch.mean < 10 else f"{epoch.mean:.0f}",
        "" if peak is None else f"{peak:.0f}",
    ]


def _theirs(results: ComparisonResults, published: Mapping[str, PublishedFigure]) -> str:
    """The published figures by the metrics that were tested: ``.1139 / .0492``."""
    return " / ".join(decimals(published[metric].value) for metric in results.profile.tested if metric in published)


def _in_words(results: ComparisonResults, text: str) -> str:
    """Return a sentence with each model's name in words."""
    return in_words(labels(model.name for model in results.models), text)
