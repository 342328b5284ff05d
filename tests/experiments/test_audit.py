"""Each leak that the audit knows is planted and found; a clean split passes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from metammf.data.dataset import Dataset
from metammf.data.splitting import METHODS, Split
from metammf.errors import LeakageError
from metammf.experiments.audit import audit, audit_fitting
from metammf.models import nodes
from metammf.models.ease import EASEConfig
from metammf.models.mf import MFConfig
from metammf.models.vbpr import VBPRConfig
from metammf.testing.data import taste_groups

GROUPS = taste_groups(6, cold=2, lacking=True)


@pytest.fixture
def dataset():
    """Two groups of users; everybody watches an item a second, in an order of their own."""
    log = GROUPS.train.union(GROUPS.validation).union(GROUPS.test)
    times = np.random.default_rng(0).permutation(len(log))
    labels = np.repeat(np.arange(3, dtype=np.int8), [len(GROUPS.train), len(GROUPS.validation), len(GROUPS.test)])
    return Dataset("two groups", replace(log, timestamps=times), GROUPS.catalog, labels)


def planted(split, **parts):
    """The same split with other parts, which its own check of overlaps does not see."""
    whole = {name: getattr(split, name) for name in ("train", "validation", "test")} | parts
    return Split(**whole, catalog=split.catalog, method=split.method, of_one_log=True)


def move(split, source, target):
    """One interaction of `source` stands in `target` as well."""
    one = np.zeros(len(getattr(split, source)), dtype=np.bool_)
    one[0] = True
    first = getattr(split, source).select(one)
    return planted(split, **{target: getattr(split, target).union(first)})


@pytest.mark.parametrize("method", METHODS)
def test_every_split_of_ours_passes(dataset, method):
    options = {"validation_share": 0.2, "test_share": 0.2}
    checks = audit(dataset, dataset.split(method, **options))
    assert len(checks) == len({check.name for check in checks}) == (9 if method == "cold-user" else 8)
    assert all(check.found for check in checks)


@pytest.mark.parametrize(("source", "target"), [("test", "train"), ("validation", "train"), ("test", "validation")])
def test_a_pair_in_two_parts_is_found_and_named(dataset, source, target):
    split = dataset.split("published")
    user, item = int(getattr(split, source).users[0]), int(getattr(split, source).items[0])
    with pytest.raises(LeakageError, match=f"parts are apart: 1 pairs .* user 'user-{user}' and item 'item-{item}'"):
        audit(dataset, move(split, source, target))


def test_held_out_rows_in_the_train_matrix_are_found(dataset):
    with pytest.raises(LeakageError, match="the matrix of train holds 1 pairs of test"):
        audit(dataset, move(dataset.split("published"), "test", "train"))


def test_a_pair_that_comes_twice_is_found(dataset):
    split = dataset.split("published")
    twice = split.test._of_distinct(
        *(np.repeat(getattr(split.test, name), 2) for name in ("users", "items")), None, None
    )
    with pytest.raises(LeakageError, match=r"no pair comes twice: .* come repeatedly in test"):
        audit(dataset, planted(replace_times(split, None), test=twice))


def replace_times(split, times):
    parts = {name: replace(getattr(split, name), timestamps=times) for name in ("train", "validation", "test")}
    return planted(split, **parts)


def test_pairs_that_are_not_in_the_log_are_found(dataset):
    split = dataset.split("published")
    fewer = replace(
        dataset, interactions=dataset.interactions.select(np.arange(len(dataset.interactions)) > 0), parts=None
    )
    with pytest.raises(LeakageError, match="parts come from the log: 1 pairs of train are not in the log"):
        audit(fewer, split)


@pytest.mark.parametrize("method", ["user-time", "global-time"])
def test_times_from_the_future_are_found(dataset, method):
    split = dataset.split(method, validation_share=0.2, test_share=0.2)
    late = replace(split.train, timestamps=np.where(np.arange(len(split.train)) == 0, 10_000, split.train.timestamps))
    with pytest.raises(LeakageError, match=r"times are in order: 1 (users|interactions)"):
        audit(dataset, planted(split, train=late))


def test_how_much_of_the_future_a_split_without_time_shows_is_told(dataset):
    checks = {check.name: check.found for check in audit(dataset, dataset.split("random"))}
    assert "test interactions are older than their user's newest in train" in checks["times are in order"]


@pytest.mark.parametrize("kind", [pl.Int64, pl.Datetime("ms")])
def test_items_from_the_future_are_found(dataset, kind):
    """Item 0 is watched in train, and was uploaded long after."""
    seconds = pl.Series([10_000 if item == 0 else None for item in range(dataset.num_items)], dtype=pl.Int64)
    uploaded = seconds if kind == pl.Int64 else (seconds * 1000).cast(kind)
    items = pl.DataFrame({"uploaded_at": uploaded})
    later = replace(dataset, catalog=replace(dataset.catalog, items=items))
    with pytest.raises(LeakageError, match=r"no item from the future: .*item 'item-0'"):
        audit(later, later.split("global-time", validation_share=0.2, test_share=0.2))
    assert audit(later, later.split("random"))


def test_a_split_without_anything_to_choose_on_is_found(dataset):
    split = dataset.split("published")
    with pytest.raises(LeakageError, match="the validation part is empty"):
        audit(
            dataset, planted(split, validation=split.validation.select(np.zeros(len(split.validation), dtype=np.bool_)))
        )


def test_held_out_pairs_that_choose_are_found(dataset):
    """Parts that are apart, and a model that is shown others."""
    split = dataset.split("published")
    shown = replace(split.development, validation=split.validation.union(split.test))
    vars(split)["development"] = shown
    with pytest.raises(LeakageError, match="what chooses is not the validation part"):
        audit(dataset, split)


def test_a_cold_split_without_cold_items_is_found(dataset):
    split = replace(dataset.split("random"), method="cold-item", of_one_log=True)
    with pytest.raises(LeakageError, match="the split makes none cold"):
        audit(dataset, split)


def test_a_cold_user_split_that_teaches_of_a_history_is_found(dataset):
    split = dataset.split("cold-user")
    taught = replace(split, train=split.train.union(split.history), history=split.history, of_one_log=True)
    with pytest.raises(LeakageError, match=r"cold users are cold: .* of users that are learned from"):
        audit(dataset, taught)


def test_a_cold_user_split_without_cold_users_is_found(dataset):
    split = dataset.split("published")
    nobody = split.train.select(np.zeros(len(split.train), dtype=np.bool_))
    with pytest.raises(LeakageError, match="no test interaction is of a cold user"):
        audit(dataset, replace(split, history=nobody, of_one_log=True))


def test_all_that_fails_is_told_together(dataset):
    split = dataset.split("published")
    leaky = move(move(split, "test", "train"), "validation", "train")
    with pytest.raises(LeakageError) as caught:
        audit(dataset, leaky)
    assert "parts are apart" in str(caught.value)
    assert "train alone is learned from" in str(caught.value)


def test_scalers_of_ours_are_fitted_on_train_items():
    (check,) = audit_fitting(VBPRConfig(), GROUPS.development, "vbpr")
    assert check.name.startswith("vbpr: ")
    assert "the same without the features of the other 4" in check.found


def test_a_scaler_that_is_fitted_on_all_items_is_found(monkeypatch):
    monkeypatch.setattr(nodes, "_statistics_items", lambda inputs: torch.arange(inputs.num_items))
    with pytest.raises(LeakageError, match=r"scaler\.mean_of_visual.* depend on the features of items without train"):
        audit_fitting(VBPRConfig(), GROUPS.development, "vbpr")


@pytest.mark.parametrize("config", [MFConfig(), EASEConfig()])
def test_a_model_of_ids_has_no_scaler(config):
    (check,) = audit_fitting(config, GROUPS.development, "it")
    assert check.found.startswith("it has no ContentScaler; what it may fit by other means")
