"""A run is a folder: what was asked for, what it was made of, how it went, and what came out.

::

    run.json               config, where each value came from, data set and its hash, state, times
    environment.json       versions, machine, threads
    log.jsonl              one line an epoch
    checkpoint.safetensors where training stands; gone on from by ``--resume``
    checkpoint.previous.safetensors the epoch before, for where that is damaged; until training is over
    metrics.json           validation metrics of the chosen epoch
    recommender/           the finished recommender
    evaluation/            what `evaluate` found, one JSON a part and masking
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import time
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from metammf.data.folder import load_dataset
from metammf.errors import (
    ConfigError,
    DataError,
    ForeignModelError,
    MissingExtraError,
    RunError,
    TrainingError,
    WriteError,
)
from metammf.experiments.config import Merged, RunConfig, from_mapping
from metammf.experiments.environment import environment
from metammf.experiments.listeners import JsonlLog, TensorBoardLog
from metammf.files import is_leftover, read_json, remove_leftovers, write_json
from metammf.models.registry import reads_content
from metammf.recommender import Recommender
from metammf.recommender_files import FOLDER, MARKER, check_files
from metammf.training.checkpoint import EpochRecord, has_checkpoint, remove_previous
from metammf.training.fit import fit, pick_device
from metammf.training.loop import CheckpointFile, peak_resident_mib
from metammf.training.parallel import Parallel
from metammf.training.sharded_checkpoint import has_shards, header_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from metammf.data.dataset import Dataset
    from metammf.data.splitting import Development, Split
    from metammf.training.config import TrainingConfig
    from metammf.training.loop import Listener, Precision

RUN_FILE = "run.json"
LOG = "log.jsonl"
METRICS = "metrics.json"
ENVIRONMENT = "environment.json"
CHECKPOINT = "checkpoint.safetensors"
REFIT_CHECKPOINT = "refit.safetensors"
LOCK = ".lock"
_PATIENCE = 0.2  # seconds: who looks whether a folder is free holds it for an instant
_NOTHING_TO_DO = "nothing to do"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """Where and how a run runs; of these, precision alone touches its outcome, and is kept with it.

    Args:
        device: "auto", "cpu", "cuda", ...
        precision: "float32" or "bfloat16".
        resume: Go on from a checkpoint where there is one.
        checkpoint_seconds: Least time between two checkpoints, where epochs are short; 0 writes one an epoch.
        tensorboard: Write TensorBoard events too.
        listeners: Who else is told.
        parallel: This process among those that train together: all of them call `train_run` alike, and read the same
            folders; the one that leads writes.
        shard_tables: Divide tables of free vectors among those processes.
    """

    device: str = "auto"
    precision: Precision = "float32"
    resume: bool = False
    checkpoint_seconds: float = 0.0
    tensorboard: bool = False
    listeners: tuple[Listener, ...] = ()
    parallel: Parallel = field(default_factory=Parallel)
    shard_tables: bool = False


@dataclass(frozen=True)
class Run:
    """A run that was read back.

    Args:
        path: Its folder.
        config: What was asked for.
        record: All of run.json.
        trained: Whether this call has trained it; False where it was read, or was finished already.
    """

    path: Path
    config: RunConfig
    record: Mapping[str, Any]
    trained: bool = False

    @classmethod
    def load(cls, path: Path | str) -> Run:
        """Read a run folder.

        Raises:
            ForeignModelError: its model is from elsewhere, and its code is not to be run.
            RunError: it is none, or damaged.
        """
        path = Path(path)
        if not (path / RUN_FILE).is_file():
            raise RunError(f"{path}: not a run (it has no {RUN_FILE})")
        try:
            record = read_json(path / RUN_FILE)
            for key in ("state", "fingerprint", "data", "split"):
                record[key]
            return cls(path, from_mapping(record["config"], from_file=True), record)
        except ForeignModelError as error:
            raise ForeignModelError(error.model, path) from error
        except (DataError, ConfigError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(
                f"{path / RUN_FILE}: damaged ({error}); the command that trained it, with --resume, mends it where there is a"
                " checkpoint; otherwise train into a new folder"
            ) from error

    @property
    def finished(self) -> bool:
        """Whether there is a recommender."""
        return self.record["state"] == "finished" and (self.path / FOLDER / MARKER).is_file()

    @property
    def source(self) -> str | None:
        """SHA-256 of the code that trained it, or went on with it last; None where that was not noted, or its file is damaged."""
        try:
            found = read_json(self.path / ENVIRONMENT)
        except DataError:
            return None
        return found.get("source") if isinstance(found, dict) else None

    def epochs(self) -> list[EpochRecord]:
        """Return what each epoch did, as the log has it; nothing for a model that is solved."""
        log_file = self.path / LOG
        lines = log_file.read_text(encoding="utf-8").splitlines() if log_file.is_file() else []
        known = {entry.name for entry in fields(EpochRecord)}
        return [EpochRecord(**{key: one for key, one in json.loads(line).items() if key in known}) for line in lines]

    def chosen(self) -> EpochRecord | None:
        """Return the epoch whose weights a finished run has taken; None for a model that is solved."""
        chosen = read_json(self.path / METRICS)["chosen"]
        return None if chosen is None else EpochRecord(**chosen)

    def recommender(self) -> Recommender:
        """Return the finished recommender.

        Raises:
            RunError: training is not finished, or the folder is damaged.
        """
        if not self.finished:
            raise RunError(f"{self.path} holds no finished recommender: go on with its training by --resume")
        return Recommender.load(self.path)

    def dataset(self, path: Path | str | None = None) -> Dataset:
        """Load the data set that the run was trained on, from where it was or from `path`.

        Raises:
            DataError: it is not there, or is not the same.
        """
        recorded = self.record["data"]
        where = Path(path or recorded["path"])
        if not where.exists():
            raise DataError(f"{where}: the run's data set is no longer there; name its folder with --data")
        dataset = load_dataset(where)
        if data_hash(dataset) != recorded["sha256"]:
            raise DataError(f"{where} is not the data set that {self.path} was trained on (its content differs)")
        return dataset

    def split(self, path: Path | str | None = None) -> Split:
        """Return the split that the run was trained on."""
        return self.config.split.apply(self.dataset(path))


def data_hash(dataset: Dataset) -> str:
    """Return one SHA-256 for all files of a data set."""
    files = {name: digest for name, digest in sorted(dataset.hashes.items()) if name != "dataset.json"}
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def train_run(merged: Merged, data: Path | str, out: Path | str, options: RunOptions | None = None) -> Run:
    """Train what a config asks for on a data set, into a run folder.

    Config, data and device are checked before the folder is made, so that bad input leaves nothing behind.

    Raises:
        ConfigError, DataError: what was asked for does not fit.
        RunError: `out` is something else, is in use, or holds a run of other settings.
        TrainingError: training cannot go on.
    """
    options = options or RunOptions()
    out = Path(out)
    config = merged.config
    device = str(pick_device(options.device))
    dataset = load_dataset(data)
    split = config.split.apply(dataset)
    record = _record(merged, dataset, split, options.precision)
    development = _with_placebo(split.development, config)
    if not options.parallel.leads:
        return _assist(Run(out, config, record), development, options, device)
    existing = _existing(out, record, options.resume)
    if existing is not None and _whole(existing):
        options.parallel.tell(_NOTHING_TO_DO)
        return existing
    made = not out.exists()
    with locked(out):
        # Looked at again: until the lock was ours, another process may have trained it.
        existing = _existing(out, record, options.resume)
        if existing is not None and _whole(existing):
            options.parallel.tell(_NOTHING_TO_DO)
            return existing
        remove_leftovers(out)
        if existing is not None:
            record |= {key: existing.record.get(key, record[key]) for key in ("started", "fingerprint")}
        try:
            write_json(out / RUN_FILE, record)
            write_json(out / ENVIRONMENT, environment(device, options.precision, options.parallel.size))
            options.parallel.tell(record["fingerprint"])
            return _train(Run(out, config, record), development, options, device)
        except WriteError as error:
            raise RunError(f"{error}; make room there, then the same command with --resume goes on") from error
        except (ConfigError, DataError, MissingExtraError, TrainingError):  # nothing to go on from
            if existing is None and not any(
                path.exists() for path in (out / CHECKPOINT, header_path(out / CHECKPOINT))
            ):
                _withdraw(out, made)
            raise


def _withdraw(out: Path, made: bool) -> None:
    """Remove what a run has written, and its folder where the run has made it."""
    for entry in out.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    if made:
        out.rmdir()


def _record(merged: Merged, dataset: Dataset, split: Split, precision: str) -> dict[str, Any]:
    config = merged.config.model_dump(mode="json")
    digest = data_hash(dataset)
    asked = json.dumps([config, digest, precision], sort_keys=True)
    return {
        "config": config,
        "sources": dict(merged.sources),
        "data": {
            "name": dataset.name,
            "path": str(dataset.path.resolve()) if dataset.path else None,
            "sha256": digest,
            "files": dict(dataset.hashes),
        },
        "split": {"method": split.method}
        | {part: len(getattr(split, part)) for part in ("train", "validation", "test")},
        "fingerprint": hashlib.sha256(asked.encode()).hexdigest(),
        "precision": precision,
        "state": "training",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _existing(out: Path, record: Mapping[str, Any], resume: bool) -> Run | None:
    if untouched(out):
        return None
    if not out.is_dir() or not (out / RUN_FILE).is_file():
        raise RunError(f"{out} exists and is not a run: name another folder")
    if not resume:
        raise RunError(f"{out} holds a run already: go on with --resume, or name another folder")
    try:
        run = Run.load(out)
    except RunError as error:
        if not any(has(out / CHECKPOINT, record["fingerprint"]) for has in (has_checkpoint, has_shards)):
            raise
        # The checkpoint tells that it is the same run, and all else that the file said is known.
        log.warning("%s: written anew, since the checkpoint is of this run", error)
        return Run(out, from_mapping(record["config"]), record)
    if not _same(run.record, record):
        raise RunError(f"{out} holds a run of other settings or other data: {_difference(run.record, record)}")
    return run


def _same(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether two records are of one config, data and precision; a setting that is newer than a run stood at its default."""
    configs = [from_mapping(one["config"], from_file=True) for one in (old, new)]
    return (configs[0], old["data"]["sha256"], old.get("precision")) == (
        configs[1],
        new["data"]["sha256"],
        new["precision"],
    )


