from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metammf.data import lift
from metammf.data.dataset import Catalog, Dataset
from metammf.data.features import ItemFeatures
from metammf.data.ids import IdMap
from metammf.data.importers.registry import import_dataset
from metammf.data.interactions import Interactions
from metammf.data.lift import feature_lift
from metammf.data.synthetic import generate_world

NUM_USERS, NUM_ITEMS = 400, 300


def world(*, follows=True, offset=0.0, lacking=0):
    """Users of one of six tastes; features tell an item's taste, or are noise; popularity has a long tail."""
    rng = np.random.default_rng(0)
    item_taste, user_taste = rng.integers(6, size=NUM_ITEMS), rng.integers(6, size=NUM_USERS)
    popularity = 1 / (1 + rng.permutation(NUM_ITEMS))
    cells = []
    for user in range(NUM_USERS):
        weights = popularity * np.where(item_taste == user_taste[user], 8, 1)
        cells += [(user, item) for item in rng.choice(NUM_ITEMS, 12, replace=False, p=weights / weights.sum())]
    users, items = np.array(cells).T
    centres = rng.standard_normal((6, 16))[item_taste] if follows else 0
    matrix = centres + rng.standard_normal((NUM_ITEMS, 16)) + offset
    present = np.arange(NUM_ITEMS) >= lacking
    catalog = Catalog(IdMap.of_range(NUM_USERS), IdMap.of_range(NUM_ITEMS), ItemFeatures({"m": matrix}, {"m": present}))
    return Dataset("world", Interactions(users, items, NUM_USERS, NUM_ITEMS), catalog)


def with_features(dataset, features):
    return replace(dataset, catalog=replace(dataset.catalog, features=features))


def test_features_that_tell_taste_are_far_from_chance():
    found = feature_lift(world(), "m")
    assert found.z > 8
    assert found.verdict == "follows taste"
    assert found.lift == pytest.approx(found.same_user - found.like_popularity)
    assert abs(found.shuffled_z) < 4


def test_features_of_noise_and_misaligned_rows_are_not():
    assert feature_lift(world(follows=False), "m").verdict != "follows taste"
    dataset = world()
    for seed in range(3):
        found = feature_lift(with_features(dataset, dataset.features.placebo("shuffle", seed)), "m")
        assert abs(found.z) < 4
    shifted = ItemFeatures({"m": np.roll(dataset.features.matrices["m"], 1, axis=0)})
    assert abs(feature_lift(with_features(dataset, shifted), "m").z) < 4


@pytest.mark.parametrize("seed", range(3))
def test_rows_in_order_are_not_doubted_where_few_items_tell_little(seed):
    # A world whose modalities all tell taste, some too weakly for a few hundred items.
    widths = {"visual": 64, "acoustic": 32, "textual": 48}
    made = generate_world(users=500, items=300, interactions=10_000, seed=seed, modalities=widths, missing_share=0.0)
    for draw in range(3):
        verdicts = {feature_lift(made.dataset, modality, seed=draw).verdict for modality in widths}
        assert verdicts <= {"follows taste", "weak", "unclear"}
        assert "follows taste" in verdicts


@pytest.mark.parametrize(
    ("z", "spread", "verdict"),
    [
        (4.0, 0.001, "follows taste"),
        (3.9, 0.001, "weak"),
        (1.9, 0.005, "none"),
        (1.9, 0.006, "unclear"),
        (0.0, 0.009, "none"),
        (0.0, 0.011, "unclear"),
        (-3.0, 0.03, "none"),
    ],
)
def test_rows_are_doubted_only_where_the_lift_is_small_for_certain(z, spread, verdict):
    assert lift._verdict(z, spread) == verdict


def test_pairs_among_few_items_are_drawn_several_times(monkeypatch):
    dataset = world()
    several = [feature_lift(dataset, "m", seed=seed) for seed in range(8)]
    monkeypatch.setattr(lift, "_FEW_ITEMS", 0)
    once = [feature_lift(dataset, "m", seed=seed) for seed in range(8)]
    assert several[0].pairs > 5 * once[0].pairs
    assert np.std([found.lift for found in several]) < np.std([found.lift for found in once])


