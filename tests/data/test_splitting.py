from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metammf.data import splitting
from metammf.data.dataset import Catalog, Dataset
from metammf.data.features import ItemFeatures
from metammf.data.ids import IdMap
from metammf.data.interactions import Interactions
from metammf.data.splitting import METHODS, Split, split
from metammf.errors import ConfigError, DataError

NUM_USERS, NUM_ITEMS = 15, 12


@st.composite
def datasets(draw, smallest=60):
    """Logs of a few users with timestamps (ties included) and published parts."""
    seed = draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    size = draw(st.integers(smallest, 120))
    cells = rng.permutation(NUM_USERS * NUM_ITEMS)[:size]
    return dataset_of(cells // NUM_ITEMS, cells % NUM_ITEMS, rng.integers(0, 50, size), rng.integers(0, 3, size))


def dataset_of(users, items, timestamps=None, parts=None):
    log = Interactions(users, items, NUM_USERS, NUM_ITEMS, timestamps)
    catalog = Catalog(
        IdMap.of_range(NUM_USERS, kind="user"), IdMap.of_range(NUM_ITEMS), ItemFeatures({}, num_items=NUM_ITEMS)
    )
    return Dataset("drawn", log, catalog, None if parts is None else np.asarray(parts, dtype=np.int8))


def keys(part):
    return set(part.keys.tolist())


@pytest.mark.parametrize("method", METHODS)
@given(datasets(), st.integers(0, 5))
def test_parts_are_disjoint_and_seeded(method, dataset, seed):
    first, again = split(dataset, method, seed=seed), split(dataset, method, seed=seed)
    given, same_given = ([each.history] if each.history is not None else [] for each in (first, again))
    parts = [first.train, first.validation, first.test, *given]
    for part, same in zip(parts, [again.train, again.validation, again.test, *same_given], strict=True):
        np.testing.assert_array_equal(part.keys, same.keys)
        np.testing.assert_array_equal(part.timestamps, same.timestamps)
    together = set().union(*map(keys, parts))
    assert len(together) == sum(map(len, parts))
    everything = keys(dataset.interactions)
    assert together <= everything if method.startswith("cold-") else together == everything


@pytest.mark.parametrize("method", ["random", "user-time", "leave-one-out", "cold-item", "cold-user"])
def test_another_seed_draws_another_split(method):
    rng = np.random.default_rng(0)
    cells = rng.permutation(NUM_USERS * NUM_ITEMS)[:100]
    dataset = dataset_of(cells // NUM_ITEMS, cells % NUM_ITEMS, np.zeros(100) if method == "user-time" else None)
    assert keys(split(dataset, method, seed=0).test) != keys(split(dataset, method, seed=1).test) or (
        method.startswith("cold-")
        and keys(split(dataset, method, seed=0).train) != keys(split(dataset, method, seed=1).train)
    )


@pytest.mark.parametrize("method", ["random", "user-time", "leave-one-out"])
@given(datasets(), st.integers(0, 5))
def test_some_users_at_a_time_are_as_all_at_once(method, dataset, seed):
    log, rng = dataset.interactions, np.random.default_rng(seed)
    timed = method != "random" and log.timestamps is not None
    order_by = log.timestamps if timed else rng.random(len(log))
    order = np.lexsort((rng.random(len(log)), order_by, log.users))
    from_end = np.empty(len(log), dtype=np.int64)
    from_end[order] = np.cumsum(log.user_counts)[log.users[order]] - 1 - np.arange(len(log))
    counts = log.user_counts[log.users]
    if method == "leave-one-out":
        test, validation = (counts >= 2).astype(int), (counts >= 3).astype(int)
    else:
        lots = rng.random((2, log.num_users))[:, log.users]
        test = np.minimum(counts - 1, np.floor(counts * 0.1 + lots[0]))
        validation = np.minimum(counts - 1 - test, np.floor(counts * 0.1 + lots[1]))
    expected = [from_end >= test + validation, (from_end >= test) & (from_end < test + validation), from_end < test]
    for rows in (1, 7, 1 << 20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(splitting, "_ROWS_AT_ONCE", rows)
            try:
                found = split(dataset, method, seed=seed)
            except DataError:  # too few to test on
                assert not expected[2].any()
                continue
        for part, chosen in zip((found.train, found.validation, found.test), expected, strict=True):
            np.testing.assert_array_equal(part.keys, log.keys[chosen])


@given(datasets())
def test_leave_one_out_takes_the_last_and_the_one_before(dataset):
    found = split(dataset, "leave-one-out")
    for user in range(NUM_USERS):
        count = int(dataset.interactions.user_counts[user])
        sizes = [int((part.users == user).sum()) for part in (found.train, found.validation, found.test)]
        assert sizes == ([count, 0, 0] if count < 2 else [1, 0, 1] if count == 2 else [count - 2, 1, 1])
        times = [part.timestamps[part.users == user] for part in (found.train, found.validation, found.test)]
        if count >= 3:
            assert times[0].max() <= times[1].min() <= times[1].max() <= times[2].min()


@given(datasets())
def test_user_time_keeps_each_users_order(dataset):
    found = split(dataset, "user-time", validation_share=0.2, test_share=0.2)
    for user in range(NUM_USERS):
        times = [
            part.timestamps[part.users == user]
            for part in (found.train, found.validation, found.test)
            if (part.users == user).any()
        ]
        assert all(early.max() <= late.min() for early, late in pairwise(times))
        if dataset.interactions.user_counts[user]:
            assert (found.train.users == user).any()


@given(datasets())
def test_global_time_has_one_border_for_all(dataset):
    found = split(dataset, "global-time")
    times = [part.timestamps for part in (found.train, found.validation, found.test) if len(part)]
    assert all(early.max() < late.min() for early, late in pairwise(times))


@given(datasets(), st.floats(0.1, 0.6))
def test_cold_items_lose_their_train_interactions_alone(dataset, share):
    found = split(dataset, "cold-item", cold_share=share)
    base = split(dataset, "published")
    lost = keys(base.train) - keys(found.train)
    assert keys(found.validation) == keys(base.validation)
    assert keys(found.test) == keys(base.test)
    cold = np.unique([key % NUM_ITEMS for key in lost])
    assert len(cold) <= round(NUM_ITEMS * share)
    assert not np.isin(found.train.items, cold).any()
    assert found.cold_items[cold.astype(int)].all()


@given(datasets(), st.floats(0.1, 0.6), st.integers(1, 4))
def test_cold_users_keep_their_first_train_interactions_as_a_history(dataset, share, size):
    found = split(dataset, "cold-user", cold_share=share, history_size=size)
    base = split(dataset, "published")
    assert keys(found.validation) == keys(base.validation)
    assert keys(found.test) == keys(base.test)
    lost = keys(base.train) - keys(found.train)
    cold = {key // NUM_ITEMS for key in lost}
    assert len(cold) <= round(NUM_USERS * share)
    assert not np.isin(found.train.users, list(cold)).any()
    assert keys(found.history) <= lost
    for user in cold:
        times = base.train.timestamps[base.train.users == user]
        given_times = found.history.timestamps[found.history.users == user]
        assert sorted(given_times) == sorted(times)[: min(size, len(times))]
    assert found.development.history is found.history
    assert found.development.with_features(found.catalog.features).history is found.history
    assert keys(found.seen("train")) == keys(found.train) | keys(found.history)
    assert keys(found.seen("train+validation")) == keys(found.seen("train")) | keys(found.validation)


@given(datasets(), st.integers(0, 5))
def test_what_a_cold_user_watches_later_has_no_say(dataset, seed):
    """Other items at the end of the cold users' days: train, histories and what is held out are as before."""
    options = {"cold_share": 0.5, "history_size": 2, "seed": seed}
    found = split(dataset, "cold-user", **options)
    log = dataset.interactions
    kept = (found.train, found.history, found.validation, found.test)
    later = ~np.isin(log.keys, np.concatenate([part.keys for part in kept]))
    free = set(range(NUM_USERS * NUM_ITEMS)) - keys(log)
    items = log.items.copy()
    for row in np.flatnonzero(later):
        spare = min((key for key in free if key // NUM_ITEMS == log.users[row]), default=None)
        if spare is not None:
            free.remove(spare)
            items[row] = spare % NUM_ITEMS
    other = split(dataset_of(log.users, items, log.timestamps, dataset.parts), "cold-user", **options)
    for before, name in zip(kept, ("train", "history", "validation", "test"), strict=True):
        assert keys(getattr(other, name)) == keys(before)


def test_random_holds_out_the_asked_share():
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(3_000), 5)
    items = np.concatenate([rng.permutation(40)[:5] for _ in range(3_000)])
    log = Interactions(users, items, 3_000, 40)
    catalog = Catalog(IdMap.of_range(3_000), IdMap.of_range(40), ItemFeatures({}, num_items=40))
    found = split(Dataset("flat", log, catalog), "random", validation_share=0.1, test_share=0.2)
    assert len(found.validation) / len(log) == pytest.approx(0.1, abs=0.01)
    assert len(found.test) / len(log) == pytest.approx(0.2, abs=0.01)


def test_published_is_the_default_where_there_is_one(make_dataset):
    dataset = make_dataset()
    found = dataset.split()
    assert found.method == "published"
    assert [len(found.train), len(found.validation), len(found.test)] == [35, 7, 8]
    with pytest.raises(ConfigError, match="carries no split: name a method"):
        make_dataset(parts=False).split()
    with pytest.raises(DataError, match="carries no published split"):
        make_dataset(parts=False).split("published")


def test_development_holds_no_trace_of_test(make_dataset):
    dataset = make_dataset()
    development = dataset.split().development
    test = {int(key) for key in dataset.interactions.keys[dataset.parts == 2]}
    assert keys(development.train) | keys(development.validation) == keys(dataset.interactions) - test
    refit = development.refit()
    assert keys(refit.train) == keys(development.train) | keys(development.validation)
    assert not len(refit.validation)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("randon", {}, "did you mean 'random'"),
        ("random", {"test_shar": 0.1}, "did you mean 'test_share'"),
        ("random", {"test_share": 1.0}, "at least 0 and below 1"),
        ("random", {"test_share": -0.1}, "at least 0 and below 1"),
        ("random", {"test_share": 0.5, "validation_share": 0.5}, "leave nothing to train on"),
    ],
)
def test_bad_options_are_refused(make_dataset, method, options, message):
    with pytest.raises(ConfigError, match=message):
        make_dataset().split(method, **options)


@pytest.mark.parametrize("method", ["user-time", "global-time"])
def test_time_needs_timestamps(make_dataset, method):
    with pytest.raises(DataError, match="has no timestamps"):
        make_dataset(timestamps=False).split(method)


ONE_EACH = dataset_of(np.arange(15), np.zeros(15, dtype=int), np.full(15, 7))
THREE_EACH = dataset_of(np.repeat(np.arange(15), 3), np.tile(np.arange(3), 15), np.repeat([1, 1, 2], 15))


@pytest.mark.parametrize(
    ("dataset", "method", "options", "message"),
    [
        (
            ONE_EACH,
            "random",
            {},
            "drawn, split 'random': the test part is empty: 15 interactions of 15 users, 1 each at most; expected users with"
            " two or more, since one of each user's stays in train, and enough of them for test_share 0.1",
        ),
        (ONE_EACH, "user-time", {}, "the test part is empty: 15 interactions of 15 users, 1 each at most"),
        (ONE_EACH, "leave-one-out", {}, "1 each at most; expected users with two or more, since .* in train$"),
        (
            ONE_EACH,
            "global-time",
            {},
            "the train part is empty: 15 of 15 interactions are at the first of 1 distinct times; expected times that",
        ),
        (THREE_EACH, "global-time", {"test_share": 0.4}, "30 of 45 interactions are at the first of 2 distinct times"),
        (THREE_EACH, "global-time", {"test_share": 0}, "the test part is empty: test_share is 0; expected more"),
        (THREE_EACH, "random", {"test_share": 0}, "the test part is empty: test_share is 0; expected more"),
        (ONE_EACH, "cold-item", {}, "the test part is empty: 15 interactions of 15 users, 1 each at most"),
        (
            THREE_EACH,
            "cold-item",
            {"cold_share": 0.99},
            "the train part is empty: 12 of 12 items are cold, .*; expected a smaller cold_share than 0.99, or more items",
        ),
        (THREE_EACH, "cold-user", {"cold_share": 0.99}, "15 of 15 users are cold, .* or more users"),
        (
            replace(THREE_EACH, parts=np.zeros(45, dtype=np.int8)),
            "cold-user",
            {},
            "the test part is empty: the data set's own labels leave it so; expected another method, one of random,",
        ),
    ],
)
def test_an_empty_part_is_explained(dataset, method, options, message):
    with pytest.raises(DataError, match=message):
        split(dataset, method, **options)


def test_a_split_refuses_parts_that_overlap_differ_or_are_empty(make_dataset):
    catalog = make_dataset().catalog
    log = make_dataset().interactions
    none = log.select(np.zeros(50, dtype=np.bool_))
    first, second = log.select(np.arange(30)), log.select(np.arange(29, 50))
    with pytest.raises(DataError, match="train and test overlap in 1 interactions, the first: user 'u"):
        Split(first, none, second, catalog, "made")
    with pytest.raises(DataError, match="train and validation overlap in 1"):
        Split(first, second, log.select(np.array([49])), catalog, "made")
    with pytest.raises(DataError, match="the test part is empty"):
        Split(log, none, none, catalog, "made")
    with pytest.raises(DataError, match="the train part is empty"):
        Split(none, none, log, catalog, "made")
    with pytest.raises(DataError, match="test: over 3 x 3, the catalog over 12 x 9"):
        Split(log, none, Interactions([0], [0], 3, 3), catalog, "made")
    assert isinstance(catalog.items, pl.DataFrame)
