"""The hot path of MetaMMF against its literal twin: the same weights, batches and negatives give the same losses."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from metammf.models.metammf import MetaMMFConfig
from metammf.nn.graph import BipartiteGraph
from metammf.testing.data import taste_groups
from metammf.training.config import TrainingConfig
from metammf.training.fit import build_model
from metammf.training.loop import Trainer
from metammf.training.objectives import make_objective

if TYPE_CHECKING:
    from metammf.data.splitting import Development, Split

CPU = torch.device("cpu")


def alone(development: Development) -> Development:
    """Nothing to look at between epochs."""
    return replace(development, validation=development.validation.select(np.zeros(0, dtype=np.int64)))


@pytest.fixture
def split() -> Split:
    """Some items lack a modality, some have no interaction."""
    return taste_groups(6, cold=1, lacking=True)


@pytest.mark.parametrize("fusion", ["cp", "dense"])
@pytest.mark.parametrize("backbone", ["mf", "graphsage"])
def test_training_equals_the_literal_twin(backbone: str, fusion: str, split: Split) -> None:
    import twin

    config = MetaMMFConfig(
        backbone=backbone,
        fusion=fusion,
        embedding_dim=8,
        hidden_dims=(7, 6),
        meta_dim=3,
        cp_rank=2,
        id_dropout=0,
        hidden_dropout=0,
        final_dropout=0,
    )
    training = TrainingConfig(epochs=3, batch_size=100, num_negatives=5, patience=None, weight_decay=1e-3)
    development = alone(split.development)
    model = build_model(config, development, seed=0, device=CPU)
    literal = twin.LiteralMetaMMF(model, development.train, learning_rate=1e-3, weight_decay=1e-3)
    recorder = twin.Recorder(make_objective(training))
    Trainer(model, recorder, development, training, seed=0).run()
    losses = [literal.step(batch.users, batch.positives, batch.negatives) for batch in recorder.batches]
    assert len(losses) == 3 * -(-len(development.train) // 20)
    np.testing.assert_allclose(losses, recorder.losses, rtol=1e-5)
    trained = dict(model.named_parameters())
    for name, weight in literal.weights.items():
        torch.testing.assert_close(weight, trained[name], atol=1e-5, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}")


def test_edge_list_equals_the_sparse_product(split: Split) -> None:
    import twin

    graph, edges = BipartiteGraph(split.train.matrix), twin.EdgeList(split.train)
    x = torch.randn(edges.num_nodes, 3)
    users, items = x[: split.train.num_users], x[split.train.num_users :]
    torch.testing.assert_close(torch.cat(graph.mean_neighbours(users, items)), edges.mean(x))
    torch.testing.assert_close(torch.cat(graph.symmetric_neighbours(users, items)), edges.symmetric(x))


def test_sets_draw_no_positive(split: Split) -> None:
    import twin

    train = split.train
    users = np.flatnonzero(train.user_counts)
    drawn = np.array(twin.SetSampler(train).draw(users.tolist(), 7))
    assert drawn.shape == (len(users), 7)
    assert not np.isin(users[:, None] * train.num_items + drawn, train.keys).any()
    assert (train.item_counts[drawn] > 0).all()


def test_a_part_of_the_items_is_fused(split: Split) -> None:
    import twin

    config = MetaMMFConfig(backbone="mf", embedding_dim=8, hidden_dims=(7,))
    model = build_model(config, split.development, seed=0, device=CPU)

    def made(items: torch.Tensor | None) -> twin.LiteralMetaMMF:
        return twin.LiteralMetaMMF(model, split.train, learning_rate=1e-3, weight_decay=0, fused_items=items)

    chosen = torch.tensor([1, 4])
    part, whole = made(chosen).fuse(), made(None).fuse()
    torch.testing.assert_close(part[chosen], whole[chosen])
    assert not part[[0, 2, 3]].any()
