"""The loop: what it is to reproduce, when it stops, what it takes at the end, and what may not reach it."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metammf.data.dataset import Catalog
from metammf.data.features import ItemFeatures
from metammf.data.ids import IdMap
from metammf.data.interactions import Interactions
from metammf.data.splitting import Development, Split
from metammf.data.synthetic import generate_world
from metammf.errors import ConfigError, DataError, NonFiniteLossError, TrainingError
from metammf.models.metammf import MetaMMFConfig
from metammf.models.mf import MFConfig
from metammf.models.vbpr import VBPRConfig
from metammf.ranking.topk import rank
from metammf.testing.data import scrambled, taste_groups
from metammf.training.checkpoint import EpochRecord
from metammf.training.config import TrainingConfig
from metammf.training.fit import build_model, fit, pick_device
from metammf.training.loop import Trainer, _against_large_scores, peak_resident_mib
from metammf.training.objectives import make_objective

if TYPE_CHECKING:
    from metammf.recommender import Recommender
    from metammf.training.checkpoint import Progress

SPLIT = taste_groups(6, cold=1, lacking=True)
MF = MFConfig(embedding_dim=8)
VBPR = VBPRConfig(embedding_dim=8)
MMF = MetaMMFConfig(
    embedding_dim=8, hidden_dims=(6,), meta_dim=2, cp_rank=2, num_layers=1, fusion_dropout=0.2, id_dropout=0.3
)


def training(**settings: Any) -> TrainingConfig:
    """Two steps an epoch by default."""
    return TrainingConfig(**({"epochs": 3, "batch_size": 120, "learning_rate": 0.02} | settings))


def weights(recommender: Recommender) -> dict[str, Tensor]:
    return recommender.model.state_dict()


def same(first: Recommender, second: Recommender) -> bool:
    return all(torch.equal(value, weights(second)[name]) for name, value in weights(first).items())


def told(recommender: Recommender) -> list[EpochRecord]:
    """The history less its times."""
    times = {field.name: None for field in fields(EpochRecord) if "seconds" in field.name}
    return [replace(record, peak_resident_mib=None, **times) for record in recommender.history]


class Notes:
    """A listener that writes down what it is told."""

    def __init__(self) -> None:
        self.starts: list[tuple[int, int, int]] = []
        self.steps: list[tuple[int, int]] = []
        self.epochs: list[int] = []

    def on_start(self, epochs: int, steps_per_epoch: int, progress: Progress) -> None:
        self.starts.append((epochs, steps_per_epoch, progress.epoch))

    def on_step(self, epoch: int, step: int, loss: float) -> None:
        assert np.isfinite(loss)
        self.steps.append((epoch, step))

    def on_epoch(self, record: EpochRecord) -> None:
        self.epochs.append(record.epoch)


# Reproduction ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [MF, MMF])
def test_same_seed_same_history_and_bit_equal_weights(config: Any) -> None:
    first = fit(config, SPLIT.development, training=training(), seed=3)
    torch.rand(5)  # what others draw has no say
    second = fit(config, SPLIT.development, training=training(), seed=3)
    assert told(first) == told(second)
    assert same(first, second)
    other = fit(config, SPLIT.development, training=training(), seed=4)
    assert not same(first, other)
    assert told(first) != told(other)


def test_random_state_of_the_caller_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(MMF, SPLIT.development, training=training())
    assert torch.equal(torch.rand(3), expected)


def test_epochs_differ_from_each_other() -> None:
    """Another order, other negatives, other dropout in each."""
    order: list[list[int]] = []
    model = build_model(MF, SPLIT.development, seed=0, device=torch.device("cpu"))
    objective = make_objective(training())

    def spying(model: Any, batch: Any) -> Any:
        order.append(batch.positives.tolist() + batch.negatives.flatten().tolist())
        return objective(model, batch)

    Trainer(model, spying, SPLIT.development, training(epochs=2, batch_size=10_000), seed=0).run()
    assert order[0] != order[1]
    assert sorted(order[0][:48]) == sorted(order[1][:48]) == sorted(SPLIT.train.items.tolist())


# What may not reach it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["softmax", "bpr"])
def test_several_threads_add_up_gradients_of_repeated_rows_in_one_order(objective: str) -> None:
    development = generate_world(users=300, items=400, interactions=6_000).dataset.split().development
    config = training(objective=objective, epochs=1, batch_size=3_000)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        first, *others = (fit(MFConfig(), development, training=config, seed=1) for _ in range(4))
    finally:
        torch.set_num_threads(before)
    assert all(same(first, other) for other in others)


@pytest.mark.parametrize("config", [MF, MMF])
def test_scrambling_test_leaves_weights_bit_equal(config: Any) -> None:
    test = scrambled(SPLIT.test, avoid=(SPLIT.train, SPLIT.validation))
    assert not np.array_equal(np.sort(test.keys), np.sort(SPLIT.test.keys))
    other = Split(SPLIT.train, SPLIT.validation, test, SPLIT.catalog, "published")
    first, second = (fit(config, split.development, training=training()) for split in (SPLIT, other))
    assert same(first, second)
    assert told(first) == told(second)


@pytest.mark.parametrize("config", [MF, MMF])
def test_scrambling_validation_leaves_weights_of_a_fixed_number_of_epochs_bit_equal(config: Any) -> None:
    validation = scrambled(SPLIT.validation, avoid=(SPLIT.train,))
    other = Development(SPLIT.train, validation, SPLIT.catalog)
    nothing = Development(SPLIT.train, validation.select(np.zeros(len(validation), dtype=bool)), SPLIT.catalog)
    fixed = training(patience=None)
    runs = [fit(config, development, training=fixed) for development in (SPLIT.development, other, nothing)]
    assert same(runs[0], runs[1])
    assert same(runs[0], runs[2])
    assert runs[0].history[-1].metrics != runs[1].history[-1].metrics
    assert not any(record.best for record in runs[0].history)


# Stopping --------------------------------------------------------------------------------------------------------


class Scripted(Trainer):
    """A trainer whose validation metric is written down beforehand."""

    script: tuple[float, ...] = ()

    def _look_at_validation(self, epoch: int, step: int) -> dict[str, float]:
        found = super()._look_at_validation(epoch, step)
        return found and {**found, self.config.metric: self.script[epoch - 1]}


def scripted(script: tuple[float, ...], **settings: Any) -> tuple[Progress, list[dict[str, Tensor]], dict[str, Tensor]]:
    """Return progress, the weights after each epoch, and those that are left at the end."""
    config = training(epochs=len(script), **settings)
    model = build_model(MF, SPLIT.development, seed=0, device=torch.device("cpu"))
    after: list[dict[str, Tensor]] = []

    class Keeper(Notes):
        def on_epoch(self, record: EpochRecord) -> None:
            after.append({name: value.clone() for name, value in model.state_dict().items()})

    trainer = Scripted(model, make_objective(config), SPLIT.development, config, seed=0, listeners=(Keeper(),))
    trainer.script = script
    return trainer.run(), after, model.state_dict()


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_best_epoch_is_restored_and_patience_ends_it() -> None:
    progress, after, left = scripted((0.1, 0.3, 0.2, 0.3, 0.25, 0.9), patience=3)
    assert [record.epoch for record in progress.history] == [1, 2, 3, 4, 5]  # a tie is no improvement
    assert progress.best_epoch == 2
    assert [record.best for record in progress.history] == [True, True, False, False, False]
    assert equal(left, after[1])
    assert not equal(left, after[4])


def test_patience_counts_looks_not_epochs() -> None:
    progress, after, left = scripted((0.0, 0.5, 0.0, 0.4, 0.0, 0.4, 0.0, 0.9), patience=2, evaluate_every=2)
    assert [bool(record.metrics) for record in progress.history] == [False, True] * 3
    assert progress.best_epoch == 2
    assert equal(left, after[1])


def test_the_last_epoch_is_always_looked_at() -> None:
    progress, after, left = scripted((0.0, 0.5, 0.6), evaluate_every=2)
    assert [bool(record.metrics) for record in progress.history] == [False, True, True]
    assert progress.best_epoch == 3
    assert equal(left, after[2])


def test_a_metric_of_zero_is_a_first_best() -> None:
    progress, after, left = scripted((0.0, 0.0, 0.0), patience=2)
    assert progress.best_epoch == 1
    assert equal(left, after[0])


def test_without_patience_the_last_weights_are_taken() -> None:
    progress, after, left = scripted((0.9, 0.1, 0.1, 0.1), patience=None)
    assert len(progress.history) == 4
    assert equal(left, after[3])


def test_without_validation_all_epochs_are_trained_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="metammf"):
        recommender = fit(MF, SPLIT.development.refit(), training=training(patience=1))
    assert len(recommender.history) == 3
    assert "no validation part" in caplog.text


@pytest.mark.parametrize(("max_steps", "epochs", "last"), [(1, 1, 1), (2, 1, 2), (3, 2, 3), (4, 2, 4), (99, 3, 6)])
def test_max_steps(max_steps: int, epochs: int, last: int) -> None:
    notes = Notes()
    recommender = fit(MF, SPLIT.development, training=training(max_steps=max_steps), listeners=(notes,))
    assert len(recommender.history) == epochs
    assert notes.steps[-1] == (epochs, last)
    assert recommender.history[-1].step == last
    assert recommender.history[-1].metrics


def test_listeners_are_told() -> None:
    notes = Notes()
    recommender = fit(MF, SPLIT.development, training=training(), listeners=(notes,))
    assert notes.starts == [(3, 2, 0)]
    assert notes.steps == [(1, 1), (1, 2), (2, 3), (2, 4), (3, 5), (3, 6)]
    assert notes.epochs == [1, 2, 3]
    assert [record.step for record in recommender.history] == [2, 4, 6]
    assert all(record.loss == record.terms["bpr"] for record in recommender.history)


def test_validation_of_some_users() -> None:
    """The same users at each look, and all of theirs; other users by another seed."""
    config = training(validation_users=5)
    trainers = [
        Trainer(
            build_model(MF, SPLIT.development, seed=0, device=torch.device("cpu")),
            make_objective(config),
            SPLIT.development,
            config,
            seed=seed,
        )
        for seed in (0, 0, 1)
    ]
    looked = [trainer.looked_at for trainer in trainers]
    assert np.array_equal(looked[0].keys, looked[1].keys)
    assert not np.array_equal(looked[0].keys, looked[2].keys)
    users = np.unique(looked[0].users)
    assert len(users) == 5
    assert np.array_equal(looked[0].keys, SPLIT.validation.keys[np.isin(SPLIT.validation.users, users)])
    assert trainers[0].run().history[-1].metrics
    everybody = training(validation_users=10_000)
    same_as_all = fit(MF, SPLIT.development, training=everybody)
    assert told(same_as_all) == told(fit(MF, SPLIT.development, training=training()))


# Steps ---------------------------------------------------------------------------------------------------------


def test_gradients_are_zeroed_between_steps() -> None:
    """Each step descends the gradient of its own batch alone: against plain SGD by hand, over three steps."""
    development, config = SPLIT.development, training(epochs=1, batch_size=80, weight_decay=0.0)
    model, twin = (build_model(MF, development, seed=0, device=torch.device("cpu")) for _ in range(2))
    objective, batches = make_objective(config), []

    def spying(model: Any, batch: Any) -> Any:
        batches.append(batch)
        return objective(model, batch)

    trainer = Trainer(model, spying, development, config, seed=0)
    trainer.optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    trainer.run()
    assert len(batches) == 3
    for batch in batches:
        gradients = torch.autograd.grad(objective(twin, batch)["bpr"], list(twin.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(twin.parameters(), gradients, strict=True):
                parameter -= 0.5 * gradient
    for parameter, expected in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected)


def test_gradient_clip() -> None:
    """A norm that is cut to nearly nothing under plain SGD moves weights by no more than rate times that."""
    for clip, limit in ((1e-3, 1e-3 * 0.5), (None, None)):
        config = training(epochs=1, max_steps=1, gradient_clip=clip)
        model = build_model(MF, SPLIT.development, seed=0, device=torch.device("cpu"))
        before = torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])
        trainer = Trainer(model, make_objective(config), SPLIT.development, config, seed=0)
        trainer.optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        trainer.run()
        moved = (torch.cat([parameter.detach().flatten() for parameter in model.parameters()]) - before).norm().item()
        assert moved == pytest.approx(limit, rel=1e-2) if limit else moved > 0.01


def test_separate_rates_and_decays() -> None:
    config = training(fusion_learning_rate=1e-7, fusion_weight_decay=0.5, weight_decay=0.25, optimizer="adamw")
    model = build_model(MMF, SPLIT.development, seed=0, device=torch.device("cpu"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = Trainer(model, make_objective(config), SPLIT.development, config, seed=0)
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    rest, fusion = trainer.optimizer.param_groups
    assert (rest["lr"], rest["weight_decay"], fusion["lr"], fusion["weight_decay"]) == (0.02, 0.25, 1e-7, 0.5)
    assert len(fusion["params"]) == len(list(model.fusion.parameters()))
    assert len(rest["params"]) + len(fusion["params"]) == len(list(model.parameters()))
    trainer.run()
    for name, value in model.named_parameters():
        moved = (value.detach() - before[name]).abs().max().item()
        assert moved < 1e-5 if name.startswith("fusion") else moved > 1e-3, name


def test_one_rate_for_all_unless_told() -> None:
    model = build_model(MMF, SPLIT.development, seed=0, device=torch.device("cpu"))
    trainer = Trainer(model, make_objective(training()), SPLIT.development, training(), seed=0)
    assert type(trainer.optimizer) is torch.optim.Adam
    assert {(group["lr"], group["weight_decay"]) for group in trainer.optimizer.param_groups} == {(0.02, 1e-6)}


@pytest.mark.parametrize("objective", ["bpr", "bce", "softmax"])
@pytest.mark.parametrize("backbone", ["mf", "graphsage", "lightgcn"])
def test_bfloat16(objective: str, backbone: str) -> None:
    config = MMF.model_copy(update={"backbone": backbone})
    settings = training(objective=objective, epochs=2)
    half = fit(config, SPLIT.development, training=settings, precision="bfloat16")
    full = fit(config, SPLIT.development, training=settings)
    assert all(value.dtype == torch.float32 for value in half.model.parameters())
    assert torch.isfinite(half.scores(torch.arange(5))).all()
    assert not same(half, full)
    assert half.history[-1].loss == pytest.approx(full.history[-1].loss, rel=0.1)


# When it goes wrong ----------------------------------------------------------------------------------------------


def exploding(at: int) -> Any:
    """An objective whose loss is NaN at one step."""
    objective, steps = make_objective(training()), [0]

    def run(model: Any, batch: Any) -> dict[str, Tensor]:
        steps[0] += 1
        terms = objective(model, batch)
        return {name: value * (float("nan") if steps[0] == at else 1) for name, value in terms.items()}

    return run


def test_a_loss_that_is_not_finite_names_epoch_step_batch_and_cause() -> None:
    model = build_model(MF, SPLIT.development, seed=0, device=torch.device("cpu"))
    trainer = Trainer(model, exploding(4), SPLIT.development, training(), seed=0)
    with pytest.raises(NonFiniteLossError, match=r"epoch 2, step 4 \(bpr = nan\).*\(user, item\).*scores overflowed"):
        trainer.run()
    assert [record.epoch for record in trainer.progress.history] == [1]
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


@pytest.mark.parametrize(
    ("config", "objective", "advice"),
    [
        (MF, "bpr", ["lower the learning rate"]),
        (MF, "softmax", ["raise training.temperature"]),
        (VBPR, "bpr", ["scale the features (model.feature_scaling)"]),
        (
            MMF,
            "softmax",
            [
                "raise training.temperature",
                "bound the meta information (model.bounded_meta)",
                "scale the features (model.feature_scaling)",
            ],
        ),
    ],
)
def test_what_is_advised_against_large_scores_is_what_the_model_has(
    config: Any, objective: str, advice: list[str]
) -> None:
    model = build_model(config, SPLIT.development, seed=0, device=torch.device("cpu"))
    assert _against_large_scores(model, training(objective=objective)) == advice


def test_a_step_that_is_far_too_large() -> None:
    with pytest.raises(
        NonFiniteLossError, match=r"epoch 1, step 2 .*weights as large as 1e\+30: lower the learning rate"
    ):
        fit(MF, SPLIT.development, training=training(learning_rate=1e30))


@pytest.mark.parametrize(("max_steps", "at"), [(1, "after epoch 1, step 1"), (4, "at epoch 1, step 2")])
def test_gradients_that_are_not_finite(max_steps: int, at: str) -> None:
    """Also where the last step of all broke the weights, which no loss has seen."""
    config = training(max_steps=max_steps, patience=None)
    objective = make_objective(config)
    model = build_model(MF, SPLIT.development, seed=0, device=torch.device("cpu"))

    def kinked(model: Any, batch: Any) -> dict[str, Tensor]:
        terms = objective(model, batch)
        return terms | {"zero": (model.user_table.weight * 0).square().sum().sqrt()}  # its gradient is 0 / 0

    with pytest.raises(NonFiniteLossError, match=rf"{at}.*" if at.startswith("at") else rf"user_table.*{at}"):
        Trainer(model, kinked, SPLIT.development, config, seed=0).run()


def test_features_that_are_not_finite() -> None:
    """NaN in the content of an item is told as such, before anything is trained."""
    catalog = SPLIT.catalog
    matrix = catalog.features.matrices["visual"].copy()
    matrix[2, 1] = np.nan
    features = replace(catalog.features, matrices={**catalog.features.matrices, "visual": matrix})
    development = Development(SPLIT.train, SPLIT.validation, replace(catalog, features=features))
    with pytest.raises(DataError, match="visual features: row 2, column 1 is nan"):
        fit(MMF, development, training=training())


def test_devices_that_are_not_there() -> None:
    for name in ("cuda:99", "no-such-device"):
        with pytest.raises(ConfigError, match=name):
            fit(MF, SPLIT.development, device=name)
    with pytest.raises(ConfigError, match="'meta' computes nothing"):
        pick_device("meta")
    assert pick_device("cpu") == pick_device("cpu:0") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


# It learns -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("objective", "batch_size"), [("bpr", 240), ("softmax", 48), ("bce", 240)])
def test_the_held_out_item_of_each_user_comes_first(objective: str, batch_size: int) -> None:
    """Of the items that a user has not seen, one is of its own group, eight of the other: chance is 2 of 16 users."""
    split = taste_groups(8)
    settings = training(
        objective=objective, batch_size=batch_size, epochs=40, learning_rate=0.05, temperature=1.0, patience=None
    )
    recommender = fit(MFConfig(embedding_dim=2), split.development, training=settings)
    first, _ = rank(recommender, split.test.users, 1, seen=split.train.union(split.validation).matrix)
    assert (first[:, 0] == split.test.items).sum() >= 15
    assert recommender.history[-1].loss < 0.8 * recommender.history[0].loss


# What an epoch is made of ----------------------------------------------------------------------------------------


def skewed() -> Development:
    """One user with forty interactions, ten with four."""
    users = np.concatenate([np.zeros(40, np.int32), np.repeat(np.arange(1, 11, dtype=np.int32), 4)])
    items = np.concatenate([np.arange(40, dtype=np.int32), np.tile(np.arange(40, 44, dtype=np.int32), 10)])
    train = Interactions(users, items, 11, 60)
    catalog = Catalog(IdMap.of_range(11, kind="user"), IdMap.of_range(60), ItemFeatures({}, num_items=60))
    return Development(train, train.select(np.zeros(80, dtype=np.bool_)), catalog)


@pytest.mark.parametrize(("exponent", "share"), [(0.0, 0.5), (0.5, 40**0.5 / (40**0.5 + 10 * 2)), (1.0, 1 / 11)])
def test_users_weigh_by_their_history(exponent: float, share: float) -> None:
    """The long history's share of the positives: by interactions, by their root, by users."""
    config = training(user_weight_exponent=exponent, epochs=40, patience=None)
    drawn: list[Tensor] = []
    model = build_model(MF, skewed(), seed=0, device=torch.device("cpu"))
    objective = make_objective(config)

    def noting(model: Any, batch: Any) -> dict[str, Tensor]:
        drawn.append(batch.users)
        return dict(objective(model, batch))

    Trainer(model, noting, skewed(), config, seed=0).run()
    users = torch.cat(drawn)
    assert len(users) == 40 * 80
    assert (users == 0).float().mean().item() == pytest.approx(share, abs=0.0 if exponent == 0 else 0.03)


