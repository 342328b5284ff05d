"""The paper's studies, and the one that papers leave out: what each of them varies. Settings alone; nothing is run here.

A study is a list of variants. A variant is a recipe with some settings changed, or its features replaced; it is a point of a line
(a depth, a rank) or a bar of its own. `metammf.experiments.study_run` trains and measures them all alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

from metammf.data.features import PLACEBOS, Placebo
from metammf.errors import ConfigError, did_you_mean
from metammf.experiments.config import merge, recipe_names
from metammf.experiments.search_space import is_solved
from metammf.models.metammf import MetaMMFConfig

if TYPE_CHECKING:
    from metammf.experiments.config import Merged

PAPER = (
    "vbpr",
    "metammf-mf",
    "graphsage",
    "ngcf",
    "lightgcn",
    "gat",
    "mmgcn",
    "grcn",
    "lattice",
    "invrl",
    "metammf-gcn",
)
"""The models of the paper's main table, in its order."""
NO_PLACEBO: Mapping[str, str] = {
    "freedom-softmax": "FREEDOM, which is there, by another objective",
    "metammf-cold": "for items that nobody has watched, which few splits have",
    "metammf-cold-cp": "as metammf-cold",
    "metammf-gcn-large": "for logs of millions of users",
    "metammf-mf-large": "as metammf-gcn-large",
    "mgcn-softmax": "MGCN, which is there, by another objective",
    "static-cold": "as metammf-cold",
    "static-gcn": "metammf-gcn, which is there, less what is dynamic",
    "static-lightgcn": "metammf-lightgcn, which is there, less what is dynamic",
    "static-mf": "metammf-mf, which is there, less what is dynamic",
}
"""Recipes of trained models that take content and are not asked for by the placebo study unless they are named -> why."""
DYNAMIC = {"cp": "CP", "dense": "dense"}
STATIC = {"concat": "one network", "sum": "sum", "gated": "gated", "attention": "attention"}
_PLACEBO_LABELS = {"shuffle": "shuffled", "noise": "noise", "drop": "dropped"}
_MOST_SUBSETS = 4


@dataclass(frozen=True)
class Variant:
    """One row of a study.

    Args:
        key: Its name, its own within the study.
        label: What people read.
        recipe: What it is a change of.
        series: The line or group that it belongs to.
        settings: Dotted key -> value, on top of the recipe's, the caller's and what validation chose.
        placebo: What stands in the place of the features.
        x: Its place on the study's axis; None for what is drawn as a level beside the line.
        vectors: Whether its fused vectors are mapped.
        base: Dotted key -> value, on top of the recipe's alone.
        fixed: Whether nothing of it is up to choice.
    """

    key: str
    label: str
    recipe: str
    series: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    placebo: Placebo | None = None
    x: float | None = None
    vectors: bool = False
    base: Mapping[str, Any] = field(default_factory=dict)
    fixed: bool = False


@dataclass(frozen=True)
class Plan:
    """What a study compares.

    Args:
        name: Of the study.
        title: Of its page.
        question: What it is to answer.
        variants: Its rows.
        pairs: Keys of what is tested against each other; the first of a pair is ahead where the difference is positive.
        axis: Title of the axis on which variants lie; None where they are bars.
        log_axis: Whether that counts in powers of two.
    """

    name: str
    title: str
    question: str
    variants: tuple[Variant, ...]
    pairs: tuple[tuple[str, str], ...] = ()
    axis: str | None = None
    log_axis: bool = False


