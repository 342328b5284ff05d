"""What a run is asked for: model, training and split, merged from defaults, a recipe and the caller's settings.

defaults < recipe < settings < named options; merged as plain mappings and validated once. Where each value came from is kept.
"""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, SerializeAsAny, field_validator

from metammf.data.features import Placebo
from metammf.data.splitting import SplitMethod
from metammf.errors import ConfigError, did_you_mean
from metammf.models.config import Config, ModelConfig
from metammf.models.registry import model_config, validated
from metammf.training.config import TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from metammf.data.dataset import Dataset
    from metammf.data.splitting import Split

SECTIONS = ("model", "training", "split")
_ABOUT = ("label", "description")
"""What a recipe says of itself, for people."""
SplitShare = Annotated[float, Field(ge=0, lt=1)]


class SplitConfig(Config):
    """How a data set is split."""

    method: SplitMethod | None = None
    """The published split where the data set carries one; otherwise a method must be named."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the methods that draw; apart from the run's seed, so that runs of several seeds share one split."""
    validation_share: SplitShare = 0.1
    """For the methods that hold out a share."""
    test_share: SplitShare = 0.1
    """Likewise."""
    cold_share: SplitShare = 0.2
    """Share of the items, or of the users, that lose their train interactions, for "cold-item" and "cold-user"."""
    history_size: Annotated[int, Field(ge=1)] = 5
    """Train interactions that a cold user comes with when it is ranked for, its first, for "cold-user"."""

    def apply(self, dataset: Dataset) -> Split:
        """Split a data set as asked."""
        options = self.model_dump(exclude={"method", "seed"})
        return dataset.split(self.method, seed=self.seed, **options)


class RunConfig(Config):
    """All that decides the outcome of a run. Device, threads and precision are not in here: they say where it runs."""

    model: SerializeAsAny[ModelConfig]
    """Which model, and its settings."""
    training: TrainingConfig = TrainingConfig()
    """How it is trained; a solved model has no use for it."""
    split: SplitConfig = SplitConfig()
    """How the data set is split."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the weights, of what training draws, and of a placebo."""
    placebo: Placebo | None = None
    """Replace the features by noise of the same shape, shuffle them across items, or drop them: what does content add?"""
    refit: bool = False
    """After the settings and the epoch are chosen, train again on train and validation together, for deployment."""

    @field_validator("model", mode="before")
    @classmethod
    def _of_its_model(cls, value: Any) -> Any:
        return model_config(value) if isinstance(value, dict) else value


