"""The tables of the documents: which results go into a row, and into a test."""

from __future__ import annotations

from typing import Any

import pytest

import fill_readme


def run_of(bench: str, name: str, seed: int, values: dict[str, float], epochs: int | None = 5) -> dict[str, Any]:
    """A result of `scripts/measure.py`, less what no test reads; a user whose value is 0 has none there."""
    hits = {user: value for user, value in values.items() if value}
    return {
        "job": {"bench": bench, "name": name, "seed": seed},
        "run": {"epochs": epochs},
        "test_per_user": {"ndcg@20": {"users": list(values), "values": hits}},
    }


@pytest.mark.parametrize(
    ("bench", "seeds"), [("tiktok", [0, 1, 2]), ("lfm2k", [0, 1, 2]), ("lfm2k-cold", [0]), ("world", [0])]
)
def test_a_solved_model_of_one_seed_meets_others_of_the_same_split_alone(bench: str, seeds: list[int]) -> None:
    ours = [run_of(bench, "metammf-mf", seed, {"1": 0.5, "2": 0.3}) for seed in (0, 1, 2)]
    solved = [run_of(bench, "ease", 0, {"1": 0.4, "2": 0.0}, epochs=None)]
    assert fill_readme.shared_seeds(ours, solved) == seeds
    found = fill_readme.differences(ours, solved, "ndcg@20")
    users = len(seeds) if bench in fill_readme.OWN_USERS else 1
    assert found == pytest.approx([0.1, 0.3] * users)


def test_a_pair_of_runs_on_other_users_is_refused() -> None:
    ours = [run_of("tiktok", "metammf-mf", 0, {"1": 0.5, "2": 0.0})]
    theirs = [run_of("tiktok", "ease", 0, {"1": 0.5, "3": 0.0, "4": 0.1})]
    with pytest.raises(SystemExit) as refused:
        fill_readme.differences(ours, theirs, "ndcg@20")
    assert "metammf-mf of seed 0 and ease of seed 0" in str(refused.value)
    assert "found 2 and 3 of which 3 are in one alone" in str(refused.value)


def test_a_table_without_interactions_has_no_differences() -> None:
    ours, theirs = ([run_of("tiktok", name, 0, {"1": 0.5})] for name in ("metammf-mf", "ease"))
    assert len(fill_readme.differences(ours, theirs, "warm/ndcg@20")) == 0
