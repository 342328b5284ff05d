"""The library's side of a comparison: LightGCN or VBPR by `fit`, as any user would train it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from door import Door
from metammf.data.folder import load_dataset
from metammf.data.splitting import Development
from metammf.evaluation.evaluate import validation_metrics
from metammf.models.registry import model_config
from metammf.models.scorers import FallbackScorer, finished_scorer
from metammf.training.config import TrainingConfig
from metammf.training.fit import fit

if TYPE_CHECKING:
    from metammf.models.config import ModelConfig
    from metammf.training.checkpoint import EpochRecord, Progress


class Gate:
    """Holds training at the begin of each epoch."""

    def __init__(self, door: Door) -> None:
        self.door = door

    def on_start(self, epochs: int, steps_per_epoch: int, progress: Progress) -> None:
        """Wait for the first."""
        self.door.next_epoch()

    def on_step(self, epoch: int, step: int, loss: float) -> None:
        """Nothing."""

    def on_epoch(self, record: EpochRecord) -> None:
        """Wait for the next; after the last there is none."""
        if record.epoch == self.door.settings["epochs"]:
            self.door.end_epoch()
        else:
            self.door.next_epoch()


def model_of(settings: dict[str, Any]) -> ModelConfig:
    """Return the config of the model that is compared."""
    chosen = {"name": settings["model"], "embedding_dim": settings["dim"]}
    if settings["model"] == "lightgcn":
        chosen["num_layers"] = settings["num_layers"]
    return model_config(chosen)


def main() -> None:
    """Train, held at each epoch's begin."""
    door = Door("torch", "numpy", "scipy")
    settings = door.settings
    torch.set_num_threads(settings["threads"])
    development = load_dataset(Path(settings["ours"])).split().development
    # The driver's command looks at validation, training does not.
    nothing = development.validation.select(np.zeros(0, dtype=np.int64))
    unwatched = Development(development.train, nothing, development.catalog)
    training = TrainingConfig(
        objective="bpr",
        epochs=settings["epochs"],
        batch_size=settings["batch_size"],
        num_negatives=1,
        learning_rate=settings["learning_rate"],
        weight_decay=0.0,
        l2_reg=0.0,
        patience=None,
    )
    recommender = fit(
        model_of(settings),
        unwatched,
        training=training,
        seed=settings["seed"],
        device="cpu",
        listeners=(Gate(door),),
    )

    def evaluate() -> dict[str, float]:
        scorer = FallbackScorer(finished_scorer(recommender.model, development.train), development.train)
        k = settings["k"]
        found = validation_metrics(scorer, development.validation, development.train, (k,))
        return {"recall": found[f"recall@{k}"], "ndcg": found[f"ndcg@{k}"]}

    door.serve(evaluate=evaluate)


if __name__ == "__main__":
    main()
