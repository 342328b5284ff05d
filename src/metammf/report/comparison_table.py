"""The main table of a comparison: its columns, its cells, what is best and what a test cannot tell from it; as CSV and LaTeX."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metammf.report.names import labels
from metammf.report.tables import TABLE_TITLES, Cell, counted, csv_text, escaped, latex_text, of_metric
from metammf.report.words import LEVEL, metric_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from metammf.experiments.comparison_results import ComparisonResults, ModelResult, PairTest, PublishedFigure

_DYNAMIC = ("cp", "dense")
_SAME = {"mfbpr": "mf", "bprmf": "mf"}
"""What papers call a recipe of ours that has another name here."""


@dataclass(frozen=True)
class Column:
    """One metric of one table."""

    table: str
    metric: str


@dataclass(frozen=True)
class Entry:
    """What stands in a column of a model's row.

    Args:
        cell: Mean and deviation; None where there is nothing.
        best: Whether it is the best of the column, placebos apart; none is where all of them are at 0.
        level: Whether the paired test cannot tell it from the best.
        tested: Whether there is such a test.
    """

    cell: Cell | None
    best: bool
    level: bool
    tested: bool


@dataclass(frozen=True)
class Line:
    """A model's row.

    Args:
        model: The model.
        kind: Of `metammf.report.palette.KINDS`.
        entries: One a column.
        over_best: How far it is from the best other by the main metric, in percent.
        published: What others have published of its paper's model: metric -> figure, all of one source.
    """

    model: ModelResult
    kind: str
    entries: tuple[Entry, ...]
    over_best: float | None
    published: Mapping[str, PublishedFigure]


def main_metric(results: ComparisonResults) -> str:
    """The metric that figures and words are about: NDCG@20 where it was tested, else the last that was."""
    tested = results.profile.tested or (results.profile.chosen_by,)
    return "ndcg@20" if "ndcg@20" in tested else tested[-1]


def kind_of(model: ModelResult) -> str:
    """The kind of a model, for its colour."""
    if model.placebo is not None:
        return "placebo"
    if model.model == "metammf":
        # Its static fusions are the control that says what the dynamic ones add.
        return "MetaMMF" if model.config["model"].get("fusion") in _DYNAMIC else "static fusion"
    return "with content" if model.content else "ids alone"


def ranked(results: ComparisonResults) -> list[ModelResult]:
    """The models, the best on validation first: the test part has no say in the order."""
    return sorted(results.models, key=lambda one: -one.validation(results.profile.chosen_by))


def columns(results: ComparisonResults) -> list[Column]:
    """All metrics over all items, those that were tested on cold ones, and on cold users."""
    profile = results.profile
    shown = [name for name in profile.metrics if name in ("recall", "ndcg")] or list(profile.metrics)
    every = [Column("all", f"{name}@{k}") for k in profile.ks for name in shown]
    apart = ("cold among all", "cold among cold", "cold users")
    cold = [Column(table, metric) for table in apart for metric in profile.tested]
    there = {table for model in results.models for seed in model.seeds for table, found in seed.test.items() if found}
    return [column for column in (*every, *cold) if column.table in there]


def lines(results: ComparisonResults) -> list[Line]:
    """The rows."""
    shown, models = columns(results), ranked(results)
    real = [model for model in models if model.placebo is None]
    tests = {(test.metric, test.table, frozenset((test.a, test.b))): test for test in results.tests}
    best = {column: _best(real, column) for column in shown if real}
    metric = main_metric(results)
    over = {one.model: one.percent for one in results.improvements if (one.metric, one.table) == (metric, "all")}
    published = _published(results)
    return [
        Line(
            model,
            kind_of(model),
            tuple(_entry(model, column, best.get(column), tests) for column in shown),
            over.get(model.name),
            published.get(_paper(model) or "", {}),
        )
        for model in models
    ]


def _best(models: list[ModelResult], column: Column) -> str | None:
    best = max(models, key=lambda one: one.mean(column.metric, column.table) or 0.0)
    return best.name if best.mean(column.metric, column.table) else None


def _entry(
    model: ModelResult, column: Column, best: str | None, tests: dict[tuple[str, str, frozenset[str]], PairTest]
) -> Entry:
    test = tests.get((column.metric, column.table, frozenset((model.name, best)))) if best else None
    level = test is not None and test.p_holm >= LEVEL
    return Entry(of_metric(model.seeds, column.metric, column.table), model.name == best, level, test is not None)


def published_only(results: ComparisonResults) -> list[dict[str, Any]]:
    """What others have published of models that are not in here, one row a model and source."""
    known = {_paper(model) for model in results.models}
    rows: dict[tuple[str, str, str], dict[str, float]] = {}
    for one in results.published:
        if _plain(one.model) not in known:
            rows.setdefault((one.model, one.source, one.picked_on), {})[one.metric] = one.value
    return [
        {"model": model, "source": source, "picked_on": picked, "values": values}
        for (model, source, picked), values in rows.items()
    ]


def _published(results: ComparisonResults) -> dict[str, dict[str, PublishedFigure]]:
    """Plain name -> metric -> figure, of the source that comes first where there are several."""
    found: dict[str, dict[str, PublishedFigure]] = {}
    for one in results.published:
        figures = found.setdefault(_plain(one.model), {})
        if all(other.source == one.source for other in figures.values()):
            figures.setdefault(one.metric, one)
    return found


def _paper(model: ModelResult) -> str | None:
    """The plain name that others would call a model by, settings changed or not; None for a placebo, which is nobody's."""
    return None if model.placebo else _plain(model.recipe)


