"""Figures that others have published, to be laid beside a comparison's own: a small CSV a profile, or one of the user's."""

from __future__ import annotations

import csv
import re
from importlib import resources
from typing import TYPE_CHECKING

from metammf.errors import FileFormatError
from metammf.experiments.comparison_results import PublishedFigure

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from metammf.data.splitting import Split

COLUMNS = ("model", "metric", "value", "picked_on", "source")
_METRIC = re.compile(r"[a-z_]+@[1-9][0-9]*")
_OF_SPLIT = {"hkuds-tiktok": (9_308, 6_710, 59_541, 3_051, 6_130)}
"""Users, items, train, validation and test interactions of the split that a profile's figures were measured on."""


def read_published(path: Path) -> tuple[PublishedFigure, ...]:
    """Read a CSV with the columns `COLUMNS`.

    Raises:
        FileFormatError: the file cannot be read, lacks a column, holds a value that is no figure, or two values of one model,
            metric and source; names the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:  # spreadsheets put a mark before UTF-8
            return tuple(_rows(stream, str(path)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileFormatError(path, f"cannot be read ({error})", "a CSV of published figures") from error


def is_elsewhere(profile: str, split: Split) -> bool:
    """Whether a profile that is named for one data set's split is asked for on another."""
    return profile in _OF_SPLIT and _OF_SPLIT[profile] != _counts(split)


def published_for(profile: str, split: Split) -> tuple[PublishedFigure, ...]:
    """Return the figures that ship for a profile, where the split is the one that they were measured on."""
    if profile not in _OF_SPLIT or is_elsewhere(profile, split):
        return ()
    name = f"{profile}.csv"
    text = resources.files("metammf.experiments").joinpath("published_figures", name).read_text(encoding="utf-8")
    return tuple(_rows(text.splitlines(), name))


def _counts(split: Split) -> tuple[int, ...]:
    return (
        split.catalog.num_users,
        split.catalog.num_items,
        len(split.train),
        len(split.validation),
        len(split.test),
    )


def _rows(lines: Iterable[str], path: str) -> list[PublishedFigure]:
    reader = csv.DictReader(lines)
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise FileFormatError(path, f"lacks the columns {', '.join(missing)}", ", ".join(COLUMNS))
    found: dict[tuple[str, ...], PublishedFigure] = {}
    for row in reader:
        figure = _figure(row, reader.line_num, path)
        before = found.setdefault((figure.model, figure.metric, figure.source, figure.picked_on), figure)
        if before.value != figure.value:
            what = f"another {figure.metric} of {figure.model} than a line before: {figure.value}"
            raise FileFormatError(path, f"row {reader.line_num} holds {what}", f"{before.value}, or another source")
    return list(found.values())


def _figure(row: dict[str, str | None], number: int, path: str) -> PublishedFigure:
    cells = {name: (row[name] or "").strip() for name in COLUMNS}
    try:
        value = float(cells["value"])
        if not 0 <= value <= 1:
            raise ValueError
    except ValueError as error:
        raise FileFormatError(
            path, f"row {number}, column 'value' is {cells['value']!r}", "a number from 0 to 1"
        ) from error
    if not cells["model"] or not _METRIC.fullmatch(cells["metric"]):
        raise FileFormatError(path, f"row {number} names no model, or no metric such as recall@20", "both")
    return PublishedFigure(cells["model"], cells["metric"], value, cells["source"], cells["picked_on"])
