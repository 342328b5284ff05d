"""A study as a small HTML page that needs no network, its table as CSV and LaTeX, and its figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from metammf.experiments.comparison_results import PairTest
from metammf.files import atomic_open
from metammf.report import comparison_figures as draw
from metammf.report.cold_items import study_without_guesses
from metammf.report.comparison_page import told_test
from metammf.report.comparison_table import settings_text
from metammf.report.figures import require_extra, save_chart
from metammf.report.palette import modality_colours, modality_shapes
from metammf.report.shell import render
from metammf.report.tables import TABLE_TITLES, Cell, counted, csv_text, escaped, latex_text, of_metric, of_values
from metammf.report.words import LEVEL, ONE_SEED, listed, metric_name, number, p_value, signed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from metammf.experiments.study_results import StudyResults, StudyRow

PAGE, TABLE_CSV, TABLE_LATEX, TESTS_CSV, FIGURE = "report.html", "table.csv", "table.tex", "tests.csv", "figure.svg"
_FIGURE_WIDTH = 380
_SHOWN = ("recall@20", "ndcg@20")

Measure = tuple[str, "Callable[[StudyRow], Cell | None]"]
_EPOCHS = "cost/Convergence"
"""The panel of whole numbers that nothing lies between: its points are not joined."""


def write_study(results: StudyResults, folder: Path | str) -> Path:
    """Write page, tables and figure of a study into a folder, each atomically, and return the page's path.

    Raises:
        MissingExtraError: the extra ``report`` is not installed.
        WriteError: a file cannot be written.
    """
    results = study_without_guesses(results)
    texts = {PAGE: _page(results), TABLE_CSV: study_csv(results), TABLE_LATEX: study_latex(results)}
    return write_files(Path(folder), texts, results.tests, study_figure(results))


def write_files(folder: Path, texts: Mapping[str, str], tests: Iterable[PairTest], figure: Any) -> Path:
    """Write the files of any study, each atomically, and return its page's path.

    Args:
        folder: Where.
        texts: File's name -> what stands in it; the page is among them.
        tests: Written as CSV.
        figure: An Altair chart.

    Raises:
        WriteError: a file cannot be written.
    """
    heads = list(PairTest.__dataclass_fields__)
    rows = [[getattr(test, head) for head in heads] for test in tests]
    for name, text in {**texts, TESTS_CSV: csv_text(heads, rows)}.items():
        with atomic_open(folder / name) as stream:
            stream.write(text)
    save_chart(figure, folder / FIGURE)
    return folder / PAGE


def study_page(results: StudyResults) -> str:
    """Return the page.

    Raises:
        MissingExtraError: the extra ``report`` is not installed.
    """
    return _page(study_without_guesses(results))


def _page(results: StudyResults) -> str:
    charts = {**_charts(results, "container"), **_maps(results, "container")}
    labels = {row.key: row.label for row in results.rows}
    tables = [table for table in _tables(results) if table != "warm"]
    return render(
        "study.html.jinja",
        charts,
        results=results,
        version=results.environment["packages"]["metammf"],
        findings=findings(results),
        metric=metric_name(results.metric),
        metrics=[metric_name(metric) for metric in _metrics(results)],
        tables=[TABLE_TITLES[table] for table in tables],
        spread=any(len(row.seeds) > 1 for row in results.rows),
        rows=[_line(row, results, tables) for row in results.rows],
        trials=[(row, trial, settings_text(trial.settings)) for row in results.rows for trial in row.trials],
        titles={name: name.partition("/")[2] or title for name, title in _titles(results).items()},
        maps=[row for row in results.rows if f"map/{row.key}" in charts],
        tests=[told_test(test, labels) for test in results.tests],
        has_clusters=any(row.clusters for row in results.rows),
    )


def study_figure(results: StudyResults) -> Any:
    """The study's figure as one chart of fixed width, for a file of its own.

    Raises:
        MissingExtraError: the extra ``report`` is not installed.
    """
    require_extra("a figure")
    import altair as alt

    charts = [*_charts(results, _FIGURE_WIDTH).values()]
    maps = _maps(results, _FIGURE_WIDTH)
    labels = {f"map/{row.key}": row.label for row in results.rows}
    charts += [chart.properties(title=labels[name]) for name, chart in maps.items()]
    pairs = [alt.hconcat(*charts[start : start + 2]) for start in range(0, len(charts), 2)]
    return alt.vconcat(*pairs, title=results.title).resolve_scale(color="independent", shape="independent")


def findings(results: StudyResults) -> list[str]:
    """What was found, a sentence or two each; they read right whatever it was."""
    done = [row for row in results.rows if row.seeds]
    real = [row for row in done if row.placebo is None]
    found = [ONE_SEED] if len(results.seed_numbers) == 1 and results.tests else []
    if real:
        found.append(_best(real, results.metric))
    labels = {row.key: row.label for row in results.rows}
    for table in ("all", "cold among all", "cold users"):
        tests = [test for test in results.tests if test.table == table]
        if tests:
            found.append(f"{TABLE_TITLES[table]}: {_verdicts(tests, labels)}.")
    for row in done:
        if row.clusters:
            purity, by_chance = of_values(one.purity for one in row.clusters), row.clusters[0].purity_by_chance
            silhouette = of_values(one.silhouette for one in row.clusters)
            if purity is not None and silhouette is not None:
                found.append(
                    f"{row.label}: {purity.mean:.0%} of an item's ten nearest are of its group ({by_chance:.0%} by chance),"
                    f" silhouette {silhouette.mean:+.2f}.".replace("-", "−")
                )
    return found + [f"{row.label} failed: {row.failed}" for row in results.rows if row.failed is not None]


def _best(rows: list[StudyRow], metric: str) -> str:
    """The variant that validation prefers, and the one that is ahead on test where that is another."""
    chosen = max(rows, key=lambda row: _validation(row, metric))
    cell = of_metric(chosen.seeds, metric)
    if cell is None:
        return f"Validation prefers {chosen.label} by {metric_name(metric)}."
    told = f"Validation prefers {chosen.label} by {metric_name(metric)}, {number(cell.mean)} on test"
    there = [(row, one) for row in rows if (one := of_metric(row.seeds, metric)) is not None]
    first, best = max(there, key=lambda pair: pair[1].mean)
    return f"{told}, where {first.label} has the most, {number(best.mean)}." if best.mean > cell.mean else f"{told}."


def _verdicts(tests: list[PairTest], labels: dict[str, str]) -> str:
    told = [
        f"{labels[test.a]} is {'ahead of' if test.difference > 0 else 'behind'} {labels[test.b]}"
        f" ({signed(test.difference)}, {p_value(test.p_holm)})"
        for test in tests
        if test.p_holm < LEVEL and test.difference
    ]
    level = len(tests) - len(told)
    rest = f"{level} of {len(tests)} pairs cannot be told apart" if level else ""
    return listed([*told, *([rest] if rest else [])])


def _validation(row: StudyRow, metric: str) -> float:
    cell = of_values(one.validation.get(metric) for one in row.seeds)
    return -1.0 if cell is None else cell.mean


def _metrics(results: StudyResults) -> list[str]:
    return list(dict.fromkeys((*_SHOWN, results.metric)))


def _tables(results: StudyResults) -> list[str]:
    there = {table for row in results.rows for seed in row.seeds for table in seed.test}
    return [table for table in TABLE_TITLES if table in there]


def _measures(results: StudyResults) -> dict[str, Measure]:
    """Name of a panel -> title of its axis, and what it shows of a row; an axis has its costs beside it."""
    metric = results.metric
    measures: dict[str, Measure] = {
        f"metric/{TABLE_TITLES[table]}": (metric_name(metric), lambda row, at=table: of_metric(row.seeds, metric, at))  # type: ignore[misc]  # a default binds the table
        for table in _tables(results)
        if table != "warm"
    }
    if results.axis is not None:
        measures |= {
            "cost/Parameters": ("parameters", lambda row: of_values([row.parameters])),
            "cost/Seconds an epoch": (
                "seconds an epoch",
                lambda row: of_values(one.seconds_per_epoch for one in row.seeds),
            ),
            "cost/Peak memory": ("peak memory, MiB", lambda row: of_values(one.peak_mib for one in row.seeds)),
            _EPOCHS: (
                "epoch that validation chose",
                lambda row: of_values(one.best_epoch for one in row.seeds),
            ),
        }
    return measures


def _titles(results: StudyResults) -> dict[str, str]:
    return {name: title for name, (title, _) in _measures(results).items()}


def _charts(results: StudyResults, width: Any) -> dict[str, Any]:
    charts = {}
    for name, (title, measure) in _measures(results).items():
        cells = [(row, cell) for row in results.rows if (cell := measure(row)) is not None]
        if not cells:
            continue
        if results.axis is None:
            charts[name] = draw.ranked_chart([_bar(row, cell) for row, cell in cells], title, width=width)
        else:
            charts[name] = _over_axis(results, cells, title, width, joined=name != _EPOCHS)
    return charts


def _over_axis(
    results: StudyResults, cells: list[tuple[StudyRow, Cell]], title: str, width: Any, *, joined: bool
) -> Any:
    assert results.axis is not None
    points = [{"series": row.series, "x": row.x, **_span(cell)} for row, cell in cells if row.x is not None]
    levels = [{"series": row.series, "mean": cell.mean} for row, cell in cells if row.x is None]
    series = list(dict.fromkeys(row.series for row, _ in cells))
    return draw.axis_chart(
        points, levels, series, results.axis, title, log=results.log_axis, joined=joined, width=width
    )


def _span(cell: Cell) -> dict[str, Any]:
    return {"mean": cell.mean, "low": cell.low, "high": cell.high, "spread": cell.std is not None}


def _bar(row: StudyRow, cell: Cell) -> dict[str, Any]:
    return {"label": row.label, "kind": "placebo" if row.placebo else row.series, **_span(cell)}


def _maps(results: StudyResults, width: Any) -> dict[str, Any]:
    if results.mapped is None:
        return {}
    mapped = results.mapped
    names = sorted(set(mapped.groups))
    groups = dict(zip(names, zip(modality_colours(names), modality_shapes(names), strict=True), strict=True))
    return {
        f"map/{key}": draw.groups_chart(
            [
                {"x": x, "y": y, "item": item, "title": title, "group": group}
                for x, y, item, title, group in zip(
                    panel["x"], panel["y"], mapped.items, mapped.titles, mapped.groups, strict=True
                )
            ],
            groups,
            width=width,
        )
        for key, panel in mapped.panels.items()
    }


def _line(row: StudyRow, results: StudyResults, tables: list[str]) -> dict[str, Any]:
    return {
        "row": row,
        "validation": of_values(one.validation.get(results.metric) for one in row.seeds),
        "cells": [of_metric(row.seeds, metric, table) for table in tables for metric in _metrics(results)],
        "seconds": of_values(one.seconds_per_epoch for one in row.seeds),
        "peak": of_values(one.peak_mib for one in row.seeds),
        "best_epoch": of_values(one.best_epoch for one in row.seeds),
        "purity": of_values(one.purity for one in row.clusters),
        "silhouette": of_values(one.silhouette for one in row.clusters),
        "settings": settings_text({**row.settings, **row.chosen}),
    }


def study_csv(results: StudyResults) -> str:
    """The table as CSV: a mean and a deviation a column."""
    columns = [(table, metric) for table in _tables(results) for metric in _metrics(results)]
    heads = ["variant", "series", "x", "recipe", "placebo", "settings", "validation"]
    heads += [f"{metric} {table} {what}" for table, metric in columns for what in ("mean", "std")]
    heads += ["parameters", "seconds per epoch", "peak MiB", "best epoch", "purity", "silhouette", "failed"]
    rows = []
    for line in (_line(row, results, _tables(results)) for row in results.rows):
        row = line["row"]
        about = [row.label, row.series, row.x, row.recipe, row.placebo, line["settings"], _mean(line["validation"])]
        cells = [part for cell in line["cells"] for part in ((cell.mean, cell.std) if cell else (None, None))]
        costs = [_mean(line[name]) for name in ("seconds", "peak", "best_epoch", "purity", "silhouette")]
        rows.append([*about, *cells, row.parameters, *costs, row.failed])
    return csv_text(heads, rows)


def _mean(cell: Cell | None) -> float | None:
    return None if cell is None else cell.mean


def study_latex(results: StudyResults) -> str:
    """The table as LaTeX, with booktabs."""
    metrics, tables = _metrics(results), _tables(results)
    body = [
        [escaped(line["row"].label), *_latex(line["cells"]), _count(line["row"].parameters)]
        for line in (_line(row, results, tables) for row in results.rows)
    ]
    groups = [(TABLE_TITLES[table], len(metrics)) for table in tables]
    columns = ["Variant", *(metric_name(metric) for _ in tables for metric in metrics), "Parameters"]
    note = f"{results.title}: {results.data.name}, {counted(len(results.seed_numbers))}\n{results.command}"
    return latex_text(groups, columns, body, note, set())


def _count(number_of: int | None) -> str:
    return "--" if number_of is None else f"{number_of:,}"


def _latex(cells: Iterable[Cell | None]) -> list[str]:
    return ["--" if cell is None else number(cell.mean).removeprefix("0") for cell in cells]
