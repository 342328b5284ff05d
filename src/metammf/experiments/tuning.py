"""The search for one model's settings: trials that are runs, judged by validation alone, within a budget of one core's time.

A trial is a run folder, so that a kill costs some seconds; when it is over, its line goes into the ledger and its folder
goes away. What it costs is processor time, so that other work on the machine takes nothing from a model's budget; on a GPU, which
keeps no such account, it is wall-clock time.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from metammf.errors import RunError
from metammf.experiments.comparison_results import Spread, Trial
from metammf.experiments.config import Merged
from metammf.experiments.environment import source_hash
from metammf.experiments.evaluating import evaluate_run
from metammf.experiments.failures import why_failed
from metammf.experiments.proposing import Pruner, propose
from metammf.experiments.run import Run, RunOptions, train_run
from metammf.experiments.search_space import with_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from metammf.experiments.comparison_results import Budget, SearchedSetting, TrialState
    from metammf.experiments.config import RunConfig
    from metammf.experiments.workers import Death
    from metammf.training.checkpoint import EpochRecord, Progress

CHECKPOINT_SECONDS = 20.0
"""Between two checkpoints: where epochs are short, writing each to the disk would take longer than training it."""
TRIAL_SHARE = 0.5
"""Of a search's time, what a trial may take at most: a recipe that is slow would leave nothing to search with."""
_NOT_LOOKED_AT = "its time was over before the first look at validation"
_FAILURES = 3
"""A search in which as many trials as this have failed, and none has not, is over."""


@dataclass(frozen=True)
class TrialJob:
    """The next trial of a model.

    Args:
        label: The model's name in the comparison.
        family: Of the searches that draw alike; see `propose`.
        config: The recipe, as merged.
        space: Dotted key -> its range.
        earlier: The trials so far.
        seconds: What it may take; see `seconds_left`.
        data: The data set's folder.
        out: The trial's run folder.
        device: Where it runs.
    """

    label: str
    family: str
    config: RunConfig
    space: Mapping[str, SearchedSetting]
    earlier: tuple[Trial, ...]
    seconds: float
    data: Path
    out: Path
    device: str = "cpu"


class _OverError(Exception):
    """The trial is not to go on."""

    def __init__(self, state: TrialState) -> None:
        super().__init__(state)
        self.state = state


def run_trial(job: TrialJob) -> Trial:
    """Run the next trial, from where it was if it has begun before.

    Raises:
        MissingExtraError: Optuna is not installed.
        DataError: the data set can no longer be read, which says nothing of the settings.
        RunError: the run's folder is in use, or cannot be written.
        WriteError: the disk is full, for one, which says nothing of the settings.
    """
    settings = propose(job.space, job.earlier, job.label, job.family)
    repeated = next((trial for trial in job.earlier if trial.counts and trial.settings == settings), None)
    if repeated is not None:  # where there is little to choose among
        return replace(repeated, number=len(job.earlier), seconds=0.0)
    account, source = _Account(job), source_hash()

    def line(state: TrialState, value: float | None, reason: str | None = None) -> Trial:
        epochs, curve, seconds = account.epochs, tuple(account.curve), round(account.seconds, 3)
        return Trial(len(job.earlier), settings, state, seconds, epochs, value, curve, reason, source)

    try:
        run = _train(with_settings(job.config, settings), job, account)
        return line("finished", _validation(run))
    except _OverError as over:
        value = max((value for _, value in account.curve), default=None)
        return line(over.state, value, _NOT_LOOKED_AT if value is None else None)
    except Exception as error:
        if (reason := why_failed(error, job.data)) is None:
            raise
        return line("failed", None, reason)


def died_trial(job: TrialJob, death: Death) -> Trial:
    """Return the trial whose process died. The next one has its settings, since others' hunger for memory may have killed it; of
    settings that have died twice it is a failure.
    """
    settings = propose(job.space, job.earlier, job.label, job.family)
    again = bool(job.earlier) and not job.earlier[-1].counts
    state: TrialState = "failed" if again else "died"
    seconds = round(death.seconds, 3)
    return Trial(len(job.earlier), settings, state, seconds, None, None, reason=death.reason, source=source_hash())


def is_over(trials: Sequence[Trial], budget: Budget, space: Mapping[str, Any]) -> bool:
    """Whether a search has nothing left to spend, nothing to try, or no hope."""
    if spent(trials) >= 60 * budget.minutes:  # what died has cost what it has
        return True
    counted = [trial for trial in trials if trial.counts]
    if len(counted) >= trials_in_all(budget, space):
        return True
    return len(counted) >= _FAILURES and all(trial.state == "failed" for trial in counted)


def trials_in_all(budget: Budget, space: Mapping[str, Any]) -> int:
    """Return how many trials of a search count at most: one where there is nothing to search."""
    return budget.trials if space else 1


