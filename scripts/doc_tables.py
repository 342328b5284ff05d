"""What the tables of the documents are made of: names of recipes in words, numbers, and rows in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NAMES = {
    "popularity": "Popularity",
    "itemknn": "ItemKNN",
    "p3": "P3",
    "rp3beta": "RP3beta",
    "ease": "EASE",
    "content-knn": "content kNN",
    "mf": "MF, ids alone",
    "vbpr": "VBPR",
    "bm3": "BM3",
    "freedom": "FREEDOM",
    "freedom-softmax": "FREEDOM, trained as MetaMMF",
    "lattice": "LATTICE",
    "mgcn": "MGCN",
    "mgcn-softmax": "MGCN, trained as MetaMMF",
    "mmhcl": "MMHCL",
    "diffmm": "DiffMM",
    "ngcf": "NGCF, ids alone",
    "grcn": "GRCN",
    "mmgcn": "MMGCN",
    "graphsage": "GraphSAGE, ids alone",
    "gat": "GAT, ids alone",
    "invrl": "InvRL",
    "ultragcn": "UltraGCN, ids alone",
    "lightgcn": "LightGCN, ids alone",
    "static-mf": "static twin of MetaMMF_MF",
    "metammf-mf": "MetaMMF_MF",
    "metammf-mf-large": "MetaMMF_MF for large logs",
    "static-gcn": "static twin of MetaMMF_GCN",
    "metammf-gcn": "MetaMMF_GCN",
    "metammf-gcn-large": "MetaMMF on LightGCN for large logs",
    "static-lightgcn": "static twin of MetaMMF on LightGCN",
    "metammf-lightgcn": "MetaMMF on LightGCN",
    "metammf-wide": "MetaMMF on LightGCN, 192 wide",
    "lightgcn-cold": "LightGCN, ids alone, cold recipe",
    "static-cold": "static twin of MetaMMF on LightGCN",
    "metammf-cold-cp": "MetaMMF on LightGCN, CP",
    "metammf-cold": "MetaMMF on LightGCN, dense",
}
"""Recipe -> what people read, in the order of the tables."""
_STATIC = "model.fusion=concat"
_PLACEBOS = {"noise": ", features replaced by noise", "shuffle": ", features shuffled among items"}


def label(name: str) -> str:
    """Return a model's name in words: its recipe, and behind it what was changed of that."""
    recipe, *changes = name.split("+")
    words = NAMES.get(recipe, recipe)
    if recipe.startswith("metammf-") and _STATIC in changes:  # as the recipes of static twins are called
        changes.remove(_STATIC)
        words = f"static twin of {words}"
    settings = [change.partition("=")[0].rpartition(".")[2] + "=" + change.partition("=")[2] for change in changes]
    kept = [setting for setting, change in zip(settings, changes, strict=True) if change not in _PLACEBOS]
    words += f" ({', '.join(kept)})" if kept else ""
    return words + "".join(_PLACEBOS.get(change, "") for change in changes)


def decimals(mean: float, deviation: float | None = None) -> str:
    """Return a metric as tables print it, with its deviation where there is one: ``.0485 ± .0012``."""
    text = f"{mean:.4f}".removeprefix("0")
    return text if deviation is None else f"{text} ± {f'{deviation:.4f}'.removeprefix('0')}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table whose first column stands to the left and all others to the right, and a blank line."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]
