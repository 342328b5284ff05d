"""The demo's results as one HTML file that needs no network: text, tables and interactive figures."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from metammf.evaluation.significance import RESAMPLES, least_p
from metammf.report import figures, words
from metammf.report.palette import model_colours
from metammf.report.shell import render

if TYPE_CHECKING:
    from collections.abc import Mapping

METRICS = ("ndcg@20", "recall@20", "ndcg@10", "recall@10")

Figures = dict[str, Any]


def render_page(results: Mapping[str, Any]) -> str:
    """Return the page that shows `results`, what results.json of a demo holds.

    Raises:
        MissingExtraError: the extra ``report`` is not installed.
    """
    figures.require_extra("the report")
    charts, tests = _figures(results), _tests(results)
    return render(
        "report.html.jinja",
        charts,
        results=results,
        version=results["environment"]["packages"]["metammf"],
        headline=words.headline(results),
        findings=words.findings(results),
        cards=words.cards(results),
        metric=words.metric_name(results["metric"]),
        tables=_tables(results),
        tests=tests,
        recovery=_recovery(results),
        map_panels=_panels(results),
        placebo_runs=min((len(one["runs"]) for one in results["models"] if one["role"] == "placebo"), default=0),
        commands=_commands(results),
        table_names=words.TABLE_NAMES,
        resamples=RESAMPLES,
        least_p=words.least(least_p(len(tests))),
    )


def _labels(results: Mapping[str, Any], *roles: str) -> dict[str, str]:
    return {model["key"]: model["label"] for model in results["models"] if model["role"] in roles}


def _figures(results: Mapping[str, Any]) -> Figures:
    charts: Figures = {}
    every = _labels(results, "dynamic", "static", "control", "placebo")
    fusions = _labels(results, "dynamic", "static")
    metric = words.metric_name(results["metric"])
    for table in words.TABLE_NAMES:
        rows = _bars(results, table)
        if rows:
            charts[f"bars-{table}"] = figures.metric_chart(rows, every, metric)
    charts["differences"] = figures.difference_chart(
        _differences(results), list(words.TABLE_NAMES.values()), title=f"{metric}, dynamic − static"
    )
    curves = _curves(results, fusions)
    charts["curve-metric"] = figures.curves_chart(curves, fusions, "metric", f"{metric} on validation")
    charts["curve-loss"] = figures.curves_chart(curves, fusions, "loss", "training loss")
    for model in results["models"]:
        if model["key"] in fusions:
            bins, colour = model["recovery"]["bins"], model_colours([model["key"]])[0]
            charts[f"recovery-{model['key']}"] = figures.recovery_chart(bins, colour)
    modalities = [one["name"] for one in results["world"]["modalities"]]
    for key, panel in results["map"]["panels"].items():
        charts[f"map-{key}"] = figures.map_chart(map_points(results["map"], panel), modalities)
    return charts


def _bars(results: Mapping[str, Any], table: str) -> figures.Rows:
    rows = []
    for model in results["models"]:
        cell = words.of_table(model, table).get(results["metric"])
        if cell is not None:
            span = {"low": cell["mean"] - cell["std"], "high": cell["mean"] + cell["std"]}
            rows.append({"label": model["label"], **cell, **span, "placebo": model["role"] == "placebo"})
    return rows


def _differences(results: Mapping[str, Any]) -> figures.Rows:
    labels = _labels(results, "dynamic", "static")
    return [
        {
            "label": f"{labels[row['model']]} − {labels[row['other']]}",
            "key": row["model"],
            "table": words.TABLE_NAMES[row["table"]],
            "significant": words.verdict(row) != "level",
            "p": row["p_adjusted"],
            **{name: row[name] for name in ("difference", "low", "high")},
        }
        for row in results["comparisons"]
        if row["against"] == "static"
    ]


def _curves(results: Mapping[str, Any], labels: Mapping[str, str]) -> figures.Rows:
    return [
        {
            "label": labels[model["key"]],
            "seed": run["seed"],
            "epoch": one["epoch"],
            "metric": one["metric"],
            "loss": round(one["loss"], 5),
            "chosen": one["epoch"] == run["epoch"],
        }
        for model in results["models"]
        if model["key"] in labels
        for run in model["runs"]
        for one in run["curve"]
    ]


def map_points(plane: Mapping[str, Any], panel: Mapping[str, Any]) -> figures.Rows:
    """Return one row a clip of a panel of the map: where it lies, and what carries it."""
    columns = {
        "item": plane["items"],
        "title": plane["titles"],
        "modality": plane["dominant"],
        "weight": plane["weight"],
    }
    columns |= {"x": panel["x"], "y": panel["y"]}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _tables(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a model, each cell with what it sorts by and whether it is the best of its column."""
    columns = [(table, results["metric"]) for table in words.TABLE_NAMES]
    columns.insert(1, ("all", "recall@20"))
    real = [model for model in results["models"] if model["role"] != "placebo"]
    best = {}
    for table, metric in columns:
        means = [there[metric]["mean"] for model in real if (there := words.of_table(model, table))]
        best[table, metric] = max(means, default=None)
    rows = []
    for model in results["models"]:
        cells = []
        for table, metric in columns:
            cell = words.of_table(model, table).get(metric)
            top = cell is not None and model["role"] != "placebo" and cell["mean"] == best[table, metric]
            cells.append({"shown": cell, "value": cell["mean"] if cell else -1, "best": top})
        rows.append({"model": model, "colour": model_colours([model["key"]])[0], "cells": cells})
    return rows


def _tests(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    labels = {model["key"]: model["label"] for model in results["models"]}
    return [
        {
            "row": row,
            "pair": f"{labels[row['model']]} − {labels[row['other']]}",
            "table": words.TABLE_NAMES[row["table"]],
            "difference": words.signed(row["difference"]),
            "interval": f"{words.signed(row['low'])} to {words.signed(row['high'])}",
            "change": words.change(row),
            "verdict": words.verdict(row),
            "p": words.p_value(row["p_adjusted"]).removeprefix("p\u00a0").removeprefix("=\u00a0"),
        }
        for row in results["comparisons"]
    ]


def _recovery(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"model": model, "found": model["recovery"]} for model in results["models"] if model["recovery"]]


def _commands(results: Mapping[str, Any]) -> list[str]:
    """What a reader may want to type next, from where the demo was run."""
    metric = results["metric"]
    dynamic = [model for model in results["models"] if model["role"] == "dynamic"]
    best = max(dynamic, key=lambda model: float(model["tables"]["all"][metric]["mean"]))
    run = f"runs/{best['key']}-{results['seed']}"
    item = results["map"]["items"][0]
    return [
        f"cd {shlex.quote(results['folder'])}",
        f"metammf recommend {run} --user 1 -k 10",
        f"metammf similar {run} --item {item}",
        f"metammf explain {run} --item {item} --out why.svg",
    ]


def _panels(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    labels = _labels(results, "dynamic", "static")
    return [{"key": key, "label": labels[key], **panel} for key, panel in results["map"]["panels"].items()]
