"""The final runs of a comparison: the chosen settings under several seeds, and the one look at the test part."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from metammf.errors import RunError
from metammf.experiments.comparison_results import SeedResult
from metammf.experiments.config import Merged
from metammf.experiments.evaluating import evaluate_run, evaluated_once
from metammf.experiments.failures import why_failed
from metammf.experiments.measuring import num_parameters
from metammf.experiments.run import Run, RunOptions, train_run
from metammf.experiments.tuning import CHECKPOINT_SECONDS, epoch_cost
from metammf.files import read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from metammf.evaluation.evaluate import Seen
    from metammf.evaluation.result import Evaluation
    from metammf.experiments.config import RunConfig
    from metammf.training.checkpoint import EpochRecord

FINAL_FILE = "final.json"


@dataclass(frozen=True)
class FinalJob:
    """A run at the chosen settings.

    Args:
        config: All that decides its outcome, its seed included.
        data: The data set's folder.
        out: The run's folder.
        seen: What the test ranking leaves out.
        ks: Lengths of the lists.
        device: Where it runs.
    """

    config: RunConfig
    data: Path
    out: Path
    seen: Seen
    ks: tuple[int, ...]
    device: str = "cpu"


@dataclass(frozen=True)
class Final:
    """What came of it.

    Args:
        parameters: Numbers that were learned or solved for.
        result: The rest.
    """

    parameters: int
    result: SeedResult


@dataclass(frozen=True)
class NoFinal:
    """Why nothing came of it.

    Args:
        seed: Of the run.
        reason: In words.
    """

    seed: int
    reason: str


def run_final(job: FinalJob) -> Final | NoFinal:
    """Train, from where it was if it has begun before, look at validation and once at the test part, and keep what was found.

    Raises:
        DataError: the data set can no longer be read, which says nothing of the model.
        RunError: the folder is of another run, in use, or cannot be written.
        WriteError: the disk is full, for one.
    """
    options = RunOptions(device=job.device, resume=True, checkpoint_seconds=CHECKPOINT_SECONDS)
    try:
        run = train_run(Merged(job.config, {}), job.data, job.out, options)
        validation = evaluate_run(run, part="validation", ks=job.ks)
        test = evaluated_once(run, "test", job.seen, job.ks)
        final = Final(num_parameters(run.recommender()), seed_result(run, validation, test, job.device))
    except Exception as error:
        if (reason := why_failed(error, job.data)) is None:
            raise
        return NoFinal(job.config.seed, reason)
    write_json(job.out / FINAL_FILE, TypeAdapter(Final).dump_python(final, mode="json"))
    return final


def read_final(out: Path, config: RunConfig) -> Final | None:
    """Return what `run_final` has kept in a run's folder; None where it has not come so far.

    Raises:
        RunError: the folder holds a run of other settings, or is damaged.
    """
    path = out / FINAL_FILE
    if not path.is_file():
        return None
    run = Run.load(out)
    if run.config != config:
        raise RunError(
            f"{out} holds a run of other settings than those that the search chose: name another folder with --out"
        )
    try:
        final = TypeAdapter(Final).validate_python(read_json(path))
    except ValidationError as error:
        raise RunError(f"{path}: damaged; remove it, and the same command writes it again") from error
    # Results have noted it for a shorter time than runs.
    return replace(final, result=replace(final.result, source=final.result.source or run.source))


def seed_result(run: Run, validation: Evaluation, test: Evaluation, device: str) -> SeedResult:
    """Return a final run as plain data: what was found on both parts, and what it took on that device."""
    epochs, chosen = run.epochs(), run.chosen()
    metric = run.config.training.metric
    return SeedResult(
        seed=run.config.seed,
        validation=dict(validation.metrics),
        test=_test_tables(run, test),
        epochs=len(epochs) or None,
        best_epoch=chosen.epoch if chosen else None,
        seconds_per_epoch=_median([_training(record, device) for record in epochs]),
        seconds=round(sum(epoch_cost(record, device) for record in epochs) or run.record["seconds"], 3),
        peak_mib=run.record.get("peak_resident_mib"),
        curve=tuple((record.epoch, record.metrics[metric]) for record in epochs if metric in record.metrics),
        source=run.source,
    )


def _test_tables(run: Run, test: Evaluation) -> dict[str, dict[str, float]]:
    """Return the tables that have an interaction; that of cold users where the split makes some."""
    tables = {name.replace("_", " "): metrics for name, metrics in test.tables.items()}
    if run.config.split.method == "cold-user":
        tables["cold users"] = dict(test.cold_users["among_all"])
    return {name: metrics for name, metrics in tables.items() if metrics}


def _training(record: EpochRecord, device: str) -> float:
    on_processor = device == "cpu" and record.processor_seconds is not None
    return float(record.processor_seconds or 0.0) if on_processor else record.seconds


def _median(values: list[Any]) -> float | None:
    return round(median(values), 4) if values else None