@dataclass(frozen=True)
class Ask:
    """What the caller says of a study.

    Args:
        recipes: The models; the study's own by default.
        values: Depths, ranks or widths; the study's own by default.
        settings: Dotted key -> value, on top of every recipe's.
        modalities: Those of the data set.
    """

    recipes: tuple[str, ...] = ()
    values: tuple[int, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    modalities: tuple[str, ...] = ()


def _by_default() -> tuple[str, ...]:
    return ("metammf-gcn",)


@dataclass(frozen=True)
class Kind:
    """A study that can be asked for.

    Args:
        title: Of its page.
        question: What it is to answer.
        build: Makes the plan's variants and pairs.
        recipes: Gives the default models.
        values: Default values of the axis; empty where there is none.
        axis: Title of the axis.
        log_axis: Whether that counts in powers of two.
    """

    title: str
    question: str
    build: Callable[[Ask], tuple[list[Variant], list[tuple[str, str]]]]
    recipes: Callable[[], tuple[str, ...]] = _by_default
    values: tuple[int, ...] = ()
    axis: str | None = None
    log_axis: bool = False


def make_plan(name: str, ask: Ask) -> Plan:
    """Return what a study compares.

    Raises:
        ConfigError: there is no such study or recipe, or the study has no meaning for a recipe, a value or the data set.
    """
    if name not in KINDS:
        raise ConfigError(f"unknown study {name!r}{did_you_mean(name, KINDS)}; there are: {', '.join(KINDS)}")
    kind = KINDS[name]
    if ask.values and not kind.values:
        raise ConfigError(f"study {name} has no values to choose; those with values: {', '.join(_with_values())}")
    if any(value < 1 for value in ask.values):
        raise ConfigError(f"study {name}: values are whole numbers of at least 1, got {list(ask.values)}")
    filled = Ask(
        _each_once(ask.recipes) or kind.recipes(),
        tuple(sorted(set(ask.values or kind.values))),
        ask.settings,
        ask.modalities,
    )
    variants, pairs = kind.build(filled)
    return Plan(name, kind.title, kind.question, tuple(variants), tuple(pairs), kind.axis, kind.log_axis)


def config_of(
    variant: Variant, common: Mapping[str, Any], seed: int, chosen: Mapping[str, Any] | None = None
) -> Merged:
    """Return all that decides the outcome of one run of a variant: recipe < base < common < chosen < own settings."""
    settings = {**variant.base, **common, **(chosen or {}), **variant.settings}
    return merge(variant.recipe, settings, {"seed": seed, "placebo": variant.placebo})


def _each_once(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))


def _with_values() -> list[str]:
    return [name for name, kind in KINDS.items() if kind.values]


def _fusing(study: str, recipe: str, ask: Ask) -> MetaMMFConfig:
    """The model of a recipe that such a study is about.

    Raises:
        ConfigError: it is not MetaMMF.
    """
    model = merge(recipe, ask.settings).config.model
    if not isinstance(model, MetaMMFConfig):
        raise ConfigError(f"study {study} is of MetaMMF's fusion, and recipe {recipe} is of {model.name}")
    return model


def _dynamic(model: MetaMMFConfig) -> str:
    return model.fusion if model.fusion in DYNAMIC else "cp"


def dynamic_fusion(study: str, recipe: str, settings: Mapping[str, Any]) -> str:
    """The fusion of a MetaMMF recipe where that is dynamic, else the CP form.

    Raises:
        ConfigError: the recipe is not of MetaMMF.
    """
    return _dynamic(_fusing(study, recipe, Ask(settings=settings)))


def _named(recipe: str, label: str, ask: Ask) -> str:
    """The label alone where there is one recipe."""
    return label if len(ask.recipes) == 1 else f"{recipe}: {label}"


def _overall(ask: Ask) -> tuple[list[Variant], list[tuple[str, str]]]:
    variants = [Variant(recipe, recipe, recipe, recipe) for recipe in ask.recipes]
    ours = [recipe for recipe in ask.recipes if isinstance(merge(recipe).config.model, MetaMMFConfig)] or ask.recipes[
        :1
    ]
    pairs = [(one, other) for one in ours for other in ask.recipes if other not in ours]
    return variants, pairs + list(combinations(ours, 2))


def _fusion(ask: Ask) -> tuple[list[Variant], list[tuple[str, str]]]:
    variants, pairs = [], []
    for recipe in ask.recipes:
        _fusing("fusion", recipe, ask)
        for series, fusions in (("dynamic", DYNAMIC), ("static", STATIC)):
            for fusion, label in fusions.items():
                name = _named(recipe, f"{series}, {label}", ask)
                variants.append(Variant(f"{recipe}-{fusion}", name, recipe, series, {"model.fusion": fusion}))
        pairs += [(f"{recipe}-{one}", f"{recipe}-{other}") for one in DYNAMIC for other in STATIC]
        pairs.append((f"{recipe}-cp", f"{recipe}-dense"))
    return variants, pairs


