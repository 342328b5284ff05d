"""Cornac's evaluation of given vectors. Runs in Cornac's own environment, as it is released."""

from __future__ import annotations

from typing import Any

import numpy as np
from cornac.data import Dataset
from cornac.eval_methods.base_method import ranking_eval
from cornac.metrics import NDCG, Recall
from cornac.models import BPR

from door import Door


def dataset(pairs: np.ndarray, num_users: int, num_items: int) -> Dataset:
    """Return pairs of users and items as Cornac's data set, every index its own id."""
    ratings = np.ones(pairs.shape[1])
    users, items = ({index: index for index in range(count)} for count in (num_users, num_items))
    return Dataset(num_users, num_items, users, items, (pairs[0], pairs[1], ratings))


def main() -> None:
    """Load what is scored, then evaluate as often as asked."""
    door = Door("cornac", "numpy", "scipy")
    settings: dict[str, Any] = door.settings
    data = np.load(settings["arrays"])
    users, items = data["users"], data["items"]
    train, test = (dataset(data[name], len(users), len(items)) for name in ("seen", "relevant"))
    vectors = {"U": users, "V": items, "Bi": np.zeros(len(items), dtype=np.float32)}
    model = BPR(k=users.shape[1], trainable=False, verbose=False, init_params=vectors)
    model.fit(train)

    def evaluate() -> dict[str, float]:
        metrics = [Recall(k=settings["k"]), NDCG(k=settings["k"])]
        (recall, ndcg), _ = ranking_eval(model, metrics, train, test, exclude_unknowns=False)
        return {"recall": float(recall), "ndcg": float(ndcg)}

    door.serve(evaluate=evaluate)


if __name__ == "__main__":
    main()
