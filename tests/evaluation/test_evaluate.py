"""The protocol against a loop over its rules."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
import torch

from metammf.data.dataset import Catalog
from metammf.data.features import ItemFeatures
from metammf.data.ids import IdMap
from metammf.data.importers.registry import import_dataset
from metammf.data.interactions import Interactions
from metammf.data.splitting import Split
from metammf.errors import ConfigError, DataError
from metammf.evaluation.evaluate import evaluate, validation_metrics
from metammf.evaluation.metrics import METRICS
from metammf.evaluation.result import Evaluation
from metammf.models.scorers import VectorScorer
from metammf.testing.data import taste_groups

if TYPE_CHECKING:
    from pathlib import Path

KS = (2, 5)


class Table:
    """A recommender that looks its scores up."""

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix = torch.from_numpy(matrix.astype(np.float32))
        self.num_items = matrix.shape[1]

    def scores(self, users: torch.Tensor) -> torch.Tensor:
        return self.matrix[users]


def make_split(num_users: int = 30, num_items: int = 25, seed: int = 0) -> Split:
    """Items from 20 on are cold, the first two users have no train interaction, the third has nothing at all."""
    rng = np.random.default_rng(seed)
    label = rng.choice(4, size=(num_users, num_items), p=[0.5, 0.25, 0.1, 0.15])
    label[:, 20:][label[:, 20:] == 1] = 0
    label[:2][label[:2] == 1] = 0
    label[2] = 0
    label[3, 21] = label[0, 5] = 3
    users, items = np.nonzero(label)
    parts = label[users, items]
    log = Interactions(users, items, num_users, num_items)
    catalog = Catalog(
        IdMap([f"u{user}" for user in range(num_users)], kind="user"),
        IdMap.of_range(num_items),
        ItemFeatures({}, num_items=num_items),
    )
    return Split(*(log.select(parts == part) for part in (1, 2, 3)), catalog, "made")


def items_of(log: Interactions, user: int) -> set[int]:
    return set(log.items[log.users == user].tolist())


def naive_lists(scores: np.ndarray, seen: list[Interactions], among: set[int], length: int) -> list[list[int]]:
    lists = []
    for user, row in enumerate(scores):
        free = among - set().union(*(items_of(log, user) for log in seen))
        lists.append(sorted(free, key=lambda item: (-row[item], item))[:length])
    return lists


def naive_table(lists: list[list[int]], wanted: list[set[int]], users: list[int]) -> dict[str, float]:
    """Metrics of one user at a time, summed in a loop."""
    length = max(KS)
    found = dict.fromkeys([f"{name}@{k}" for name in METRICS for k in KS], 0.0)
    mean = np.mean([len(wanted[user]) for user in users])
    for user in users:
        hits = np.array([[item in wanted[user] for item in lists[user]] + [False] * (length - len(lists[user]))])
        for k in KS:
            for name, metric in METRICS.items():
                if name == "micro_recall":
                    found[f"{name}@{k}"] += hits[0, :k].sum() / mean / len(users)
                else:
                    found[f"{name}@{k}"] += metric(hits, np.array([len(wanted[user])]), k)[0] / len(users)
    return found


@pytest.fixture(params=["distinct", "tied"])
def scores(request: pytest.FixtureRequest) -> np.ndarray:
    rng = np.random.default_rng(5)
    return rng.random((30, 25)) if request.param == "distinct" else rng.integers(3, size=(30, 25))


@pytest.mark.parametrize(("part", "seen"), [("test", None), ("test", "train"), ("validation", None)])
@pytest.mark.parametrize("all_users", [False, True])
def test_evaluate_equals_a_loop(scores: np.ndarray, part: str, seen: str | None, all_users: bool) -> None:
    split = make_split()
    found = evaluate(Table(scores), split, part=part, seen=seen, ks=KS, all_users=all_users)
    hidden = [split.train] if part == "validation" or seen == "train" else [split.train, split.validation]
    assert found.seen == ("train" if len(hidden) == 1 else "train+validation")
    log: Interactions = getattr(split, part)
    everything, cold = set(range(25)), {20, 21, 22, 23, 24}
    wanted = [items_of(log, user) for user in range(30)]
    lists = naive_lists(scores, hidden, everything, 5)
    among_cold = naive_lists(scores, hidden, cold, 5)

    users = list(range(30)) if all_users else [user for user in range(30) if wanted[user]]
    assert 0 in users
    assert (found.num_users, found.num_interactions) == (len(users), len(log))
    expected = naive_table(lists, wanted, users)
    assert {name: found.metrics[name] for name in expected} == pytest.approx(expected)
    assert found.metrics["micro_recall@5"] == pytest.approx(
        sum(len(wanted[user] & set(lists[user])) for user in users) / len(log)
    )
    shown = [item for user in users for item in lists[user]]
    assert found.metrics["coverage@5"] == pytest.approx(len(set(shown)) / 25)
    assert found.metrics["popularity@5"] == pytest.approx(split.train.item_counts[shown].mean())

    for table, among, ranked, items in (
        (found.cold, "among_all", lists, cold),
        (found.cold, "among_cold", among_cold, cold),
        (found.warm, "among_all", lists, everything - cold),
    ):
        wanted_here = [some & items for some in wanted]
        those = [user for user in range(30) if wanted_here[user]]
        assert table[among] == pytest.approx(naive_table(ranked, wanted_here, those))
        assert table["num_users"] == len(those)
        assert table["num_items"] == len(items)
        assert table["num_interactions"] == sum(map(len, wanted_here))


def test_per_user_values_average_to_the_metrics(scores: np.ndarray) -> None:
    found = evaluate(Table(scores), make_split(), ks=KS)
    frame = found.per_user
    assert frame["user_id"].to_list()[:2] == ["u0", "u1"]
    assert "u2" not in frame["user_id"]
    assert frame["relevant"].sum() == found.num_interactions
    for name in METRICS:
        assert frame[f"{name}@5"].mean() == pytest.approx(found.metrics[f"{name}@5"])
        assert frame[f"cold_among_all/{name}@5"].mean() == pytest.approx(found.cold["among_all"][f"{name}@5"])
        assert frame[f"cold_among_cold/{name}@5"].mean() == pytest.approx(found.cold["among_cold"][f"{name}@5"])
        assert frame[f"warm/{name}@5"].mean() == pytest.approx(found.warm["among_all"][f"{name}@5"])
    assert frame["cold_among_all/recall@5"].null_count() == found.num_users - found.cold["num_users"]


def test_figures_are_the_same_to_the_last_bit_in_batches_of_any_size(scores: np.ndarray) -> None:
    split = make_split()
    whole = evaluate(Table(scores), split, ks=KS)
    for batch_size in (1, 7):
        found = evaluate(Table(scores), split, ks=KS, batch_size=batch_size)
        assert found.metrics == whole.metrics
        assert found.cold == whole.cold
        assert found.per_user.equals(whole.per_user)


def test_the_order_of_items_and_of_rows_does_not_matter() -> None:
    split = make_split()
    scores = np.random.default_rng(1).random((30, 25))
    rng = np.random.default_rng(2)
    order = rng.permutation(25)
    place = np.argsort(order)

    def moved(log: Interactions) -> Interactions:
        rows = rng.permutation(len(log))
        return Interactions(log.users[rows], place[log.items[rows]], 30, 25)

    other = Split(moved(split.train), moved(split.validation), moved(split.test), split.catalog, "moved")
    found, again = evaluate(Table(scores), split, ks=KS), evaluate(Table(scores[:, order]), other, ks=KS)
    for table, same in (
        (found.metrics, again.metrics),
        (found.cold["among_cold"], again.cold["among_cold"]),
        (found.warm["among_all"], again.warm["among_all"]),
    ):
        assert table == pytest.approx(same)


def test_a_perfect_and_a_hopeless_recommender() -> None:
    split = make_split()
    truth = split.test.matrix.toarray()
    best = evaluate(Table(truth), split, ks=(1, 25))
    assert {best.metrics[name] for name in ("precision@1", "ndcg@25", "map@25", "mrr@1", "recall@25")} == {1.0}
    assert best.cold["among_cold"]["ndcg@25"] == 1.0
    assert evaluate(Table(-truth), split, ks=(1,)).metrics["hit_rate@1"] == 0.0


def test_validation_metrics_equal_those_of_evaluate(scores: np.ndarray) -> None:
    split = make_split()
    found = validation_metrics(Table(scores), split.validation, split.train, KS)
    whole = evaluate(Table(scores), split, part="validation", ks=KS)
    assert found == {name: whole.metrics[name] for name in found}
    assert set(found) == {f"{name}@{k}" for name in METRICS for k in KS}


def test_lists_longer_than_the_catalog() -> None:
    found = evaluate(Table(np.ones((30, 25))), make_split(), ks=(40,))
    assert found.metrics["recall@40"] == 1.0


def test_no_cold_item_leaves_its_table_empty() -> None:
    log = Interactions(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0]), 2, 2)
    catalog = Catalog(IdMap.of_range(2, kind="user"), IdMap.of_range(2), ItemFeatures({}, num_items=2))
    split = Split(log.select([0, 2]), log.select([1]), log.select([3]), catalog, "made")
    found = evaluate(Table(np.ones((2, 2))), split, ks=(1,))
    assert found.cold == {
        "num_items": 0,
        "num_users": 0,
        "num_interactions": 0,
        "among_all": {},
        "among_cold": {},
    }
    assert found.per_user["user_id"].to_list() == [1]
    assert "cold" not in str(found)


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    found = evaluate(Table(np.ones((30, 25))), make_split(), progress=lambda done, total: told.append((done, total)))
    assert told == [(found.num_users, found.num_users)]


def test_what_would_hide_the_truth_is_refused() -> None:
    split, table = make_split(), Table(np.ones((30, 25)))
    with pytest.raises(ConfigError, match="would leave out the very items"):
        evaluate(table, split, part="validation", seen="train+validation")
    with pytest.raises(ConfigError, match="did you mean 'test'"):
        evaluate(table, split, part="tset")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown seen 'nothing'"):
        evaluate(table, split, seen="nothing")  # type: ignore[arg-type]
    for ks in ([], [0]):
        with pytest.raises(ConfigError, match="ks"):
            evaluate(table, split, ks=ks)


def test_what_does_not_fit_is_refused() -> None:
    split = make_split()
    with pytest.raises(DataError, match="scores 7 items, the split has 25"):
        evaluate(Table(np.ones((30, 7))), split)
    with pytest.raises(DataError, match="NaN"):
        evaluate(Table(np.full((30, 25), np.nan)), split)
    nothing = split.validation.select(np.zeros(len(split.validation), dtype=np.bool_))
    with pytest.raises(DataError, match="validation part is empty"):
        evaluate(
            Table(np.ones((30, 25))), Split(split.train, nothing, split.test, split.catalog, "made"), part="validation"
        )
    with pytest.raises(DataError, match="validation part is empty"):
        validation_metrics(Table(np.ones((30, 25))), nothing, split.train)


def test_evaluation_is_written_and_read_back(tmp_path, scores: np.ndarray) -> None:
    found = evaluate(Table(scores), make_split(), ks=KS)
    found.write_json(tmp_path / "evaluation.json")
    found.write_parquet(tmp_path / "users.parquet")
    plain = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert plain["metrics"]["recall@5"] == found.metrics["recall@5"]
    frame = pl.read_parquet(tmp_path / "users.parquet")
    again = Evaluation.from_dict(plain, frame)
    assert again.to_dict() == found.to_dict()
    assert again.ks == KS
    assert again.per_user.equals(found.per_user)
    assert Evaluation.from_dict(plain).per_user.is_empty()
    with pytest.raises(DataError, match="part missing"):
        Evaluation.from_dict({name: value for name, value in plain.items() if name != "part"})


def test_evaluation_prints_as_a_table() -> None:
    found = evaluate(Table(np.random.default_rng(0).random((30, 25))), make_split(), ks=KS)
    lines = str(found).splitlines()
    assert lines[0].startswith(f"test: {found.num_users} users, {found.num_interactions} interactions")
    assert lines[2].split() == ["@2", "@5"]
    recall = next(line for line in lines if line.startswith("recall"))
    assert recall.split() == ["recall", f"{found.metrics['recall@2']:.4f}", f"{found.metrics['recall@5']:.4f}"]
    cold = next(line for line in lines if line.startswith("cold items"))
    assert cold.split()[-1] == f"{found.cold['among_all']['ndcg@5']:.4f}"


def test_popularity_on_tiktok_is_what_is_known_of_it(real_data: Path) -> None:
    split = import_dataset(real_data / "tiktok").split()
    popularity = np.broadcast_to(split.train.item_counts, (split.catalog.num_users, split.catalog.num_items))
    found = evaluate(Table(popularity), split, seen="train", ks=(20,))
    assert (found.num_users, found.num_interactions) == (6130, 6130)
    assert round(found.metrics["recall@20"], 4) == 0.0597
    assert round(found.metrics["ndcg@20"], 4) == 0.0255
    assert (found.cold["num_items"], found.cold["num_interactions"]) == (465, 449)
    assert found.cold["among_all"]["recall@20"] == 0.0


def test_lists_are_no_longer_than_there_are_items() -> None:
    """A length beyond all memory is as one over all items."""
    split = taste_groups(4, cold=1)
    scorer = VectorScorer(torch.randn(split.train.num_users, 3), torch.randn(split.train.num_items, 3))
    found = evaluate(scorer, split, ks=(split.train.num_items, 10**12))
    assert found.metrics[f"recall@{10**12}"] == found.metrics[f"recall@{split.train.num_items}"] == 1.0
