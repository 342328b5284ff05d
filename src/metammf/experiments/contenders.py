"""Who takes part in a comparison: recipes, with settings changed or features replaced.

A model is asked for as ``RECIPE`` or ``RECIPE+CHANGE+CHANGE``. A change is ``SECTION.KEY=VALUE``, as of ``--set``, or a placebo:
``vbpr+noise``, ``metammf-lightgcn+model.fusion=dense``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from metammf.data.features import Placebo
from metammf.errors import ConfigError, did_you_mean
from metammf.experiments.comparison_results import LeftOut
from metammf.experiments.config import RunConfig, merge, parse_settings
from metammf.experiments.search_space import is_solved, search_space, with_settings
from metammf.models.registry import reads_content

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from metammf.data.dataset import Dataset
    from metammf.experiments.comparison_results import SearchedSetting
    from metammf.experiments.config import SplitConfig
    from metammf.experiments.profiles import Profile

_OUTSIDE_BRACKETS = re.compile(r",(?![^\[]*\])")
_PATHS = " (the path of a recipe cannot hold a + or a comma here: copy it to one that does not)"
_PLACEBOS: tuple[str, ...] = get_args(Placebo)


@dataclass(frozen=True)
class Contender:
    """One model of a comparison, before anything is trained.

    Args:
        name: As it was asked for.
        recipe: The recipe's name or file.
        overrides: Dotted key -> value, on top of the recipe's.
        config: All of it, under the profile's split and metric.
        space: Dotted key -> what a search moves.
    """

    name: str
    recipe: str
    overrides: Mapping[str, Any]
    config: RunConfig
    space: Mapping[str, SearchedSetting]

    @property
    def folder(self) -> str:
        """A folder's name."""
        return re.sub(r"[^\w.=-]+", "-", self.name).strip("-.") or "model"

    @property
    def solved(self) -> bool:
        """Whether it is solved in closed form: it draws nothing, unless a placebo is drawn for it."""
        return is_solved(self.config)

    @property
    def drawn(self) -> bool:
        """Whether another seed may come to something else."""
        return not self.solved or self.config.placebo in ("noise", "shuffle")

    @property
    def content(self) -> bool:
        """Whether it reads item content."""
        return reads_content(self.config.model.name)


def split_names(words: Iterable[str]) -> list[str]:
    """Return the names that words hold, separated by commas; a comma within brackets is part of a value.

    Raises:
        ConfigError: there is none, or one comes twice.
    """
    names = [name.strip() for word in words for name in _OUTSIDE_BRACKETS.split(word) if name.strip()]
    if not names:
        raise ConfigError("--models names no model: give recipes, separated by commas")
    for place, name in enumerate(names):
        if name in names[:place]:
            raise ConfigError(f"--models names {name!r} twice")
    return names


def contenders(
    names: Sequence[str],
    profile: Profile,
    split: SplitConfig,
    settings: Mapping[str, Any] | None = None,
    modalities: Collection[str] | None = None,
) -> tuple[Contender, ...]:
    """Return who takes part.

    Args:
        names: As asked for.
        profile: Its metric chooses epochs and settings.
        split: What the profile makes of the data set; a recipe's own has no say.
        settings: Dotted key -> value, on top of every recipe's.
        modalities: Those of the data set: what does nothing without one of them is then not searched.

    Raises:
        ConfigError: there is no such recipe or setting, a value does not fit, or two names would share a folder.
    """
    found = tuple(_contender(name, profile, split, settings or {}, modalities) for name in names)
    folders: dict[str, str] = {}
    for one in found:
        if one.folder in folders:
            raise ConfigError(f"{folders[one.folder]!r} and {one.name!r} would share the folder {one.folder}")
        folders[one.folder] = one.name
    return found


def left_out(contender: Contender, dataset: Dataset) -> LeftOut | None:
    """Say why a data set cannot serve a model, if it cannot."""
    if dataset.features.modalities or not contender.content:
        return None
    return LeftOut(contender.name, f"it reads item content, and {dataset.name} has no features")


def _contender(
    name: str,
    profile: Profile,
    split: SplitConfig,
    settings: Mapping[str, Any],
    modalities: Collection[str] | None,
) -> Contender:
    recipe, *changes = name.split("+")
    placebos = [change for change in changes if change in _PLACEBOS]
    if len(placebos) > 1:
        raise ConfigError(f"{name!r}: the features can be replaced once, got {' and '.join(placebos)}")
    pairs = [change for change in changes if change not in _PLACEBOS]
    for pair in pairs:
        if "=" not in pair:
            raise ConfigError(
                f"{name!r}: {pair!r} is neither SECTION.KEY=VALUE nor a placebo"
                f"{did_you_mean(pair, _PLACEBOS)}; placebos: {', '.join(_PLACEBOS)}{_PATHS if '.toml' in name else ''}"
            )
    keys = [pair.partition("=")[0].strip() for pair in pairs]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise ConfigError(f"{name!r}: {', '.join(twice)} is set twice")
    overrides = {**settings, **parse_settings(pairs)}
    fixed = sorted(key for key in overrides if key.startswith("split.") or key == "training.metric")
    if fixed:
        raise ConfigError(f"{name!r}: {', '.join(fixed)} is the profile's to say")
    try:
        config = merge(recipe, overrides, {"placebo": placebos[0] if placebos else None}).config
    except ConfigError as error:
        if not overrides:
            raise
        raise ConfigError(f"{name!r}: {error}") from error
    if config.refit:
        raise ConfigError(f"{name!r}: a model that is refitted on validation cannot be compared")
    if placebos and not reads_content(config.model.name):
        raise ConfigError(f"{name!r}: a placebo replaces features, and {config.model.name} reads none")
    config = with_settings(config, {"training.metric": profile.chosen_by, "split": split.model_dump(), "seed": 0})
    return Contender(name, recipe, overrides, config, search_space(config, overrides, modalities))
