"""The runs of a study: which there are, what each does, in a folder that the same call goes on with.

::

    runs/KEY-SEED-DIGEST/  one run folder a variant, seed and config; see `metammf.experiments.run`

Validation chooses the epoch of each run and, with the first seed, the settings of each variant where there are some to choose
among. The test part is read once for each final run.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from metammf.errors import ConfigError, RunError
from metammf.experiments.clusters import cluster_quality
from metammf.experiments.comparison_results import Trial
from metammf.experiments.config import merge
from metammf.experiments.evaluating import evaluated_once
from metammf.experiments.failures import why_failed
from metammf.experiments.finals import seed_result
from metammf.experiments.jobs import run_all
from metammf.experiments.measuring import content_of_run, fused_vectors, fusion_of, num_parameters
from metammf.experiments.projection import embed_2d
from metammf.experiments.run import RunOptions, locked, train_run, untouched
from metammf.experiments.search_space import is_solved
from metammf.experiments.studies import config_of
from metammf.experiments.study_results import StudyRow
from metammf.files import atomic_open, require_replaceable
from metammf.models.registry import reads_content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from metammf.data.dataset import Dataset
    from metammf.evaluation.evaluate import Seen
    from metammf.evaluation.result import Evaluation
    from metammf.experiments.comparison_results import SeedResult
    from metammf.experiments.config import Merged
    from metammf.experiments.studies import Variant
    from metammf.experiments.study_results import ClusterQuality
    from metammf.experiments.workers import Death
    from metammf.training.loop import Precision

    Progress = Callable[[int, int, str], None]

STUDY_FILE = "study.json"
MARKER = ".metammf-study"
"""Tells a folder of a study, finished or not, from anybody else's; holds the study's name and the hash of its data."""


@dataclass(frozen=True)
class StudyOptions:
    """How a study is run; the same for all of its variants.

    Args:
        num_seeds: Final runs of each variant that is trained; one that is solved draws nothing, so that one will do.
        seed: Of the first; the others count up from there.
        settings: Dotted key -> value, on top of every recipe's.
        choose: Dotted key -> values; validation chooses among all their combinations for each variant, with the first seed.
        metric: What it chooses by; also what figures show and tests compare.
        seen: What the test part's rankings leave out.
        workers: Runs at a time, each with one thread.
        apart: Each run in a process of its own, so that its memory is its own; for tests alone there is a way without.
        device: Where they run.
        precision: "float32" or "bfloat16".
    """

    num_seeds: int = 3
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    choose: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    metric: str = "ndcg@20"
    seen: Seen = "train+validation"
    workers: int = 1
    apart: bool = True
    device: str = "cpu"
    precision: Precision = "float32"

    @property
    def candidates(self) -> list[dict[str, Any]]:
        """The combinations of settings to choose among; a single empty one where there is nothing to choose."""
        return [dict(zip(self.choose, values, strict=True)) for values in itertools.product(*self.choose.values())]


@dataclass(frozen=True)
class StudyJob:
    """One run.

    Args:
        label: For people.
        merged: All that decides its outcome.
        data: The data set's folder.
        folder: The run's.
        options: Of the study.
        final: Whether the test part is read.
        groups: Items whose fused vectors are looked at, and the groups that they are of.
        layout: Whether these are laid out in two dimensions too.
    """

    label: str
    merged: Merged
    data: Path
    folder: Path
    options: StudyOptions
    final: bool
    groups: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
    layout: bool = False


@dataclass(frozen=True, eq=False)
class StudyOutcome:
    """What came of it; where it failed, why, and nothing else.

    Args:
        job: What was asked for.
        validation: The study's metric.
        seconds: Of training.
        epochs: That were trained.
        parameters: Numbers that were learned or solved for.
        result: Of a final run.
        test: Likewise.
        clusters: Of the groups.
        layout: Their items' places, (n, 2).
        failed: Why there is nothing.
        source: SHA-256 of the code that trained it; None where that was not noted.
        trained: Whether it was trained for this; False where the run was finished already.
    """

    job: StudyJob
    validation: float | None = None
    seconds: float = 0.0
    epochs: int | None = None
    parameters: int | None = None
    result: SeedResult | None = None
    test: Evaluation | None = None
    clusters: ClusterQuality | None = None
    layout: NDArray[np.float32] | None = None
    failed: str | None = None
    source: str | None = None
    trained: bool = True


def all_tried(variants: Iterable[Variant], options: StudyOptions) -> Iterator[tuple[Variant, dict[str, Any]]]:
    """Every variant with every combination of settings that is tried with it."""
    for variant in variants:
        for candidate in _candidates(variant, options):
            yield variant, candidate


def _candidates(variant: Variant, options: StudyOptions) -> list[dict[str, Any]]:
    """A variant's own settings are not to choose, and how it is trained is nothing to a solved model."""
    if variant.fixed:
        return [{}]
    solved = _solved(variant)
    free = [
        key for key in options.choose if key not in variant.settings and not (solved and key.startswith("training."))
    ]
    return replace(options, choose={key: options.choose[key] for key in free}).candidates


