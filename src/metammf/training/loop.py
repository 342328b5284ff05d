"""The one training loop. It knows no model, no objective and no file: those come in from outside."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from metammf.errors import ConfigError, NonFiniteLossError, RunError, TrainingError
from metammf.evaluation.evaluate import validation_metrics
from metammf.models.base import Batch
from metammf.models.scorers import validation_scorer
from metammf.training.checkpoint import EpochRecord, Progress, load_checkpoint, remove_previous, save_checkpoint
from metammf.training.objectives import draw_batch
from metammf.training.optimizers import Optimizer, clip_gradients, make_optimizer, make_up, release, settle
from metammf.training.parallel import Parallel
from metammf.training.sampling import NegativeSampler
from metammf.training.sharded_checkpoint import load_shards, remove_shards, save_shards
from metammf.training.sharding import sharded
from metammf.training.shared import SharedVectors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from metammf.data.splitting import Development
    from metammf.models.base import Model, Objective
    from metammf.training.checkpoint import Checkpoint
    from metammf.training.config import TrainingConfig
    from metammf.training.sharding import ShardedTable

log = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16"]


class Listener(Protocol):
    """Is told how training goes: a progress bar, a log file."""

    def on_start(self, epochs: int, steps_per_epoch: int, progress: Progress) -> None:
        """Training starts, or goes on from `progress`."""

    def on_step(self, epoch: int, step: int, loss: float) -> None:
        """A step was taken."""

    def on_epoch(self, record: EpochRecord) -> None:
        """An epoch ended."""


@dataclass(frozen=True)
class CheckpointFile:
    """Where training keeps its checkpoint.

    Args:
        path: The file; training goes on from it where it exists.
        fingerprint: Names config, data and seed.
        seconds: Least time between two of them; the last is written whatever the time. 0 writes one an epoch.
    """

    path: Path
    fingerprint: str
    seconds: float = 0.0


class Trainer:
    """Train one model.

    Args:
        model: Already on its device.
        objective: What a step descends.
        development: Train to learn from, validation to choose by.
        config: How.
        seed: Of everything that is drawn.
        precision: "bfloat16" runs the forward pass under autocast.
        listeners: Who is told.
        checkpoint: Where to keep it, if anywhere.
        parallel: This process among those that train the model together; alone by default. Checkpoints and listeners are
            for the one that leads. The model's tables may be sharded.
    """

    def __init__(
        self,
        model: Model,
        objective: Objective,
        development: Development,
        config: TrainingConfig,
        *,
        seed: int,
        precision: Precision = "float32",
        listeners: tuple[Listener, ...] = (),
        checkpoint: CheckpointFile | None = None,
        parallel: Parallel | None = None,
    ) -> None:
        self.parallel = parallel or Parallel()
        self.model, self.objective, self.development, self.config = model, objective, development, config
        self.seed, self.precision, self.listeners, self.checkpoint = seed, precision, listeners, checkpoint
        self.device = next(model.parameters()).device
        if precision == "bfloat16":
            # Batches of distinct nodes differ in size, and on a processor the library of these products would keep the code that
            # it makes for each of the last thousand sizes: gigabytes. Read when the first product is made.
            os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
        self.optimizer: Optimizer = make_optimizer(model, config)
        self.sharded = sharded(model)
        self.whole = [value for name, value in model.named_parameters() if name not in self.sharded]
        self.progress = Progress()
        self.best_state: dict[str, Tensor] = {}
        train = development.train
        self.users = torch.from_numpy(train.users.astype(np.int64)).to(self.device)
        self.items = torch.from_numpy(train.items.astype(np.int64)).to(self.device)
        self.sampler = NegativeSampler(
            train, config.negative_sampling, exponent=config.popularity_exponent, device=self.device
        )
        if model.draws_negatives and config.objective != "softmax":
            # A user who has watched everything has no negative of its own; its edges stay in the graph.
            hungry = ~self.sampler.sated[self.users]
            self.users, self.items = self.users[hungry], self.items[hungry]
        if not len(self.users) or bool(self.sampler.sated[self.users].all()):
            raise TrainingError("every user has watched every item that has a train interaction: nothing can be ranked")
        self.batch_size = config.positives_per_batch if model.draws_negatives else config.batch_size
        batches = -(-len(self.users) // self.batch_size)
        self.batches_per_step = max(config.batches_per_step, -(-batches // (config.max_steps_per_epoch or batches)))
        self.steps_per_epoch = -(-batches // self.batches_per_step)
        if self.batches_per_step > 1 and not model.shares_vectors:
            raise ConfigError(
                f"the objective of {type(model).__name__} takes one batch a step, got {self.batches_per_step}: set"
                " training.batches_per_step to 1, training.max_steps_per_epoch to none, and raise training.batch_size instead"
            )
        self.left_out = train if development.history is None else train.union(development.history)
        self.looked_at = development.validation.of_some_users(config.validation_users, seed)
        self.selects = config.patience is not None and len(development.validation) > 0
        if config.patience is not None and not self.selects:
            log.warning("there is no validation part: all %d epochs are trained, the last weights taken", config.epochs)

    def run(self) -> Progress:
        """Train to the end, and leave the chosen weights in the model.

        Raises:
            NonFiniteLossError: the loss became NaN or infinite.
            RunError: the checkpoint cannot be gone on from.
            TrainingError: other processes go on from another one.
        """
        self._resume()
        if self.parallel.tell(self.progress.epoch) != self.progress.epoch:
            raise TrainingError(
                "the processes of this training read different checkpoints: is the run's folder shared?"
            )
        self.parallel.agree(value for name, value in self.model.state_dict().items() if name not in self.sharded)
        for listener in self.listeners:
            listener.on_start(self.config.epochs, self.steps_per_epoch, self.progress)
        saved = time.monotonic()
        while not self.progress.finished:
            record = self._epoch(self.progress.epoch + 1)
            self.progress.history.append(record)
            self.progress.finished = self._is_over(record)
            # Processes that divide tables save together, and have clocks of their own.
            between = self.checkpoint.seconds if self.checkpoint is not None and self.parallel.size == 1 else 0.0
            if self.progress.finished or time.monotonic() - saved >= between:
                self._save()
                saved = time.monotonic()
            for listener in self.listeners:
                listener.on_epoch(record)
        if self.best_state:
            self.model.load_state_dict(self.best_state)
        release(self.optimizer)
        self.model.eval()
        return self.progress

    def _epoch(self, epoch: int) -> EpochRecord:
        start = _clocks()
        self.model.train()
        totals: dict[str, float] = {}
        steps = 0
        with torch.random.fork_rng(devices=_cuda_devices(self.device)):
            generator = _seeded(self.seed, epoch, self.device)
            self.model.begin_epoch(generator)
            for users, positives in self._positives(generator):
                step = self.progress.step + steps + 1
                if self.config.max_steps is not None and step > self.config.max_steps:
                    break
                terms = self._step(epoch, step, users, positives, generator)
                steps += 1
                for name, value in terms.items():
                    totals[name] = totals.get(name, 0.0) + value
        settle(self.optimizer)
        _check_weights(self.model, epoch, self.progress.step + steps)
        trained = _clocks()
        metrics = self._look_at_validation(epoch, self.progress.step + steps)
        best = self._note_best(epoch, metrics)
        looked = _clocks()
        seconds, processor_seconds = (trained - start).tolist()
        evaluation_seconds, evaluation_processor_seconds = (looked - trained).tolist()
        return EpochRecord(
            epoch=epoch,
            step=self.progress.step + steps,
            terms={name: total / max(1, steps) for name, total in totals.items()},
            metrics=metrics,
            seconds=seconds,
            evaluation_seconds=evaluation_seconds,
            best=best,
            peak_resident_mib=peak_resident_mib(),
            processor_seconds=processor_seconds,
            evaluation_processor_seconds=evaluation_processor_seconds,
        )

    def _positives(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        order = self._order(generator)
        for chosen in torch.split(order, self.batch_size * self.batches_per_step):
            yield self.users[chosen], self.items[chosen]

    def _order(self, generator: torch.Generator) -> Tensor:
        """The positives of an epoch: each once, or as many drawn by their users' weights."""
        count = len(self.users)
        if not self.config.user_weight_exponent:
            return torch.randperm(count, generator=generator, device=self.device)
        weights = self.sampler.user_counts(self.users).double() ** -self.config.user_weight_exponent
        borders = weights.cumsum(0)
        at = torch.rand(count, generator=generator, device=self.device, dtype=torch.float64) * borders[-1]
        return torch.searchsorted(borders, at).clamp_(max=count - 1)

    def _step(
        self, epoch: int, step: int, users: Tensor, positives: Tensor, generator: torch.Generator
    ) -> Mapping[str, float]:
        size = self.batch_size
        batches = [
            self._draw(some, liked, generator)
            for some, liked in zip(torch.split(users, size), torch.split(positives, size), strict=True)
        ]
        self.parallel.agree_on_draws(self.device)
        self.model.begin_step(users, positives)
        self.optimizer.zero_grad(set_to_none=True)
        sizes = [len(some) / len(users) for some in torch.split(users, size)]
        values = self.parallel.total(self._gradients(batches, sizes), self.device)
        if not all(map(math.isfinite, values.values())):
            raise NonFiniteLossError(_diagnosis(self.model, self.config, epoch, step, values, users, positives))
        if self.parallel.size > 1:
            self.parallel.add_gradients(self.whole)
            make_up(self.optimizer)
        if self.config.gradient_clip is not None:
            self._clip(self.config.gradient_clip)
        self.optimizer.step()
        for listener in self.listeners:
            listener.on_step(epoch, step, sum(values.values()))
        return values

    def _draw(self, users: Tensor, positives: Tensor, generator: torch.Generator) -> Batch:
        if not self.model.draws_negatives:
            return Batch(users, positives, positives.new_empty(len(positives), 0))
        return draw_batch(users, positives, self.sampler, self.config, generator, self.parallel)

    def _gradients(self, batches: list[Batch], sizes: list[float]) -> dict[str, float]:
        """Collect the gradients of some batches, as if they were one; return the terms of their common loss.

        `sizes` are the shares of the whole batches in the step; of each, this process may have a part.
        """
        with self._autocast():
            source = self.model if len(batches) == 1 else SharedVectors(self.model, batches)
        values: dict[str, float] = {}
        for batch, size in zip(batches, sizes, strict=True):
            with self._autocast():
                terms = self.objective(source, batch)
            share = size if batch.part is None else size * batch.part
            for name, term in terms.items():
                values[name] = values.get(name, 0.0) + share * float(term.detach())
            loss = torch.stack([term.float() for term in terms.values()]).sum()
            (loss * share).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if isinstance(source, SharedVectors):
            source.backward()
        return values

    def _clip(self, limit: float) -> None:
        if not self.sharded:
            clip_gradients(self.whole, limit)
            return
        shards = [table.weight for table in self.sharded.values()]
        clip_gradients(self.whole, limit, shards=shards, add_up=self.parallel.add_up)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def _ends_at(self, epoch: int, step: int) -> bool:
        return epoch >= self.config.epochs or (self.config.max_steps is not None and step >= self.config.max_steps)

    def _look_at_validation(self, epoch: int, step: int) -> dict[str, float]:
        due = epoch % self.config.evaluate_every == 0 or self._ends_at(epoch, step)
        if not due or not len(self.looked_at):
            return {}
        ks = sorted({10, 20, int(self.config.metric.partition("@")[2])})
        with self.model.evaluating():  # while it ranks, too: users who come with a history are encoded then
            scorer = validation_scorer(self.model, self.development.train, self.development.history)
            return validation_metrics(scorer, self.looked_at, self.left_out, ks, ranker=self.parallel.rank_users)

    def _note_best(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        if not metrics or not self.selects:
            return False
        value = metrics[self.config.metric]
        if value <= self.progress.best:
            return False
        self.progress.best, self.progress.best_epoch = value, epoch
        self.best_state = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
        return True

    def _is_over(self, record: EpochRecord) -> bool:
        if self._ends_at(record.epoch, record.step):
            return True
        if not self.selects or not self.progress.best_epoch:
            return False
        assert self.config.patience is not None
        looks = sum(1 for past in self.progress.history if past.epoch > self.progress.best_epoch and past.metrics)
        return looks >= self.config.patience

    def _resume(self) -> None:
        if self.checkpoint is None:
            return
        path, fingerprint = self.checkpoint.path, self.checkpoint.fingerprint
        saved = _newest(path, fingerprint)
        if saved is None:
            return
        model, best, optimizer = self._own_rows(saved)
        try:
            self.model.load_state_dict(model)
            self.optimizer.load_state_dict(optimizer)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: the checkpoint does not fit this model ({error})") from error
        self.progress, self.best_state = saved.progress, best

    def _own_rows(self, saved: Checkpoint) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
        """Return the states of a checkpoint, of sharded tables this process's rows."""
        model, best, state = dict(saved.model), dict(saved.best), dict(saved.optimizer["state"])
        for name, table in self.sharded.items():
            for weights in (model, best):
                if name in weights:
                    weights[name] = table.shard(weights[name])
        for place, table in self._places().items():
            if place in state:
                state[place] = {key: table.shard(one) if one.ndim else one for key, one in state[place].items()}
        return model, best, {**saved.optimizer, "state": state}

    def _places(self) -> dict[int, ShardedTable]:
        """Return the sharded tables by their number among the optimizer's parameters."""
        order = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        tables = {id(table.weight): table for table in self.sharded.values()}
        return {place: tables[id(weight)] for place, weight in enumerate(order) if id(weight) in tables}

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        path, fingerprint = self.checkpoint.path, self.checkpoint.fingerprint
        states = self.model.state_dict(), self.best_state, self.optimizer.state_dict()
        if self.sharded:
            save_shards(
                path,
                fingerprint,
                self.progress,
                *states,
                sharded=self.sharded,
                places=self._places(),
                parallel=self.parallel,
            )
        elif self.parallel.leads:
            save_checkpoint(path, fingerprint, self.progress, *states)
        if self.parallel.leads:  # whichever of the two forms is the old one
            if self.sharded:
                remove_previous(path)
                path.unlink(missing_ok=True)
            else:
                remove_shards(path)


def _newest(path: Path, fingerprint: str) -> Checkpoint | None:
    """Return the checkpoint of either form that has come further; a damaged one gives way to a good one of the other form."""
    found: list[Checkpoint] = []
    problems: list[RunError] = []
    for load in (load_checkpoint, load_shards):
        try:
            saved = load(path, fingerprint)
        except RunError as error:
            problems.append(error)
        else:
            found += [saved] if saved is not None else []
    if problems and not found:
        raise problems[0]
    for problem in problems:
        log.warning("%s: the end of epoch %d is gone on from", problem, found[0].progress.epoch)
    return max(found, key=lambda one: one.progress.step, default=None)


def _seeded(seed: int, epoch: int, device: torch.device) -> torch.Generator:
    """Seed the global generators (dropout) and return one of our own (batches, negatives), each by (seed, epoch)."""
    streams = np.random.SeedSequence((seed, epoch)).generate_state(2, np.uint64) >> np.uint64(1)
    torch.manual_seed(int(streams[0]))
    return torch.Generator(device=device).manual_seed(int(streams[1]))


def peak_resident_mib() -> float | None:
    """Return the most memory that this process has held so far, in MiB; None where the system does not tell.

    On Linux as it says of itself: what `getrusage` tells there begins at the peak of the process that started this one.
    """
    with contextlib.suppress(OSError), Path("/proc/self/status").open() as lines:
        for line in lines:
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / (1 << 10), 1)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def _clocks() -> NDArray[np.float64]:
    """Return wall-clock and processor time, in seconds since some moment."""
    return np.array([time.perf_counter(), time.process_time()])


