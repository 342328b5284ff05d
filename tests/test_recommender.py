"""The finished thing: lists, neighbours, new items, and the folder that it is kept in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
import torch

from metammf.data.features import ItemFeatures
from metammf.errors import ConfigError, DataError, ForeignModelError, RunError, UnknownIdError
from metammf.models.content_knn import ContentKNNConfig
from metammf.models.ease import EASEConfig
from metammf.models.lightgcn import LightGCNConfig
from metammf.models.metammf import MetaMMFConfig
from metammf.models.mf import MFConfig
from metammf.models.popularity import PopularityConfig
from metammf.recommender import Recommender
from metammf.testing.data import taste_groups
from metammf.training.config import TrainingConfig
from metammf.training.fit import fit

if TYPE_CHECKING:
    from pathlib import Path

SPLIT = taste_groups(8, cold=1, lacking=True)
TRAINING = TrainingConfig(epochs=30, batch_size=240, learning_rate=0.05, patience=None, evaluate_every=30)
CONFIGS: dict[str, Any] = {
    "metammf": MetaMMFConfig(backbone="lightgcn", embedding_dim=8, hidden_dims=(6,), meta_dim=2, cp_rank=2),
    "mf": MFConfig(embedding_dim=2),
    "lightgcn": LightGCNConfig(embedding_dim=4),
    "ease": EASEConfig(),
    "popularity": PopularityConfig(),
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def fitted() -> dict[str, Recommender]:
    return {name: fit(config, SPLIT.development, training=TRAINING) for name, config in CONFIGS.items()}


@pytest.fixture(params=list(CONFIGS))
def recommender(request: pytest.FixtureRequest, fitted: dict[str, Recommender]) -> Recommender:
    return fitted[request.param]


@pytest.fixture
def metammf(fitted: dict[str, Recommender]) -> Recommender:
    return fitted["metammf"]


def by_hand(recommender: Recommender, user: int, seen: set[int], exclude: set[int] = frozenset()) -> list[str]:
    scores = recommender.scores(torch.tensor([user]))[0].tolist()
    free = [item for item in range(len(scores)) if item not in seen | exclude and scores[item] != -np.inf]
    return [f"item-{item}" for item in sorted(free, key=lambda item: (-scores[item], item))]


def watched(part: Any, user: int) -> set[int]:
    return set(part.items[part.users == user].tolist())


# Lists ----------------------------------------------------------------------------------------------------------


def test_recommend_leaves_out_what_was_seen(recommender: Recommender) -> None:
    train, validation = watched(SPLIT.train, 3), watched(SPLIT.validation, 3)
    for seen, hidden in (("train+validation", train | validation), ("train", train), ("none", set())):
        frame = recommender.recommend("user-3", k=100, seen=seen)
        assert frame["item_id"].to_list() == by_hand(recommender, 3, hidden)
    assert recommender.recommend("user-3", k=4).equals(recommender.recommend("user-3", k=4, seen="train+validation"))


def test_columns(recommender: Recommender) -> None:
    frame = recommender.recommend("user-0", k=3)
    assert frame.columns == ["user_id", "item_id", "rank", "score", "title"]
    assert frame.dtypes == [pl.String, pl.String, pl.Int32, pl.Float32, pl.String]
    assert frame["rank"].to_list() == [1, 2, 3]
    assert frame["user_id"].to_list() == ["user-0"] * 3
    items = recommender.catalog.item_ids.indices(frame["item_id"])
    assert frame["title"].to_list() == [f"group {item % 2}" for item in items]
    scores = recommender.scores(torch.tensor([0]))[0].numpy()
    assert frame["score"].to_numpy() == pytest.approx(scores[items])


def test_exclude(recommender: Recommender) -> None:
    first = recommender.recommend("user-2", k=2)["item_id"].to_list()
    left = recommender.recommend("user-2", k=100, exclude=first)["item_id"].to_list()
    assert left == recommender.recommend("user-2", k=100)["item_id"].to_list()[2:]


def test_many_are_one_after_another(recommender: Recommender) -> None:
    calls: list[tuple[int, int]] = []
    ids = ["user-5", "user-0", "user-5"]
    frames = recommender.recommend_many(ids, 4, progress=lambda done, total: calls.append((done, total)))
    together = pl.concat(list(frames))
    alone = pl.concat([recommender.recommend(user_id, 4) for user_id in ids])
    assert together.drop("score").equals(alone.drop("score"))
    # A product with one row may differ from one with many in the last bit.
    assert together["score"].to_numpy() == pytest.approx(alone["score"].to_numpy(), rel=1e-5)
    assert calls[-1] == (3, 3)
    everybody = pl.concat(list(recommender.recommend_many(None, 2)))
    assert everybody["user_id"].unique(maintain_order=True).to_list() == SPLIT.catalog.user_ids.ids.tolist()


def test_nobody_is_nothing(recommender: Recommender) -> None:
    assert list(recommender.recommend_many([], 3)) == []


def test_everything_excluded_is_an_empty_list(recommender: Recommender) -> None:
    frame = recommender.recommend("user-0", exclude=SPLIT.catalog.item_ids.ids.tolist())
    assert frame.height == 0
    assert frame.columns == ["user_id", "item_id", "rank", "score", "title"]
    assert frame.dtypes == [pl.String, pl.String, pl.Int32, pl.Float32, pl.String]


def test_what_is_asked_wrongly(recommender: Recommender) -> None:
    with pytest.raises(UnknownIdError, match="unknown user id 'user-99'"):
        recommender.recommend("user-99")
    with pytest.raises(UnknownIdError, match=r"unknown item id 'itm-1' \(did you mean 'item-1'\?\)"):
        recommender.recommend("user-0", exclude=["itm-1"])
    with pytest.raises(ConfigError, match="k must be at least 1"):
        recommender.recommend("user-0", k=0)
    with pytest.raises(ConfigError, match="seen 'all': expected"):
        recommender.recommend("user-0", seen="all")


def test_history(recommender: Recommender) -> None:
    assert recommender.has_history("user-0")
    assert not recommender.has_history("user-16")
    with pytest.raises(UnknownIdError):
        recommender.has_history("nobody")


def test_twice_the_same_bytes(recommender: Recommender, tmp_path: Path) -> None:
    again = fit(recommender.config, SPLIT.development, training=TRAINING)
    for name, each in (("first", recommender), ("second", again)):
        for suffix, write in (("csv", pl.DataFrame.write_csv), ("parquet", pl.DataFrame.write_parquet)):
            write(pl.concat(list(each.recommend_many(None, 5))), tmp_path / f"{name}.{suffix}")
    for suffix in ("csv", "parquet"):
        assert (tmp_path / f"first.{suffix}").read_bytes() == (tmp_path / f"second.{suffix}").read_bytes()


def test_it_says_what_it_is(recommender: Recommender) -> None:
    assert repr(recommender) == f"Recommender({recommender.config.name}: 17 users x 18 items)"


# Neighbours ------------------------------------------------------------------------------------------------------


def test_similar_is_cosine(metammf: Recommender) -> None:
    frame = metammf.similar("item-4", k=5)
    assert frame.columns == ["item_id", "rank", "score", "title"]
    vectors = metammf.vectors().items.numpy()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit[4]
    expected = [item for item in np.argsort(-cosines, kind="stable") if item != 4][:5]
    assert frame["item_id"].to_list() == [f"item-{item}" for item in expected]
    assert frame["score"].to_numpy() == pytest.approx(cosines[expected], abs=1e-5)
    assert frame["title"].to_list() == ["group 0"] * 5
    assert metammf.similar("item-4", k=100).height == 17


def test_items_that_ids_know_nothing_of_are_nobody_s_neighbours(fitted: dict[str, Recommender]) -> None:
    found = fitted["mf"].similar("item-4", k=100)["item_id"].to_list()
    assert len(found) == 15
    assert not {"item-16", "item-17"} & set(found)
    with pytest.raises(DataError, match="'item-16' has no train interaction"):
        fitted["mf"].similar("item-16")


def test_similar_asked_wrongly(fitted: dict[str, Recommender]) -> None:
    with pytest.raises(UnknownIdError, match="unknown item id"):
        fitted["metammf"].similar("item-99")
    with pytest.raises(ConfigError, match="ease has no vectors"):
        fitted["ease"].similar("item-1")
    with pytest.raises(ConfigError, match="k must be at least 1"):
        fitted["mf"].similar("item-1", k=0)


# New items -------------------------------------------------------------------------------------------------------


def test_embed_items(metammf: Recommender) -> None:
    features = SPLIT.catalog.features
    vectors = metammf.embed_items(features)
    assert vectors.shape == (18, 8)
    assert vectors.dtype == np.float32
    one = metammf.embed_items(features.select(np.array([5])))
    assert one[0] == pytest.approx(vectors[5], abs=1e-6)
    assert metammf.embed_items(features.select(np.array([], dtype=int))).shape == (0, 8)


def test_embed_items_in_chunks(metammf: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = metammf.embed_items(SPLIT.catalog.features)
    monkeypatch.setattr("metammf.recommender._ENCODED_AT_ONCE", 4)
    assert metammf.embed_items(SPLIT.catalog.features) == pytest.approx(whole, abs=1e-6)


def test_modalities_beyond_those_that_are_fused_are_left_alone(metammf: Recommender) -> None:
    features = SPLIT.catalog.features
    more = ItemFeatures({"extra": np.ones((18, 2), np.float32), **features.matrices}, features.present)
    assert np.array_equal(metammf.embed_items(more), metammf.embed_items(features))


def test_features_that_do_not_fit(metammf: Recommender, fitted: dict[str, Recommender]) -> None:
    features = SPLIT.catalog.features
    with pytest.raises(DataError, match="modality 'visual' is missing: the model fuses visual, textual"):
        metammf.embed_items(features.only(["textual"]))
    narrow = ItemFeatures({**features.matrices, "visual": features.matrices["visual"][:, :3]})
    with pytest.raises(DataError, match="visual features: expected width 5, got 3"):
        metammf.embed_items(narrow)
    broken = ItemFeatures({**features.matrices, "visual": np.full((18, 5), np.inf, np.float32)})
    with pytest.raises(DataError, match="row 0, column 0 is inf"):
        metammf.embed_items(broken)
    for name in ("mf", "ease"):
        with pytest.raises(ConfigError, match=f"{name} knows items by their ids alone"):
            fitted[name].embed_items(features)


def test_new_items_are_recommendable_at_once(metammf: Recommender, tmp_path: Path) -> None:
    """Two new clips, with the content of an item of either group: each goes to its own group's users."""
    features = SPLIT.catalog.features.select(np.array([16, 17]))
    wider = metammf.add_items(["new-a", "new-b"], features, titles=["A", "B"])
    assert (metammf.num_items, wider.num_items) == (18, 20)
    assert metammf.catalog.num_items == 18
    wider.save(tmp_path / "wider")
    for each in (wider, Recommender.load(tmp_path / "wider")):
        for user, own in (("user-0", "new-a"), ("user-1", "new-b")):
            frame = each.recommend(user, k=3)
            assert own in frame["item_id"].to_list()
            assert frame.filter(pl.col("item_id") == own)["title"].to_list() == [own[-1].upper()]
        assert each.similar("new-a", k=1)["item_id"].to_list() == ["item-16"]
        assert each.recommend("user-16", k=20)["item_id"].to_list()[-2:] == ["new-a", "new-b"]
    again = Recommender.load(tmp_path / "wider").add_items(["new-c"], features.select(np.array([0])))
    torch.testing.assert_close(again.vectors().items[20], wider.vectors().items[18])  # one row, not two: another kernel
    assert again.recommend("user-0", k=20, seen="none").height == 20


