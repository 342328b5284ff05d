"""Where dynamic fusion pays: the conditions that are looked at. Settings alone; nothing is run here.

A condition is a kind of generated world, or a real data set. Worlds vary one setting at a time around a default, which lies on
every axis: how much content decides what is watched, how much clips differ in which modality matters, how many interactions
a user has, and how many clips are cold. In each condition the dynamic fusion meets its static twin, the same network less its
dynamic part, and itself fed noise. `metammf.experiments.conditions_run` trains and measures them.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from metammf.data.synthetic_log import CONTENT_STRENGTH
from metammf.errors import ConfigError, did_you_mean
from metammf.experiments.conditions_results import exact
from metammf.experiments.config import parse_settings
from metammf.experiments.demo_plan import BACKBONES, FUSIONS, NETWORK, TRAINING
from metammf.experiments.studies import Variant, dynamic_fusion

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

NAME = "conditions"
TITLE = "Where dynamic fusion pays"
QUESTION = "Under which conditions does a fusion network for every item beat one for all?"
RECIPE = "metammf-mf"

Role = Literal["dynamic", "static", "noise"]
Placebos = Literal["everywhere", "default"]
_DEFAULT = "default"
ROLES: tuple[Role, ...] = ("dynamic", "static", "noise")


@dataclass(frozen=True)
class WorldSettings:
    """A kind of world; a seed makes one of it.

    Args:
        users: Of it.
        items: Likewise; None for as many as `generate_world` takes.
        interactions_per_user: On average, all parts together.
        content_strength: See `metammf.data.synthetic.generate_world`; likewise the others.
        mix_sharpness: How far clips differ in which modality matters.
        cold_share: Share of the clips that nobody can have watched in train.
    """

    users: int = 2_000
    items: int | None = None
    interactions_per_user: float = 24.0
    content_strength: float = CONTENT_STRENGTH
    mix_sharpness: float = 1.0
    cold_share: float = 0.2

    def arguments(self) -> dict[str, Any]:
        """What `generate_world` is called with, the seed left out."""
        found = asdict(self)
        return found | {"interactions": round(self.users * found.pop("interactions_per_user"))}


@dataclass(frozen=True)
class Axis:
    """One thing that worlds vary in.

    Args:
        knob: Field of `WorldSettings`.
        title: For people.
        values: Where it is looked at, by default.
    """

    knob: str
    title: str
    values: tuple[float, ...]

    @property
    def default(self) -> float:
        """Its value in the default world."""
        return float(getattr(WorldSettings(), self.knob))


AXES: Mapping[str, Axis] = {
    "strength": Axis("content_strength", "content strength", (0, 4, 8, 16)),
    "diversity": Axis("mix_sharpness", "mix sharpness", (0, 0.25, 1, 4)),
    "density": Axis("interactions_per_user", "interactions a user", (6, 12, 24, 48)),
    "cold": Axis("cold_share", "cold share", (0, 0.1, 0.2, 0.4)),
}
"""The axes by name."""


@dataclass(frozen=True)
class RealData:
    """A real data set that stands beside the worlds.

    Args:
        folder: In our layout.
        recipe: A MetaMMF recipe that suits it, which then has no setting that is up to choice; None for that of the worlds.
        settings: Dotted key -> value on top of that.
    """

    folder: Path
    recipe: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The folder's name, and the split where one is named."""
        method = self.settings.get("split.method")
        return self.folder.resolve().name + (f", {method} split" if method else "")


@dataclass(frozen=True)
class Condition:
    """One condition, and the variants that meet in it.

    Args:
        key: Its name, its own within the study.
        label: What people read.
        variants: Role -> what is trained.
        axis: Name of the axis that it lies on; None for the default world, which lies on all, and for a real data set.
        value: Its place there.
        world: The kind of world; None for a real data set.
        data: A real data set's folder.
    """

    key: str
    label: str
    variants: Mapping[Role, Variant]
    axis: str | None = None
    value: float | None = None
    world: WorldSettings | None = None
    data: Path | None = None


@dataclass(frozen=True)
class ConditionsPlan:
    """What is compared where.

    Args:
        axes: Names of those that are varied.
        size: Of each world, in words.
        conditions: The default world first, then axis by axis, then the real data sets.
    """

    axes: tuple[str, ...]
    size: str
    conditions: tuple[Condition, ...]

    @property
    def variants(self) -> tuple[Variant, ...]:
        """All that is trained."""
        return tuple(variant for one in self.conditions for variant in one.variants.values())


