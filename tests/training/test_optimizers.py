"""Adam on the rows that are touched, held against Adam on whole tables."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from metammf.errors import ConfigError
from metammf.models.metammf import MetaMMFConfig
from metammf.models.mf import MFConfig
from metammf.testing.data import taste_groups
from metammf.training.config import TrainingConfig
from metammf.training.fit import build_model, fit
from metammf.training.optimizers import RowAdam, TableOptimizer, clip_gradients, make_optimizer

SPLIT = taste_groups(6, cold=1, lacking=True)
CPU = torch.device("cpu")


def table(rows: int = 30, dim: int = 3) -> nn.Embedding:
    torch.manual_seed(0)
    return nn.Embedding(rows, dim)


def descend(kind: str, batches: list[Tensor], **options: Any) -> Tensor:
    """Train a table toward targets that change with each step, `batches` of rows at a time, and return it."""
    weights, generator = table(), torch.Generator().manual_seed(1)
    if kind == "rows":
        optimizer: Any = RowAdam([weights], lr=0.05, **options)
    else:
        whole = torch.optim.AdamW if options.pop("decoupled", False) else torch.optim.Adam
        optimizer = whole(weights.parameters(), lr=0.05, **options)
    for rows in batches:
        target = torch.randn(30, 3, generator=generator)
        optimizer.zero_grad()
        (weights(rows) - target[rows]).pow(2).sum().backward()
        optimizer.step()
    if kind == "rows":
        optimizer.settle()
    return weights.weight.detach()


def drawn(steps: int, seed: int = 0) -> list[Tensor]:
    """Few rows often, others hardly ever, some never."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.tensor([1.0] * 5 + [0.1] * 10 + [0.004] * 10 + [0.0] * 5)
    return [torch.nonzero(torch.rand(30, generator=generator) < shares).flatten() for _ in range(steps)]


@pytest.mark.parametrize("steps", [1, 2, 30, 600])
def test_touched_rows_end_where_adam_on_the_whole_table_has_them(steps: int) -> None:
    batches = drawn(steps)
    torch.testing.assert_close(descend("rows", batches), descend("whole", batches), rtol=1e-4, atol=1e-4)


def test_decoupled_decay_pulls_at_rows_that_were_not_touched() -> None:
    options = {"weight_decay": 0.1, "decoupled": True}
    batches = drawn(300)
    found, expected = descend("rows", batches, **options), descend("whole", batches, **options)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(expected[-5:], table().weight[-5:], atol=1e-2)


def test_coupled_decay_pulls_at_touched_rows_alone() -> None:
    batches = drawn(300)
    found, expected = (descend(kind, batches, weight_decay=1e-2) for kind in ("rows", "whole"))
    torch.testing.assert_close(found[:5], expected[:5], rtol=1e-4, atol=1e-4)
    assert torch.equal(found[-5:], table().weight[-5:])
    assert not torch.allclose(expected[-5:], table().weight[-5:], atol=1e-2)  # dragged by nothing but its decay


def test_a_decay_that_leaves_nothing() -> None:
    with pytest.raises(ConfigError, match=r"weight decay of 3.0 at a learning rate of 0.05 leaves nothing"):
        RowAdam([table()], lr=0.05, weight_decay=3.0, decoupled=True)


@given(st.lists(st.lists(st.integers(0, 29), unique=True, max_size=6), min_size=1, max_size=40))
@settings(max_examples=30, deadline=None)
def test_any_order_of_touching(batches: list[list[int]]) -> None:
    rows = [torch.tensor(batch, dtype=torch.int64) for batch in batches]
    torch.testing.assert_close(descend("rows", rows), descend("whole", rows), rtol=1e-4, atol=1e-4)


def test_a_row_is_made_up_for_when_it_is_read_not_before() -> None:
    """The first row has a gradient once, and goes on moving; others do not stir at its steps."""
    weights = table()
    optimizer = RowAdam([weights], lr=0.05)
    first, others = torch.tensor([0]), torch.tensor([1, 2])
    for rows in [first] + [others] * 20:
        optimizer.zero_grad()
        weights(rows).sum().backward()
        optimizer.step()
    after_one_step = weights.weight[0].detach().clone()
    assert torch.equal(after_one_step, weights.weight[0])
    assert torch.equal(weights.weight[3:], table().weight[3:])
    read = weights(first)[0].detach()
    assert (after_one_step - read).min() > 0.1  # some dozens of fading steps of .05 and less
    assert torch.equal(read, weights(first)[0])  # nothing is missed twice


def test_repeated_rows_and_two_readings_of_one_step_add_up() -> None:
    results = []
    for kind in ("rows", "whole"):
        weights = table()
        optimizer: Any = (
            RowAdam([weights], lr=0.05) if kind == "rows" else torch.optim.Adam(weights.parameters(), lr=0.05)
        )
        for _ in range(3):
            optimizer.zero_grad()
            loss = weights(torch.tensor([4, 4, 7])).pow(2).sum() + weights(torch.tensor([7, 9])).sum()
            loss.backward()
            optimizer.step()
        results.append(weights.weight.detach())
    # The whole table's Adam moves rows without a gradient by nothing here: they had none before either.
    torch.testing.assert_close(results[0], results[1])


