"""What a search moves: the settings that say so themselves, around a recipe.

A setting's range stands in its own annotation (`metammf.models.config.Search`). What the recipe leaves off, by None or by zero,
stays off: a paper's model gets no part that its paper does not have. The width of the vectors is the recipe's, and what the
caller has set stays so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from metammf.experiments.comparison_results import SearchedSetting
from metammf.experiments.config import RunConfig, from_mapping
from metammf.models.base import Model
from metammf.models.config import Config, Search
from metammf.models.registry import model_type

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pydantic.fields import FieldInfo

HELD = ("model.embedding_dim",)
"""Never searched: a wider form of a model is another row of the table, as it is in the papers'."""


def search_space(
    config: RunConfig, held: Collection[str] = (), modalities: Collection[str] | None = None
) -> dict[str, SearchedSetting]:
    """Return the settings of a model, and of training where it is trained, that are worth searching.

    Args:
        config: The recipe, as merged.
        held: Dotted keys that are to stay as they are.
        modalities: Those of the data set; None where it is not known yet.

    Returns:
        Dotted key -> its range, widened to the recipe's own value where that lies outside; in the order of the configs.
    """
    sections: dict[str, Config] = {"model": config.model}
    if not is_solved(config):
        sections["training"] = config.training
    space = {}
    for section, settings in sections.items():
        for name, info in type(settings).model_fields.items():
            key, search, value = f"{section}.{name}", _search(info), getattr(settings, name)
            if search is None or key in HELD or key in held or not _at_work(search, settings, value, modalities):
                continue
            space[key] = _setting(search, value)
    return space


def is_solved(config: RunConfig) -> bool:
    """Whether the model is solved in closed form: it has no use for settings of training, and draws nothing."""
    return not issubclass(model_type(config.model.name), Model)


def with_settings(config: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """Return a config with other values of dotted keys.

    Raises:
        ConfigError: they do not fit, alone or together.
    """
    tree = config.model_dump()
    for key, value in settings.items():
        section, dot, name = key.partition(".")
        if dot:
            tree[section][name] = value
        else:
            tree[key] = value
    return from_mapping(tree)


def _search(info: FieldInfo) -> Search | None:
    """Find the range of a field, in its own annotation or in that of what it may be beside None."""
    inner = [note for part in get_args(info.annotation) for note in getattr(part, "__metadata__", ())]
    return next((note for note in [*info.metadata, *inner] if isinstance(note, Search)), None)


def _at_work(search: Search, settings: Config, value: Any, modalities: Collection[str] | None) -> bool:
    if search.when is not None:
        other, values = search.when
        if getattr(settings, other) not in values:
            return False
    if search.needs is not None and not getattr(settings, search.needs):
        return False
    if search.modality is not None and modalities is not None:
        used = getattr(settings, "modalities", None) or modalities
        if search.modality not in used or len(used) < 2:
            return False
    return bool(search.choices) or bool(value)


def _setting(search: Search, value: Any) -> SearchedSetting:
    if search.choices:
        choices = search.choices if value in search.choices else (value, *search.choices)
        return SearchedSetting(
            None, None, log=False, integer=False, choices=tuple(map(_as_kept, choices)), recipe=_as_kept(value)
        )
    low, high = min(search.low, value), max(search.high, value)
    return SearchedSetting(low, high, log=search.log, integer=isinstance(value, int), choices=(), recipe=value)


def _as_kept(value: Any) -> Any:
    """A choice as the ledger gives it back, so that one that was read is one of those that there are."""
    return list(map(_as_kept, value)) if isinstance(value, tuple | list) else value


def misfit(space: Mapping[str, SearchedSetting], settings: Mapping[str, Any]) -> str | None:
    """Say what settings of an earlier trial have that a search does not look at, or the other way round, if anything."""
    if keys := sorted(space.keys() ^ settings.keys()):
        return f"{', '.join(keys)} {'are' if len(keys) > 1 else 'is'} not in both"
    for key, one in space.items():
        value = settings[key]
        if one.choices:
            fits, range_ = value in one.choices, ", ".join(map(str, one.choices))
        else:
            assert one.low is not None
            assert one.high is not None
            fits, range_ = one.low <= value <= one.high, f"{one.low:g} to {one.high:g}"
        if not fits:
            return f"{key} was {value!r}, and is searched over {range_}"
    return None
