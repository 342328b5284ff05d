"""One model of the demo, trained and measured in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metammf.experiments.config import Merged, RunConfig
from metammf.experiments.evaluating import evaluate_run
from metammf.experiments.jobs import run_all
from metammf.experiments.measuring import content_of_run, curve, fused_vectors, fusion_of, num_parameters
from metammf.experiments.projection import embed_2d
from metammf.experiments.run import RunOptions, train_run
from metammf.explanation import Explainable, in_chunks, item_contributions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from metammf.evaluation.result import Evaluation
    from metammf.nn.content import Content


@dataclass(frozen=True)
class Job:
    """What to train.

    Args:
        key: Which model of the demo.
        config: All that decides the outcome.
        data: The data set's folder.
        out: The run's folder.
        mapped: Items whose fused vectors are laid out in two dimensions; None for none of them.
    """

    key: str
    config: RunConfig
    data: Path
    out: Path
    mapped: NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of it.

    Args:
        key: Which model of the demo.
        seed: Its seed.
        evaluation: On the test part.
        curve: One record an epoch, ``epoch, loss, metric, best``; empty for a solved model.
        epoch: The epoch that validation chose; None for a solved model.
        parameters: Numbers that were learned or solved for.
        seconds: Of training, validation included.
        shares: Each modality's share in the fused vector of each item, (N, M); None where there is no fusion.
        fused: The fused vectors e^m of the items that are mapped, (n, width); None where there are none.
        layout: Their places on the map, (n, 2); likewise.
    """

    key: str
    seed: int
    evaluation: Evaluation
    curve: Sequence[dict[str, Any]]
    epoch: int | None
    parameters: int
    seconds: float
    shares: NDArray[np.float32] | None
    fused: NDArray[np.float32] | None
    layout: NDArray[np.float32] | None


def run_jobs(jobs: Sequence[Job], workers: int, done: Callable[[Outcome], None]) -> list[Outcome]:
    """Run all jobs and return what came of them, in their order; see `metammf.experiments.jobs.run_all`."""
    return run_all(run_job, jobs, workers, done)


def run_job(job: Job) -> Outcome:
    """Train, evaluate on the test part, and look into the fusion."""
    merged = Merged(job.config, {})
    run = train_run(merged, job.data, job.out, RunOptions(device="cpu"))
    evaluation = evaluate_run(run)
    recommender = run.recommender()
    fusion = fusion_of(recommender)
    content = None if fusion is None else content_of_run(run)
    fused = None
    if fusion is not None and content is not None and job.mapped is not None:
        fused = fused_vectors(fusion, content, job.mapped)
    return Outcome(
        key=job.key,
        seed=job.config.seed,
        evaluation=evaluation,
        curve=curve(run),
        epoch=run.record["epochs"],
        parameters=num_parameters(recommender),
        seconds=run.record["seconds"],
        shares=None if fusion is None or content is None else _shares(fusion, content),
        fused=fused,
        layout=None if fused is None else embed_2d(fused),
    )


def _shares(fusion: Explainable, content: Content) -> NDArray[np.float32]:
    return in_chunks(lambda chunk: item_contributions(fusion, chunk), content).shares.numpy()
