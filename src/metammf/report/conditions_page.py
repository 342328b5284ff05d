"""The study of conditions as a small HTML page that needs no network, its table as CSV and LaTeX, and its figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from metammf.experiments.conditions_results import exact
from metammf.report import comparison_figures as draw
from metammf.report.comparison_page import told_test
from metammf.report.comparison_table import settings_text
from metammf.report.figures import require_extra
from metammf.report.palette import TABLES
from metammf.report.shell import render
from metammf.report.study_page import PAGE, TABLE_CSV, TABLE_LATEX, write_files
from metammf.report.tables import TABLE_TITLES, Cell, csv_text, escaped, latex_text, of_metric, of_values
from metammf.report.words import ONE_SEED, listed, metric_name, number, p_value, signed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from metammf.experiments.comparison_results import DataSummary
    from metammf.experiments.conditions_results import AxisResult, ConditionResult, ConditionsResults, Gain

_FIGURE_WIDTH = 430
_TABLES = ("all", "cold among all")
_ROLES = ("dynamic", "static", "noise")
_REAL = "real"


def write_conditions(results: ConditionsResults, folder: Path | str) -> Path:
    """Write page, tables and figure into a folder, each atomically, and return the page's path.

    Raises:
        MissingExtraError: the extra ``report`` is not installed.
        WriteError: a file cannot be written.
    """
    texts = {
        PAGE: conditions_page(results),
        TABLE_CSV: conditions_csv(results),
        TABLE_LATEX: conditions_latex(results),
    }
    return write_files(Path(folder), texts, results.tests, conditions_figure(results))


def conditions_page(results: ConditionsResults) -> str:
    """Return the page.

    Raises:
        MissingExtraError: the extra ``report`` is not installed.
    """
    charts = _charts(results, "container")
    labels = {row.key: f"{one.label}: {role}" for one in results.conditions for role, row in one.models.items()}
    return render(
        "conditions.html.jinja",
        charts,
        results=results,
        version=results.environment["packages"]["metammf"],
        findings=findings(results),
        titles=_titles(results),
        tables=[TABLE_TITLES[table] for table in _TABLES],
        roles=_ROLES,
        blocks=[
            (metric_name(metric), [_line(one, results, metric) for one in results.conditions])
            for metric in results.metrics
        ],
        worlds=any(one.world for one in results.conditions),
        real=any(one.world is None for one in results.conditions),
        trials=[
            (one.label, role, trial, settings_text(trial.settings), trial.settings == row.chosen)
            for one in results.conditions
            for role, row in one.models.items()
            for trial in row.trials
        ],
        recipes=_recipes(results),
        tests=[told_test(test, labels) for test in results.tests],
    )


def conditions_figure(results: ConditionsResults) -> Any:
    """The figure as one chart of fixed width, for a file of its own.

    Raises:
        MissingExtraError: the extra ``report`` is not installed.
    """
    require_extra("a figure")
    import altair as alt

    titles = _titles(results)
    charts = [chart.properties(title=titles[name]) for name, chart in _charts(results, _FIGURE_WIDTH).items()]
    pairs = [alt.hconcat(*charts[start : start + 2]) for start in range(0, len(charts), 2)]
    return alt.vconcat(*pairs, title=results.title)


def findings(results: ConditionsResults) -> list[str]:
    """What was found, a sentence or two each; they read right whatever it was."""
    found = [ONE_SEED] if len(results.seed_numbers) == 1 else []
    found += [_counted(results, table) for table in _TABLES]
    for axis in results.axes:
        found += [
            f"{axis.title.capitalize()}, {TABLE_TITLES[table].lower()}: {listed(told)}."
            for table in _TABLES
            if (told := [_at(results, one, table, f"at {exact(_value(one, axis))}") for one in _on(results, axis)])
        ]
    for one in results.conditions:
        if one.world is None:
            told = [_at(results, one, table, f"on {TABLE_TITLES[table].lower()}") for table in _TABLES]
            found.append(f"{one.label}: {listed(told)}.")
    found += [_counted(results, table, "noise") for table in _TABLES]
    failed = [row for one in results.conditions for row in one.models.values() if row.failed is not None]
    return [sentence for sentence in found if sentence] + [f"{row.label} failed: {row.failed}" for row in failed]


def _counted(results: ConditionsResults, table: str, over: str = "static") -> str:
    gains = [gain for one in results.conditions if (gain := results.gain(one, table, over)) is not None]
    if not gains:
        return ""
    verdicts = [_told(gain)["verdict"] for gain in gains]
    says = {"ahead": "ahead", "behind": "behind", "level": "not to be told from it"}
    parts = [f"{phrase} in {verdicts.count(kind)}" for kind, phrase in says.items() if kind in verdicts]
    other = "its static twin" if over == "static" else "itself fed noise"
    metric = metric_name(results.metric)
    return f"{TABLE_TITLES[table]}, {metric}: against {other}, dynamic fusion is {listed(parts)} of {len(gains)} conditions."


def _at(results: ConditionsResults, one: ConditionResult, table: str, where: str) -> str:
    gain = results.gain(one, table)
    if gain is None:
        return f"nothing to test {where}"
    test = gain.test
    percent = "" if test.improvement_percent is None else f", {test.improvement_percent:+.1f}%".replace("-", "−")
    agree = f", {agreement(gain)} agree" if agreement(gain) else ""
    return f"{signed(test.difference)} {where} ({p_value(test.p_holm)}{percent}{agree})"


def agreement(gain: Gain) -> str:
    """Worlds or seeds that agree in sign with the whole: ``2 of 3``; nothing where there is one, which is the whole."""
    return f"{gain.agreeing} of {len(gain.singles)}" if len(gain.singles) > 1 else ""


def _told(gain: Gain) -> dict[str, Any]:
    """A gain as a table shows it; a verdict other than ``level`` takes the corrected test and all worlds or seeds."""
    told = told_test(gain.test)
    return told | {"verdict": told["verdict"] if gain.all_agree else "level", "agree": agreement(gain)}


def _on(results: ConditionsResults, axis: AxisResult) -> list[ConditionResult]:
    """The conditions on an axis, the default world among them, in its order."""
    there = [one for one in results.conditions if one.axis == axis.name or (one.axis is None and one.world is not None)]
    return sorted(there, key=lambda one: _value(one, axis))


def _value(one: ConditionResult, axis: AxisResult) -> float:
    return axis.default if one.value is None else one.value


def _titles(results: ConditionsResults) -> dict[str, str]:
    """Name of a panel -> its title."""
    titles = {axis.name: f"{axis.title.capitalize()} (default {exact(axis.default)})" for axis in results.axes}
    return titles | {_REAL: "Real data sets, and the default world"}


def _charts(results: ConditionsResults, width: Any) -> dict[str, Any]:
    panels: dict[str, tuple[str, list[tuple[str, ConditionResult]]]] = {}
    for axis in results.axes:
        about = ", and below it the diversity of the mixes" if axis.name == "diversity" else ""
        panels[axis.name] = (
            axis.title + about,
            [(_place(one, _value(one, axis), told=bool(about)), one) for one in _on(results, axis)],
        )
    real = [one for one in results.conditions if one.world is None]
    if real:
        default = [one for one in results.conditions if one.world is not None][:1]
        panels[_REAL] = ("", [(one.label.replace(", ", "|"), one) for one in (*real, *default)])
    span = _span(results)
    series = {TABLE_TITLES[table]: TABLES[table] for table in _TABLES}
    charts = {}
    for name, (axis_title, there) in panels.items():
        rows = [row for place, one in there for row in _points(results, place, one)]
        if not rows:
            continue
        charts[name] = draw.gains_chart(
            rows,
            [dot for place, one in there for dot in _dots(results, place, one)],
            [place for place, _ in there],
            series,
            axis_title,
            f"gain over static, {metric_name(results.metric)}",
            span=span,
            joined=name != _REAL,
            width=width,
        )
    return charts


def _place(one: ConditionResult, value: float, *, told: bool) -> str:
    diversity = of_values(one.diversity)
    return f"{exact(value)}|{diversity.mean:.2f}" if told and diversity is not None else exact(value)


def _points(results: ConditionsResults, place: str, one: ConditionResult) -> list[dict[str, Any]]:
    return [
        {
            "place": place,
            "series": TABLE_TITLES[table],
            "difference": gain.test.difference,
            "low": gain.test.low,
            "high": gain.test.high,
            "significant": _told(gain)["verdict"] != "level",
            "p": gain.test.p_holm,
            "percent": gain.test.improvement_percent,
            "agree": agreement(gain),
        }
        for table in _TABLES
        if (gain := results.gain(one, table)) is not None
    ]


def _dots(results: ConditionsResults, place: str, one: ConditionResult) -> list[dict[str, Any]]:
    """A mark for each world or seed; none where there is one, on which its mean lies."""
    gains = {table: one.gains(results.metric, table) for table in _TABLES}
    return [
        {"place": place, "series": TABLE_TITLES[table], "difference": gain}
        for table, there in gains.items()
        for gain in there
        if len(there) > 1
    ]


def _span(results: ConditionsResults) -> tuple[float, float]:
    """Ends of the axis of gains: all intervals and all worlds."""
    values = [0.0]
    for one in results.conditions:
        for table in _TABLES:
            values += one.gains(results.metric, table)
            test = results.test(one, table)
            values += [] if test is None else [test.low, test.high]
    return min(values), max(values)


def _average(measure: Callable[[DataSummary], float]) -> Callable[[ConditionResult], float | None]:
    return lambda one: _mean(of_values(measure(data) for data in one.data))


def _mean(cell: Cell | None) -> float | None:
    return None if cell is None else cell.mean


_TOLD: Mapping[str, Callable[[ConditionResult], float | None]] = {
    "data sets": lambda one: len(one.data),
    "users": _average(lambda data: data.num_users),
    "items": _average(lambda data: data.num_items),
    "interactions": _average(lambda data: data.num_interactions),
    "interactions per user": _average(lambda data: data.num_interactions / data.num_users),
    "cold items share": _average(lambda data: data.num_cold_items / data.num_items),
    "cold test share": _average(lambda data: data.num_cold_test / data.parts["test"]),
    "mix diversity": lambda one: _mean(of_values(one.diversity)),
    "spread": lambda one: _mean(of_values(one.spread)),
}
"""What describes a condition's data, as numbers."""


