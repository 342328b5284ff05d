"""Batches that share one propagation: the same as one larger batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from metammf.models.base import Batch
from metammf.models.metammf import MetaMMFConfig
from metammf.testing.data import taste_groups
from metammf.training.config import TrainingConfig
from metammf.training.fit import build_model, fit
from metammf.training.loop import Trainer
from metammf.training.objectives import make_objective
from metammf.training.shared import SharedVectors

SPLIT = taste_groups(6, cold=1, lacking=True)
CPU = torch.device("cpu")


def config(backbone: str) -> MetaMMFConfig:
    return MetaMMFConfig.model_validate(
        {
            "backbone": backbone,
            "embedding_dim": 8,
            "hidden_dims": (6,),
            "meta_dim": 2,
            "cp_rank": 2,
            "id_dropout": 0.0,
            "hidden_dropout": 0.0,
            "final_dropout": 0.0,
            "simulated_cold": 0.2,
            "cold_offset": True,
        }
    )


class Calls:
    """Counts how often a model is run."""

    def __init__(self, model: Any) -> None:
        self.count, self._forward = 0, model.forward
        model.forward = self

    def __call__(self, *nodes: Tensor) -> Any:
        self.count += 1
        return self._forward(*nodes)


@pytest.mark.parametrize("backbone", ["mf", "lightgcn", "graphsage"])
@pytest.mark.parametrize("objective", ["bpr", "bce"])
def test_the_gradient_is_that_of_one_larger_batch(backbone: str, objective: str) -> None:
    """Uneven parts too, free vectors' penalty and learned offsets included."""
    training = TrainingConfig(objective=objective, l2_reg=0.1)
    users, positives = (torch.from_numpy(side.astype("int64")) for side in (SPLIT.train.users, SPLIT.train.items))
    negatives = (positives.unsqueeze(1) + torch.tensor([3, 5])) % SPLIT.train.num_items
    gradients = []
    for parts in (1, 3):
        model = build_model(config(backbone), SPLIT.development, seed=0, device=CPU)
        calls = Calls(model)
        trainer = Trainer(model, make_objective(training), SPLIT.development, training, seed=0)
        torch.manual_seed(0)
        model.begin_step(users, positives)
        size = -(-len(users) // parts)
        sides = (torch.split(side, size) for side in (users, positives, negatives))
        batches = [Batch(*part) for part in zip(*sides, strict=True)]
        assert len(batches) == parts
        terms = trainer._gradients(batches, [len(batch.positives) / len(users) for batch in batches])
        assert calls.count == 1
        gradients.append({name: value.grad for name, value in model.named_parameters()} | dict(terms))
    for name, expected in gradients[0].items():
        if isinstance(expected, Tensor):
            torch.testing.assert_close(gradients[1][name], expected, msg=name)
        else:
            assert gradients[1][name] == pytest.approx(expected), name


@pytest.mark.parametrize("objective", ["bpr", "softmax"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_steps_and_epochs(objective: str, precision: Any) -> None:
    """48 positives in batches of sixteen: three batches, a step of two and one of one."""
    assert len(SPLIT.train) == 48
    training = TrainingConfig(
        objective=objective,
        batch_size=80 if objective == "bpr" else 16,
        batches_per_step=2,
        epochs=2,
        table_updates="touched",
    )
    recommender = fit(config("mf"), SPLIT.development, training=training, precision=precision)
    assert [record.step for record in recommender.history] == [2, 4]
    assert recommender.history[1].loss < recommender.history[0].loss + 1
    again = fit(config("mf"), SPLIT.development, training=training, precision=precision)
    for name, value in recommender.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])


@pytest.mark.parametrize(
    ("limit", "each", "steps"), [(None, 1, 6), (6, 1, 6), (5, 2, 3), (3, 2, 3), (2, 3, 2), (1, 6, 1)]
)
def test_no_more_steps_an_epoch_than_asked(limit: int | None, each: int, steps: int) -> None:
    """48 positives in batches of eight."""
    training = TrainingConfig(batch_size=40, max_steps_per_epoch=limit, epochs=1)
    model = build_model(config("mf"), SPLIT.development, seed=0, device=CPU)
    trainer = Trainer(model, make_objective(training), SPLIT.development, training, seed=0)
    assert (trainer.batches_per_step, trainer.steps_per_epoch) == (each, steps)
    assert trainer.run().step == steps


def test_vectors_are_looked_up_and_gradients_stop_there() -> None:
    model = build_model(config("lightgcn"), SPLIT.development, seed=0, device=CPU)
    model.begin_step(torch.tensor([0]), torch.tensor([0]))
    batches = [Batch(torch.tensor([users]), torch.tensor([users]), torch.tensor([[5]])) for users in (3, 1)]
    shared = SharedVectors(model, batches)
    users, items = shared(torch.tensor([3]), torch.tensor([1, 5]))
    whole = model(torch.tensor([1, 3]), torch.tensor([1, 3, 5]))
    assert torch.equal(users, whole[0][1:])
    assert torch.equal(items, whole[1][[0, 2]])
    users.sum().backward()
    assert all(value.grad is None for value in model.parameters())
    shared.backward()
    assert any(value.grad is not None for value in model.parameters())
