"""What people read for a model: a recipe's label and what was changed of it, in the place of what was typed."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from metammf.experiments.config import about_recipe, recipe_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_STATIC = "model.fusion=concat"
_PLACEBOS = {
    "noise": ", features replaced by noise",
    "shuffle": ", features shuffled among items",
    "drop": ", features dropped",
}


def label(name: str) -> str:
    """Return a model's name in words: its recipe's label, and behind it what was changed of that.

    A recipe that does not ship, a file for one, is called what it was asked for as.
    """
    recipe, *changes = name.split("+")
    words = about_recipe(recipe)["label"] if recipe in recipe_names() else recipe
    if recipe.startswith("metammf-") and _STATIC in changes:  # as the recipes of static twins are called
        changes.remove(_STATIC)
        words = f"static twin of {words}"
    kept = [_setting(change) for change in changes if change not in _PLACEBOS]
    words += f" ({', '.join(kept)})" if kept else ""
    return words + "".join(_PLACEBOS.get(change, "") for change in changes)


def labels(names: Iterable[str]) -> dict[str, str]:
    """Return the label of each of several models, told apart by the name itself where two have the same."""
    found = {name: label(name) for name in names}
    times = Counter(found.values())
    return {name: words if times[words] == 1 else f"{words} [{name}]" for name, words in found.items()}


def short_name(name: str) -> str:
    """Return a model's name as it was typed, its changes by their last word: ``metammf-wide, fusion=concat``."""
    recipe, *changes = name.split("+")
    return ", ".join([recipe, *map(_setting, changes)])


def _setting(change: str) -> str:
    key, equals, value = change.partition("=")
    return key.rpartition(".")[2] + equals + value


def in_words(called: Mapping[str, str], text: str) -> str:
    """Return a sentence with each of the models that it names called as people call it: `called` is what `labels` returned."""
    if not called:
        return text
    pattern = "|".join(map(re.escape, sorted(called, key=len, reverse=True)))
    return re.sub(rf"(?<![\w+@-])(?:{pattern})(?![\w+@=-])", lambda found: called[found.group()], text)
