"""What the tables of the documents are made of: the order of recipes, numbers, and rows in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ORDER = (
    "popularity",
    "itemknn",
    "p3",
    "rp3beta",
    "ease",
    "content-knn",
    "mf",
    "vbpr",
    "bm3",
    "freedom",
    "freedom-softmax",
    "lattice",
    "mgcn",
    "mgcn-softmax",
    "mmhcl",
    "diffmm",
    "ngcf",
    "grcn",
    "mmgcn",
    "graphsage",
    "gat",
    "invrl",
    "ultragcn",
    "lightgcn",
    "static-mf",
    "metammf-mf",
    "metammf-mf-large",
    "static-gcn",
    "metammf-gcn",
    "metammf-gcn-large",
    "static-lightgcn",
    "metammf-lightgcn",
    "metammf-wide",
    "lightgcn-cold",
    "static-cold",
    "metammf-cold-cp",
    "metammf-cold",
)
"""Recipes in the order of the tables."""


def decimals(mean: float, deviation: float | None = None) -> str:
    """Return a metric as tables print it, with its deviation where there is one: ``.0485 ± .0012``."""
    text = f"{mean:.4f}".removeprefix("0")
    return text if deviation is None else f"{text} ± {f'{deviation:.4f}'.removeprefix('0')}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table whose first column stands to the left and all others to the right, and a blank line."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]