def _solved(variant: Variant) -> bool:
    return is_solved(merge(variant.recipe).config)


def _seeds(variant: Variant, options: StudyOptions) -> range:
    drawn = not _solved(variant) or variant.placebo in ("noise", "shuffle")
    return range(options.seed, options.seed + (options.num_seeds if drawn else 1))


def refuse_unable(study: str, variants: Sequence[Variant], options: StudyOptions, dataset: Dataset) -> None:
    """Refuse a study none of whose variants a data set can serve; where it can serve some, the others are rows that say why.

    Raises:
        ConfigError: it can serve none.
    """
    models = [config_of(one, options.settings, options.seed).config.model.name for one in variants]
    if not dataset.features.modalities and all(map(reads_content, models)):
        raise ConfigError(
            f"study {study}: no variant can be run: each reads item content, and {dataset.name} has no features"
        )


def check_metric(metric: str) -> None:
    """Refuse what is no metric of the evaluations that a study keeps.

    Raises:
        ConfigError: it is not.
    """
    name, _, k = metric.partition("@")
    if name not in ("recall", "ndcg", "precision", "hit_rate", "map", "mrr") or k not in ("10", "20"):
        raise ConfigError(f"metric {metric!r}: expected NAME@K, such as ndcg@20, with K 10 or 20")


@contextlib.contextmanager
def held(out: Path, name: str, digest: str) -> Iterator[None]:
    """Hold the folder of a study, made where it is not there yet.

    Args:
        out: The folder.
        name: Of the study.
        digest: Of what it is made on: a folder holds a study of one data set.

    Raises:
        DataError: it is somebody else's.
        RunError: it is in use, or holds another study.
        WriteError: it cannot be made.
    """
    if not untouched(out):
        require_replaceable(out, marker=MARKER)
    with locked(out):
        _mark(out, name, digest)
        yield


def _mark(out: Path, name: str, digest: str) -> None:
    """Write whose folder it is, or find out that it is another's."""
    mark = out / MARKER
    if mark.is_file():
        before, _, data = mark.read_text(encoding="utf-8").strip().partition(" ")
        if (before, data) != (name, digest):
            raise RunError(f"{out} holds study {before}{' of other data' * (before == name)}: name another folder")
    with atomic_open(mark) as stream:
        stream.write(f"{name} {digest}\n")


@dataclass(frozen=True, eq=False)
class Runs:
    """Makes the runs of a study that are missing.

    Args:
        data_of: Says on which data set's folder a variant is trained with a seed.
        folder: That of the runs.
        options: Of the study.
        groups: Items whose fused vectors are looked at, and the groups that they are of.
        progress: Called with the runs done, how many there are, and what was done last.
    """

    data_of: Callable[[Variant, int], Path]
    folder: Path
    options: StudyOptions
    groups: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
    progress: Progress | None = None

    def job(self, variant: Variant, seed: int, chosen: Mapping[str, Any], *, final: bool) -> StudyJob:
        """Return a run; one of the same config has the same folder, whether it is a trial or final."""
        merged = config_of(variant, self.options.settings, seed, chosen)
        digest = hashlib.sha256(merged.config.model_dump_json().encode()).hexdigest()[:8]
        return StudyJob(
            f"{variant.label}, seed {seed}",
            merged,
            self.data_of(variant, seed),
            self.folder / f"{_folder_name(variant.key)}-{seed}-{digest}",
            self.options,
            final,
            self.groups if final and variant.vectors else None,
            layout=seed == self.options.seed,
        )

    def all(self, jobs: Sequence[StudyJob], what: str) -> list[StudyOutcome]:
        """Do them, and tell of each."""
        told = itertools.count(1)

        def done(outcome: StudyOutcome) -> None:
            if self.progress is not None:
                self.progress(next(told), len(jobs), f"{what} {_says(outcome)}")

        if self.progress is not None:
            self.progress(0, len(jobs), "")
        workers = min(self.options.workers, max(1, len(jobs)))
        return run_all(do_job, jobs, workers, done, apart=self.options.apart, died=died)


def _folder_name(key: str) -> str:
    """A variant's key as a folder's name: a recipe may be a file's path."""
    return re.sub(r"[^\w.=+-]+", "-", key).strip("-.")


