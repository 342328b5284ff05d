"""What a finished run says of itself: how it went, what it cost, what it learned."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from metammf.data.dataset import PARTS
from metammf.experiments.comparison_results import TABLES, DataSummary, SeedResult
from metammf.experiments.run import data_hash
from metammf.explanation import Explainable
from metammf.models.content_table import content_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from metammf.data.dataset import Dataset
    from metammf.data.splitting import Split
    from metammf.evaluation.result import Evaluation
    from metammf.experiments.run import Run
    from metammf.nn.content import Content
    from metammf.recommender import Recommender


def epoch_log(run: Run) -> list[dict[str, Any]]:
    """Return the run's log, one record an epoch; empty for a solved model."""
    path = run.path / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]


def cost(run: Run) -> dict[str, Any]:
    """Return ``epochs``, ``median_epoch_seconds`` (of training alone) and ``peak_resident_mib`` of the process."""
    seconds = [record["seconds"] for record in epoch_log(run)]
    return {
        "epochs": len(seconds),
        "median_epoch_seconds": _middle(seconds) if seconds else None,
        "peak_resident_mib": run.record.get("peak_resident_mib"),
    }


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def curve(run: Run, metric: str) -> list[dict[str, Any]]:
    """Return ``epoch, loss, metric, best`` of each epoch, the metric None where validation was not looked at."""
    return [
        {"epoch": one["epoch"], "loss": one["loss"], "metric": one["metrics"].get(metric), "best": one["best"]}
        for one in epoch_log(run)
    ]


def seed_result(run: Run, validation: Evaluation, test: Evaluation) -> SeedResult:
    """Return a final run as plain data.

    Args:
        run: The run.
        validation: What was found on its validation part.
        test: What was found on its test part.
    """
    log, taken = epoch_log(run), cost(run)
    processor = [one["processor_seconds"] for one in log if one.get("processor_seconds") is not None]
    metric = run.config.training.metric
    return SeedResult(
        seed=run.config.seed,
        validation=dict(validation.metrics),
        test={
            name: dict(found) for name, prefix in TABLES.items() if (found := test.tables[prefix.rstrip("/") or "all"])
        },
        epochs=taken["epochs"] or None,
        best_epoch=run.record["epochs"],
        seconds_per_epoch=_middle(processor) if processor else taken["median_epoch_seconds"],
        seconds=run.record["seconds"],
        peak_mib=taken["peak_resident_mib"],
        curve=tuple((one["epoch"], one["metrics"][metric]) for one in log if metric in one["metrics"]),
    )


def data_summary(dataset: Dataset, split: Split) -> DataSummary:
    """Return a data set and how it was divided as plain data."""
    cold = split.cold_items
    return DataSummary(
        name=dataset.name,
        sha256=data_hash(dataset),
        num_users=dataset.num_users,
        num_items=dataset.num_items,
        num_interactions=len(dataset.interactions),
        parts={name: len(getattr(split, name)) for name in PARTS},
        num_cold_items=int(cold.sum()),
        num_cold_test=int(cold[split.test.items].sum()),
        modalities=dataset.features.widths,
        missing={name: float(1 - mask.mean()) for name, mask in dataset.features.present.items()},
        licence=dataset.provenance.get("licence"),
    )


def num_parameters(recommender: Recommender) -> int:
    """Return how many numbers were learned or solved for."""
    learned = recommender.state.values() or recommender.model.parameters()
    return sum(tensor.numel() for tensor in learned)


def fusion_of(recommender: Recommender) -> Explainable | None:
    """Return the trained network where it fuses modalities."""
    network = None if recommender.state else recommender.model
    return network if isinstance(network, Explainable) else None


def content_of_run(run: Run) -> Content:
    """Return the features that the run was trained on, which may be a placebo."""
    features = run.dataset().features
    if run.config.placebo is not None:
        features = features.placebo(run.config.placebo, run.config.seed)
    return content_of(features)


@torch.no_grad()
def fused_vectors(fusion: Explainable, content: Content, items: NDArray[Any]) -> NDArray[Any]:
    """Return the fused vectors e^m of these items, (n, width)."""
    rows = torch.from_numpy(items)
    return fusion.fuse_scaled(fusion.scale(content.map(lambda tensor: tensor[rows]))).numpy()
