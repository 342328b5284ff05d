"""A generated world is what it says: its counts, its shape, its split, and a truth that its features tell."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from metammf.data.synthetic import World, generate_world, load_truth, save_world
from metammf.errors import ConfigError, DataError, FileFormatError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@pytest.fixture(scope="module")
def world() -> World:
    return generate_world(users=600, items=1_500, interactions=9_000, seed=1, cold_share=0.2, missing_share=0.15)


def gini(counts: NDArray[np.int64]) -> float:
    shares = np.cumsum(np.sort(counts)) / counts.sum()
    return float(1 - 2 * shares.mean() + 1 / len(counts))


def readout(features: NDArray[np.floating], target: NDArray[np.floating]) -> float:
    """R2 on held-out rows of a ridge regression."""
    X = np.column_stack([features, np.ones(len(features))]).astype(np.float64)
    half = len(X) // 2
    weights = np.linalg.solve(X[:half].T @ X[:half] + np.eye(X.shape[1]), X[:half].T @ target[:half])
    rest = target[half:]
    return float(1 - ((rest - X[half:] @ weights) ** 2).sum() / ((rest - rest.mean(axis=0)) ** 2).sum())


def test_counts_are_exactly_those_asked_for(world):
    log = world.dataset.interactions
    assert (log.num_users, log.num_items, len(log)) == (600, 1_500, 9_000)


@pytest.mark.parametrize(
    ("users", "items", "interactions"), [(10, 20, 20), (10, 20, 50), (50, 40, 500), (200, 5000, 400)]
)
def test_counts_hold_at_the_borders(users, items, interactions):
    dataset = generate_world(users=users, items=items, interactions=interactions, cold_share=0.5).dataset
    assert len(dataset.interactions) == interactions
    split = dataset.split()
    assert split.train.user_counts.min() >= 1
    assert len(split.validation) >= 1
    assert len(split.test) >= 1


def test_defaults_grow_with_users():
    small, large = generate_world(users=500).dataset, generate_world(users=4_000).dataset
    assert len(small.interactions) == 12_000
    assert len(large.interactions) == 96_000
    assert small.num_items < large.num_items


def test_the_log_has_long_tails(world):
    log = world.dataset.interactions
    assert 0.001 <= len(log) / (log.num_users * log.num_items) <= 0.011
    assert 0.5 < gini(log.item_counts) < 0.75
    assert 0.3 < gini(log.user_counts) < 0.6


def test_same_seed_same_world_and_another_seed_another(world):
    again, other = (
        generate_world(users=600, items=1_500, interactions=9_000, seed=seed, cold_share=0.2, missing_share=0.15)
        for seed in (1, 2)
    )
    for name in ("users", "items", "timestamps"):
        np.testing.assert_array_equal(
            getattr(world.dataset.interactions, name), getattr(again.dataset.interactions, name)
        )
    np.testing.assert_array_equal(world.dataset.parts, again.dataset.parts)
    for name, matrix in world.dataset.features.matrices.items():
        np.testing.assert_array_equal(matrix, again.dataset.features.matrices[name])
    assert world.dataset.catalog.items.equals(again.dataset.catalog.items)
    assert not np.array_equal(world.dataset.interactions.keys, other.dataset.interactions.keys)


def test_a_seed_means_the_same_world_in_every_version():
    world = generate_world(users=60, items=120, interactions=900, seed=4)
    log = world.dataset.interactions
    digest = hashlib.sha256()
    for column in (log.users, log.items, log.timestamps, world.dataset.parts):
        digest.update(np.ascontiguousarray(column).astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == "aed370e969b4cf78"


def sharpened(mix_sharpness: float) -> World:
    return generate_world(users=600, items=1_500, interactions=9_000, seed=1, mix_sharpness=mix_sharpness)


def test_the_sharpness_of_mixes_leads_from_one_for_all_to_one_modality_each():
    diversity = [sharpened(power).truth.mix_diversity for power in (0, 0.25, 1, 20)]
    assert diversity == sorted(diversity)
    assert diversity[0] < 0.05  # what is left is what clips lack
    assert diversity[-1] > 0.9
    none = sharpened(0)
    weights = none.truth.modality_weights
    whole = (weights > 0).all(axis=1)
    assert whole.mean() == pytest.approx(0.9)
    np.testing.assert_allclose(weights[whole], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(weights[~whole].max(axis=1), 1 / 2, rtol=1e-6)


def test_diversity_is_what_an_item_tells_of_its_modality(world):
    truth = replace(world.truth, modality_weights=np.eye(3, dtype=np.float32)[np.arange(300) % 3])
    assert truth.mix_diversity == pytest.approx(1)
    assert replace(truth, modality_weights=np.full((300, 3), 1 / 3, dtype=np.float32)).mix_diversity == 0
    pairs = np.array([[0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]], dtype=np.float32)
    assert replace(truth, modality_weights=pairs).mix_diversity == pytest.approx(1 - np.log(2) / np.log(3))


def test_the_deviation_of_the_utility_is_that_of_all_pairs(world):
    users, items = np.indices((600, 1_500)).reshape(2, -1)
    assert world.truth.utility_deviation == pytest.approx(world.truth.utility(users, items).std(), rel=1e-4)
    # Contents that are averaged part less: with the mixes the spread grows.
    spreads = [sharpened(power).truth.utility_deviation for power in (0, 0.25, 1, 20)]
    assert spreads == sorted(spreads)


def test_with_one_mix_for_all_the_style_says_nothing_of_what_is_shown():
    from metammf.data.synthetic_content import draw_clips

    def told(power: float) -> float:
        clips = draw_clips(4_000, 3, 0.1, np.random.default_rng(0), mix_sharpness=power)
        assert clips.present[np.arange(4_000), clips.about].all()
        return readout(np.hstack([clips.style, clips.style**2]), np.eye(3)[clips.about])

    assert told(0) < 0.02
    assert told(0) < told(0.5) < told(1)


def test_strong_content_is_what_is_watched(world):
    def lead(strength: float) -> float:
        made = generate_world(users=600, items=1_500, interactions=9_000, seed=1, content_strength=strength)
        log, truth = made.dataset.interactions, made.truth
        others = truth.utility(log.users, np.random.default_rng(0).permutation(log.items))
        return float(truth.utility(log.users, log.items).mean() - others.mean())

    leads = [lead(strength) for strength in (0, 2, 8)]
    assert leads == sorted(leads)
    assert leads[0] < 0.5 * leads[-1]


def test_split_is_published_by_time_and_each_user_trains(world):
    split = world.dataset.split()
    assert split.method == "published"
    assert split.train.user_counts.min() >= 1
    assert split.train.timestamps.max() <= split.validation.timestamps.min()
    assert split.validation.timestamps.max() <= split.test.timestamps.min()
    for part in (split.validation, split.test):
        assert 0.07 < len(part) / len(world.dataset.interactions) < 0.13


def test_cold_clips_are_uploaded_after_training_and_held_out_only(world):
    split, cold = world.dataset.split(), world.truth.cold_items
    assert cold.mean() == pytest.approx(0.2)
    assert not cold[split.train.items].any()
    assert cold[split.validation.items].mean() > 0.05
    assert cold[split.test.items].mean() > 0.05
    assert world.dataset.catalog.items["uploaded_at"].to_numpy()[cold].min() >= split.train.timestamps.max()


def test_nobody_watches_a_clip_before_it_is_uploaded_and_histories_are_in_order(world):
    log = world.dataset.interactions
    assert (log.timestamps >= world.dataset.catalog.items["uploaded_at"].to_numpy()[log.items]).all()
    same_user = log.users[1:] == log.users[:-1]
    assert (log.timestamps[1:] >= log.timestamps[:-1])[same_user].all()


def test_missing_modalities_carry_no_appeal(world):
    present = np.column_stack(list(world.dataset.features.present.values()))
    assert (~present).any(axis=1).mean() == pytest.approx(0.15)
    assert (~present).sum(axis=1).max() == 1
    assert (world.truth.modality_weights[~present] == 0).all()
    np.testing.assert_allclose(world.truth.modality_weights.sum(axis=1), 1, rtol=1e-5)
    assert [title is None for title in world.dataset.catalog.titles] == (
        ~world.dataset.features.present["textual"]
    ).tolist()


def test_most_clips_are_about_one_modality(world):
    assert (world.truth.modality_weights.max(axis=1) > 0.6).mean() > 0.6


@pytest.mark.parametrize("modality", ["visual", "acoustic", "textual"])
def test_features_tell_the_mix_and_the_latents(world, modality):
    held = world.dataset.features.present[modality]
    features = world.dataset.features.matrices[modality][held]
    index = world.truth.modalities.index(modality)
    assert readout(np.hstack([features, features**2]), world.truth.modality_weights[held]) > 0.3
    assert readout(features, world.truth.item_latents[held, index]) > 0.7
    assert readout(features, world.truth.item_latents[held, index - 1]) < 0.05


def test_what_users_watch_appeals_to_them(world):
    log, truth = world.dataset.interactions, world.truth
    watched = truth.utility(log.users, log.items)
    others = truth.utility(log.users, np.random.default_rng(0).permutation(log.items))
    assert watched.mean() > others.mean() + others.std()


def test_modalities_and_dtype_are_free():
    world = generate_world(users=50, items=100, interactions=400, modalities={"cover": 3, "audio": 5}, dtype="float16")
    assert world.dataset.features.widths == {"cover": 3, "audio": 5}
    assert {matrix.dtype for matrix in world.dataset.features.matrices.values()} == {np.dtype(np.float16)}
    world.dataset.features.check_finite()
    alone = generate_world(users=50, items=100, interactions=400, modalities={"audio": 5}, missing_share=0)
    assert (alone.truth.modality_weights == 1).all()


def test_how_far_it_is_is_told(tmp_path: Path):
    told: list[tuple[str, int, int]] = []
    world = generate_world(users=50, items=100, interactions=400, progress=lambda *now: told.append(now))
    assert told[-1] == ("drawing interactions", 400, 400)
    assert ("drawing features", 3, 3) in told
    save_world(world, tmp_path / "world", progress=lambda *now: told.append(now))
    assert told[-1] == ("writing textual features", 5, 6)


def test_many_users_are_drawn_some_at_a_time(monkeypatch):
    # The chunks are part of what a seed means: only that there are several matters here.
    monkeypatch.setattr("metammf.data.synthetic_log._CHUNK_CANDIDATES", 20_000)
    told: list[int] = []
    world = generate_world(
        users=2_000, items=400, interactions=40_000, cold_share=0.02, progress=lambda _, done, __: told.append(done)
    )
    assert len(told) > 20
    split, truth = world.dataset.split(), world.truth
    assert len(world.dataset.interactions) == 40_000
    assert 0 < split.cold_items.mean() < 0.1
    log = world.dataset.interactions
    shuffled = truth.utility(log.users, np.random.default_rng(0).permutation(log.items))
    assert truth.utility(log.users, log.items).mean() > shuffled.mean() + 0.5 * shuffled.std()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"users": 0}, "users"),
        ({"users": -5}, "users"),
        ({"items": 0}, "items"),
        ({"seed": -1}, "seed"),
        ({"interactions": 0}, "interactions"),
        ({"users": 20, "items": 20, "interactions": 101}, "interactions"),
        ({"cold_share": 0.9}, "cold_share"),
        ({"cold_share": float("nan")}, "cold_share"),
        ({"missing_share": -0.1}, "missing_share"),
        ({"content_strength": -1}, "content_strength"),
        ({"content_strength": float("inf")}, "content_strength"),
        ({"mix_sharpness": float("nan")}, "mix_sharpness"),
        ({"modalities": {}}, "modalities"),
        ({"modalities": {"visual": 0}}, "visual"),
        ({"modalities": {"visual": 4}}, "missing_share"),
        ({"dtype": "int8"}, "dtype"),
        ({"dtype": "float12"}, "dtype"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, word):
    with pytest.raises(ConfigError, match=word):
        generate_world(**arguments)


def test_saved_world_comes_back(tmp_path: Path):
    folder = pytest.importorskip("metammf.data.folder", reason="needs the folder layout")
    world = generate_world(users=50, items=100, interactions=400, seed=3)
    save_world(world, tmp_path / "world")
    read, truth = folder.load_dataset(tmp_path / "world"), load_truth(tmp_path / "world")
    np.testing.assert_array_equal(read.interactions.keys, world.dataset.interactions.keys)
    np.testing.assert_array_equal(read.parts, world.dataset.parts)
    assert truth.modalities == world.truth.modalities
    np.testing.assert_array_equal(truth.modality_weights, world.truth.modality_weights)
    np.testing.assert_array_equal(truth.cold_items, world.truth.cold_items)


def test_truth_that_is_missing_or_damaged_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"truth\.npz"):
        load_truth(tmp_path)
    (tmp_path / "truth.npz").write_bytes(b"PK\x03\x04 not an archive")
    with pytest.raises(FileFormatError, match=r"truth\.npz"):
        load_truth(tmp_path)
