"""InvRL on the tiny world, an interaction and an environment at a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from metammf.models.base import Batch, Inputs
from metammf.models.content_table import content_of
from metammf.models.invrl import InvRL, InvRLConfig, InvRLObjective
from metammf.testing.data import taste_groups
from metammf.training.config import TrainingConfig
from metammf.training.fit import fit
from metammf.training.loop import CheckpointFile
from metammf.training.shared import SharedVectors

if TYPE_CHECKING:
    from pathlib import Path

SPLIT = taste_groups(4, cold=1, lacking=True)
INPUTS = Inputs(SPLIT.train, SPLIT.catalog.features)
TRAIN = SPLIT.train
ITEMS = INPUTS.num_items
K, D = 3, 4
ROWS = np.array([0, 3, 5, 6, 9, 11])
BATCH = Batch(
    torch.from_numpy(TRAIN.users[ROWS].astype(np.int64)),
    torch.from_numpy(TRAIN.items[ROWS].astype(np.int64)),
    torch.tensor([[1, 3], [5, 7], [0, 2], [2, 6], [1, 7], [4, 0]]),
)
PARTS = ("environments", "mask")


def made(**settings: Any) -> InvRL:
    """In evaluation mode, without noise; gates apart, and everything of a size that shows."""
    torch.manual_seed(0)
    settings = {"embedding_dim": 2 * D, "num_environments": K, "warmup_epochs": 0, "init_std": 0.5} | settings
    model = InvRL(InvRLConfig(**settings), INPUTS).eval()
    with torch.no_grad():
        model.gate.mu.uniform_(-0.7, 0.7)
        model.environment_biases.normal_()
        model.project.bias.normal_()
        for vector in model.concat.vectors.values():
            vector.normal_()
    return model


def objective(model: InvRL, **settings: Any) -> InvRLObjective:
    made = model.objective(TrainingConfig(objective="bce", **settings))
    assert isinstance(made, InvRLObjective)
    return made


def features_of(model: InvRL, item: int) -> np.ndarray:
    """Rows centred by the mean of those that may be learned from, of norm one; a learned vector for one that lacks."""
    features = SPLIT.catalog.features
    known = TRAIN.item_counts > 0
    scale = (sum(features.widths.values()) / len(features.modalities)) ** 0.5
    row = []
    for name in features.modalities:
        values = features.matrices[name].astype(float)
        if features.present[name][item]:
            centred = values[item] - values[known & features.present[name]].mean(0)
            row.append(centred / np.linalg.norm(centred))
        else:
            row.append(model.concat.vectors[f"of_{name}"].detach().numpy() / scale)
    return np.concatenate(row)


def gates(model: InvRL) -> np.ndarray:
    return np.array([min(1.0, max(0.0, value + 0.5)) for value in model.gate.mu.tolist()])


def halves(model: InvRL, user: int) -> tuple[np.ndarray, np.ndarray]:
    row = model.user_table.weight[user].detach().double().numpy()
    return row[:D], row[D:]


def free(model: InvRL, item: int) -> np.ndarray:
    row = model.item_table.weight[item].detach().double().numpy()
    return row if TRAIN.item_counts[item] else np.zeros_like(row)


def array(weight: torch.Tensor) -> np.ndarray:
    return weight.detach().double().numpy()


def log_sigmoid(score: float) -> float:
    return -math.log1p(math.exp(-score))


def weight_of(user: int, item: int, constraint: float) -> float:
    """1 + lambda beta_ui."""
    d_u, d_i = float(TRAIN.user_counts[user]), float(TRAIN.item_counts[item])
    return 1 + constraint * math.sqrt((d_u + 1) / (d_i + 1)) / d_u


def score(model: InvRL, user: int, item: int, content: np.ndarray) -> float:
    gamma, theta = halves(model, user)
    return float(gamma @ free(model, item) + theta @ content)


def loss_and_gradient(model: InvRL, rows: list[int], weight: np.ndarray, bias: np.ndarray, mask: np.ndarray) -> Any:
    """L over some of the batch, the mean, with (1 + lambda beta) on each pair; and its gradient by the projection."""
    config = model.config
    total, gradient = 0.0, np.zeros_like(weight)
    for b in rows:
        user = int(BATCH.users[b])
        theta = halves(model, user)[1]
        negatives = BATCH.negatives[b].tolist()
        share = config.negative_weight / len(negatives)
        for item, sign, size in [(int(BATCH.positives[b]), 1, 1.0), *((j, -1, share) for j in negatives)]:
            x = mask * features_of(model, item)
            s = score(model, user, item, weight @ x + bias)
            size *= weight_of(user, item, config.constraint_weight)
            total -= size * log_sigmoid(sign * s)
            gradient += size * -sign / (1 + math.exp(sign * s)) * np.outer(theta, x)
    return total / len(rows), gradient / len(rows)


def rows_by_environment(model: InvRL) -> dict[int, list[int]]:
    found = model.environments_of(BATCH.users, BATCH.positives).tolist()
    return {e: [b for b, other in enumerate(found) if other == e] for e in sorted(set(found))}


def test_vectors() -> None:
    """e_u = [gamma | theta], e_i = [v_i | W (m * x_i) + b], v_i = 0 where nobody has watched it."""
    model = made()
    users, items = model.vectors()
    assert torch.equal(users, model.user_table.weight)
    for item in range(ITEMS):
        content = array(model.project.weight) @ (gates(model) * features_of(model, item)) + array(model.project.bias)
        assert items[item].tolist() == pytest.approx([*free(model, item), *content], abs=1e-5)
    new = model.encode_items(content_of(SPLIT.catalog.features))
    cold = TRAIN.item_counts == 0
    torch.testing.assert_close(new[cold], items[cold])


def test_predictor_loss() -> None:
    model = made(constraint_weight=0.6, negative_weight=1.5)
    terms = objective(model)(model, BATCH)
    args = array(model.project.weight), array(model.project.bias), gates(model)
    expected, _ = loss_and_gradient(model, list(range(len(ROWS))), *args)
    assert (terms["main"] + terms["constraint"]).item() == pytest.approx(expected, rel=1e-5)


def test_environment_loss() -> None:
    """The sum of L_e + eta mean|W_e * m|, over the number of interactions."""
    model = made(constraint_weight=0.6, negative_weight=1.5, variant_weight=0.4)
    expected = 0.0
    by_environment = rows_by_environment(model)
    assert len(by_environment) > 1
    for e, rows in by_environment.items():
        weight = array(model.environment_weights[e])
        mean, _ = loss_and_gradient(model, rows, weight, array(model.environment_biases[e]), np.ones(weight.shape[1]))
        expected += mean + 0.4 * np.abs(weight * gates(model)).mean() / len(ROWS)
    assert objective(model)(model, BATCH)["environments"].item() == pytest.approx(expected, rel=1e-5)


def mask_loss(model: InvRL) -> float:
    """The mean of the L_e, the scatter of their gradients behind the mask, and the penalty on mu."""
    mask, weight = gates(model), array(model.masked_weight)
    found = [loss_and_gradient(model, rows, weight, np.zeros(D), mask) for rows in rows_by_environment(model).values()]
    gradients = [len(ROWS) * gradient for _, gradient in found]
    mean = sum(gradients) / len(gradients)
    variance = 0.0
    scatter = sum((gradient - mean) ** 2 for gradient in gradients)
    for d in range(D):
        for f in range(weight.shape[1]):
            variance += (scatter[d, f] * mask[f]) ** 2
    config = model.config
    penalty = config.variance_weight * variance + config.gate_weight * sum(mu**2 for mu in model.gate.mu.tolist())
    return sum(loss for loss, _ in found) / len(found) + penalty / len(ROWS)


def test_mask_loss() -> None:
    model = made(constraint_weight=0.6, negative_weight=1.5, variance_weight=0.02, gate_weight=0.3)
    assert objective(model)(model, BATCH)["mask"].item() == pytest.approx(mask_loss(model), rel=1e-4)


def test_mask_descends_the_variance_of_gradients() -> None:
    """The derivative by mu, through the gradients as well, against differences of the naive loss."""
    model = made(variance_weight=0.5).double()
    objective(model)(model, BATCH)["mask"].backward()
    found = model.gate.mu.grad
    assert found is not None
    inside = (model.gate.mu.abs() < 0.45).nonzero().flatten().tolist()
    assert len(inside) > 2
    for f in inside:
        values = []
        for step in (1e-4, -1e-4):
            with torch.no_grad():
                model.gate.mu[f] += step
                values.append(mask_loss(model))
                model.gate.mu[f] -= step
        assert float(found[f]) == pytest.approx((values[0] - values[1]) / 2e-4, rel=1e-3)


def test_no_gradient_crosses_from_one_part_into_another() -> None:
    model = made().train()
    own = {
        "predictor": {"user_table", "item_table", "project", "concat"},
        "environments": {"environment_weights", "environment_biases"},
        "mask": {"masked_weight", "gate"},
    }
    for part, expected in own.items():
        model.zero_grad()
        terms = objective(model)(model, BATCH)
        sum(term for name, term in terms.items() if (name if name in PARTS else "predictor") == part).backward()
        moved = {name.split(".")[0] for name, weight in model.named_parameters() if weight.grad is not None}
        assert moved == expected


def test_every_interaction_goes_to_the_environment_that_scores_it_highest() -> None:
    model = made()
    before = model.environments.clone()
    model.assign_environments()
    assert not torch.equal(model.environments, before)
    for user, item in zip(TRAIN.users.tolist(), TRAIN.items.tolist(), strict=True):
        x = features_of(model, item)
        scores = [
            score(model, user, item, array(weight) @ x + array(bias))
            for weight, bias in zip(model.environment_weights, model.environment_biases, strict=True)
        ]
        assert int(model.environments_of(torch.tensor([user]), torch.tensor([item]))) == int(np.argmax(scores))


def test_assignments_come_at_their_period_and_after_the_warm_up() -> None:
    model = made(warmup_epochs=2, reassign_every=3)
    generator, calls, exploring = torch.Generator(), [], []
    model.assign_environments = lambda: calls.append(int(model.epochs))  # type: ignore[method-assign]
    for _ in range(9):
        model.begin_epoch(generator)
        exploring.append(bool(set(PARTS) & set(objective(model)(model, BATCH))))
    assert exploring == [False] * 2 + [True] * 7
    assert calls == [5, 8]


def test_gates_stay_open_halfway_while_the_predictor_warms_up() -> None:
    config = InvRLConfig(embedding_dim=8, num_environments=2, warmup_epochs=3)
    model = fit(config, SPLIT.development, training=TrainingConfig(epochs=2, batch_size=40)).model
    assert (model.gate.expected() == 0.5).all()


class HaltedError(Exception):
    """Training is cut off."""


class HaltAfter:
    """Cut training off after an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_start(self, *_: Any) -> None:
        pass

    def on_step(self, *_: Any) -> None:
        pass

    def on_epoch(self, record: Any) -> None:
        if record.epoch == self.epoch:
            raise HaltedError