def _depth(ask: Ask) -> tuple[list[Variant], list[tuple[str, str]]]:
    variants, pairs = [], []
    for recipe in ask.recipes:
        model = _fusing("depth", recipe, ask)
        last = model.hidden_dims[-1] if model.hidden_dims else model.embedding_dim
        for depth in ask.values:
            # Twice as wide a layer further from the output, as the paper's 1024, 512, 256 are.
            hidden = [last << place for place in reversed(range(depth - 1))]
            for series, fusion in (("dynamic", _dynamic(model)), ("static", "concat")):
                variants.append(
                    Variant(
                        f"{recipe}-{series}-{depth}",
                        _named(recipe, f"{series}, {depth} layer{'s' * (depth > 1)}", ask),
                        recipe,
                        _named(recipe, series, ask),
                        {"model.fusion": fusion, "model.hidden_dims": hidden},
                        x=depth,
                    )
                )
            pairs.append((f"{recipe}-dynamic-{depth}", f"{recipe}-static-{depth}"))
    return variants, pairs


def _rank(ask: Ask) -> tuple[list[Variant], list[tuple[str, str]]]:
    variants, pairs = [], []
    for recipe in ask.recipes:
        _fusing("rank", recipe, ask)
        for rank in ask.values:
            settings = {"model.fusion": "cp", "model.cp_rank": rank}
            label, series = _named(recipe, f"CP, R = {rank}", ask), _named(recipe, "CP", ask)
            variants.append(Variant(f"{recipe}-cp-{rank}", label, recipe, series, settings, x=rank))
            pairs += [(f"{recipe}-cp-{rank}", f"{recipe}-{other}") for other in ("dense", "static")]
        pairs.append((f"{recipe}-dense", f"{recipe}-static"))
        for fusion, label in (("dense", "dense"), ("concat", "static")):
            name = _named(recipe, label, ask)
            variants.append(
                Variant(f"{recipe}-{label}", name, recipe, _named(recipe, label, ask), {"model.fusion": fusion})
            )
    return variants, pairs


def _width(ask: Ask) -> tuple[list[Variant], list[tuple[str, str]]]:
    variants, pairs = [], []
    for recipe in ask.recipes:
        fusion = _dynamic(_fusing("width", recipe, ask))
        for width in ask.values:
            settings = {"model.fusion": fusion, "model.meta_dim": width}
            label, series = _named(recipe, f"S = {width}", ask), _named(recipe, "dynamic", ask)
            variants.append(Variant(f"{recipe}-s-{width}", label, recipe, series, settings, x=width))
            pairs.append((f"{recipe}-s-{width}", f"{recipe}-static"))
        name = _named(recipe, "static", ask)
        variants.append(Variant(f"{recipe}-static", name, recipe, name, {"model.fusion": "concat"}))
    return variants, pairs


def _modalities(ask: Ask) -> tuple[list[Variant], list[tuple[str, str]]]:
    if not ask.modalities:
        raise ConfigError("study modalities: the data set has no features")
    variants, pairs = [], []
    for recipe in ask.recipes:
        whole = _modalities_of(recipe, ask)
        key = "+".join(whole)
        for subset in _subsets(whole):
            name = "+".join(subset)
            variants.append(
                Variant(
                    f"{recipe}-{name}",
                    _named(recipe, " + ".join(subset), ask),
                    recipe,
                    _named(recipe, {1: "one", len(whole): "all"}.get(len(subset), "some"), ask),
                    {"model.modalities": list(subset)},
                )
            )
            if subset != whole:
                pairs.append((f"{recipe}-{key}", f"{recipe}-{name}"))
    return variants, pairs


def _modalities_of(recipe: str, ask: Ask) -> tuple[str, ...]:
    """The modalities that a recipe's model takes.

    Raises:
        ConfigError: it takes none.
    """
    model = merge(recipe, ask.settings).config.model
    if not takes_content(recipe, ask.settings):
        raise ConfigError(f"recipe {recipe}: {model.name} takes no modalities; leave it out of this study")
    chosen: tuple[str, ...] | None = getattr(model, "modalities", None)
    return tuple(chosen) if chosen else ask.modalities