def _cuda_devices(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


def _check_weights(model: Model, epoch: int, step: int) -> None:
    """Refuse weights that the epoch's last step broke: no loss has seen them yet."""
    broken = [name for name, value in model.named_parameters() if not torch.isfinite(value).all()]
    if broken:
        raise NonFiniteLossError(
            f"the weights {', '.join(broken[:3])} are not finite after epoch {epoch}, step {step}: the step was too large;"
            " lower the learning rate or set training.gradient_clip"
        )


def _against_large_scores(model: Model, config: TrainingConfig) -> list[str]:
    """What this model and this objective have that would make scores smaller."""
    found = ["raise training.temperature"] if config.objective == "softmax" else []
    names = [name for name, _ in model.named_modules()]
    if any(name.rpartition(".")[2] == "meta" for name in names):
        found.append("bound the meta information (model.bounded_meta)")
    if "scaler" in names:
        found.append("scale the features (model.feature_scaling)")
    return found or ["lower the learning rate"]


def _diagnosis(
    model: Model,
    config: TrainingConfig,
    epoch: int,
    step: int,
    values: Mapping[str, float],
    users: Tensor,
    positives: Tensor,
) -> str:
    broken = [name for name, value in model.named_parameters() if not torch.isfinite(value).all()]
    largest = max(float(value.detach().abs().max()) for value in model.parameters())
    if broken:
        cause = f"the weights {', '.join(broken[:3])} are not finite: the step before was too large; lower the learning"
        cause += " rate or set training.gradient_clip"
    elif largest > 1e4:
        cause = f"weights as large as {largest:.3g}: lower the learning rate, or raise training.weight_decay"
    else:
        cause = (
            f"the weights are finite (largest {largest:.3g}), so the scores overflowed:"
            f" {' or '.join(_against_large_scores(model, config))}"
        )
    terms = ", ".join(f"{name} = {value}" for name, value in values.items())
    first = ", ".join(
        f"({user}, {item})" for user, item in zip(users[:3].tolist(), positives[:3].tolist(), strict=True)
    )
    return (
        f"the loss is not finite at epoch {epoch}, step {step} ({terms}); batch of {len(users)} positives,"
        f" (user, item) {first}, ...: {cause}"
    )
