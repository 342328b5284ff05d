"""How the cost of MetaMMF grows with users, items and interactions: each over two decades, the other two held.

``python benchmarks/growth.py --axis users --backbone mf``: 3,000 to 300,000 users at 6,000 items and 600,000 interactions;
``--axis items``: 600 to 60,000 items at 30,000 users; ``--axis interactions``: 60,000 to 6,000,000. The logs are random
(`logs.py`). Each point is a process of its own: a fixed number of training steps, from which an epoch is computed, and a
validation of all users. The slopes are of lines through the logarithms, by least squares: over both decades, and over the upper
one, where fixed costs weigh less. A slope of 1 is linear growth.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clock import Clock
from harness import PeakMeter, Table, alone, parser, publish
from literal import NAMES
from logs import random_split
from metammf.data.splitting import Development
from metammf.evaluation.evaluate import validation_metrics
from metammf.models.metammf import MetaMMFConfig
from metammf.models.scorers import finished_scorer
from metammf.training.config import TrainingConfig
from metammf.training.fit import build_model
from metammf.training.loop import Trainer
from metammf.training.objectives import make_objective

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness import Row
    from metammf.nn.backbone import BackboneKind

STEPS = 6
COLUMNS = ("s/epoch", "CPU s/epoch", "peak MiB", "evaluation s")
UPDATES = 100
"""Steps an epoch, at most, of a graph model whose batches share a propagation."""


@dataclass(frozen=True)
class World:
    """The size of a log.

    Args:
        users: U.
        items: N.
        interactions: Of train, validation and test together.
    """

    users: int
    items: int
    interactions: int


CENTRE = World(30_000, 6_000, 600_000)
SMALL = World(600, 200, 2_000)
FACTORS = (0.1, 10**-0.5, 1.0, 10**0.5, 10.0)


@dataclass(frozen=True)
class Way:
    """A model and how it is trained.

    Args:
        name: For the table.
        backbone: Of MetaMMF.
        training: Settings over the paper's.
    """

    name: str
    backbone: BackboneKind
    training: dict[str, Any] = field(default_factory=dict)

    def config(self) -> TrainingConfig:
        """Settings of training: a few steps of one epoch."""
        return TrainingConfig(**({"epochs": 1, "patience": None, "max_steps": STEPS} | self.training))


WAYS = (
    Way("MetaMMF_MF", "mf"),
    Way("MetaMMF_MF, touched rows", "mf", {"table_updates": "touched"}),
    Way("MetaMMF_GCN, a step a batch", "graphsage"),
    Way(f"MetaMMF_GCN, {UPDATES} steps an epoch", "graphsage", {"max_steps_per_epoch": UPDATES}),
)


def point(way: Way, world: World, threads: int) -> Row:
    """Measure one model on one log."""
    torch.set_num_threads(threads)
    split = random_split(world.users, world.items, world.interactions)
    development = Development(split.train, split.validation, split.catalog)
    config, training = MetaMMFConfig(backbone=way.backbone, hidden_dims=(128, 64)), way.config()
    meter, start = PeakMeter(), time.perf_counter()
    model = build_model(config, development, seed=0, device=torch.device("cpu"))
    clock = Clock()
    nothing = replace(development, validation=split.validation.select(np.zeros(0, dtype=np.int64)))
    trainer = Trainer(model, make_objective(training), nothing, training, seed=0, listeners=(clock,))
    start_up = time.perf_counter() - start
    trainer.run()
    trained = meter.read()
    run = clock.run(trainer.steps_per_epoch, trained, [])
    start = time.perf_counter()
    validation_metrics(finished_scorer(model, split.train), split.validation, split.train)
    evaluated = time.perf_counter() - start
    return {
        "users": world.users,
        "items": world.items,
        "interactions": world.interactions,
        "steps/epoch": trainer.steps_per_epoch,
        "s/step": run.step_s,
        "s/epoch": run.epoch_s,
        "CPU s/epoch": run.epoch_cpu_s,
        "start-up s": start_up,
        "rise MiB": trained.rise_mib,
        "peak MiB": meter.read().resident_mib,
        "users evaluated": int((split.validation.user_counts > 0).sum()),
        "evaluation s": evaluated,
    }


def slopes(way: str, axis: str, rows: Sequence[Row]) -> list[Row]:
    """Fit log cost = slope * log size + rest, over all points and over the upper half of them."""
    found: list[Row] = []
    for column in COLUMNS:
        row: Row = {"model": way, "grows with": axis, "cost": column}
        for name, part in (("both decades", rows), ("upper decade", rows[len(rows) // 2 :])):
            slope, error = fitted([float(r[axis] or 0) for r in part], [float(r[column] or 0) for r in part])
            row |= {f"slope, {name}": slope, f"± ({name})": error}
        found.append(row)
    return found


def fitted(sizes: Sequence[float], costs: Sequence[float]) -> tuple[float, float | None]:
    """Return the slope of the line through the logarithms and its standard error, which two points have none of."""
    x, y = np.log(sizes), np.log(costs)
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    left = y - y.mean() - slope * centred
    if len(x) < 3:
        return slope, None
    return slope, float(math.sqrt(left @ left / (len(x) - 2) / (centred @ centred)))


def main() -> None:
    """Measure and report."""
    options = parser(__doc__)
    options.add_argument("--axis", choices=("users", "items", "interactions"), default="interactions")
    options.add_argument(
        "--backbone", choices=("mf", "graphsage"), default="graphsage", help="MetaMMF_MF or MetaMMF_GCN"
    )
    given = options.parse_args()
    centre = SMALL if given.quick else CENTRE
    size = getattr(centre, given.axis)
    worlds = [replace(centre, **{given.axis: round(size * factor)}) for factor in FACTORS[2 * given.quick :]]
    tables, lines = [], []
    for way in (way for way in WAYS if way.backbone == given.backbone):
        rows = [alone(point, way, world, given.threads) for world in worlds]
        lines += slopes(way.name, given.axis, rows)
        tables.append(Table(f"{way.name}, by {given.axis}", rows))
    notes = [
        f"An epoch is computed from {STEPS} steps (the first, which warms up, left out) where it has more. S = 5, R = 16, two"
        " modalities of 64, hidden widths 128 and 64, D = 64. ± is the standard error of the fit."
    ]
    title = f"Growth with {given.axis}: {NAMES[given.backbone]}"
    slopes_of_all = Table(f"Slopes against {given.axis}", lines, notes)
    publish(given, title, [slopes_of_all, *tables], axis=given.axis, backbone=given.backbone)


if __name__ == "__main__":
    main()
