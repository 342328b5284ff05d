"""Settings of training: unknown keys and values that do not fit are refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from metammf.errors import ConfigError
from metammf.models.registry import validated
from metammf.training.config import TrainingConfig


@pytest.mark.parametrize(
    "metric", ["recall", "recall@", "@20", "recal@20", "recall@0", "recall@-1", "recall@x", "recall@020", "recall@²"]
)
def test_a_metric_that_does_not_exist(metric: str) -> None:
    with pytest.raises(ValidationError, match="expected NAME@K"):
        TrainingConfig(metric=metric)


@pytest.mark.parametrize("metric", ["recall@20", "ndcg@5", "micro_recall@100"])
def test_a_metric_that_does(metric: str) -> None:
    assert TrainingConfig(metric=metric).metric == metric


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("num_negatives", 0),
        ("shared_negatives", -1),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("weight_decay", -1.0),
        ("temperature", 0.0),
        ("gradient_clip", 0.0),
        ("patience", 0),
        ("max_steps", 0),
        ("objective", "hinge"),
        ("popularity_exponent", 1.5),
    ],
)
def test_values_that_do_not_fit(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"training.{key}"):
        validated(TrainingConfig, {key: value}, "training.")


def test_a_misspelt_key_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown setting 'training.learning_rat' .*'learning_rate'"):
        validated(TrainingConfig, {"learning_rat": 0.1}, "training.")


def test_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        TrainingConfig().epochs = 3


def test_positives_a_step() -> None:
    """The paper counts triples: 3,000 of them are 600 positives of 5 negatives each."""
    assert TrainingConfig().positives_per_batch == 600
    assert TrainingConfig(batch_size=3, num_negatives=5).positives_per_batch == 1
    assert TrainingConfig(objective="softmax", batch_size=256).positives_per_batch == 256


def test_every_setting_has_a_docstring() -> None:
    assert not [name for name, field in TrainingConfig.model_fields.items() if not field.description]
