"""Colours and marks, the same in every figure: told apart by colour-blind readers, on light and on dark grounds.

After Okabe and Ito, Color Universal Design, 2008. A backbone has a hue, its dynamic fusion the strong tone and its static twin
the light one; controls are grey. Modalities have hues of their own and a shape each.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MODELS = {
    "metammf-gcn": "#0072B2",
    "static-gcn": "#56B4E9",
    "metammf-mf": "#D55E00",
    "static-mf": "#E69F00",
    "ease": "#6E6E6E",
    "popularity": "#A0A0A0",
}
KINDS = {
    "MetaMMF": "#0072B2",
    "static fusion": "#56B4E9",
    "with content": "#D55E00",
    "ids alone": "#6E6E6E",
    "placebo": "#C9B26B",
    "published": "#A0A0A0",
}
"""Kind of a model in a comparison -> colour."""
TABLES = {"all": "#0072B2", "cold among all": "#D55E00"}
"""Table of test metrics -> colour, where a figure shows several."""
_FURTHER = ("#0072B2", "#D55E00", "#56B4E9", "#E69F00", "#6E6E6E", "#A0A0A0")
_MODALITIES = ("#009E73", "#CC79A7", "#A88B00", "#5E60CE", "#B5523B", "#5B8C9E")
_BESIDE_PLACEBO = "#A88B00"
"""The hue that is hard to tell from the placebo's."""
_KNOWN = ("visual", "acoustic", "textual")
"""Modalities with a place of their own among hues and marks, whichever others are shown and in whatever order."""
_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")


def model_colours(keys: Iterable[str]) -> list[str]:
    """Return a colour for each model; a placebo has that of the model it stands beside."""
    found = []
    for place, key in enumerate(keys):
        found.append(MODELS.get(key.removesuffix("-noise"), _FURTHER[place % len(_FURTHER)]))
    return found


def series_colours(series: Sequence[str]) -> list[str]:
    """Return a colour for each line or kind of a figure: its own where it has one, else by its place."""
    fixed = {**KINDS, "dynamic": "#0072B2", "CP": "#0072B2", "static": "#E69F00", "dense": "#D55E00"}
    hues = [hue for hue in (*_MODALITIES, *_FURTHER) if "placebo" not in series or hue != _BESIDE_PLACEBO]
    return [fixed.get(name, hues[place % len(hues)]) for place, name in enumerate(series)]


def modality_colours(modalities: Sequence[str]) -> list[str]:
    """Return a colour for each modality: its own where it is one of the usual three, else the next that is free."""
    return [_MODALITIES[place % len(_MODALITIES)] for place in _places(modalities)]


def modality_shapes(modalities: Sequence[str]) -> list[str]:
    """Return a mark for each modality in the same way; two that share a colour, since there are many, have marks apart."""
    # A step further in every round.
    return [_SHAPES[(place + place // len(_MODALITIES)) % len(_SHAPES)] for place in _places(modalities)]


def _places(modalities: Sequence[str]) -> list[int]:
    own = {name: place for place, name in enumerate(_KNOWN) if name in modalities}
    free = (place for place in itertools.count() if place not in own.values())
    return [own[name] if name in own else next(free) for name in modalities]
