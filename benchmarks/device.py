"""The library on a device beside the CPU: equal within tolerance, how fast, and how near the device's own limits.

``python benchmarks/device.py --device cuda`` checks MetaMMF_GCN on TikTok: loss and gradients of a step, the losses of a short
training on the same batches, and the lists of an evaluation. It then times a step, an epoch and an evaluation, and compares
propagation, fusion and the top-k with the roofline of the card: the larger of the bytes that must move over its measured copy
bandwidth, and the arithmetic over its measured rate of matrix products. With ``--device cpu`` the CPU is checked against itself.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import fusion
import propagation
from clock import Clock
from harness import Absent, Peak, Table, backward, parser, publish, run_or_say
from literal import NO_DROPOUT, Case
from logs import tiktok
from metammf.evaluation.evaluate import validation_metrics
from metammf.models.scorers import VectorScorer, finished_scorer
from metammf.nn.meta import LowRankMetaLinear
from metammf.ranking.topk import rank
from metammf.training.fit import build_model
from metammf.training.loop import Trainer
from metammf.training.objectives import make_objective
from twin import Recorder

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from harness import Row
    from metammf.data.splitting import Development
    from metammf.experiments.config import RunConfig
    from metammf.models.base import Batch, Model, Objective, VectorSource
    from metammf.training.loop import Precision

LOSS_TOLERANCE, GRADIENT_TOLERANCE, METRIC_TOLERANCE = 1e-4, 1e-3, 1e-3
CPU = torch.device("cpu")
STEPS = 20
K = 20


def moved(batch: Batch, device: torch.device) -> Batch:
    """Return the batch on a device."""
    parts: dict[str, Any] = {part.name: getattr(batch, part.name) for part in fields(batch)}
    return replace(batch, **{name: part.to(device) for name, part in parts.items() if part is not None})


class Replay:
    """An objective that puts recorded batches in place of those that it is asked for.

    Args:
        objective: What is descended.
        batches: In order.
        device: Where they are to be.
    """

    def __init__(self, objective: Objective, batches: Sequence[Batch], device: torch.device) -> None:
        self.recorder, self.device = Recorder(objective), device
        self.batches: Iterator[Batch] = iter(batches)

    def __call__(self, model: VectorSource, batch: Batch) -> Mapping[str, torch.Tensor]:
        """Return the terms of the loss on the next recorded batch."""
        return self.recorder(model, moved(next(self.batches), self.device))


@dataclass(frozen=True)
class Setting:
    """What is checked: MetaMMF_GCN without dropout, whose random bits differ from device to device.

    Args:
        config: Model and training.
        development: The data.
        device: Which.
    """

    config: RunConfig
    development: Development
    device: torch.device

    @property
    def reference(self) -> torch.dtype:
        """Of the CPU that the device is held against: a CPU's own float32 against float64."""
        return torch.float64 if self.device.type == "cpu" else torch.float32

    def models(self) -> tuple[Model, Model]:
        """The same weights twice: the reference on the CPU, and in float32 on the device."""
        built = partial(build_model, self.config.model, self.development, seed=0)
        return built(device=CPU).to(self.reference), built(device=self.device)

    def train(self, model: Model, objective: Objective) -> None:
        """Take the steps of the config."""
        Trainer(model, objective, self.development, self.config.training, seed=0).run()


def checks(setting: Setting) -> Table:
    """Compare the device with the CPU.

    Raises:
        AssertionError: a difference is beyond its tolerance.
    """
    device, recorder = setting.device, Recorder(make_objective(setting.config.training))
    at_home, away = setting.models()
    setting.train(at_home, recorder)
    gradients = _gradient_distance(setting, recorder.batches[0])
    replay = Replay(make_objective(setting.config.training), recorder.batches, device)
    setting.train(away, replay)
    losses = _largest(replay.recorder.losses, recorder.losses)
    lists, metrics = _ranking_distance(setting, at_home)
    rows: list[Row] = [
        {"check": "loss of a step, relative", "difference": _largest(replay.recorder.losses[:1], recorder.losses[:1])},
        {"check": "gradient of a step, relative norm, the worst parameter", "difference": gradients},
        {"check": f"losses of {len(recorder.losses)} steps, relative, the worst", "difference": losses},
        {"check": f"places of the top {K} that differ, share", "difference": lists},
        {"check": "validation metrics, the worst", "difference": metrics},
    ]
    tolerances = (LOSS_TOLERANCE, GRADIENT_TOLERANCE, 10 * LOSS_TOLERANCE, METRIC_TOLERANCE, METRIC_TOLERANCE)
    for row, tolerance in zip(rows, tolerances, strict=True):
        row["allowed"] = tolerance
        assert float(row["difference"] or 0) <= tolerance, f"{row['check']}: {row['difference']}, allowed {tolerance}"
    reference = str(setting.reference).removeprefix("torch.")
    return Table(f"MetaMMF_GCN in float32 on {device}, beside {reference} on the CPU", rows)