@dataclass(frozen=True)
class ConditionsAsk:
    """What the caller says.

    Args:
        recipe: A MetaMMF recipe for the worlds; by default the demo's MetaMMF_MF, whose settings were chosen on the validation
            parts of such worlds.
        vary: Axis -> values; all axes at their own values by default.
        users: Of each world.
        real: Real data sets beside the worlds.
        settings: Dotted key -> value, on top of every recipe's.
        placebo: Where the dynamic fusion is also fed noise: in every condition, or in the default world alone.
        items: Of each world; as `generate_world` has it by default.
    """

    recipe: str | None = None
    vary: Mapping[str, Sequence[float]] = field(default_factory=dict)
    users: int = WorldSettings.users
    real: tuple[RealData, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    placebo: Placebos = "everywhere"
    items: int | None = None


def make_conditions(ask: ConditionsAsk) -> ConditionsPlan:
    """Return what is compared where.

    Raises:
        ConfigError: there is no such axis or recipe, a recipe is not of MetaMMF, a value is no number, or two real data sets
            cannot be told apart.
    """
    axes = {name: ask.vary[name] for name in ask.vary} or {name: axis.values for name, axis in AXES.items()}
    conditions = [*_worlds(ask, axes), *(_real(one, ask) for one in ask.real)]
    keys = [one.key for one in conditions]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ConfigError(f"study {NAME}: {', '.join(twice)} comes twice; name another folder, or another split")
    size = f"{ask.users}-users" + ("" if ask.items is None else f"-{ask.items}-items")
    return ConditionsPlan(tuple(axes), size, tuple(conditions))


def read_real(word: str) -> RealData:
    """Read ``DIR[,RECIPE][,KEY=VALUE...]``. A value with a comma in it has its place in a recipe file.

    Raises:
        ConfigError: it is no such thing.
    """
    folder, *rest = word.split(",")
    recipes = [part for part in rest if "=" not in part]
    if not folder or len(recipes) > 1 or "" in recipes:
        raise ConfigError(f"data set {word!r}: expected DIR, or DIR,RECIPE,KEY=VALUE,...")
    settings = parse_settings([part for part in rest if "=" in part])
    return RealData(Path(folder), recipes[0] if recipes else None, settings)


def read_axis(word: str) -> tuple[str, tuple[float, ...]]:
    """Read ``AXIS=VALUE,VALUE,...``.

    Raises:
        ConfigError: there is no such axis, or a value is no number.
    """
    name, equals, text = word.partition("=")
    if name not in AXES:
        raise ConfigError(f"unknown axis {name!r}{did_you_mean(name, AXES)}; there are: {', '.join(AXES)}")
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not equals or not values or not all(math.isfinite(value) for value in values):
        raise ConfigError(f"axis {word!r}: expected {name}=NUMBER,NUMBER,...")
    return name, values


def _worlds(ask: ConditionsAsk, axes: Mapping[str, Sequence[float]]) -> Iterator[Condition]:
    default = WorldSettings(users=ask.users, items=ask.items)
    recipe, base = _recipe_of_worlds(ask)
    yield Condition(_DEFAULT, "default world", _variants(_DEFAULT, recipe, base, ask), world=default)
    for name, values in axes.items():
        axis = AXES[name]
        for value in sorted(set(values) - {axis.default}):
            key = f"{name}-{exact(value)}"
            yield Condition(
                key,
                f"{axis.title} {exact(value)}",
                _variants(key, recipe, base, ask),
                name,
                float(value),
                WorldSettings(**{**asdict(default), axis.knob: float(value)}),
            )


def _real(one: RealData, ask: ConditionsAsk) -> Condition:
    key = re.sub(r"[^\w.+-]+", "-", one.label)
    recipe, base = (one.recipe, {}) if one.recipe else _recipe_of_worlds(ask)
    variants = _variants(key, recipe, base, ask, one.settings, fixed=one.recipe is not None)
    return Condition(key, one.label, variants, data=one.folder)


def _recipe_of_worlds(ask: ConditionsAsk) -> tuple[str, dict[str, Any]]:
    """The recipe that worlds take, and the settings on top of it."""
    return (RECIPE, _demo_settings()) if ask.recipe is None else (ask.recipe, {})


def _demo_settings() -> dict[str, Any]:
    """The demo's MetaMMF_MF as settings on top of a recipe."""
    model = {**NETWORK, **BACKBONES["mf"], **FUSIONS["metammf"]}
    settings = {f"model.{key}": value for key, value in model.items() if key != "name"}
    return settings | {f"training.{key}": value for key, value in TRAINING.items()}


def _variants(
    key: str,
    recipe: str,
    base: Mapping[str, Any],
    ask: ConditionsAsk,
    settings: Mapping[str, Any] | None = None,
    *,
    fixed: bool = False,
) -> dict[Role, Variant]:
    own = settings or {}
    dynamic = dynamic_fusion(NAME, recipe, {**base, **ask.settings, **own})
    found: dict[Role, Variant] = {}
    for role in ROLES:
        if role == "noise" and ask.placebo != "everywhere" and key != _DEFAULT:
            continue
        fusion = "concat" if role == "static" else dynamic
        found[role] = Variant(
            key=f"{key}-{role}",
            label=f"{key}: {'dynamic, fed noise' if role == 'noise' else role}",
            recipe=recipe,
            series=role,
            settings={**own, "model.fusion": fusion},
            placebo="noise" if role == "noise" else None,
            base=base,
            fixed=fixed,
        )
    return found
