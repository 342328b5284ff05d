"""LightGCN in WarpRec. Runs in WarpRec's own environment: its data set, model, loaders, optimizer and evaluator.

Its pipelines wrap these in Ray Tune; here Lightning trains in one process, as WarpRec itself does when it retrains a chosen
model, so that neither Ray's start nor its workers' memory count against it.
"""

from __future__ import annotations

from typing import Any

import lightning
import numpy as np
import polars as pl
import torch
import warprec.recommenders  # noqa: F401  # registers the models
from warprec.data.dataset import Dataset
from warprec.evaluation.evaluator import Evaluator
from warprec.utils.helpers import retrieve_evaluation_dataloader
from warprec.utils.registry import model_registry

from door import Door


class Gate(lightning.Callback):
    """Holds training at the begin of each epoch."""

    def __init__(self, door: Door) -> None:
        self.door = door

    def on_train_epoch_start(self, *_: Any) -> None:
        """Wait for the driver."""
        self.door.next_epoch()

    def on_train_epoch_end(self, *_: Any) -> None:
        """Tell how long it took."""
        self.door.end_epoch()


def frame(pairs: np.ndarray) -> pl.DataFrame:
    """Return pairs of users and items as WarpRec takes them."""
    return pl.DataFrame({"user_id": pairs[0], "item_id": pairs[1]})


def main() -> None:
    """Train, held at each epoch's begin."""
    door = Door("warprec", "torch", "torch_geometric", "lightning", "numpy", "scipy")
    settings = door.settings
    torch.set_num_threads(settings["threads"])
    data = np.load(settings["arrays"])
    # Items that nobody has watched stay in its catalogue if something is known of them.
    known = pl.DataFrame(
        {"item_id": np.arange(settings["num_items"]), "known": np.ones(settings["num_items"], np.int64)}
    )
    dataset = Dataset(
        frame(data["train"]),
        frame(data["validation"]),
        side_data=known,
        keep_unseen_items=True,
        batch_size=settings["eval_users"],
        evaluation_set="Validation",
    )
    model = model_registry.get(
        name="LightGCN",
        params={
            "embedding_size": settings["dim"],
            "n_layers": settings["num_layers"],
            "reg_weight": 0.0,
            "batch_size": settings["batch_size"],
            "epochs": settings["epochs"],
            "learning_rate": settings["learning_rate"],
        },
        interactions=dataset.train_set,
        seed=settings["seed"],
        info=dataset.info(),
    )
    workers = settings["loader_workers"]
    loader = model.get_dataloader(
        interactions=dataset.train_set,
        sessions=dataset.train_session,
        num_workers=workers,
        persistent_workers=workers > 0,
        seed=settings["seed"],
    )
    trainer = lightning.Trainer(
        max_epochs=settings["epochs"],
        devices=1,
        accelerator="cpu",
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=[Gate(door)],
    )
    trainer.fit(model, train_dataloaders=loader)
    k = settings["k"]
    evaluator = Evaluator(["Recall", "nDCG"], [k], train_set=dataset.train_set.get_sparse())
    users = retrieve_evaluation_dataloader(dataset=dataset, model=model, strategy="full")

    def evaluate() -> dict[str, float]:
        model.train()  # forgets the vectors it kept: they are computed anew, as everywhere
        evaluator.evaluate(model=model, dataloader=users, strategy="full", dataset=dataset)
        found = {name.lower(): value for name, value in evaluator.compute_results()[k].items()}
        return {name: float(found[name].nanmean()) for name in ("recall", "ndcg")}

    door.serve(evaluate=evaluate)


if __name__ == "__main__":
    main()
