from __future__ import annotations

import json
import shutil

import polars as pl
import pytest

from metammf.files import read_json

KEYS = {"part", "seen", "ks", "all_users", "sample", "num_users", "num_interactions", "metrics", "warm", "cold"}
KEYS |= {"seconds", "run", "cold_users"}
NAMES = (
    "recall",
    "ndcg",
    "precision",
    "hit_rate",
    "map",
    "mrr",
    "micro_recall",
    "coverage",
    "gini",
    "novelty",
    "popularity",
)


def test_json_holds_all_of_it_at_full_precision(metammf, dynamic, tmp_path):
    outcome = metammf("evaluate", dynamic, "--json", tmp_path / "found.json")
    assert outcome.status == 0
    found = read_json(tmp_path / "found.json")
    assert found.keys() == KEYS
    assert (found["part"], found["seen"], found["ks"]) == ("test", "train+validation", [10, 20])
    assert (found["num_users"], found["num_interactions"], found["all_users"]) == (16, 48, False)
    assert set(found["metrics"]) == {f"{name}@{k}" for name in NAMES for k in (10, 20)}
    assert (found["cold"]["num_items"], found["cold"]["num_interactions"]) == (4, 32)
    assert found["cold"]["among_all"].keys() == found["cold"]["among_cold"].keys()
    assert found["warm"]["num_interactions"] == 16
    # 20 items, of which seven are seen: a list of 20 holds all the others.
    assert found["metrics"]["recall@20"] == 1
    shown = outcome.out.splitlines()
    assert shown[0].startswith("test: 16 users, 48 interactions, train+validation left out")
    assert any(line.split()[:2] == ["ndcg", f"{found['metrics']['ndcg@10']:.4f}"] for line in shown)


def test_the_run_keeps_what_was_found(metammf, groups, tmp_path):
    run = tmp_path / "run"
    metammf("train", groups, "--recipe", "popularity", "--out", run)
    metammf("evaluate", run, "--seen", "train")
    metammf("evaluate", run, "--part", "validation")
    metammf("evaluate", run, "--all-users", "--json", tmp_path / "all.json")
    names = sorted(path.name for path in (run / "evaluation").iterdir())
    assert names == ["test-train+validation-all-users.json", "test-train.json", "validation-train.json"]
    assert read_json(run / "evaluation" / names[0]) == read_json(tmp_path / "all.json")
    assert read_json(tmp_path / "all.json")["num_users"] == 17


def test_ks(metammf, popular, tmp_path):
    metammf("evaluate", popular, "-k", 5, "-k", 1, "--json", tmp_path / "found.json")
    found = read_json(tmp_path / "found.json")
    assert found["ks"] == [1, 5]
    assert set(found["metrics"]) == {f"{name}@{k}" for name in NAMES for k in (1, 5)}


def test_seen_changes_what_is_left_out(metammf, dynamic, tmp_path):
    for seen in ("train", "train+validation"):
        metammf("evaluate", dynamic, "--seen", seen, "-k", 3, "--json", tmp_path / f"{seen}.json")
    train, both = (
        read_json(tmp_path / f"{seen}.json")["metrics"]["recall@3"] for seen in ("train", "train+validation")
    )
    # Under train alone the item that validation holds stands in the way of one of three.
    assert train < both == 1


@pytest.mark.parametrize("extension", ["parquet", "csv"])
def test_per_user(metammf, dynamic, tmp_path, extension):
    file = tmp_path / f"users.{extension}"
    metammf("evaluate", dynamic, "--per-user", file, "--json", tmp_path / "found.json")
    table = pl.read_parquet(file) if extension == "parquet" else pl.read_csv(file)
    assert table.height == 16
    assert table["user_id"].to_list()[:2] == ["user-0", "user-1"]
    mean = read_json(tmp_path / "found.json")["metrics"]["ndcg@10"]
    assert table["ndcg@10"].mean() == pytest.approx(mean, abs=1e-12)


def test_data_may_have_moved(metammf, refused, groups, tmp_path):
    here, there, run = tmp_path / "here", tmp_path / "there", tmp_path / "run"
    shutil.copytree(groups, here)
    metammf("train", here, "--recipe", "popularity", "--out", run)
    here.rename(there)
    assert "no longer there" in refused("evaluate", run)
    assert metammf("evaluate", run, "--data", there).status == 0


def test_other_data_is_refused(refused, dynamic, unsplit):
    assert "is not the data set" in refused("evaluate", dynamic, "--data", unsplit)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--part", "validation", "--seen", "train+validation"), "would leave out the very items"),
        (("-k", "0"), "each 1 or more"),
        (("--users", "0"), "expected 1 or more"),
        (("--users", "5", "--all-users"), "exclude each other"),
        (("--workers", "2"), "--engine ray"),
        (("--per-user", "users.txt"), ".parquet or .csv"),
    ],
)
def test_what_does_not_fit(refused, dynamic, options, told):
    assert told in refused("evaluate", dynamic, *options)


def test_some_users(metammf, dynamic, tmp_path):
    """The same ones each time, at what they have among all."""
    paths = [tmp_path / f"{name}.csv" for name in ("all", "some", "again")]
    for path, options in zip(paths, ((), ("--users", "5"), ("--users", "5")), strict=True):
        metammf("evaluate", dynamic, "--per-user", path, *options)
    everybody, some, again = (set(path.read_text("utf-8").splitlines()) for path in paths)
    assert len(some) == 6
    assert some == again
    assert some < everybody
    kept = json.loads((dynamic / "evaluation" / "test-train+validation-5-users.json").read_text("utf-8"))
    assert (kept["sample"], kept["num_users"]) == (5, 5)


def test_what_is_no_run(refused, groups, tmp_path):
    assert "not a run" in refused("evaluate", groups)
    assert "not a run" in refused("evaluate", tmp_path / "nowhere")


def test_a_damaged_recommender_is_told(metammf, refused, groups, tmp_path):
    run = tmp_path / "run"
    metammf("train", groups, "--recipe", "popularity", "--out", run)
    tensors = run / "recommender" / "tensors.safetensors"
    whole = tensors.read_bytes()
    for damage in (whole[:-1], whole[:4], b""):
        tensors.write_bytes(damage)
        assert "damaged" in refused("evaluate", run)
        assert "damaged" in refused("recommend", run, "--user", "user-1")
    tensors.unlink()
    assert "damaged" in refused("evaluate", run)
    shutil.rmtree(run / "recommender")
    assert "no finished recommender" in refused("evaluate", run)


def test_json_is_json(metammf, popular, tmp_path):
    """Popularity never reaches cold items, so some table is all zeros; still every number is one that JSON has."""
    metammf("evaluate", popular, "--json", tmp_path / "found.json")
    json.loads((tmp_path / "found.json").read_text(), parse_constant=pytest.fail)
