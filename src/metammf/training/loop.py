"""The one training loop. It knows no model, no objective and no file: those come in from outside."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from metammf.errors import NonFiniteLossError, RunError, TrainingError
from metammf.evaluation.evaluate import validation_metrics
from metammf.models.scorers import FallbackScorer, finished_scorer
from metammf.training.checkpoint import EpochRecord, Progress, load_checkpoint, save_checkpoint
from metammf.training.objectives import draw_batch
from metammf.training.optimizers import Optimizer, clip_gradients, make_optimizer, settle
from metammf.training.sampling import NegativeSampler
from metammf.training.shared import SharedVectors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from metammf.data.splitting import Development
    from metammf.models.base import Batch, Model, Objective
    from metammf.training.config import TrainingConfig

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
    """

    path: Path
    fingerprint: str


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
    ) -> None:
        self.model, self.objective, self.development, self.config = model, objective, development, config
        self.seed, self.precision, self.listeners, self.checkpoint = seed, precision, listeners, checkpoint
        self.device = next(model.parameters()).device
        self.optimizer: Optimizer = make_optimizer(model, config)
        self.progress = Progress()
        self.best_state: dict[str, Tensor] = {}
        train = development.train
        self.users = torch.from_numpy(train.users.astype(np.int64)).to(self.device)
        self.items = torch.from_numpy(train.items.astype(np.int64)).to(self.device)
        self.sampler = NegativeSampler(
            train, config.negative_sampling, exponent=config.popularity_exponent, device=self.device
        )
        if config.objective != "softmax":
            # A user who has watched everything has no negative of its own; its edges stay in the graph.
            hungry = ~self.sampler.sated[self.users]
            self.users, self.items = self.users[hungry], self.items[hungry]
        if not len(self.users) or bool(self.sampler.sated[self.users].all()):
            raise TrainingError("every user has watched every item that has a train interaction: nothing can be ranked")
        batches = -(-len(self.users) // config.positives_per_batch)
        self.batches_per_step = max(config.batches_per_step, -(-batches // (config.max_steps_per_epoch or batches)))
        self.steps_per_epoch = -(-batches // self.batches_per_step)
        self.looked_at = development.validation.of_some_users(config.validation_users, seed)
        self.selects = config.patience is not None and len(development.validation) > 0
        if config.patience is not None and not self.selects:
            log.warning("there is no validation part: all %d epochs are trained, the last weights taken", config.epochs)

    def run(self) -> Progress:
        """Train to the end, and leave the chosen weights in the model.

        Raises:
            NonFiniteLossError: the loss became NaN or infinite.
            RunError: the checkpoint cannot be gone on from.
        """
        self._resume()
        for listener in self.listeners:
            listener.on_start(self.config.epochs, self.steps_per_epoch, self.progress)
        while not self.progress.finished:
            record = self._epoch(self.progress.epoch + 1)
            self.progress.history.append(record)
            self.progress.finished = self._is_over(record)
            self._save()
            for listener in self.listeners:
                listener.on_epoch(record)
        if self.best_state:
            self.model.load_state_dict(self.best_state)
        self.model.eval()
        return self.progress

    def _epoch(self, epoch: int) -> EpochRecord:
        start = time.perf_counter()
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
        seconds = time.perf_counter() - start
        metrics = self._look_at_validation(epoch, self.progress.step + steps)
        best = self._note_best(epoch, metrics)
        means = {name: total / max(1, steps) for name, total in totals.items()}
        looked = time.perf_counter() - start - seconds
        return EpochRecord(
            epoch, self.progress.step + steps, means, metrics, seconds, looked, best, peak_resident_mib()
        )

    def _positives(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        order = self._order(generator)
        for chosen in torch.split(order, self.config.positives_per_batch * self.batches_per_step):
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
        size = self.config.positives_per_batch
        batches = [
            draw_batch(some, liked, self.sampler, self.config, generator)
            for some, liked in zip(torch.split(users, size), torch.split(positives, size), strict=True)
        ]
        self.model.begin_step(users, positives)
        self.optimizer.zero_grad(set_to_none=True)
        values = self._gradients(batches)
        if not all(map(math.isfinite, values.values())):
            raise NonFiniteLossError(_diagnosis(self.model, epoch, step, values, users, positives))
        if self.config.gradient_clip is not None:
            clip_gradients(self.model.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        for listener in self.listeners:
            listener.on_step(epoch, step, sum(values.values()))
        return values

    def _gradients(self, batches: list[Batch]) -> dict[str, float]:
        """Collect the gradients of some batches, as if they were one; return the terms of their common loss."""
        with self._autocast():
            source = self.model if len(batches) == 1 else SharedVectors(self.model, batches)
        positives = sum(len(batch.positives) for batch in batches)
        values: dict[str, float] = {}
        for batch in batches:
            with self._autocast():
                terms = self.objective(source, batch)
            share = len(batch.positives) / positives
            for name, term in terms.items():
                values[name] = values.get(name, 0.0) + share * float(term.detach())
            loss = torch.stack([term.float() for term in terms.values()]).sum()
            (loss * share).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if isinstance(source, SharedVectors):
            source.backward()
        return values

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
        train = self.development.train
        scorer = FallbackScorer(finished_scorer(self.model, train), train)
        ks = sorted({10, 20, int(self.config.metric.partition("@")[2])})
        return validation_metrics(scorer, self.looked_at, train, ks)

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
        saved = load_checkpoint(self.checkpoint.path, self.checkpoint.fingerprint)
        if saved is None:
            return
        try:
            self.model.load_state_dict(saved.model)
            self.optimizer.load_state_dict(dict(saved.optimizer))
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self.checkpoint.path}: the checkpoint does not fit this model ({error})") from error
        self.progress, self.best_state = saved.progress, dict(saved.best)

    def _save(self) -> None:
        if self.checkpoint is not None:
            save_checkpoint(
                self.checkpoint.path,
                self.checkpoint.fingerprint,
                self.progress,
                self.model.state_dict(),
                self.best_state,
                self.optimizer.state_dict(),
            )


def _seeded(seed: int, epoch: int, device: torch.device) -> torch.Generator:
    """Seed the global generators (dropout) and return one of our own (batches, negatives), each by (seed, epoch)."""
    streams = np.random.SeedSequence((seed, epoch)).generate_state(2, np.uint64) >> np.uint64(1)
    torch.manual_seed(int(streams[0]))
    return torch.Generator(device=device).manual_seed(int(streams[1]))


def peak_resident_mib() -> float | None:
    """Return the most memory that this process has held so far, in MiB; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


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


def _diagnosis(
    model: Model, epoch: int, step: int, values: Mapping[str, float], users: Tensor, positives: Tensor
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
            f"the weights are finite (largest {largest:.3g}), so the scores overflowed: raise training.temperature,"
            " bound the meta information (model.bounded_meta) or scale the features"
        )
    terms = ", ".join(f"{name} = {value}" for name, value in values.items())
    first = ", ".join(
        f"({user}, {item})" for user, item in zip(users[:3].tolist(), positives[:3].tolist(), strict=True)
    )
    return (
        f"the loss is not finite at epoch {epoch}, step {step} ({terms}); batch of {len(users)} positives,"
        f" (user, item) {first}, ...: {cause}"
    )