def test_the_state_goes_through_a_checkpoint() -> None:
    """Cut after a while and gone on with from the saved state: the same bits."""
    batches = drawn(40)

    def run(*, cut: bool) -> Tensor:
        weights, bias = table(), nn.Parameter(torch.ones(3))
        optimizer = TableOptimizer(torch.optim.Adam([bias], lr=0.05), RowAdam([weights], lr=0.05))
        for step, rows in enumerate(batches):
            optimizer.zero_grad()
            (weights(rows) * bias).pow(2).sum().backward()
            optimizer.step()
            if step != 17:
                continue
            optimizer.rows.settle()
            if cut:
                state, values = optimizer.state_dict(), (weights.weight.detach().clone(), bias.detach().clone())
                assert set(state["state"]) == {0, 1}
                weights, bias = table(), nn.Parameter(torch.ones(3))
                optimizer = TableOptimizer(torch.optim.Adam([bias], lr=0.05), RowAdam([weights], lr=0.05))
                optimizer.load_state_dict(state)
                with torch.no_grad():
                    weights.weight.copy_(values[0])
                    bias.copy_(values[1])
        optimizer.rows.settle()
        return weights.weight.detach()

    assert torch.equal(run(cut=False), run(cut=True))


def test_the_optimizer_of_a_model() -> None:
    mf = build_model(MFConfig(embedding_dim=4), SPLIT.development, seed=0, device=CPU)
    assert isinstance(make_optimizer(mf, TrainingConfig(table_updates="touched")), RowAdam)
    assert isinstance(make_optimizer(mf, TrainingConfig()), torch.optim.Adam)
    config = MetaMMFConfig(backbone="mf", embedding_dim=8, hidden_dims=(6,), meta_dim=2, cp_rank=2)
    fused = build_model(config, SPLIT.development, seed=0, device=CPU)
    mixed = make_optimizer(
        fused, TrainingConfig(table_updates="touched", optimizer="adamw", fusion_learning_rate=0.5, weight_decay=0.25)
    )
    assert isinstance(mixed, TableOptimizer)
    assert isinstance(mixed.whole, torch.optim.AdamW)
    assert [(group["lr"], group["weight_decay"]) for group in mixed.param_groups] == [
        (1e-3, 0.25),
        (0.5, 0.25),
        (1e-3, 0.25),
    ]
    assert mixed.rows.param_groups[0]["decoupled"]
    names = {id(value): name for name, value in fused.named_parameters()}
    assert {names[id(value)] for value in mixed.param_groups[2]["params"]} == {
        "user_table.weight",
        "item_ids.table.weight",
    }
    graph = config.model_copy(update={"backbone": "lightgcn"})
    propagating = build_model(graph, SPLIT.development, seed=0, device=CPU)
    assert isinstance(make_optimizer(propagating, TrainingConfig(table_updates="touched")), torch.optim.Adam)


@pytest.mark.parametrize("objective", ["bpr", "softmax"])
def test_training_by_touched_rows_is_training(objective: str) -> None:
    """One config, both ways: the same weights within rounding."""
    config = MetaMMFConfig(backbone="mf", embedding_dim=8, hidden_dims=(6,), meta_dim=2, cp_rank=2, id_dropout=0.0)
    common: dict[str, Any] = {"objective": objective, "epochs": 6, "batch_size": 15, "learning_rate": 0.01}
    both = [
        fit(
            config,
            SPLIT.development,
            training=TrainingConfig(**common, weight_decay=0.0, patience=None, table_updates=updates),
        )
        for updates in ("dense", "touched")
    ]
    states = [recommender.model.state_dict() for recommender in both]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-3, atol=1e-3)
    assert both[0].history[-1].metrics == both[1].history[-1].metrics


def test_a_trained_model_holds_nothing_of_its_optimizer() -> None:
    """Moments would be twice the tables, on the device where they were trained."""
    gc.collect()
    before = sum(type(one) is RowAdam for one in gc.get_objects())
    training = TrainingConfig(epochs=1, table_updates="touched")
    model = fit(MFConfig(embedding_dim=4), SPLIT.development, training=training).model
    assert model is not None
    gc.collect()
    assert sum(type(one) is RowAdam for one in gc.get_objects()) == before
    assert not any(one._forward_pre_hooks for one in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("limit", [0.01, 1e6])
def test_clipping_counts_gradients_of_rows_as_those_of_the_table(limit: float) -> None:
    norms = []
    for sparse in (False, True):
        weights, other = table(), nn.Parameter(torch.ones(2))
        weights.sparse = sparse
        (weights(torch.tensor([1, 1, 5])).pow(3).sum() + other.pow(2).sum()).backward()
        clip_gradients([weights.weight, other, nn.Parameter(torch.ones(1))], limit)
        assert weights.weight.grad is not None
        assert other.grad is not None
        dense = weights.weight.grad.to_dense()
        norms.append((dense.norm() ** 2 + other.grad.norm() ** 2).sqrt())
    torch.testing.assert_close(norms[0], norms[1])
    assert (norms[0] <= limit * 1.001) == (limit < 1 or norms[0] < limit)