def test_new_items_that_cannot_be_added(metammf: Recommender, fitted: dict[str, Recommender]) -> None:
    features = SPLIT.catalog.features.select(np.array([0]))
    with pytest.raises(DataError, match="item id 'item-3' is in the data set already"):
        metammf.add_items(["item-3"], features)
    with pytest.raises(DataError, match="2 new item ids, but features of 1 items"):
        metammf.add_items(["x", "y"], features)
    with pytest.raises(DataError, match="comes 2 times"):
        metammf.add_items(["x", "x"], SPLIT.catalog.features.select(np.array([0, 1])))
    with pytest.raises(DataError, match="1 new item ids, but 2 titles"):
        metammf.add_items(["x"], features, titles=["A", "B"])
    with pytest.raises(ConfigError, match="ids alone"):
        fitted["mf"].add_items(["x"], features)
    with pytest.raises(ConfigError, match="popularity knows items by their ids alone"):
        fitted["popularity"].add_items(["x"], features)


def test_a_solved_model_takes_new_items_by_content_but_has_no_vectors() -> None:
    features = SPLIT.catalog.features.select(np.array([16, 17]))
    found = fit(ContentKNNConfig(), SPLIT.development)
    wider = found.add_items(["new-a", "new-b"], features).add_items(["new-c"], features.select(np.array([0])))
    scores = wider.scores(torch.arange(16))
    assert torch.equal(scores[:, :18], found.scores(torch.arange(16)))
    assert torch.equal(scores[:, 18:], scores[:, [16, 17, 16]])
    with pytest.raises(ConfigError, match="content-knn has no vectors of items"):
        found.embed_items(features)
    with pytest.raises(DataError, match="modality 'visual' is missing: the model fuses visual, textual"):
        found.add_items(["x", "y"], features.only(["textual"]))