def takes_content(recipe: str, settings: Mapping[str, Any] | None = None) -> bool:
    """Whether the model of a recipe takes modalities, by whether it lets them be chosen."""
    return "modalities" in type(merge(recipe, settings).config.model).model_fields


def placebo_recipes() -> tuple[str, ...]:
    """The recipes that ship whose models are trained and take content; of those that are left out `NO_PLACEBO` tells why."""
    return tuple(
        name
        for name in recipe_names()
        if name not in NO_PLACEBO and takes_content(name) and not is_solved(merge(name).config)
    )


def _subsets(modalities: tuple[str, ...]) -> list[tuple[str, ...]]:
    """All subsets, the largest first; where they would be many, all, those that lack one, and each alone."""
    count = len(modalities)
    sizes = range(count, 0, -1) if count <= _MOST_SUBSETS else (count, count - 1, 1)
    return [subset for size in sizes for subset in combinations(modalities, size)]


def _map(ask: Ask) -> tuple[list[Variant], list[tuple[str, str]]]:
    variants, pairs = [], []
    for recipe in ask.recipes:
        fusion = _dynamic(_fusing("map", recipe, ask))
        kinds: tuple[tuple[str, str, Placebo | None], ...] = (
            ("dynamic", fusion, None),
            ("static", "concat", None),
            ("noise", fusion, "noise"),
        )
        for key, which, placebo in kinds:
            label = _named(recipe, "dynamic, fed noise" if placebo else key, ask)
            settings = {"model.fusion": which}
            variants.append(Variant(f"{recipe}-{key}", label, recipe, key, settings, placebo, vectors=True))
        pairs += [(f"{recipe}-dynamic", f"{recipe}-{other}") for other in ("static", "noise")]
    return variants, pairs


def _placebo(ask: Ask) -> tuple[list[Variant], list[tuple[str, str]]]:
    variants, pairs = [], []
    for recipe in ask.recipes:
        _modalities_of(recipe, ask)
        variants.append(Variant(recipe, f"{recipe}: its features", recipe, recipe))
        for kind in sorted(PLACEBOS, key=list(_PLACEBO_LABELS).index):
            key, label = f"{recipe}-{kind}", f"{recipe}: {_PLACEBO_LABELS[kind]}"
            variants.append(Variant(key, label, recipe, recipe, placebo=kind))  # type: ignore[arg-type]  # one of PLACEBOS
            pairs.append((recipe, key))
    return variants, pairs


KINDS: dict[str, Kind] = {
    "overall": Kind(
        "The models of the table",
        "How do the models rank, each at its recipe's settings?",
        _overall,
        recipes=lambda: PAPER,
    ),
    "fusion": Kind(
        "Static against dynamic fusion",
        "Does a fusion network for every item beat one for all?",
        _fusion,
    ),
    "depth": Kind(
        "Depth of the fusion",
        "How many layers should the fusion have?",
        _depth,
        values=(1, 2, 3, 4, 5),
        axis="layers of the fusion",
    ),
    "rank": Kind(
        "CP rank against dense",
        "What does the CP form save, and what does it cost?",
        _rank,
        values=(1, 2, 4, 8, 16, 32, 64),
        axis="CP rank R",
        log_axis=True,
    ),
    "modalities": Kind(
        "Subsets of the modalities",
        "Which modality carries what?",
        _modalities,
    ),
    "map": Kind(
        "A map of the fused embeddings",
        "Do the fused vectors keep items together that belong together?",
        _map,
    ),
    "width": Kind(
        "Width of the meta information",
        "How many meta channels S does an item's own network need?",
        _width,
        values=(1, 2, 3, 5, 8, 12, 16),
        axis="meta channels S",
    ),
    "placebo": Kind(
        "Placebo modalities",
        "Does the content help at all?",
        _placebo,
        recipes=placebo_recipes,
    ),
}
"""The studies by name."""