def _cell(one: ConditionResult, role: str, metric: str, table: str) -> Cell | None:
    return of_metric(one.models[role].seeds, metric, table) if role in one.models else None


def _line(one: ConditionResult, results: ConditionsResults, metric: str) -> dict[str, Any]:
    groups = []
    for table in _TABLES:
        gains = {over: results.gain(one, table, over, metric) for over in _ROLES[1:]}
        cells = {"cells": [_cell(one, role, metric, table) for role in _ROLES]}
        groups.append(cells | {over: None if gain is None else _told(gain) for over, gain in gains.items()})
    return {"condition": one, "told": {name: measure(one) for name, measure in _TOLD.items()}, "groups": groups}


def _recipes(results: ConditionsResults) -> list[tuple[str, str, str]]:
    """What was trained where: condition, recipe, and settings of the dynamic variant that are its own or were chosen."""
    found = []
    for one in results.conditions:
        row = one.models["dynamic"]
        found.append((one.label, row.recipe, settings_text({**row.settings, **row.chosen})))
    return found


_GAIN_HEADS = ("gain", "low", "high", "percent", "p holm", "agree")
"""Of a gain over another; ``agree`` counts the worlds or seeds that agree in sign."""


def conditions_csv(results: ConditionsResults) -> str:
    """The table as CSV: a row a condition."""
    heads = ["condition", "axis", "value", "data", "split", *_TOLD, "recipe"]
    for metric in results.metrics:
        for table in _TABLES:
            heads += [f"{metric} {table} {role} {what}" for role in _ROLES for what in ("mean", "std")]
            for over in _ROLES[1:]:
                heads += [f"{metric} {table} over {over} {what}" for what in _GAIN_HEADS]
            heads.append(f"{metric} {table} gain of each world or seed")
    return csv_text(heads, [_csv_row(one, results) for one in results.conditions])


