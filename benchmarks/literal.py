"""A training step and epoch of MetaMMF on TikTok: as the paper writes it down, and as the library does it.

``python benchmarks/literal.py --backbone mf`` is MetaMMF_MF, ``--backbone graphsage`` MetaMMF_GCN. The literal form (`twin.py`)
forms every item's weights, fuses all items at every step, sends messages along an edge list and draws negatives from Python
sets; the library's is `Trainer`'s own. First at widths where the literal form fits: an epoch of both from the same weights on
the same batches and negatives, whose losses must be equal. Then at the recipe's widths, where the literal form is run with no
item fused and with a tenth of them, and its seconds and memory are extended along that line to all items.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from clock import Clock, Run
from harness import Peak, PeakMeter, Table, alone, parser, publish
from logs import tiktok
from metammf.data.splitting import Development
from metammf.experiments.config import from_mapping, load_recipe
from metammf.training.fit import build_model
from metammf.training.loop import Trainer
from metammf.training.objectives import make_objective
from twin import LiteralMetaMMF, Recorder, SetSampler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from harness import Row
    from metammf.experiments.config import RunConfig
    from metammf.models.metammf import MetaMMF
    from metammf.training.loop import Precision

RECIPES = {"mf": "metammf-mf", "graphsage": "metammf-gcn"}
NAMES = {"mf": "MetaMMF_MF", "graphsage": "MetaMMF_GCN"}
NO_DROPOUT = {"id_dropout": 0.0, "hidden_dropout": 0.0, "final_dropout": 0.0}
TENTH = 10
"""One item in so many is fused where the literal form does not fit as a whole."""
VARIANTS: dict[str, dict[str, dict[str, object]]] = {
    "mf": {"metammf": {}, "metammf, touched rows": {"table_updates": "touched"}},
    "graphsage": {
        "metammf": {},
        "metammf, 4 batches a step": {"batches_per_step": 4},
        "metammf, 10 batches a step": {"batches_per_step": 10},
    },
}
"""Settings of training, by backbone and row."""
TOLERANCE = 1e-5
"""Of the losses of the first steps, relative."""
FIRST = 6
"""Steps that rounding errors do not yet show in: whatever they come from, Adam lets them grow a hundredfold in ten steps."""
NUDGE = 1e-7
"""Relative change of all weights that shows how: about one rounding error of float32."""


@dataclass(frozen=True)
class Case:
    """What is trained.

    Args:
        backbone: "mf" or "graphsage".
        model: Settings of the model over the recipe's.
        training: Settings of training over the recipe's.
        precision: Of the forward pass.
        steps: Steps to take; None for an epoch.
        threads: Of torch.
        quick: On a small random log.
        nudged: Start from weights that differ by one rounding error.
    """

    backbone: Literal["mf", "graphsage"]
    model: Mapping[str, object] = field(default_factory=dict)
    training: Mapping[str, object] = field(default_factory=dict)
    precision: Precision = "float32"
    steps: int | None = None
    threads: int = 1
    quick: bool = False
    nudged: bool = False

    def config(self) -> RunConfig:
        """The recipe with these settings, for one epoch of training without a look at validation."""
        recipe = load_recipe(RECIPES[self.backbone])
        recipe["model"] |= self.model
        recipe["training"] |= {"epochs": 1, "patience": None, "max_steps": self.steps, **self.training}
        return from_mapping(recipe)

    def begin(self) -> tuple[RunConfig, Development, MetaMMF]:
        """Set the threads; return config, data and the model at its start."""
        torch.set_num_threads(self.threads)
        split, _ = tiktok(quick=self.quick)
        nothing = split.validation.select(np.zeros(0, dtype=np.int64))
        development = Development(split.train, nothing, split.catalog)
        config = self.config()
        model: MetaMMF = build_model(config.model, development, seed=0, device=torch.device("cpu"))  # type: ignore[assignment]
        if self.nudged:
            generator = torch.Generator().manual_seed(0)
            with torch.no_grad():
                for weight in model.parameters():
                    weight *= 1 + NUDGE * torch.randn(weight.shape, generator=generator)
        return config, development, model


Triples = tuple[np.ndarray, np.ndarray, np.ndarray]


def ours(case: Case) -> tuple[Run, list[Triples]]:
    """Train by the library; return what it took, and the batches that it drew."""
    config, development, model = case.begin()
    recorder, clock, training = Recorder(make_objective(config.training)), Clock(), config.training
    meter = PeakMeter()
    trainer = Trainer(model, recorder, development, training, seed=0, precision=case.precision, listeners=(clock,))
    trainer.run()
    batches = [(batch.users.numpy(), batch.positives.numpy(), batch.negatives.numpy()) for batch in recorder.batches]
    return clock.run(trainer.steps_per_epoch, meter.read(), recorder.losses), batches


def literal(case: Case, batches: Sequence[Triples], fused_items: Sequence[int] | None = None) -> Run:
    """Train by the literal twin on these batches; negatives are drawn too, for their time, and not used.

    Args:
        case: What is trained.
        batches: The first `case.steps` of them, all by default.
        fused_items: Fuse these items alone; all by default.
    """
    config, development, model = case.begin()
    train, training, count = development.train, config.training, config.training.num_negatives
    meter = PeakMeter()
    twin = LiteralMetaMMF(
        model,
        train,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        precision=torch.bfloat16 if case.precision == "bfloat16" else torch.float32,
        fused_items=None if fused_items is None else torch.tensor(fused_items, dtype=torch.int64),
    )
    sampler, clock, losses = SetSampler(train), Clock(), []
    clock.tick()
    for arrays in itertools.islice(batches, case.steps):
        sampler.draw(arrays[0].tolist(), count)
        users, positives, negatives = (torch.from_numpy(array) for array in arrays)
        losses.append(twin.step(users, positives, negatives))
        clock.tick()
    return clock.run(-(-len(train) // training.positives_per_batch), meter.read(), losses)


def extended(none: Run, some: Run, times: float) -> Run:
    """Extend the runs with no item fused and with some along a line to `times` as many."""

    def line(pick: Callable[[Run], float]) -> float:
        return pick(none) + times * (pick(some) - pick(none))

    return Run(
        line(lambda run: run.step_s),
        line(lambda run: run.step_cpu_s),
        line(lambda run: run.epoch_s),
        line(lambda run: run.epoch_cpu_s),
        Peak(line(lambda run: run.peak.rise_mib), line(lambda run: run.peak.resident_mib)),
        [],
    )


def with_ratios(rows: list[Row]) -> list[Row]:
    """Compare every row with the first."""
    first = rows[0]

    def times(row: Row, column: str) -> float:
        above, below = first[column], row[column]
        assert isinstance(above, float)
        assert isinstance(below, float)
        return above / below

    return [
        row
        | {
            "epoch, times faster": times(row, "s/epoch"),
            "CPU, times less": times(row, "CPU s/epoch"),
            "peak, times leaner": times(row, "peak MiB"),
        }
        for row in rows
    ]


def differences(run: Run, other: Run) -> list[float]:
    """Return how far two curves of losses are apart at each step, relative."""
    return [abs(a - b) / abs(b) for a, b in zip(run.losses, other.losses, strict=True)]


def equal(case: Case) -> Table:
    """Train both on the same, and check that their losses are equal, as far as float32 lets two ways be.

    A third run says how far that is: the library's own, from weights that differ by one rounding error.
    """
    found, batches = alone(ours, case)
    runs = {
        "literal": alone(literal, case, batches),
        "metammf": found,
        "metammf, weights one rounding error apart": alone(ours, replace(case, nudged=True))[0],
    }
    start = max(differences(runs["literal"], found)[:FIRST])
    assert start < TOLERANCE, f"the losses of the two forms part: {start:.2e} relative, {TOLERANCE} is allowed"
    rows = with_ratios([run.row(name, case.precision) for name, run in runs.items()])
    for row, run in zip(rows, runs.values(), strict=True):
        apart = differences(run, found)
        row |= {"first loss": run.losses[0], "last loss": run.losses[-1]}
        row |= {f"apart, {FIRST} steps": max(apart[:FIRST]), "apart, epoch": max(apart)}
    widths = case.config().model.hidden_dims  # type: ignore[attr-defined]
    curve = ", ".join(f"{loss:.4f}" for loss in found.losses[:: max(1, len(found.losses) // 8)])
    means = ", ".join(f"{np.mean(run.losses):.4f}" for run in runs.values())
    notes = [
        f"{len(found.losses)} steps from the same weights on the same batches and negatives, without dropout. Apart: the largest"
        f" relative difference of a step's loss from metammf's. The means over the epoch: {means}; the curve: {curve}.",
        "Two ways of one sum differ by rounding errors, which Adam lets grow; the last row is the library against itself.",
    ]
    name = f"{NAMES[case.backbone]}, hidden widths {', '.join(map(str, widths))}, where the literal form fits"
    return Table(name, rows, notes)


def full_width(case: Case) -> Table:
    """Compare at the recipe's widths, in both precisions; the steps of the case are the literal form's."""
    split, _ = tiktok(quick=case.quick)
    num_items, some = split.train.num_items, range(0, split.train.num_items, TENTH)
    literals, found = [], []
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    for precision in precisions:
        chosen = replace(case, precision=precision)
        whole = chosen if case.quick else replace(chosen, steps=None)
        _, batches = alone(ours, replace(chosen, precision="float32"))
        none, tenth = (alone(literal, chosen, batches, items) for items in ((), some))
        literals.append(extended(none, tenth, num_items / len(some)).row("literal, extrapolated", precision))
        for name, settings in VARIANTS[case.backbone].items():
            run, _ = alone(ours, replace(whole, training=settings))
            found.append(run.row(name, precision))
    config = case.config().model
    widths = ", ".join(map(str, (*config.hidden_dims, config.embedding_dim // 2)))  # type: ignore[attr-defined]
    notes = [
        f"The literal rows were run with no item fused and with {len(some):,}, and extended along that line to all"
        f" {num_items:,}; an epoch of theirs is their mean step times the steps of an epoch. The library's are whole epochs."
    ]
    return Table(f"{NAMES[case.backbone]} at its recipe's widths {widths}", with_ratios(literals + found), notes)


def main() -> None:
    """Measure and report."""
    options = parser(__doc__)
    options.add_argument("--backbone", choices=list(RECIPES), default="graphsage")
    options.add_argument("--hidden-dims", type=int, nargs="+", default=[64], help="widths where the literal form fits")
    options.add_argument(
        "--part", choices=("equal", "width"), help="where it fits, or the recipe's widths; both by default"
    )
    given = options.parse_args()
    small = {"hidden_dims": given.hidden_dims}
    case = Case(given.backbone, threads=given.threads, quick=given.quick)
    _, data = tiktok(quick=given.quick)
    wide = replace(case, steps=1 + min(3, given.repeats), model=small if given.quick else {})
    parts = {"equal": partial(equal, replace(case, model=small | NO_DROPOUT)), "width": partial(full_width, wide)}
    tables = [part() for name, part in parts.items() if given.part in (None, name)]
    title = f"{NAMES[given.backbone]}: the paper's formulation word for word, and the library"
    publish(given, title, tables, data=data, backbone=given.backbone)


if __name__ == "__main__":
    main()