# Disk -----------------------------------------------------------------------------------------------------------


def test_saved_and_loaded(recommender: Recommender, tmp_path: Path) -> None:
    recommender.save(tmp_path / "r")
    loaded = Recommender.load(tmp_path / "r")
    users = torch.arange(17)
    assert torch.equal(loaded.scores(users), recommender.scores(users))
    assert pl.concat(list(loaded.recommend_many(None, 5))).equals(pl.concat(list(recommender.recommend_many(None, 5))))
    assert loaded.config == recommender.config
    assert loaded.catalog.user_ids == recommender.catalog.user_ids
    assert loaded.catalog.titles == recommender.catalog.titles
    for part in ("train", "validation"):
        assert np.array_equal(getattr(loaded, part).keys, getattr(recommender, part).keys)
    loaded.save(tmp_path / "again")
    names = sorted(path.name for path in (tmp_path / "r").iterdir())
    assert names == ["items.parquet", "recommender.json", "tensors.safetensors", "users.parquet"]
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "r" / name).read_bytes()


def test_a_run_s_folder_will_do(recommender: Recommender, tmp_path: Path) -> None:
    recommender.save(tmp_path / "run" / "recommender")
    assert Recommender.load(tmp_path / "run").config == recommender.config
    assert Recommender.load(str(tmp_path / "run")).config == recommender.config


