from __future__ import annotations

import polars as pl
import pytest

ALL = ("--all-users", "--out")


def read(file):
    return pl.read_csv(file) if file.suffix == ".csv" else pl.read_parquet(file)


@pytest.mark.parametrize("extension", ["csv", "parquet"])
def test_columns_ranks_and_order(metammf, dynamic, tmp_path, extension):
    file = tmp_path / f"feeds.{extension}"
    outcome = metammf("recommend", dynamic, "--all-users", "-k", 4, "--out", file)
    assert (outcome.status, outcome.out) == (0, "")
    assert f"{file}: 68 rows" in outcome.err
    table = read(file)
    assert table.columns == ["user_id", "item_id", "rank", "score"]
    assert table["user_id"].unique(maintain_order=True).to_list() == [f"user-{user}" for user in range(17)]
    assert table["rank"].to_list() == [1, 2, 3, 4] * 17
    falls = table.group_by("user_id").agg((pl.col("score").diff().drop_nulls() <= 0).all())
    assert falls["score"].all()
    assert not table.select("user_id", "item_id").is_duplicated().any()


def test_a_folder_of_parts(metammf, refused, dynamic, popular, tmp_path):
    outcome = metammf("recommend", dynamic, *ALL, tmp_path / "feeds")
    assert f"{tmp_path / 'feeds'}: 170 rows" in outcome.err
    metammf("recommend", dynamic, *ALL, tmp_path / "feeds.parquet")
    assert pl.read_parquet(tmp_path / "feeds" / "*.parquet").equals(pl.read_parquet(tmp_path / "feeds.parquet"))
    assert metammf("recommend", dynamic, *ALL, tmp_path / "feeds").err == outcome.err
    assert "k was 10, is 3" in refused("recommend", dynamic, "-k", 3, *ALL, tmp_path / "feeds")
    assert "recommender was" in refused("recommend", popular, *ALL, tmp_path / "feeds")


@pytest.mark.parametrize("extension", ["csv", "parquet"])
def test_twice_the_same_bytes(metammf, dynamic, tmp_path, extension):
    one, two = tmp_path / f"one.{extension}", tmp_path / f"two.{extension}"
    metammf("recommend", dynamic, *ALL, one)
    metammf("recommend", dynamic, *ALL, two)
    assert one.read_bytes() == two.read_bytes()


def test_titles_on_the_screen_as_they_are(metammf, dynamic):
    out = metammf("recommend", dynamic, "--user", "user-2", "-k", 3).out
    assert [line.split()[0] for line in out.splitlines()] == ["user_id", "user-2", "user-2", "user-2"]
    assert out.count("group 0") == 3


def test_several_users(metammf, dynamic, tmp_path):
    metammf("recommend", dynamic, "--user", "user-5", "user-2", "-k", 1, "--out", tmp_path / "one.csv")
    metammf("recommend", dynamic, "--user=user-5", "--user=user-2", "-k", 1, "--out", tmp_path / "two.csv")
    assert read(tmp_path / "one.csv")["user_id"].to_list() == ["user-5", "user-2"]
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()


def test_seen_items_are_left_out_as_asked(metammf, dynamic, tmp_path):
    counts = {}
    for seen in ("none", "train", "train+validation"):
        metammf("recommend", dynamic, "--user", "user-0", "-k", 50, "--seen", seen, "--out", tmp_path / "feed.csv")
        counts[seen] = read(tmp_path / "feed.csv").height
    assert counts == {"none": 20, "train": 14, "train+validation": 13}  # k larger than what is left: all of that


def test_exclude(metammf, refused, dynamic, tmp_path):
    words = ("recommend", dynamic, "--user", "user-2", "-k", 3, "--out", tmp_path / "feed.csv")
    metammf(*words)
    first = read(tmp_path / "feed.csv")["item_id"][0]
    barred = tmp_path / "barred.txt"
    barred.write_text(f"\n {first} \n\n", encoding="utf-8")
    metammf(*words, "--exclude", barred)
    assert first not in read(tmp_path / "feed.csv")["item_id"]
    barred.write_text("item-100\n", encoding="utf-8")
    assert "unknown item id 'item-100'" in refused(*words, "--exclude", barred)
    assert "cannot be read" in refused(*words, "--exclude", tmp_path / "nowhere.txt")


