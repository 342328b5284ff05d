"""The tables of the documents: which results go into a row, and into a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import ablate
import fill_readme
from metammf.files import write_json

if TYPE_CHECKING:
    from pathlib import Path


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


def ablated(study: ablate.Study, change: str, value: float) -> dict[str, Any]:
    """A result of `scripts/ablate.py`, less what no table shows."""
    tables: dict[str, Any] = {"metrics": {"recall@20": value, "ndcg@20": value}}
    return {
        "recipe": study.recipe,
        "change": change,
        "settings": list(study.changes[change]),
        "config": ablate.asked(study, change).config.model_dump(mode="json"),
        "epochs": 5,
        "validation": tables | {part: {"among_all": {"ndcg@20": value}} for part in ("cold", "warm")},
    }


def test_ablations_show_what_is_asked_for_by_the_recipe_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ablate, "ABLATIONS", tmp_path)
    study = next(one for one in ablate.STUDIES if one.name == "tiktok")
    for change, value in (("as it stands", 0.11), ("BPR", 0.05), ("three hops", 0.10), ("static fusion", 0.12)):
        result = ablated(study, change, value)
        if change == "static fusion":
            result["config"]["training"]["learning_rate"] = 0.5  # of the recipe before it changed
        write_json(ablate.result_of(study, change), result)
    write_json(tmp_path / "tiktok" / "asked-no-more.json", ablated(study, "BPR", 0.2))
    lines = fill_readme.ablations("tiktok")
    assert [line.split(" | ")[1] for line in lines[2:-1]] == [".1100", ".1000", ".0500"]
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(": passed over")[0] for line in told] == [
        str(tmp_path / "tiktok" / name) for name in ("asked-no-more.json", "static-fusion.json")
    ]
    assert fill_readme.ablations("tiktok-width") == []


def test_a_comparison_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "results.md"
    page.parent.mkdir()
    marks = {
        name: f"<!-- comparison-{name}:begin -->\n<!-- comparison-{name}:end -->" for name in fill_readme.COMPARISONS
    }
    page.write_text("\n".join(marks.values()), encoding="utf-8")
    fill_readme.fill_comparisons(tmp_path)
    text = page.read_text(encoding="utf-8")
    for name in fill_readme.COMPARISONS:
        assert f"Not run yet: `python scripts/comparisons.py --only {name}`." in text


def test_the_findings_have_a_place_for_each_study_full_or_empty(tmp_path: Path) -> None:
    text = (fill_readme.ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    assert set(fill_readme.ABLATED) == {study.name for study in ablate.STUDIES}
    page = tmp_path / "findings.md"
    page.write_text(text, encoding="utf-8")
    for name in fill_readme.ABLATED:
        begin, end = (f"<!-- {name}:{mark} -->" for mark in ("begin", "end"))
        table = text.partition(begin)[2].partition(end)[0].strip("\n").splitlines()
        fill_readme.replace_between(page, begin, end, [*table, ""] if table else [])
    assert page.read_text(encoding="utf-8") == text