def test_saving_again_replaces_and_a_foreign_folder_stays(recommender: Recommender, tmp_path: Path) -> None:
    recommender.save(tmp_path / "r")
    recommender.save(tmp_path / "r")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r"]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="is not a folder that metammf wrote"):
        recommender.save(mine)
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]


def test_where_the_data_are(metammf: Recommender, tmp_path: Path) -> None:
    metammf.save(tmp_path / "r", data_path=tmp_path / "data")
    assert Recommender.load(tmp_path / "r").data_path == tmp_path / "data"


def test_whole_numbers_stay_whole_numbers(tmp_path: Path) -> None:
    from dataclasses import replace

    from metammf.data.ids import IdMap
    from metammf.data.splitting import Development

    catalog = replace(
        SPLIT.catalog,
        user_ids=IdMap(np.arange(17) + 10**12, kind="user"),
        item_ids=IdMap(np.arange(18) - 5),
        items=pl.DataFrame(),
    )
    recommender = fit(PopularityConfig(), Development(SPLIT.train, SPLIT.validation, catalog))
    recommender.save(tmp_path / "r")
    frame = Recommender.load(tmp_path / "r").recommend(str(10**12), k=2)
    assert frame.columns == ["user_id", "item_id", "rank", "score"]
    assert frame["user_id"].dtype == frame["item_id"].dtype == pl.Int64
    assert frame.equals(recommender.recommend(10**12, k=2))


def test_nothing_there(tmp_path: Path) -> None:
    for folder, told in ((tmp_path, "holds no finished recommender"), (tmp_path / "nowhere", "no such folder")):
        with pytest.raises(RunError, match=told):
            Recommender.load(folder)


FILES = ["recommender.json", "tensors.safetensors", "users.parquet", "items.parquet"]


@pytest.mark.parametrize(
    "error",
    [MemoryError("Unable to allocate 9 GiB"), RuntimeError("[x] DefaultCPUAllocator: can't allocate memory: 9 bytes")],
)
def test_memory_that_is_not_there_is_no_damage(
    recommender: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def greedy(*_: Any) -> None:
        raise error

    recommender.save(tmp_path / "r")
    monkeypatch.setattr("metammf.recommender_files._assemble", greedy)
    with pytest.raises(type(error), match="llocate"):
        Recommender.load(tmp_path / "r")


@pytest.mark.parametrize("keep", [0, 0.5, -1])
@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short(recommender: Recommender, tmp_path: Path, name: str, keep: float) -> None:
    folder = tmp_path / "r"
    recommender.save(folder)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(len(whole) * keep) if isinstance(keep, float) else keep])
    if name == "recommender.json" and keep == -1:
        Recommender.load(folder)  # the last byte is a line's end
        return
    with pytest.raises(RunError, match=r"damaged|not readable"):
        Recommender.load(folder)


@pytest.mark.parametrize("name", FILES[1:])
def test_a_file_that_is_gone(recommender: Recommender, tmp_path: Path, name: str) -> None:
    recommender.save(tmp_path / "r")
    (tmp_path / "r" / name).unlink()
    with pytest.raises(RunError, match="damaged"):
        Recommender.load(tmp_path / "r")