def _plain(name: str) -> str:
    """A name as it is compared: ItemKNN, item-knn and itemknn are one."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return _SAME.get(plain, plain)


def trials_told(model: ModelResult) -> str:
    """How many trials a model had and, in brackets, how many of them ended: ``14 (11)``."""
    return f"{len(model.trials)} ({model.num_ended})"


def chosen_told(model: ModelResult) -> str:
    """The trial whose settings a model has: ``no. 0`` is the recipe."""
    return f"no. {model.chosen_trial}"


def main_csv(results: ComparisonResults) -> str:
    """The main table as CSV: a mean and a deviation a column, and what each run cost."""
    shown, metric = columns(results), main_metric(results)
    called = labels(model.name for model in results.models)
    heads = ["model", "label", "kind", f"validation {results.profile.chosen_by}"]
    heads += [f"{column.metric} {column.table} {what}" for column in shown for what in ("mean", "std")]
    heads += [
        "percent over best other",
        "published",
        "parameters",
        "seconds per epoch",
        "peak MiB",
        "settings searched",
        "trials",
        "trials_ended",
        "chosen_trial",
    ]
    rows = []
    for line in lines(results):
        model = line.model
        cells = [part for one in line.entries for part in ((one.cell.mean, one.cell.std) if one.cell else (None, None))]
        costs = [_most(one.seconds_per_epoch for one in model.seeds), _most(one.peak_mib for one in model.seeds)]
        rows.append(
            [
                model.name,
                called[model.name],
                line.kind,
                model.validation(results.profile.chosen_by),
                *cells,
                line.over_best,
                line.published[metric].value if metric in line.published else None,
                model.parameters,
                *costs,
                len(model.space),
                len(model.trials),
                model.num_ended,
                model.chosen_trial,
            ]
        )
    return csv_text(heads, rows)


def _most(values: Any) -> float | None:
    return max((value for value in values if value is not None), default=None)


def main_latex(results: ComparisonResults) -> str:
    """The main table as LaTeX, with booktabs; the last row says how far MetaMMF is from the best other."""
    shown, rows = columns(results), sorted(lines(results), key=lambda line: line.kind == "placebo")
    tables = list(dict.fromkeys(column.table for column in shown))
    groups = [(TABLE_TITLES[table], sum(column.table == table for column in shown)) for table in tables]
    called = labels(model.name for model in results.models)
    body = [[escaped(called[line.model.name]), *(_latex_cell(entry) for entry in line.entries)] for line in rows]
    rules = {
        place
        for place, line in enumerate(rows)
        if place and (line.kind == "placebo") != (rows[place - 1].kind == "placebo")
    }
    ours = next((line.model.name for line in rows if line.kind == "MetaMMF"), None)
    if ours is not None:
        percent = {(one.table, one.metric): one.percent for one in results.improvements if one.model == ours}
        rules.add(len(body))
        body.append([rf"{escaped(called[ours])}, \%", *(_percent(percent.get((at.table, at.metric))) for at in shown)])
    note = (
        f"{results.data.name}, profile {results.profile.name}, {counted(len(results.budget.seeds), 'means and deviations')}.\n"
        "Bold: best of the column, placebos apart. Dagger: a paired test, corrected by Holm, cannot tell it from the best;\n"
        f"columns that were not tested have none: tested were {', '.join(map(metric_name, results.profile.tested))}.\n"
        f"{results.command}"
    )
    return latex_text(groups, ["Model", *(metric_name(column.metric) for column in shown)], body, note, rules)


def _latex_cell(entry: Entry) -> str:
    if entry.cell is None:
        return "--"
    number = f"{entry.cell.mean:.4f}".removeprefix("0")
    text = rf"\textbf{{{number}}}" if entry.best else number
    if entry.level and not entry.best:
        text += r"$^\dagger$"
    return (
        text if entry.cell.std is None else rf"{text} {{\scriptsize $\pm$ {entry.cell.std:.4f}}}".replace(" 0.", " .")
    )


def _percent(value: float | None) -> str:
    return "--" if value is None else f"${value:+.1f}$"


def settings_text(settings: Any) -> str:
    """Settings as they are typed: KEY=VALUE, by their last name."""
    return ", ".join(f"{key.rpartition('.')[2]}={_short(value)}" for key, value in settings.items())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