# Users who have watched everything -------------------------------------------------------------------------------


def sated(*, all_of_them: bool) -> Development:
    """User 0 has watched every item that anybody has; user 1 two of the four, unless all have."""
    matrix = np.array([[1, 1, 1, 1], [1, 1, all_of_them, all_of_them]], dtype=bool)
    users, items = (axis.astype(np.int32) for axis in np.nonzero(matrix))
    train = Interactions(users, items, 2, 4)
    catalog = Catalog(IdMap.of_range(2, kind="user"), IdMap.of_range(4), ItemFeatures({}, num_items=4))
    return Development(train, train.select(np.zeros(len(train), dtype=np.bool_)), catalog)


@pytest.mark.parametrize("objective", ["bpr", "bce", "softmax"])
def test_a_user_who_has_watched_everything_does_not_stop_the_others(objective: str) -> None:
    config = training(objective=objective, epochs=3, patience=None)
    recommender = fit(MF, sated(all_of_them=False), training=config)
    assert len(recommender.history) == 3
    assert all(np.isfinite(record.loss) for record in recommender.history)
    with pytest.raises(TrainingError, match="every user has watched every item"):
        fit(MF, sated(all_of_them=True), training=config)


def test_a_model_that_takes_no_negatives_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is then so many positives; whoever has watched everything takes part."""
    config, sizes = training(objective="bpr", batch_size=40, epochs=1), []
    model = build_model(MF, SPLIT.development, seed=0, device=pick_device("cpu"))
    monkeypatch.setattr(type(model), "draws_negatives", False)

    def objective(model: Any, batch: Any) -> dict[str, Tensor]:
        assert batch.negatives.shape == (len(batch.users), 0)
        users, positives, _ = batch.vectors(model)
        sizes.append(len(users))
        return {"attraction": -(users * positives).sum(1).mean()}

    Trainer(model, objective, SPLIT.development, config, seed=0).run()
    full, rest = divmod(len(SPLIT.train), 40)
    assert sizes == [40] * full + [rest] * bool(rest)


@pytest.mark.parametrize("settings", [{"batches_per_step": 2}, {"max_steps_per_epoch": 1}])
def test_an_objective_that_shares_no_vectors_takes_one_batch_a_step(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, int]
) -> None:
    monkeypatch.setattr("metammf.models.mf.MF.shares_vectors", False)
    with pytest.raises(ConfigError, match=r"the objective of MF takes one batch a step, got [2-9]: .*batches_per_step"):
        fit(MF, SPLIT.development, training=training(batch_size=50, **settings))
    assert fit(MF, SPLIT.development, training=training(max_steps_per_epoch=100)).history


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process tells of itself alone")
def test_the_peak_of_a_process_is_not_that_of_the_one_that_started_it():
    held = np.ones(1 << 26)  # half a GiB
    assert peak_resident_mib() > held.nbytes / (1 << 20)
    words = "from metammf.training.loop import peak_resident_mib; print(peak_resident_mib())"
    told = subprocess.run([sys.executable, "-c", words], check=True, capture_output=True, text=True)
    assert 50 < float(told.stdout) < peak_resident_mib() - 200
