"""What every trained model costs on TikTok: an epoch and its memory at its recipe's settings, and a layer of its graph.

``python benchmarks/models.py``: each model is trained for some steps in a process of its own, and its epoch extended from
those; recipes differ in their batches, so a step tells of the model, an epoch of its recipe. Then the graph models' layers alone,
forward and backward over all nodes, in turn in one process, beside LightGCN's: by layer, and by modality where each has layers of
its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from clock import Clock, Run
from harness import PeakMeter, Table, alone, backward, measure, parser, publish
from logs import tiktok
from metammf.data.splitting import Development
from metammf.experiments.config import from_mapping, load_recipe
from metammf.models.base import Model
from metammf.models.nodes import NodeModel
from metammf.models.registry import MODELS, model_type
from metammf.training.fit import build_model
from metammf.training.loop import Trainer
from metammf.training.objectives import objective_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from harness import Row
    from metammf.experiments.config import RunConfig

STEPS = 12
AGAINST = "lightgcn"
RECIPES = {"metammf": ("metammf-mf", "metammf-gcn", "metammf-lightgcn")}
"""Where a model's recipe is not of its own name."""


BESIDES = (("gat", {"num_heads": 1}),)
"""Settings of models whose layers are measured beside those of the recipe."""
MAPS = "two 64 x 64 maps of all nodes"


@dataclass(frozen=True)
class Case:
    """A recipe and how much of it is run.

    Args:
        recipe: Its name.
        threads: Of torch.
        quick: A few steps on a small random log.
        model: Settings of the model over the recipe's.
    """

    recipe: str
    threads: int
    quick: bool
    model: Mapping[str, object] = field(default_factory=dict)

    def config(self) -> RunConfig:
        """The recipe, for some steps of one epoch without a look at validation."""
        recipe = load_recipe(self.recipe)
        recipe["model"] |= self.model
        recipe["training"] |= {"epochs": 1, "patience": None, "max_steps": 2 if self.quick else STEPS}
        return from_mapping(recipe)

    def begin(self) -> tuple[RunConfig, Development, Model]:
        """Set the threads; return config, data and the model at its start."""
        torch.set_num_threads(self.threads)
        split, _ = tiktok(quick=self.quick)
        nothing = split.validation.select(np.zeros(0, dtype=np.int64))
        development = Development(split.train, nothing, split.catalog)
        config = self.config()
        return config, development, build_model(config.model, development, seed=0, device=torch.device("cpu"))


def recipes() -> list[str]:
    """Return the recipes of all models that are trained by descent."""
    trained = [name for name in MODELS if issubclass(model_type(name), Model)]
    return [recipe for name in trained for recipe in RECIPES.get(name, (name,))]


def trained(case: Case) -> tuple[Run, int]:
    """Train for some steps; return what it took, and the steps of an epoch."""
    config, development, model = case.begin()
    clock, meter = Clock(), PeakMeter()
    trainer = Trainer(
        model, objective_of(model, config.training), development, config.training, seed=0, listeners=(clock,)
    )
    trainer.run()
    return clock.run(trainer.steps_per_epoch, meter.read(), []), trainer.steps_per_epoch


def row(case: Case) -> Row:
    """Return what a recipe takes, as a row of a table."""
    run, steps = alone(trained, case)
    told = run.row(case.recipe, "float32")
    del told["precision"]
    return {"recipe": told.pop("way"), "steps/epoch": steps, **told}


def passes(model: NodeModel, config: RunConfig) -> int:
    """Return how many layers of a graph a model has, those of each modality counted."""
    settings = config.model.model_dump()
    modalities = len(getattr(model, "modalities", ()))
    if config.model.name == "mmgcn":
        return int(settings["num_layers"]) * modalities
    if config.model.name == "grcn":
        return int(settings["num_layers"]) + int(settings["num_routings"]) * modalities
    return int(settings.get("num_layers") or len(settings.get("layer_dims", ())))


def descent(model: NodeModel) -> Callable[[], object]:
    """Return a run of a model's backbone over all nodes, forward and backward; nothing is drawn for dropout."""
    model.eval()
    items = model.item_inputs(torch.arange(model.num_items)).detach().requires_grad_()

    def run() -> None:
        users, vectors = model.propagate(items)
        backward(users.square().sum() + vectors.square().sum())

    return run


def two_maps(num_nodes: int, dim: int = 64) -> Callable[[], object]:
    """Return a run of what most layers do besides: every node's vector mapped twice, forward and backward."""
    torch.manual_seed(0)
    x = torch.randn(num_nodes, dim, requires_grad=True)
    maps = [torch.nn.Linear(dim, dim, bias=False) for _ in range(2)]
    return lambda: backward(sum(layer(x) for layer in maps).square().sum())


def layers(threads: int, repeats: int, *, quick: bool) -> Table:
    """Compare the layers of all graph models with LightGCN's."""
    ways: dict[str, Callable[[], object]] = {}
    counts: dict[str, float] = {}
    cases = {recipe: Case(recipe, threads, quick) for recipe in recipes()} | {
        f"{recipe}, {', '.join(f'{key} = {value}' for key, value in settings.items())}": Case(
            recipe, threads, quick, settings
        )
        for recipe, settings in BESIDES
    }
    for name, case in cases.items():
        config, _, model = case.begin()
        if isinstance(model, NodeModel) and model.backbone.propagates and config.model.name != "metammf":
            ways[name], counts[name] = descent(model), passes(model, config)
            nodes = model.num_users + model.num_items
    ways[MAPS], counts[MAPS] = two_maps(nodes), 1
    found = measure(ways, against=AGAINST, units=counts, repeats=repeats)
    rows: list[Row] = [
        {
            "model": timing.name,
            "layers x modalities": counts[timing.name],
            "s, forward and backward": timing.seconds,
            "s a layer and modality": 1 / timing.per_second,
            f"x {AGAINST}": 1 / timing.ratio,
        }
        for timing in found
    ]
    notes = [
        "GRCN: its hops, and each routing of each modality. What a layer costs beyond LightGCN's is its maps: GraphSAGE and NGCF"
        " have two, MMGCN three in each modality, GAT one and its attention."
    ]
    return Table("A layer over all nodes", rows, notes)


def main() -> None:
    """Measure and report."""
    given = parser(__doc__).parse_args()
    _, data = tiktok(quick=given.quick)
    epochs = Table(
        f"An epoch of {data}, by recipe",
        [row(Case(recipe, given.threads, given.quick)) for recipe in recipes()],
        [f"Extended from {STEPS} steps where an epoch has more; the first, which warms up, is left out."],
    )
    tables = [epochs, layers(given.threads, given.repeats, quick=given.quick)]
    publish(given, "Every trained model: an epoch, its memory, a layer", tables, data=data)


if __name__ == "__main__":
    main()
