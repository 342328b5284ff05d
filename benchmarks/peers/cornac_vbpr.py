"""VBPR in Cornac. Runs in Cornac's own environment, as it is released."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from cornac.data import Dataset, ImageModality
from cornac.eval_methods.base_method import BaseMethod, ranking_eval
from cornac.metrics import NDCG, Recall
from cornac.models import VBPR

from door import Door

if TYPE_CHECKING:
    from collections.abc import Iterator


def triplets(pairs: np.ndarray) -> list[tuple[int, int, float]]:
    """Return (user, item, 1.0) of each pair, as Cornac takes data."""
    return [(user, item, 1.0) for user, item in pairs.T.tolist()]


def main() -> None:
    """Train by Cornac's own loop, held at each epoch's begin, where it asks the data for batches."""
    door = Door("cornac", "torch", "numpy", "scipy")
    settings = door.settings
    torch.set_num_threads(settings["threads"])
    data = np.load(settings["arrays"])
    features = ImageModality(features=data["features"], ids=list(range(len(data["features"]))), normalized=False)
    method = BaseMethod.from_splits(
        train_data=triplets(data["train"]),
        test_data=triplets(data["validation"]),
        exclude_unknowns=False,
        item_image=features,
        seed=settings["seed"],
    )

    class Gated(Dataset):
        """The train set, which waits for the driver before each pass."""

        def uij_iter(self, *args: Any, **options: Any) -> Iterator[Any]:
            door.next_epoch()
            yield from super().uij_iter(*args, **options)

    method.train_set.__class__ = Gated
    model = VBPR(
        k=settings["dim"] // 2,
        k2=settings["dim"] // 2,
        n_epochs=settings["epochs"],
        batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
        lambda_w=0.0,
        lambda_b=0.0,
        lambda_e=0.0,
        seed=settings["seed"],
        verbose=False,
    )
    model.fit(method.train_set)

    def evaluate() -> dict[str, float]:
        metrics = [Recall(k=settings["k"]), NDCG(k=settings["k"])]
        (recall, ndcg), _ = ranking_eval(model, metrics, method.train_set, method.test_set, exclude_unknowns=False)
        return {"recall": float(recall), "ndcg": float(ndcg)}

    door.serve(evaluate=evaluate)


if __name__ == "__main__":
    main()