def spent(trials: Sequence[Trial]) -> float:
    """Return the seconds that trials have cost."""
    return sum(trial.seconds for trial in trials)


def seconds_left(trials: Sequence[Trial], budget: Budget, space: Mapping[str, Any]) -> float:
    """Return the seconds that the next trial may take: its share of the budget, or all that is left where it is the last."""
    total = 60 * budget.minutes
    left = total - spent(trials)
    last = sum(trial.counts for trial in trials) + 1 >= trials_in_all(budget, space)
    return left if last else min(left, budget.trial_share * total)


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """Return the trial of the best validation value, the first of equals; None where all have failed.

    A trial that was pruned was behind the others when it was given up, and is not chosen.
    """
    valued = [trial for trial in trials if trial.value is not None and trial.state != "pruned"]
    return max(valued, key=lambda trial: trial.value or 0.0, default=None)


def chosen_config(config: RunConfig, trial: Trial) -> RunConfig:
    """Return what the final runs are trained with.

    A trial that was stopped, at its share of the budget or at the end of it, says nothing of later epochs: the final runs get no
    more of them than it had.
    """
    settings = dict(trial.settings)
    if trial.state == "stopped" and trial.epochs is not None:
        settings["training.epochs"] = trial.epochs
    return with_settings(config, settings)


def spread(trials: Sequence[Trial]) -> Spread:
    """Return how far validation values lie apart.

    Raises:
        ValueError: all trials have failed.
    """
    values = [trial.value for trial in trials if trial.value is not None]
    return Spread(len(values), *(float(value) for value in np.quantile(values, (0, 0.25, 0.5, 0.75, 1))))


def epoch_cost(record: EpochRecord, device: str) -> float:
    """Return the seconds that an epoch counts for, its look at validation included."""
    if device != "cpu" or record.processor_seconds is None:
        return record.seconds + record.evaluation_seconds
    return record.processor_seconds + (record.evaluation_processor_seconds or 0.0)


class _Account:
    """A listener that keeps a trial's account and curve, and ends it where it is behind or its time is over."""

    def __init__(self, job: TrialJob) -> None:
        self._job = job
        self._pruner = Pruner(job.space, job.earlier)
        self._clock = time.process_time if job.device == "cpu" else time.perf_counter
        self._begun = self._clock()
        self._before = 0.0  # spent by epochs that an earlier process has trained
        self.epochs: int | None = None
        self.curve: list[tuple[int, float]] = []

    @property
    def seconds(self) -> float:
        return self._before + self._clock() - self._begun

    def on_start(self, epochs: int, steps_per_epoch: int, progress: Progress) -> None:
        """Take over what is behind us; a kill may have come between an epoch and the word that it was the last."""
        for record in progress.history:
            self._before += epoch_cost(record, self._job.device)
            self.on_epoch(record)

    def on_step(self, epoch: int, step: int, loss: float) -> None:
        """Nothing is looked at within an epoch."""

    def on_epoch(self, record: EpochRecord) -> None:
        """Note the epoch, and end the trial where it is not to go on."""
        self.epochs = record.epoch
        value = record.metrics.get(self._job.config.training.metric)
        if value is not None:
            self.curve.append((record.epoch, value))
            if self._pruner.is_behind(len(self.curve), value):
                raise _OverError("pruned")
        if self.seconds >= self._job.seconds:
            raise _OverError("stopped")

    def read(self, run: Run) -> None:
        """Take over the account of a run that was found whole."""
        for record in run.epochs():
            self._before += epoch_cost(record, self._job.device)
            self.epochs = record.epoch
            if run.config.training.metric in record.metrics:
                self.curve.append((record.epoch, record.metrics[run.config.training.metric]))


def _train(config: RunConfig, job: TrialJob, account: _Account) -> Run:
    if job.out.exists() and not _of(job.out, config):
        shutil.rmtree(job.out)  # of another version of the program, or damaged: nothing is lost but time
    options = RunOptions(device=job.device, resume=True, checkpoint_seconds=CHECKPOINT_SECONDS, listeners=(account,))
    run = train_run(Merged(config, {}), job.data, job.out, options)
    if not run.trained:
        account.read(run)
    return run


def _of(out: Path, config: RunConfig) -> bool:
    try:
        return Run.load(out).config == config
    except RunError:
        return False


def _validation(run: Run) -> float:
    """Return the validation value of what the run has taken: of its best epoch, or of what was solved."""
    metric = run.config.training.metric
    chosen = run.chosen()
    if chosen is not None:
        return chosen.metrics[metric]
    k = int(metric.partition("@")[2])
    return evaluate_run(run, part="validation", ks=(k,)).metrics[metric]