def _says(outcome: StudyOutcome) -> str:
    if outcome.failed is not None:
        return f"{outcome.job.label}: failed: {outcome.failed}"
    told = f"{outcome.job.label}: {outcome.job.options.metric} {outcome.validation:.4f} on validation"
    return told if outcome.trained else f"{told}, trained before"


def make_rows(variants: Sequence[Variant], runs: Runs) -> tuple[list[StudyRow], dict[str, list[StudyOutcome]]]:
    """Choose, run and collect: the rows, and the final runs of each variant that came about."""
    options = runs.options
    asked = [(one, tried) for one, tried in all_tried(variants, options) if len(_candidates(one, options)) > 1]
    tried = runs.all([runs.job(one, options.seed, settings, final=False) for one, settings in asked], "trial")
    trials: dict[str, list[Trial]] = {one.key: [] for one in variants}
    for (variant, settings), outcome in zip(asked, tried, strict=True):
        trials[variant.key].append(_trial(len(trials[variant.key]), settings, outcome))
    chosen = {one.key: _choose(trials[one.key]) for one in variants}
    finals = [(one, seed) for one in variants for seed in _seeds(one, options)]
    jobs = [runs.job(one, seed, chosen[one.key], final=True) for one, seed in finals]
    found: dict[str, list[StudyOutcome]] = {one.key: [] for one in variants}
    for (variant, _), outcome in zip(finals, runs.all(jobs, "final"), strict=True):
        found[variant.key].append(outcome)
    rows = [_row(one, trials[one.key], chosen[one.key], found[one.key]) for one in variants]
    return rows, {row.key: found[row.key] for row in rows if row.failed is None}


def _trial(number: int, settings: Mapping[str, Any], outcome: StudyOutcome) -> Trial:
    return Trial(
        number=number,
        settings=settings,
        state="finished" if outcome.failed is None else "failed",
        seconds=outcome.seconds,
        epochs=outcome.epochs,
        value=outcome.validation,
        reason=outcome.failed,
        source=outcome.source,
    )


def _choose(trials: Sequence[Trial]) -> dict[str, Any]:
    """The settings that are best on validation, the first of those that are equal."""
    told = [(trial.value, trial) for trial in trials if trial.value is not None]
    return dict(max(told, key=lambda pair: pair[0])[1].settings) if told else {}


def _row(variant: Variant, trials: list[Trial], chosen: dict[str, Any], found: list[StudyOutcome]) -> StudyRow:
    failed = next((one.failed for one in found if one.failed is not None), None)
    whole = [] if failed is not None else found
    return StudyRow(
        key=variant.key,
        label=variant.label,
        series=variant.series,
        x=None if variant.x is None else float(variant.x),  # as it is read back
        recipe=variant.recipe,
        settings=dict(variant.settings),
        placebo=variant.placebo,
        parameters=whole[0].parameters if whole else None,
        trials=tuple(trials),
        chosen=chosen,
        seeds=tuple(one.result for one in whole if one.result is not None),
        clusters=tuple(one.clusters for one in whole if one.clusters is not None),
        failed=failed,
        content=reads_content(found[0].job.merged.config.model.name),
    )


def do_job(job: StudyJob) -> StudyOutcome:
    """Train where that is not done yet, look at validation, and of a final run at the test part.

    Raises:
        DataError: the data set can no longer be read, which says nothing of the variant.
        RunError: the run's folder is of another run, in use, or cannot be written.
        WriteError: the disk is full, for one.
    """
    options = job.options
    try:
        run = train_run(
            job.merged,
            job.data,
            job.folder,
            RunOptions(device=options.device, precision=options.precision, resume=True),
        )
        validation = evaluated_once(run, "validation", "train")
        epochs = len(run.epochs()) or None
        value, seconds = validation.metrics[options.metric], run.record["seconds"]
        outcome = StudyOutcome(job, value, seconds, epochs, source=run.source, trained=run.trained)
        if not job.final:
            return outcome
        test, recommender = evaluated_once(run, "test", options.seen), run.recommender()
        result = seed_result(run, validation, test, options.device)
        outcome = replace(outcome, test=test, result=result, parameters=num_parameters(recommender))
        fusion = fusion_of(recommender)
        if job.groups is None or fusion is None:
            return outcome
        items, own = job.groups
        vectors = fused_vectors(fusion, content_of_run(run), items)
        layout = embed_2d(vectors) if job.layout else None
        return replace(outcome, clusters=cluster_quality(vectors, own), layout=layout)
    except Exception as error:
        if (reason := why_failed(error, job.data)) is None:
            raise
        return StudyOutcome(job, failed=reason)


def died(job: StudyJob, death: Death) -> StudyOutcome:
    """Return what to note of a run whose process died."""
    return StudyOutcome(job, seconds=death.seconds, failed=death.reason)
