"""A comparison as one HTML file that needs no network, and its tables as LaTeX and CSV."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from metammf.experiments.comparison_results import ComparisonResults, PairTest
from metammf.experiments.environment import short_source
from metammf.files import atomic_open
from metammf.report import comparison_figures as draw
from metammf.report import comparison_words as words
from metammf.report.cold_items import without_guesses
from metammf.report.comparison_sources import sources_differ, versions
from metammf.report.comparison_table import (
    chosen_told,
    columns,
    kind_of,
    lines,
    main_csv,
    main_latex,
    main_metric,
    published_only,
    ranked,
    settings_text,
    trials_told,
)
from metammf.report.names import in_words, labels, short_name
from metammf.report.palette import KINDS
from metammf.report.shell import render
from metammf.report.tables import TABLE_TITLES, csv_text, of_metric, of_values
from metammf.report.words import LEVEL, least, listed, metric_name, p_value, signed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from metammf.experiments.comparison_results import ModelResult

PAGE, TABLE_CSV, TABLE_LATEX, TESTS_CSV, LEDGER_CSV = "report.html", "table.csv", "table.tex", "tests.csv", "ledger.csv"


def write_comparison(results: ComparisonResults, folder: Path | str) -> Path:
    """Write the page and the tables of a comparison into a folder, each atomically, and return the page's path.

    Raises:
        MissingExtraError: the extra ``report`` is not installed.
        WriteError: a file cannot be written.
    """
    folder, results = Path(folder), without_guesses(results)
    files = {
        PAGE: _page(results),
        TABLE_CSV: main_csv(results),
        TABLE_LATEX: main_latex(results),
        TESTS_CSV: tests_csv(results),
        LEDGER_CSV: ledger_csv(results),
    }
    for name, text in files.items():
        with atomic_open(folder / name) as stream:
            stream.write(text)
    return folder / PAGE


def comparison_page(results: ComparisonResults) -> str:
    """Return the page.

    Raises:
        MissingExtraError: the extra ``report`` is not installed.
    """
    return _page(without_guesses(results))


def _page(results: ComparisonResults) -> str:
    models, metric = ranked(results), main_metric(results)
    shown, rows = columns(results), lines(results)
    tables = list(dict.fromkeys(column.table for column in shown))
    called = _names(results)
    return render(
        "comparison.html.jinja",
        _figures(results, models, metric),
        results=results,
        version=results.environment["packages"]["metammf"],
        headline=in_words(called, words.headline(results)),
        findings=[in_words(called, text) for text in words.findings(results)],
        called=called,
        metric=metric_name(metric),
        chosen_by=metric_name(results.profile.chosen_by),
        columns=[metric_name(column.metric) for column in shown],
        groups=[(TABLE_TITLES[table], sum(column.table == table for column in shown)) for table in tables],
        published_values=[column.metric if column.table == "all" else None for column in shown],
        lines=rows,
        main=metric,
        published_only=published_only(results),
        has_published=any(metric in line.published for line in rows),
        figure_tables={table: TABLE_TITLES[table] for table in tables},
        kinds=KINDS,
        kinds_there=[kind for kind in KINDS if kind in {line.kind for line in rows}],
        costs=[_cost(model) for model in models],
        chosen=[_chosen(model) for model in models],
        trials_note=words.TRIALS_NOTE,
        versions=versions(results),
        sources_differ=sources_differ(results),
        ledger=[row for model in models for row in _ledger(model)],
        tests=[told_test(test, called) for test in results.tests],
        level=LEVEL,
        least_p=least(words.least_p(results)),
        tested=listed([metric_name(one) for one in results.profile.tested or ("none",)]),
    )


def _figures(results: ComparisonResults, models: list[ModelResult], metric: str) -> dict[str, Any]:
    name, called = metric_name(metric), _names(results)
    charts = {}
    for table in dict.fromkeys(column.table for column in columns(results)):
        rows = _called(_bars(models, metric, table), called)
        if any(row["mean"] for row in rows):
            charts[f"bars-{table}"] = draw.ranked_chart(rows, name, legend=False)
    if leads := _called(_leads(results, metric), called):
        charts["leads"] = draw.lead_chart(leads, f"{name}, {called[_reference(results)]} less the other")
    if trials := _called(_trials(models), called):
        order = list(dict.fromkeys(row["label"] for row in trials))
        charts["spread"] = draw.spread_chart(
            trials, order, f"{metric_name(results.profile.chosen_by)} on validation, a tick a trial"
        )
    if costs := _called(_costs(models, metric), called):
        charts["cost"] = draw.cost_chart(costs, name)
    return charts


def _names(results: ComparisonResults) -> dict[str, str]:
    """Name of each model that the page speaks of -> what people call it."""
    absent = (*(one.name for one in results.left_out), *results.pending)
    return labels([*(model.name for model in results.models), *absent])


def _called(rows: list[dict[str, Any]], called: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows of a figure with their models called as people call them."""
    return [row | {"label": called[row["label"]]} for row in rows]


def _bars(models: list[ModelResult], metric: str, table: str) -> list[dict[str, Any]]:
    cells = [(model, of_metric(model.seeds, metric, table)) for model in models]
    return [
        {
            "label": model.name,
            "kind": kind_of(model),
            "mean": cell.mean,
            "low": cell.low,
            "high": cell.high,
            "spread": cell.std is not None,
        }
        for model, cell in cells
        if cell is not None
    ]