def untouched(out: Path) -> bool:
    """Whether a folder is not there, or holds nothing but what is left of work that had no time, or room, to write anything."""
    return not out.exists() or (
        out.is_dir() and all(entry.name == LOCK or is_leftover(entry.name) for entry in out.iterdir())
    )


def _whole(run: Run) -> bool:
    """Whether a run is finished and its recommender undamaged; a damaged one is made again from the checkpoint."""
    if not run.finished:
        return False
    try:
        check_files(run.path / FOLDER)
    except RunError as error:
        log.warning("%s: it is made again from the checkpoint", error)
        return False
    return True


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    if old["data"]["sha256"] != new["data"]["sha256"]:
        return "the data set's content differs"
    before, after = ({**_flat(one["config"]), "precision": one.get("precision")} for one in (old, new))
    keys = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
    if "model.name" in keys:  # another model has other settings, which say nothing more
        keys = [key for key in keys if key == "model.name" or not key.startswith("model.")]
    return ", ".join(f"{key} was {before.get(key)!r}, is {after.get(key)!r}" for key in keys)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the folder; the lock is the operating system's, so it dies with the process however that ends."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write {out}: {error.strerror or error}") from error
    lock = FileLock(out / LOCK, timeout=_PATIENCE)
    try:
        lock.acquire()
    except Timeout as error:
        raise RunError(f"{out} is in use by another process: wait until that ends, or name another folder") from error
    except OSError as error:  # a folder that is there, on a disk that is read alone
        raise RunError(f"cannot write {out}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def is_free(out: Path) -> bool:
    """Whether no process holds the folder; False too where that cannot be told, since nothing may be written there."""
    if not (out / LOCK).exists():
        return True
    try:
        with FileLock(out / LOCK, timeout=0):
            return True
    except (Timeout, OSError):
        return False


def _with_placebo(development: Development, config: RunConfig) -> Development:
    if config.placebo is None:
        return development
    features = development.catalog.features
    if not features.modalities:
        raise ConfigError("a placebo replaces features, and this data set has none")
    if not reads_content(config.model.name):
        raise ConfigError(f"a placebo replaces features, and {config.model.name} reads none")
    return development.with_features(features.placebo(config.placebo, config.seed))


def _assist(run: Run, development: Development, options: RunOptions, device: str) -> Run:
    """Train along with the process that leads, and write nothing."""
    fingerprint = options.parallel.tell(None)
    if fingerprint != _NOTHING_TO_DO:
        run = replace(run, record={**run.record, "fingerprint": fingerprint})
        _learn(run, development, options, device)
    return run


def _train(run: Run, development: Development, options: RunOptions, device: str) -> Run:
    begun = time.perf_counter()
    record = dict(run.record)
    own: tuple[Listener, ...] = (JsonlLog(run.path / LOG),)
    if options.tensorboard:
        own += (TensorBoardLog(run.path / "tensorboard"),)
    learned = _learn(run, development, options, device, own)
    chosen = learned.chosen
    features = {name: digest for name, digest in record["data"]["files"].items() if name.startswith("features/")}
    placebo = None if run.config.placebo is None else (run.config.placebo, run.config.seed)
    learned.recommender.save(
        run.path / FOLDER, data_path=record["data"]["path"], feature_hashes=features, placebo=placebo
    )
    write_json(run.path / METRICS, {"chosen": asdict(chosen) if chosen else None, "refit": run.config.refit})
    record |= {
        "state": "finished",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        # What was trained before an interruption counts too; a solved model has no epochs to add up.
        "seconds": round(learned.seconds or time.perf_counter() - begun, 3),
        "peak_resident_mib": learned.peak_resident_mib,
        "epochs": chosen.epoch if chosen else None,
    }
    write_json(run.path / RUN_FILE, record)
    for name in (CHECKPOINT, REFIT_CHECKPOINT):
        remove_previous(run.path / name)
    return Run(run.path, run.config, record, trained=True)


@dataclass(frozen=True)
class _Learned:
    recommender: Recommender
    chosen: EpochRecord | None
    seconds: float
    peak_resident_mib: float | None


def _learn(
    run: Run, development: Development, options: RunOptions, device: str, own: tuple[Listener, ...] = ()
) -> _Learned:
    """Train, and train again on train and validation where that is asked for; `own` are told of the first alone."""
    training = run.config.training
    told = replace(options, listeners=own + options.listeners)
    recommender = _fit(run, development, training, told, device, CHECKPOINT)
    seconds = _seconds(recommender)
    peaks = [*(epoch.peak_resident_mib for epoch in recommender.history), peak_resident_mib()]
    chosen = next((past for past in reversed(recommender.history) if past.best), None)
    if chosen is None and recommender.history:
        chosen = recommender.history[-1]
    if run.config.refit:
        recommender = _refit(run, development, options, device, chosen)
        seconds += _seconds(recommender)
    return _Learned(recommender, chosen, seconds, max(filter(None, peaks), default=None))


def _seconds(recommender: Recommender) -> float:
    return float(sum(epoch.seconds + epoch.evaluation_seconds for epoch in recommender.history))


def _refit(
    run: Run, development: Development, options: RunOptions, device: str, chosen: EpochRecord | None
) -> Recommender:
    """Train anew on train and validation, for as many epochs as validation chose before, or steps where those were few."""
    training = run.config.training
    length = {
        "epochs": chosen.epoch if chosen else 1,
        "max_steps": chosen.step if chosen and training.max_steps is not None else None,
    }
    fixed = training.model_copy(update={"patience": None, **length})
    return _fit(run, development.refit(), fixed, options, device, REFIT_CHECKPOINT)


def _fit(
    run: Run, development: Development, training: TrainingConfig, options: RunOptions, device: str, checkpoint: str
) -> Recommender:
    return fit(
        run.config.model,
        development,
        training=training,
        seed=run.config.seed,
        device=device,
        precision=options.precision,
        listeners=options.listeners,
        checkpoint=CheckpointFile(run.path / checkpoint, run.record["fingerprint"], options.checkpoint_seconds),
        parallel=options.parallel,
        shard=options.shard_tables,
    )