def _largest(found: Sequence[float], expected: Sequence[float]) -> float:
    return max(abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True))


def _gradient_distance(setting: Setting, batch: Batch) -> float:
    objective, found = make_objective(setting.config.training), []
    for model, device in zip(setting.models(), (CPU, setting.device), strict=True):
        backward(torch.stack([*objective(model.train(), moved(batch, device)).values()]).sum())
        found.append(
            {name: weight.grad.double().cpu() for name, weight in model.named_parameters() if weight.grad is not None}
        )
    here, there = found
    return max(float((there[name] - grad).norm() / grad.norm().clamp(min=1e-12)) for name, grad in here.items())


def _ranking_distance(setting: Setting, trained: Model) -> tuple[float, float]:
    """Rank by the same weights on both; which share of the places differs, and by how much the metrics do."""
    _, away = setting.models()
    away.load_state_dict(trained.state_dict())
    part, train = setting.development.validation, setting.development.train
    users = np.flatnonzero(part.user_counts)
    scorers = [finished_scorer(model, train) for model in (trained, away)]
    here, there = (rank(scorer, users, K, seen=train.matrix)[0] for scorer in scorers)
    first, second = (validation_metrics(scorer, part, train) for scorer in scorers)
    return float((here != there).mean()), max(abs(first[name] - second[name]) for name in first)


def synchronize(device: torch.device) -> None:
    """Wait for what was asked of the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Return the median time of a run, after one that warms up."""
    times = []
    for turn in range(repeats + 1):
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        if turn:
            times.append(time.perf_counter() - start)
    return float(np.median(times))


def timed(case: Case, development: Development, device: torch.device, repeats: int) -> Table:
    """Time training at the recipe's settings, in both precisions, and an evaluation of all users with validation items."""
    rows: list[Row] = []
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    for precision in precisions:
        config, clock = case.config(), Clock()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        model = build_model(config.model, development, seed=0, device=device)
        trainer = Trainer(
            model,
            make_objective(config.training),
            replace(development, validation=development.validation.select(np.zeros(0, dtype=np.int64))),
            config.training,
            seed=0,
            precision=precision,
            listeners=(clock,),
        )
        trainer.run()
        run = clock.run(trainer.steps_per_epoch, Peak(0, 0), [])
        scorer = finished_scorer(model, development.train)
        look = seconds(partial(validation_metrics, scorer, development.validation, development.train), device, repeats)
        users = int((development.validation.user_counts > 0).sum())
        rows.append(
            {
                "precision": precision,
                "ms/step": 1000 * run.step_s,
                "s/epoch": run.epoch_s,
                "evaluation s": look,
                "users/s": users / look,
                "device MiB": torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None,
            }
        )
    return Table(f"MetaMMF_GCN at its recipe's settings on {device}", rows)


@dataclass(frozen=True)
class Limits:
    """What a device was measured to do.

    Args:
        bandwidth: Bytes a second of a large copy, read and written.
        flops: Precision -> operations a second of a large matrix product.
    """

    bandwidth: float
    flops: Mapping[str, float]


def limits(device: torch.device, repeats: int, *, quick: bool) -> Limits:
    """Measure a copy and matrix products that are large for the device."""
    cuda = device.type == "cuda"
    count = 1 << (20 if quick else 28 if cuda else 26)
    source, target = torch.ones(count, device=device), torch.empty(count, device=device)
    bandwidth = 8 * count / seconds(lambda: target.copy_(source), device, repeats)
    size, flops = 256 if quick else 8192 if cuda else 2048, {}
    for precision in ("float32", "bfloat16"):
        square = torch.ones(size, size, device=device, dtype=getattr(torch, precision))
        flops[precision] = 2 * size**3 / seconds(partial(torch.matmul, square, square), device, repeats)
    return Limits(bandwidth, flops)


@dataclass(frozen=True)
class Work:
    """A piece of work and what it cannot do without.

    Args:
        name: For the table.
        run: Does it.
        bytes: That must move at least: each input read once, each output written once.
        flops: Additions and multiplications.
        precision: Of the products.
    """

    name: str
    run: Callable[[], object]
    bytes: float
    flops: float
    precision: str = "float32"


def propagations(device: torch.device, *, quick: bool) -> list[Work]:
    """Both sums over neighbours, forward; the bytes with each vector read once, and with one read an edge."""
    shape = propagation.SMALL if quick else propagation.FULL
    world = propagation.World(shape)
    graph, x = world.graph.to(device), world.x.detach().to(device)
    users, items = x[: shape.users], x[shape.users :]
    edges, nodes = 2 * shape.interactions, len(x)
    matrix, vectors = 8 * edges, 4 * nodes * shape.dim
    once, each = matrix + 2 * vectors, matrix + vectors + 4 * edges * shape.dim

    def run() -> object:
        return graph.mean_neighbours(users, items)

    flops = 2.0 * edges * shape.dim
    return [
        Work("propagation, a vector read once", run, once, flops),
        Work("propagation, a vector read an edge", run, each, flops),
    ]