@dataclass(frozen=True)
class Merged:
    """A config and where each of its values came from.

    Args:
        config: The config.
        sources: Dotted key -> "default", "recipe NAME", "--set" or the option's name.
    """

    config: RunConfig
    sources: Mapping[str, str]


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship with the package."""
    folder = resources.files("metammf.recipes")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


@functools.cache
def about_recipe(name: str) -> Mapping[str, str]:
    """Return what a recipe that ships says of itself: its ``label``, as tables and figures call it, and its ``description``."""
    text = resources.files("metammf.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    found = tomllib.loads(text)
    return {about: found[about] for about in _ABOUT}


def load_recipe(name: str) -> dict[str, Any]:
    """Read a recipe that ships with the package, or a TOML file.

    Raises:
        ConfigError: there is no such recipe, or it is not TOML, or has sections that are none.
    """
    if name in recipe_names():
        text = resources.files("metammf.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    elif name.endswith(".toml") or Path(name).is_file():
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"recipe {name}: cannot be read ({error})") from error
    else:
        hint = did_you_mean(name, recipe_names())
        raise ConfigError(
            f"unknown recipe {name!r}{hint}; `metammf recipes` lists them, and the name of a file ends in .toml"
        )
    try:
        recipe = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # tables nested too deeply, numbers with too many digits
        raise ConfigError(f"recipe {name}: not TOML ({error})") from error
    for about in _ABOUT:
        recipe.pop(about, None)
    for section, settings in recipe.items():
        if section not in SECTIONS or not isinstance(settings, dict):
            raise ConfigError(
                f"recipe {name}: unknown section {section!r}{did_you_mean(section, SECTIONS)}; there are:"
                f" {', '.join((*SECTIONS, *_ABOUT))}"
            )
    if "name" not in recipe.get("model", {}):
        raise ConfigError(f"recipe {name}: names no model (model.name)")
    return recipe


def parse_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` pairs; a value is TOML where it parses as such, else a string.

    Raises:
        ConfigError: a pair has no ``=``, or its key is of no section.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip()
        section, dot, name = key.partition(".")
        if not equals or not dot or not name:
            raise ConfigError(f"setting {pair!r}: expected SECTION.KEY=VALUE, such as model.cp_rank=32")
        if section not in SECTIONS:
            hint = did_you_mean(section, SECTIONS)
            raise ConfigError(
                f"unknown setting {key!r}{hint}: a key begins with {', '.join(f'{s}.' for s in SECTIONS)}"
            )
        try:
            found = tomllib.loads(f"value = {text.strip()}")
        except (ValueError, RecursionError):
            found = {"value": text.strip()}
        if list(found) != ["value"]:
            raise ConfigError(f"setting {key}: expected one value, got {text!r}")
        settings[key] = found["value"]
        if settings[key] == "none":
            settings[key] = None
    return settings


def merge(recipe: str, settings: Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None) -> Merged:
    """Merge a recipe, settings and named options over the defaults, and validate once.

    Args:
        recipe: A name or a TOML file.
        settings: Dotted key -> value, as `parse_settings` gives them.
        options: Dotted or plain key -> value; None values are left out.

    Raises:
        ConfigError: an unknown key (with the nearest right one), or a value that does not fit.
    """
    tree: dict[str, Any] = {section: {} for section in SECTIONS}
    sources: dict[str, str] = {}

    def put(key: str, value: Any, source: str) -> None:
        section, dot, name = key.partition(".")
        if dot:
            tree[section][name] = value
        else:
            tree[key] = value
        sources[key] = source

    for section, values in load_recipe(recipe).items():
        for name, value in values.items():
            put(f"{section}.{name}", value, f"recipe {recipe}")
    for key, value in (settings or {}).items():
        put(key, value, "--set")
    for key, value in (options or {}).items():
        if value is not None:
            put(key, value, f"--{key.rpartition('.')[0] or key}")
    config = from_mapping(tree)
    keys = [
        f"{section}.{key}" if section in SECTIONS else section
        for section, values in config.model_dump().items()
        for key in (values if section in SECTIONS else [section])
    ]
    return Merged(config, {key: sources.get(key, "default") for key in keys})


def from_mapping(tree: Mapping[str, Any], *, from_file: bool = False) -> RunConfig:
    """Validate a nested mapping into a config, section by section, with errors that name the dotted key.

    With `from_file` no module is imported that the mapping names; see `metammf.models.registry.model_type`.

    Raises:
        ConfigError: an unknown key, or a value that does not fit.
    """
    parts = dict(tree)
    parts["model"] = model_config(parts.get("model", {}), from_file=from_file)
    parts["training"] = validated(TrainingConfig, parts.get("training", {}), "training.")
    parts["split"] = validated(SplitConfig, parts.get("split", {}), "split.")
    return validated(RunConfig, parts)


def same_run(one: RunConfig, other: RunConfig, columns: float) -> bool:
    """Tell whether two configs are of the same run on features of so many columns in all.

    An extractor of meta information that may be as wide as the features, or wider, is as one without a limit, which all were that
    are older than this setting.
    """
    return _without_idle_limit(one, columns) == _without_idle_limit(other, columns)


def _without_idle_limit(config: RunConfig, columns: float) -> RunConfig:
    limit = getattr(config.model, "meta_hidden_dim", None)
    if limit is None or limit < columns:
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"meta_hidden_dim": None})})