def test_a_training_that_was_cut_off_goes_on_with_its_environments(tmp_path: Path) -> None:
    config = InvRLConfig(embedding_dim=8, num_environments=2, warmup_epochs=1, reassign_every=2)

    def trained(**where: Any) -> dict[str, torch.Tensor]:
        training = TrainingConfig(epochs=5, batch_size=40, patience=None, learning_rate=0.02)
        return fit(config, SPLIT.development, training=training, **where).model.state_dict()

    file = CheckpointFile(tmp_path / "checkpoint", "same")
    with pytest.raises(HaltedError):
        trained(checkpoint=file, listeners=(HaltAfter(2),))
    resumed, undisturbed = trained(checkpoint=file), trained()
    for name, value in undisturbed.items():
        assert torch.equal(resumed[name], value), name


def test_batches_that_share_vectors_have_the_gradients_of_one() -> None:
    gradients = []
    for share in (False, True):
        model = made(item_weight=0.5)
        source = SharedVectors(model, [BATCH]) if share else model
        sum(objective(model)(source, BATCH).values()).backward()
        if share:
            source.backward()
        gradients.append([weight.grad for weight in model.parameters()])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)


def test_odd_widths_cannot_be_halved() -> None:
    with pytest.raises(ValueError, match="even"):
        InvRLConfig(embedding_dim=9)