def _csv_row(one: ConditionResult, results: ConditionsResults) -> list[Any]:
    name = one.data[0].name if one.world is None else "generated"
    row: list[Any] = [one.label, one.axis, one.value, name, one.split, *(measure(one) for measure in _TOLD.values())]
    row.append(one.models["dynamic"].recipe)
    for metric in results.metrics:
        for table in _TABLES:
            for role in _ROLES:
                cell = _cell(one, role, metric, table)
                row += [None, None] if cell is None else [cell.mean, cell.std]
            for over in _ROLES[1:]:
                row += _gain_cells(results.gain(one, table, over, metric))
            row.append(" ".join(f"{gain:+.4f}" for gain in one.gains(metric, table)))
    return row


def _gain_cells(gain: Gain | None) -> list[Any]:
    if gain is None:
        return [None] * len(_GAIN_HEADS)
    test = gain.test
    return [test.difference, test.low, test.high, test.improvement_percent, test.p_holm, agreement(gain)]


def _each(results: ConditionsResults) -> str:
    count = len(results.seed_numbers)
    return f"{count} worlds or seeds each" if count > 1 else "one world or seed each"


def conditions_latex(results: ConditionsResults) -> str:
    """The table as LaTeX, with booktabs; a gain is bold where a test tells it from nothing and all worlds or seeds agree."""
    body = []
    for one in results.conditions:
        cells = [escaped(one.label)]
        for table in _TABLES:
            means = [_cell(one, role, results.metric, table) for role in ("dynamic", "static")]
            cells += ["--" if cell is None else number(cell.mean).removeprefix("0") for cell in means]
            gain = results.gain(one, table)
            if gain is None:
                cells += ["--", "--"]
                continue
            difference = f"${gain.test.difference:+.4f}$"
            marked = _told(gain)["verdict"] != "level"
            cells += [rf"\textbf{{{difference}}}" if marked else difference, agreement(gain) or "--"]
        body.append(cells)
    groups = [(TABLE_TITLES[table], 4) for table in _TABLES]
    columns = ["Condition", *("Dynamic", "Static", "Gain", "Agree") * len(_TABLES)]
    note = f"{results.title}: {metric_name(results.metric)}, {_each(results)}\n{results.command}"
    return latex_text(groups, columns, body, note, set())