@pytest.mark.parametrize("few", [0, 100])
def test_the_mean_cosine_is_that_of_a_naive_loop(few, monkeypatch):
    monkeypatch.setattr(lift, "_FEW_ITEMS", few)
    rng = np.random.default_rng(0)
    rows = lift._unit_rows(rng.standard_normal((20, 5)))
    first, second = rng.integers(20, size=(2, 50))
    naive = np.mean([float(rows[one] @ rows[other]) for one, other in zip(first, second, strict=True)])
    assert lift._mean_cosine_of(rows)(first, second) == pytest.approx(naive, abs=1e-6)


def test_it_is_seeded():
    dataset = world()
    assert feature_lift(dataset, "m", seed=1) == feature_lift(dataset, "m", seed=1)
    assert feature_lift(dataset, "m", seed=1) != feature_lift(dataset, "m", seed=2)


def test_features_that_all_point_one_way_are_centred():
    found, offset = feature_lift(world(), "m"), feature_lift(world(offset=100.0), "m")
    assert offset.lift == pytest.approx(found.lift, abs=1e-3)


def test_only_items_that_have_the_modality_count():
    dataset = world(lacking=100)
    spoiled = np.array(dataset.features.matrices["m"])
    spoiled[:100] = 1e6
    other = with_features(dataset, ItemFeatures({"m": spoiled}, dataset.features.present))
    assert feature_lift(other, "m") == feature_lift(dataset, "m")
    assert feature_lift(dataset, "m").verdict == "follows taste"


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_constant_features_are_told(dtype):
    dataset = with_features(world(), ItemFeatures({"m": np.full((NUM_ITEMS, 3), 0.1, dtype=dtype)}))
    found = feature_lift(dataset, "m")
    assert (found.lift, found.z, found.verdict) == (None, None, "constant")
    assert found.pairs > 0


@pytest.mark.parametrize("scale", [1e37, 1e-30, 1e-38])
def test_the_scale_of_the_features_does_not_matter(scale):
    dataset = world()
    matrix = dataset.features.matrices["m"]
    scaled = with_features(dataset, ItemFeatures({"m": (matrix * scale).astype(np.float32)}))
    found, usual = feature_lift(scaled, "m"), feature_lift(dataset, "m")
    assert found.verdict == "follows taste"
    assert found.lift == pytest.approx(usual.lift, abs=1e-5)


def test_rows_are_of_unit_length_as_a_naive_loop_makes_them():
    rows = np.random.default_rng(0).standard_normal((20, 5))
    rows[3] = 0
    naive = [row / np.sqrt((row**2).sum()) if row.any() else row for row in rows]
    np.testing.assert_allclose(lift._unit_rows(rows.copy()), naive, atol=1e-6)


def test_too_few_pairs_are_told():
    catalog = world().catalog
    dataset = Dataset("thin", Interactions(np.arange(50), np.arange(50), NUM_USERS, NUM_ITEMS), catalog)
    found = feature_lift(dataset, "m")
    assert (found.pairs, found.lift, found.verdict) == (0, None, "too few pairs")


@pytest.mark.parametrize("name", ["tiktok", "lfm2k"])
def test_real_features_follow_taste_and_shuffled_ones_do_not(real_data, name):
    dataset = import_dataset(real_data / name)
    shuffled = with_features(dataset, dataset.features.placebo("shuffle", 0))
    for modality in dataset.features.modalities:
        found = feature_lift(dataset, modality)
        assert found.z > 4
        assert abs(found.shuffled_z) < 4
        assert feature_lift(shuffled, modality).verdict == "none"


def test_histories_are_the_kept_rows_of_the_drawn_users_in_order():
    rng = np.random.default_rng(0)
    cells = rng.permutation(20 * 15)[:150]
    log = Interactions(cells // 15, cells % 15, 20, 15)
    kept, drawn = rng.random(150) < 0.8, np.array([3, 7, 3, 19])
    naive = [(user, int(item)) for user in (3, 7, 19) for item in log.items[(log.users == user) & kept]]
    users, items = lift._histories(log, kept, drawn)
    assert list(zip(users.tolist(), items.tolist(), strict=True)) == naive