def fusions(device: torch.device, *, quick: bool) -> list[Work]:
    """The CP network, forward and backward, in both precisions."""
    sizes = fusion.SMALL if quick else fusion.FULL
    pairs = list(itertools.pairwise(sizes.widths))
    layers = [LowRankMetaLinear(sizes.meta_dim, *pair, sizes.cp_rank).to(device) for pair in pairs]
    x = torch.randn(sizes.items, sizes.widths[0], device=device)
    meta = torch.randn(sizes.items, sizes.meta_dim, device=device)
    entries = sum(above * below + sizes.cp_rank * (above + below + sizes.meta_dim) for above, below in pairs)
    # Forward, and two products of the same size backward; the first layer needs no gradient of its features.
    first = sizes.widths[0] * (sizes.widths[1] + sizes.cp_rank)
    flops = 2.0 * sizes.items * (3 * entries - first)
    moved_bytes = 4.0 * sizes.items * (2 * sum(sizes.widths) + sizes.meta_dim) + 4.0 * 3 * entries

    def run(precision: str) -> Callable[[], None]:
        def step() -> None:
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                loss = fusion.through(x, meta, layers).float().sum()
            backward(loss)

        return step

    return [
        Work(f"fusion, CP, {precision}", run(precision), moved_bytes, flops, precision)
        for precision in ("float32", "bfloat16")
    ]


def rankings(device: torch.device, *, quick: bool) -> list[Work]:
    """The exact top-k with the product of the vectors: scores are written once and read once."""
    users, items, dim = (200, 100, 8) if quick else (55_000, 6_000, 64)
    scorer = VectorScorer(torch.randn(users, dim, device=device), torch.randn(items, dim, device=device))
    everyone = np.arange(users)
    scores = float(users * items)
    moved_bytes = 8 * scores + 4.0 * dim * (users + items)
    return [Work(f"top {K} of {items:,}", lambda: rank(scorer, everyone, K), moved_bytes, 2 * scores * dim)]


def roofline(device: torch.device, repeats: int, *, quick: bool) -> Table:
    """Time each piece of work beside its bound."""
    known = limits(device, repeats, quick=quick)
    rows: list[Row] = []
    for works in (propagations, fusions, rankings):
        for work in works(device, quick=quick):
            taken = seconds(work.run, device, repeats)
            memory, arithmetic = work.bytes / known.bandwidth, work.flops / known.flops[work.precision]
            rows.append(
                {
                    "work": work.name,
                    "ms": 1000 * taken,
                    "GB/s": work.bytes / taken / 1e9,
                    "GFLOP/s": work.flops / taken / 1e9,
                    "bound by": "memory" if memory > arithmetic else "arithmetic",
                    "share of the roofline": max(memory, arithmetic) / taken,
                }
            )
    rates = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {precision}" for precision, rate in known.flops.items())
    notes = [
        f"Measured here: a copy at {known.bandwidth / 1e9:,.1f} GB/s, matrix products at {rates}. A share above 1 means that"
        " the bytes counted came from a cache."
    ]
    return Table(f"Share of the roofline on {device}", rows, notes)


def pick(name: str) -> torch.device:
    """Return the device.

    Raises:
        Absent: it is not here.
    """
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise Absent("there is no CUDA device here: nothing was run on one")
    return device


def measured(given: argparse.Namespace) -> None:
    """Check, time and report.

    Raises:
        Absent: the device is not here.
    """
    torch.set_num_threads(given.threads)
    device = pick(given.device)
    split, data = tiktok(quick=given.quick)
    small: dict[str, object] = {"hidden_dims": (16,)} if given.quick else {}
    case = Case("graphsage", small, threads=given.threads, quick=given.quick, steps=3 if given.quick else STEPS)
    setting = Setting(replace(case, model=small | NO_DROPOUT).config(), split.development, device)
    whole = case if given.quick else replace(case, steps=None)
    tables = [
        checks(setting),
        timed(whole, split.development, device, given.repeats),
        roofline(device, given.repeats, quick=given.quick),
    ]
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "none: the CPU against itself"
    publish(given, f"On a device: {device}", tables, data=data, card=card)


def main() -> None:
    """Measure and report, or say what is absent."""
    options = parser(__doc__)
    options.add_argument("--device", default="cuda", help="cuda, cuda:1, cpu")
    given = options.parse_args()
    run_or_say(lambda: measured(given))


if __name__ == "__main__":
    main()
