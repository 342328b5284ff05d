"""Trains by each of some settings and saves what came out: one process of those that `torchrun` starts, or the only one.

``parallel_worker.py OUT``: writes OUT/NAME-RANK.safetensors, weights and the mean losses of the epochs. Of the settings whose
tables can be sharded also OUT/NAME-sharded-RANK.safetensors, of a training that was broken off after two epochs and gone
on with, and in OUT/NAME/ what the checkpoint was then.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from metammf.models.lightgcn import LightGCNConfig
from metammf.models.metammf import MetaMMFConfig
from metammf.models.mf import MFConfig
from metammf.testing.data import taste_groups
from metammf.training.config import TrainingConfig
from metammf.training.fit import fit
from metammf.training.loop import CheckpointFile
from metammf.training.parallel import joined

if TYPE_CHECKING:
    from torch import Tensor

    from metammf.training.checkpoint import EpochRecord, Progress
    from metammf.training.parallel import Parallel

SMALL: dict[str, Any] = {"embedding_dim": 8, "hidden_dims": (6,), "meta_dim": 2, "cp_rank": 2, "init_std": 0.1}
TRAINING: dict[str, Any] = {"epochs": 4, "learning_rate": 0.01, "metric": "ndcg@5", "patience": 2}
# 96 train interactions: the last batch of an epoch is smaller, in one setting a single positive.
SETTINGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "mf-bpr": (MFConfig(embedding_dim=8), {"batch_size": 200, "l2_reg": 0.01, "gradient_clip": 0.5}),
    "mf-dense": (MFConfig(embedding_dim=8), {"batch_size": 100, "optimizer": "adamw", "weight_decay": 0.01}),
    "mf-touched": (MFConfig(embedding_dim=8), {"batch_size": 95, "num_negatives": 1, "table_updates": "touched"}),
    "metammf-mf-softmax": (
        MetaMMFConfig(backbone="mf", id_dropout=0.0, **SMALL),
        {"objective": "softmax", "batch_size": 40, "shared_negatives": 12, "l2_reg": 0.01, "table_updates": "touched"},
    ),
    # So few positives a process that items lacking a modality are often in the share of one alone.
    "metammf-mf-lacking": (
        MetaMMFConfig(backbone="mf", id_dropout=0.0, **SMALL),
        {"batch_size": 12, "num_negatives": 3, "learning_rate": 0.001},
    ),
    "metammf-lightgcn": (
        MetaMMFConfig(backbone="lightgcn", simulated_cold=0.2, cold_offset=True, hide_targets=True, **SMALL),
        {"batch_size": 100, "batches_per_step": 2},
    ),
    "metammf-gcn": (MetaMMFConfig(backbone="graphsage", **SMALL), {"batch_size": 200}),
    "lightgcn-weighted": (LightGCNConfig(embedding_dim=8), {"batch_size": 100, "user_weight_exponent": 0.5}),
}


SHARDED = ("mf-bpr", "mf-touched", "mf-dense", "metammf-mf-softmax")


class StopError(Exception):
    """Training is broken off."""


class Stop:
    """A listener that breaks off after two epochs."""

    def on_start(self, epochs: int, steps_per_epoch: int, progress: Progress) -> None:
        """Nothing to do."""

    def on_step(self, epoch: int, step: int, loss: float) -> None:
        """Nothing to do."""

    def on_epoch(self, record: EpochRecord) -> None:
        """Break off."""
        if record.epoch == 2:
            raise StopError


def learn(name: str, parallel: Parallel, **options: Any) -> dict[str, Tensor]:
    """Train by a setting; return weights, losses and metrics."""
    model, training = SETTINGS[name]
    config = TrainingConfig.model_validate(TRAINING | training)
    development = taste_groups(cold=1, lacking=True).development
    recommender = fit(model, development, training=config, seed=3, device="cpu", parallel=parallel, **options)
    return dict(recommender.model.state_dict()) | {
        "losses": torch.tensor([record.loss for record in recommender.history]),
        "metrics": torch.tensor([record.metrics["ndcg@5"] for record in recommender.history]),
    }


def main(out: Path) -> None:
    """Train all."""
    torch.set_num_threads(1)
    with joined("cpu") as (parallel, _):
        for name in SETTINGS:
            save_file(learn(name, parallel), out / f"{name}-{parallel.rank}.safetensors")
        for name in SHARDED if parallel.size > 1 else ():
            checkpoint = CheckpointFile(out / f"{name}.ongoing" / "checkpoint.safetensors", "print")
            with contextlib.suppress(StopError):
                learn(name, parallel, shard=True, checkpoint=checkpoint, listeners=(Stop(),))
            parallel.wait()
            if parallel.leads:
                shutil.copytree(checkpoint.path.parent, out / name)
            parallel.wait()
            tensors = learn(name, parallel, shard=True, checkpoint=checkpoint)
            save_file(tensors, out / f"{name}-sharded-{parallel.rank}.safetensors")
        if parallel.size > 1:
            checkpoint = CheckpointFile(out / "mf-dense.changed" / "checkpoint.safetensors", "print")
            with contextlib.suppress(StopError):
                learn("mf-dense", parallel, checkpoint=checkpoint, listeners=(Stop(),))
            parallel.wait()
            learn("mf-dense", parallel, shard=True, checkpoint=checkpoint)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
