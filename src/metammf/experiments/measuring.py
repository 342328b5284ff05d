"""What a finished run says of itself: how it went, what it cost, what it learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from metammf.data.dataset import PARTS
from metammf.experiments.comparison_results import DataSummary
from metammf.experiments.run import data_hash
from metammf.explanation import Explainable
from metammf.models.base import Model
from metammf.models.content_table import content_of
from metammf.models.registry import model_type

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from metammf.data.dataset import Dataset
    from metammf.data.splitting import Split
    from metammf.experiments.run import Run
    from metammf.nn.content import Content
    from metammf.recommender import Recommender


def cost(run: Run) -> dict[str, Any]:
    """Return ``epochs``, ``median_epoch_seconds`` (of training alone) and ``peak_resident_mib`` of the process."""
    seconds = sorted(epoch.seconds for epoch in run.epochs())
    return {
        "epochs": len(seconds),
        "median_epoch_seconds": seconds[len(seconds) // 2] if seconds else None,
        "peak_resident_mib": run.record.get("peak_resident_mib"),
    }


def curve(run: Run) -> list[dict[str, Any]]:
    """Return ``epoch, loss, metric, best`` of each epoch; the metric is what chose the epoch, None where it was not looked at."""
    metric = run.config.training.metric
    return [
        {"epoch": one.epoch, "loss": one.loss, "metric": one.metrics.get(metric), "best": one.best}
        for one in run.epochs()
    ]


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
    network = _network(recommender)
    learned = recommender.state.values() if network is None else network.parameters()
    return sum(tensor.numel() for tensor in learned)


def fusion_of(recommender: Recommender) -> Explainable | None:
    """Return the trained network where it fuses modalities."""
    network = _network(recommender)
    return network if isinstance(network, Explainable) else None


def _network(recommender: Recommender) -> Model | None:
    """Return what was trained; None where the model is solved, of which some keep no state at all."""
    return recommender.model if issubclass(model_type(recommender.config.name), Model) else None


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