def _reference(results: ComparisonResults) -> str:
    """The model that differences are drawn from: the first MetaMMF on validation, or the first of all."""
    order = ranked(results)
    return next((model.name for model in order if kind_of(model) == "MetaMMF"), order[0].name if order else "")


def _leads(results: ComparisonResults, metric: str) -> list[dict[str, Any]]:
    name = _reference(results)
    kinds = {model.name: kind_of(model) for model in results.models}
    rows = []
    for test in results.tests:
        if (test.metric, test.table) != (metric, "all") or name not in (test.a, test.b):
            continue
        first = test.a == name
        low, high = (test.low, test.high) if first else (-test.high, -test.low)
        rows.append(
            {
                "label": test.b if first else test.a,
                "kind": kinds[test.b if first else test.a],
                "difference": test.difference if first else -test.difference,
                "low": low,
                "high": high,
                "significant": test.p_holm < LEVEL,
                "p": test.p_holm,
            }
        )
    return sorted(rows, key=lambda row: row["difference"])


def _trials(models: list[ModelResult]) -> list[dict[str, Any]]:
    return [
        {
            "label": model.name,
            "kind": kind_of(model),
            "trial": trial.number,
            "value": trial.value,
            "settings": settings_text(trial.settings),
            "chosen": trial.number == model.chosen_trial,
        }
        for model in models
        for trial in model.trials
        if trial.value is not None and len(model.trials) > 1
    ]


def _costs(models: list[ModelResult], metric: str) -> list[dict[str, Any]]:
    rows = []
    for model in models:
        cell, seconds = of_metric(model.seeds, metric), of_values(one.seconds_per_epoch for one in model.seeds)
        if cell is not None and seconds is not None and seconds.mean > 0 and model.placebo is None:
            rows.append(
                {
                    "label": model.name,
                    "short": short_name(model.name),
                    "kind": kind_of(model),
                    "mean": cell.mean,
                    "seconds": seconds.mean,
                }
            )
    return rows


def _cost(model: ModelResult) -> dict[str, Any]:
    return {
        "model": model,
        "kind": kind_of(model),
        "seconds_per_epoch": of_values(one.seconds_per_epoch for one in model.seeds),
        "best_epoch": of_values(one.best_epoch for one in model.seeds),
        "epochs": of_values(one.epochs for one in model.seeds),
        "seconds": of_values(one.seconds for one in model.seeds),
        "peak_mib": max((one.peak_mib for one in model.seeds if one.peak_mib is not None), default=None),
        "trials": trials_told(model),
        "chosen": chosen_told(model),
        "search_minutes": sum(trial.seconds for trial in model.trials) / 60,
    }


def _chosen(model: ModelResult) -> dict[str, Any]:
    ranges = {
        key: ", ".join(map(str, one.choices)) or f"{one.low:g} to {one.high:g}{', log' if one.log else ''}"
        for key, one in model.space.items()
    }
    return {
        "model": model,
        "kind": kind_of(model),
        "settings": [
            {"key": key, "chosen": model.chosen.get(key, "–"), "recipe": model.space[key].recipe, "range": ranges[key]}
            for key in model.space
        ],
        "overrides": settings_text(model.overrides),
    }


def _ledger(model: ModelResult) -> list[dict[str, Any]]:
    return [
        {
            "name": model.name,
            "kind": kind_of(model),
            "trial": trial,
            "chosen": trial.number == model.chosen_trial,
            "source": short_source(trial.source),
            "settings": settings_text(trial.settings) or "the recipe's",
        }
        for trial in model.trials
    ]


def told_test(test: PairTest, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A paired test as a row of a table shows it."""
    verdict = "level" if test.p_holm >= LEVEL or not test.difference else "ahead" if test.difference > 0 else "behind"
    return {
        "row": test,
        "pair": " − ".join((names or {}).get(key, key) for key in (test.a, test.b)),
        "metric": metric_name(test.metric),
        "table": TABLE_TITLES[test.table],
        "difference": signed(test.difference),
        "interval": f"{signed(test.low)} to {signed(test.high)}",
        "p": p_value(test.p_holm).removeprefix("p\u00a0").removeprefix("=\u00a0"),
        "verdict": verdict,
    }


def tests_csv(results: ComparisonResults) -> str:
    """All paired tests as CSV."""
    heads = list(PairTest.__dataclass_fields__)
    return csv_text(heads, [[getattr(test, head) for head in heads] for test in results.tests])


def ledger_csv(results: ComparisonResults) -> str:
    """All trials of the models that are in, as CSV, one row each; ``ledger.jsonl`` has those of the others too."""
    heads = [
        "model",
        "trial",
        "state",
        "seconds",
        "epochs",
        f"validation {results.profile.chosen_by}",
        "chosen",
        "settings",
        "source",
    ]
    rows = [
        [
            model.name,
            trial.number,
            trial.state,
            trial.seconds,
            trial.epochs,
            trial.value,
            trial.number == model.chosen_trial,
            "; ".join(f"{key}={value}" for key, value in trial.settings.items()),
            trial.source,
        ]
        for model in results.models
        for trial in model.trials
    ]
    return csv_text(heads, rows)
