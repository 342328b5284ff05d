"""LightGCN in RecBole. Runs in RecBole's own environment; see README.md for the patches below and why."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch

from door import Door


def patch() -> None:
    """Let RecBole 1.2.1 run on today's NumPy and SciPy; nothing that is timed in an epoch is touched."""
    for name, kind in (("float_", np.float64), ("complex_", np.complex128), ("unicode_", np.str_)):
        if not hasattr(np, name):
            setattr(np, name, kind)
    if not hasattr(scipy.sparse.dok_matrix, "_update"):  # gone since SciPy 1.13
        scipy.sparse.dok_matrix._update = lambda matrix, entries: matrix._dict.update(entries)


def config_of(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings in RecBole's words."""
    return {
        "data_path": settings["atomic"],
        "benchmark_filename": ["train", "valid", "test"],
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        # All users and items, those without interactions included, as everybody else has them.
        "load_col": {"inter": ["user_id", "item_id"], "user": ["user_id"], "item": ["item_id"]},
        "embedding_size": settings["dim"],
        "n_layers": settings["num_layers"],
        "reg_weight": 0.0,
        "learner": "adam",
        "learning_rate": settings["learning_rate"],
        "weight_decay": 0.0,
        "train_batch_size": settings["batch_size"],
        "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1, "dynamic": False},
        "epochs": settings["epochs"],
        "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": "user", "mode": "full"},
        "metrics": ["Recall", "NDCG"],
        "topk": [settings["k"]],
        "valid_metric": f"NDCG@{settings['k']}",
        # RecBole divides this by the number of items; its default of 4,096 would rank one user at a time.
        "eval_batch_size": settings["eval_users"] * settings["num_items"],
        "seed": settings["seed"],
        "use_gpu": False,
        "state": "ERROR",
        "show_progress": False,
        "checkpoint_dir": settings["scratch"],
        "metric_decimal_place": 6,
    }


def main() -> None:
    """Train by RecBole's own trainer, an epoch at a time."""
    door = Door("recbole", "torch", "numpy", "scipy")
    settings = door.settings
    torch.set_num_threads(settings["threads"])
    patch()
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.general_recommender import LightGCN
    from recbole.trainer import Trainer
    from recbole.utils import init_seed

    os.chdir(settings["scratch"])  # it writes log_tensorboard/ where it stands
    config = Config(model="LightGCN", dataset=Path(settings["atomic"]).name, config_dict=config_of(settings))
    config["data_path"] = settings["atomic"]
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    train, valid, _ = data_preparation(config, dataset)
    model = LightGCN(config, train._dataset)
    trainer = Trainer(config, model)
    trainer.eval_collector.data_collect(train)

    def evaluate() -> dict[str, float]:
        model.restore_user_e = model.restore_item_e = None  # the vectors are computed anew, as everywhere
        found = trainer.evaluate(valid, load_best_model=False)
        return {"recall": float(found[f"recall@{settings['k']}"]), "ndcg": float(found[f"ndcg@{settings['k']}"])}

    for epoch in range(settings["epochs"]):
        door.next_epoch()
        trainer._train_epoch(train, epoch)
    door.serve(evaluate=evaluate)


if __name__ == "__main__":
    main()