def test_a_user_without_history_gets_popularity_and_is_told_so(metammf, dynamic, popular, tmp_path):
    for run, name in ((dynamic, "one.csv"), (popular, "two.csv")):
        outcome = metammf("recommend", run, "--user", "user-16", "--out", tmp_path / name)
        assert "user user-16 has no history: these are the popular items" in outcome.err
    one, two = read(tmp_path / "one.csv"), read(tmp_path / "two.csv")
    assert one["item_id"].to_list() == two["item_id"].to_list()
    assert "1 user without history" in metammf("recommend", dynamic, *ALL, tmp_path / "all.csv").err
    assert "history" not in metammf("recommend", dynamic, "--user", "user-1").err


def test_a_new_user_by_what_it_watched(metammf, refused, dynamic, popular, groups, small, tmp_path):
    run = tmp_path / "users"
    words = ("--set", "model.user_fusion=cp", "--set", "training.epochs=15")
    assert metammf("train", groups, "--recipe", "metammf-mf", *small, *words, "--out", run).status == 0
    shown = metammf("recommend", run, "--watched", "item-1", "item-3", "-k", 3).out
    assert shown.count("group 1") == 3
    file = tmp_path / "feed.csv"
    outcome = metammf("recommend", run, "--watched=item-1", "--watched=item-3", "-k", 3, "--out", file)
    assert f"{file}: 3 rows" in outcome.err
    assert read(file).columns == ["item_id", "rank", "score", "title"]
    assert "for who watched item-1" in metammf("explain", run, "--item", "item-5", "--watched", "item-1").out
    assert "unknown item id 'itm-1'" in refused("recommend", run, "--watched", "itm-1")
    assert "--seen is for users" in refused("recommend", run, "--watched", "item-1", "--seen", "none")
    assert "metammf knows users by their ids alone" in refused("recommend", dynamic, "--watched", "item-1")
    assert metammf("recommend", popular, "--watched", "item-1", "-k", 3).status == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--user", "user-99"), "unknown user id 'user-99' (did you mean 'user-9'?)"),
        ((), "expected one of --user ID... (users of the data set), --all-users, and --watched ID..."),
        (("--user", "user-1", "--all-users"), "--all-users"),
        (("--user", "user-1", "--watched", "item-1"), "--watched"),
        (("--user", "user-1", "-k", "0"), "k"),
        (("--user", "user-1", "--out", "feeds.xlsx"), ".parquet or .csv"),
        (("--user", "user-1", "--out", "."), ".parquet or .csv"),
        (("--user", "user-1", "--out", "folder"), ".parquet or .csv"),
        (("--all-users", "--out", "feeds.xlsx"), ".parquet or .csv"),
        (("--all-users", "--engine", "ray"), "writes a folder"),
        (("--all-users", "--engine", "ray", "--out", "feeds.csv"), "writes a folder"),
        (("--user", "user-1", "--engine", "ray", "--out", "folder"), "is for --all-users"),
        (("--all-users", "--workers", "2"), "--engine ray"),
    ],
)
def test_what_does_not_fit(refused, dynamic, options, told):
    assert told in refused("recommend", dynamic, *options)


def test_what_cannot_be_written(refused, dynamic, tmp_path):
    (tmp_path / "folder.csv").mkdir()
    assert "is a folder" in refused("recommend", dynamic, *ALL, tmp_path / "folder.csv")
    (tmp_path / "file").write_text("")
    assert "cannot write" in refused("recommend", dynamic, *ALL, tmp_path / "file" / "feeds.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.csv"]


def test_whole_numbers_as_ids(metammf, refused, tmp_path):
    metammf("data", "generate", tmp_path / "world", "--users", 60, "--items", 60, "--interactions", 600)
    metammf("train", tmp_path / "world", "--recipe", "popularity", "--out", tmp_path / "run")
    assert metammf("recommend", tmp_path / "run", "--user", "7").out.count("\n") == 11
    for word in ("--user=u7", "--user=--7", "--user=7.0", "--user=1e400"):
        assert "unknown user id" in refused("recommend", tmp_path / "run", word)
