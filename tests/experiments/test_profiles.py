"""A profile divides, masks and measures as its page says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metammf.data.dataset import Dataset
from metammf.errors import ConfigError, DataError
from metammf.experiments.comparison_results import TABLES
from metammf.experiments.profiles import PROFILES, profile_named
from metammf.testing.data import taste_groups
from metammf.training.config import TrainingConfig

GROUPS = taste_groups(6, cold=2)


@pytest.fixture
def dataset():
    log = GROUPS.train.union(GROUPS.validation).union(GROUPS.test)
    labels = np.repeat(np.arange(3, dtype=np.int8), [len(GROUPS.train), len(GROUPS.validation), len(GROUPS.test)])
    return Dataset("two groups", replace(log, timestamps=np.arange(len(log))), GROUPS.catalog, labels)


@pytest.mark.parametrize(
    ("name", "method", "seen"),
    [
        ("metammf", "published", "train"),
        ("hkuds-tiktok", "published", "train"),
        ("mmrec", "published", "train"),
        ("user-time", "user-time", "train+validation"),
        ("global-time", "global-time", "train+validation"),
        ("cold-item", "cold-item", "train+validation"),
        ("cold-user", "cold-user", "train+validation"),
    ],
)
def test_split_and_masking(dataset, name, method, seen):
    profile = PROFILES[name]
    config = profile.split(dataset)
    assert (config.method, profile.seen) == (method, seen)
    assert config.apply(dataset).method == method
    assert profile.summary(config).split["method"] == method


def test_every_profile_is_covered_and_its_metrics_are_known():
    assert list(PROFILES) == ["metammf", "hkuds-tiktok", "mmrec", "user-time", "global-time", "cold-item", "cold-user"]
    for profile in PROFILES.values():
        TrainingConfig(metric=profile.chosen_by)
        shown = {f"{metric}@{k}" for metric in profile.metrics for k in profile.ks}
        assert {profile.chosen_by, *profile.tested} <= shown
        assert set(profile.tables) <= set(TABLES)


def test_the_paper_divides_at_random_where_there_is_no_published_split(dataset):
    config = PROFILES["metammf"].split(replace(dataset, parts=None))
    assert config.method == "random"
    assert (config.validation_share, config.test_share) == (0.1, 0.1)


def test_a_temporal_profile_holds_out_what_came_last(dataset):
    split = PROFILES["global-time"].split(dataset).apply(dataset)
    assert split.train.timestamps.max() < split.validation.timestamps.min()
    assert split.validation.timestamps.max() < split.test.timestamps.min()


def test_a_cold_item_split_takes_the_train_interactions_of_a_fifth_of_the_items(dataset):
    split = PROFILES["cold-item"].split(dataset).apply(dataset)
    assert split.cold_items.sum() >= round(0.2 * dataset.num_items)


def test_a_cold_user_split_takes_the_train_interactions_of_a_fifth_of_the_users(dataset):
    split = PROFILES["cold-user"].split(dataset).apply(dataset)
    assert (split.train.user_counts == 0).sum() >= round(0.2 * dataset.num_users)
    assert 0 < split.history.user_counts.max() <= 5


@pytest.mark.parametrize(
    ("name", "lacking"),
    [("mmrec", "carries no published split"), ("user-time", "has no timestamps"), ("global-time", "has no timestamps")],
)
def test_what_a_data_set_lacks_is_told(dataset, name, lacking):
    bare = replace(dataset, parts=None, interactions=replace(dataset.interactions, timestamps=None))
    others = "metammf, cold-item, cold-user"  # those that need neither
    with pytest.raises(DataError, match=f"profile {name}: two groups {lacking}; the profiles that fit it: {others}$"):
        PROFILES[name].split(bare)


def test_an_unknown_profile_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"did you mean 'user-time'\?"):
        profile_named("user_time")
