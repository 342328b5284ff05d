"""``similar`` and ``embed``: what is known of an item by its vector."""

from __future__ import annotations

import shutil

import numpy as np
import polars as pl
import pytest

from metammf.recommender import Recommender


def test_similar_items_are_of_the_group(metammf, dynamic, tmp_path):
    out = metammf("similar", dynamic, "--item", "item-1", "-k", 5, "--out", tmp_path / "near.parquet").out
    assert out.count("group 1") == 5
    table = pl.read_parquet(tmp_path / "near.parquet")
    assert table["rank"].to_list() == [1, 2, 3, 4, 5]
    assert "item-1" not in table["item_id"]
    assert table["score"].is_sorted(descending=True)
    assert table["score"].max() <= 1 + 1e-6


def test_similar_refuses(refused, dynamic, popular):
    assert "did you mean 'item-1" in refused("similar", dynamic, "--item", "item-100")
    assert "no vectors" in refused("similar", popular, "--item", "item-1")
    assert "k" in refused("similar", dynamic, "--item", "item-1", "-k", 0)
    assert ".parquet or .csv" in refused("similar", dynamic, "--item", "item-1", "--out", "near.json")


def test_embed_writes_a_vector_an_item(metammf, dynamic, groups, tmp_path):
    outcome = metammf("embed", dynamic, groups, tmp_path / "vectors.parquet")
    assert (outcome.status, outcome.out) == (0, "")
    table = pl.read_parquet(tmp_path / "vectors.parquet")
    assert table["item_id"].to_list() == [f"item-{item}" for item in range(20)]
    assert table["vector"].dtype == pl.Array(pl.Float32, 16)
    # A cold item takes the path that a new one takes.
    known = Recommender.load(dynamic).vectors().items.numpy()
    np.testing.assert_allclose(table["vector"].to_numpy()[16:], known[16:], rtol=1e-4, atol=1e-6)


def test_embed_needs_items_and_features_alone(metammf, dynamic, groups, tmp_path):
    new = tmp_path / "new"
    new.mkdir()
    shutil.copy(groups / "items.parquet", new)
    shutil.copytree(groups / "features", new / "features")
    assert metammf("embed", dynamic, new, tmp_path / "vectors.parquet").status == 0


def test_embed_refuses(refused, dynamic, popular, groups, tmp_path):
    out = tmp_path / "vectors.parquet"
    assert "cannot encode content" in refused("embed", popular, groups, out)
    assert "nowhere" in refused("embed", dynamic, tmp_path / "nowhere", out)
    assert ".parquet" in refused("embed", dynamic, groups, tmp_path / "vectors.csv")
    broken = tmp_path / "broken"
    shutil.copytree(groups, broken)
    for name, values, told in (
        ("visual", np.full((20, 5), np.nan, np.float32), "visual"),
        ("visual", np.zeros((19, 5), np.float32), "19"),
        ("visual", np.zeros((20, 4), np.float32), "expected width 5, got 4"),
        ("visual", np.array([{}] * 20, dtype=object), "visual.npy"),
    ):
        np.save(broken / "features" / f"{name}.npy", values, allow_pickle=True)
        assert told in refused("embed", dynamic, broken, out)
    (broken / "features" / "visual.npy").unlink()
    assert "visual" in refused("embed", dynamic, broken, out)
    assert not out.exists()


@pytest.mark.parametrize("command", ["similar", "embed"])
def test_what_is_no_run(refused, groups, tmp_path, command):
    words = ("--item", "1") if command == "similar" else (groups, tmp_path / "vectors.parquet")
    assert "finished recommender" in refused(command, tmp_path, *words)