@pytest.mark.parametrize(
    "change",
    [
        {"format": "something-else"},
        {"num_items": 5},
        {"num_users": 5},
        {"num_items": "many"},
        {"trained_items": -3},
        {"model": {"name": "no-such-model"}},
        {"model": {"name": "metammf", "no_such_setting": 1}},
        {"model": None},
        {"feature_widths": {"visual": "wide"}},
        [],
        None,
    ],
)
def test_a_description_that_was_tampered_with(metammf: Recommender, tmp_path: Path, change: Any) -> None:
    metammf.save(tmp_path / "r")
    path = tmp_path / "r" / "recommender.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps({**about, **change} if isinstance(change, dict) else change))
    with pytest.raises(RunError, match=r"damaged|expected the form"):
        Recommender.load(tmp_path / "r")


def test_tables_of_other_sizes(metammf: Recommender, tmp_path: Path) -> None:
    for name in ("users", "items"):
        metammf.save(tmp_path / "r")
        path = tmp_path / "r" / f"{name}.parquet"
        pl.read_parquet(path).head(-1).write_parquet(path)
        with pytest.raises(RunError, match="damaged"):
            Recommender.load(tmp_path / "r")


def test_no_pickle_is_ever_read(recommender: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    recommender.save(tmp_path / "r")

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a pickle was read")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    Recommender.load(tmp_path / "r").recommend("user-0")


def test_the_offset_of_cold_items_is_no_part_of_their_vectors(tmp_path: Path) -> None:
    config = MetaMMFConfig(backbone="mf", hidden_dims=(8,), embedding_dim=8, cold_offset=True, simulated_cold=0.3)
    found = fit(config, SPLIT.development, training=TrainingConfig(epochs=2, learning_rate=0.05), seed=0)
    features = SPLIT.catalog.features.select(np.array([16]))
    known = found.vectors()
    offset = found.model.new_item_offset()
    assert offset != 0
    assert known.items.shape[1] == found.embed_items(features).shape[1] == 8
    assert known.offsets is not None
    assert known.offsets.tolist() == [offset if count == 0 else 0 for count in SPLIT.train.item_counts]
    wider = found.add_items(["new"], features)
    wider.save(tmp_path / "wider")
    vector = torch.from_numpy(found.embed_items(features))[0]
    for each in (wider, Recommender.load(tmp_path / "wider")):
        score = each.scores(torch.tensor([0]))[0, -1]
        assert float(score) == pytest.approx(float(known.users[0] @ vector) + offset, abs=1e-6)


def test_items_that_were_added_outlive_two_round_trips(tmp_path: Path) -> None:
    config = MetaMMFConfig(backbone="mf", hidden_dims=(8,), embedding_dim=8)
    found = fit(config, SPLIT.development, training=TrainingConfig(epochs=1), seed=0)
    features = SPLIT.catalog.features.select(np.array([16, 17]))
    expected = found.embed_items(features)
    again = found.add_items(["new-a", "new-b"], features)
    for time in range(2):
        again.save(tmp_path / f"{time}")
        again = Recommender.load(tmp_path / f"{time}")
        assert (again.trained_items, again.num_items) == (found.num_items, found.num_items + 2)
        assert np.array_equal(again.embed_items(features), expected)


def test_what_popularity_ranks_is_not_explained_by_modalities(metammf: Recommender) -> None:
    strangers = np.flatnonzero(metammf.train.user_counts == 0)
    with pytest.raises(ConfigError, match="has no history"):
        metammf.explain("item-0", metammf.catalog.user_ids.ids[strangers[0]])


def test_a_file_cannot_name_code_to_run(metammf: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metammf.save(tmp_path / "saved")
    (tmp_path / "foreign.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "saved" / "recommender.json"
    about = json.loads(path.read_text())
    about["model"]["name"] = "foreign:Model"
    path.write_text(json.dumps(about))
    with pytest.raises(ForeignModelError, match="METAMMF_MODELS=foreign") as told:
        Recommender.load(tmp_path / "saved")
    assert str(told.value).startswith(f"{tmp_path / 'saved'}")
    assert "damaged" not in str(told.value)
    assert not (tmp_path / "ran").exists()
    monkeypatch.setenv("METAMMF_MODELS", "foreign")
    with pytest.raises(RunError, match="cannot be imported"):
        Recommender.load(tmp_path / "saved")
    assert (tmp_path / "ran").exists()


def test_columns_of_ids_are_made_once() -> None:
    """For a single user they would take longer than all else."""
    recommender = fit(MFConfig(embedding_dim=4), taste_groups().development, training=TrainingConfig(epochs=1))
    assert recommender.feeds(3).user_ids is recommender.feeds(5).user_ids
    assert recommender.feeds(3).items is recommender.feeds(5).items
