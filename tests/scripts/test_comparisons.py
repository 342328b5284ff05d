"""The comparisons that the documents show: that each can be asked for, and what is kept of one."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import comparisons
import measure
from metammf.data.dataset import Dataset
from metammf.data.folder import save_dataset
from metammf.experiments.compare import NOT_ASKED_FOR
from metammf.experiments.comparison_results import ComparisonResults, LeftOut
from metammf.experiments.config import SplitConfig, from_mapping, same_run
from metammf.experiments.contenders import contenders
from metammf.experiments.profiles import PROFILES, profile_named
from metammf.report.names import label
from metammf.testing.data import taste_groups

if TYPE_CHECKING:
    from pathlib import Path

SMALL = comparisons.Comparison("small", "lfm2k", "metammf", ("popularity", "itemknn"), trials=1, seeds=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout's root, in which a small comparison has been run."""
    root = tmp_path_factory.mktemp("root")
    split = taste_groups()
    log = split.train.union(split.validation).union(split.test)
    save_dataset(Dataset("groups", log, split.catalog), root / "datasets" / "lfm2k")
    with pytest.MonkeyPatch.context() as patch:
        _point_to(root, patch)
        assert comparisons.run(SMALL, comparisons.OUT, 1) == 0
    return root


@pytest.fixture
def here(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, with the scripts at work in it."""
    _point_to(root, monkeypatch)
    return root


def _point_to(root: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(comparisons, "ROOT", root)
    patch.setattr(measure, "DATASETS", root / "datasets")


@pytest.mark.parametrize("one", comparisons.COMPARISONS.values(), ids=comparisons.COMPARISONS)
def test_every_comparison_can_be_asked_for(one: comparisons.Comparison) -> None:
    profile = profile_named(one.profile)
    found = contenders(one.models, profile, SplitConfig(method=PROFILES[one.profile].methods[0]))
    assert [contender.name for contender in found] == list(one.models)
    assert len({label(name) for name in one.models}) == len(one.models)
    assert measure.BENCHES[one.bench].folder().parent == measure.DATASETS


@pytest.mark.parametrize("one", comparisons.COMPARISONS.values(), ids=comparisons.COMPARISONS)
def test_what_is_kept_of_a_comparison_can_be_gone_on_with(one: comparisons.Comparison) -> None:
    kept = comparisons.RESULTS / one.name / "plan.json"
    if not kept.is_file():
        pytest.skip(f"{one.name} has not been run yet")
    plan = json.loads(kept.read_text(encoding="utf-8"))
    found = ComparisonResults.read(kept.with_name("comparison.json"))
    split = SplitConfig.model_validate(plan["split"])
    asked = contenders(one.models, profile_named(one.profile), split, {}, tuple(found.data.modalities))
    columns = sum(found.data.modalities.values())
    assert {one.name for one in asked} <= plan["models"].keys()
    for contender in asked:
        assert same_run(from_mapping(plan["models"][contender.name]), contender.config, columns), contender.name


def test_the_command_is_what_the_comparison_itself_says_made_it(here: Path) -> None:
    found = ComparisonResults.read(here / comparisons.OUT / "small" / "comparison.json")
    assert found.command == shlex.join(SMALL.command(jobs=1))
    assert found.command.startswith(
        "metammf compare datasets/lfm2k --models popularity,itemknn --profile metammf --out runs/"
    )


def test_what_is_kept_is_what_was_found_and_names_the_whole_command(here: Path, tmp_path: Path) -> None:
    larger = replace(SMALL, models=(*SMALL.models, "ease"))
    for one, complete in ((SMALL, True), (larger, False)):
        assert comparisons.copy(one, comparisons.OUT, tmp_path / "kept")
        kept = ComparisonResults.read(tmp_path / "kept" / "comparison.json")
        ran = ComparisonResults.read(here / comparisons.OUT / "small" / "comparison.json")
        assert kept == replace(ran, command=shlex.join(one.command()), complete=complete)
        assert {path.name for path in (tmp_path / "kept").iterdir()} == {
            *("comparison.json", "plan.json", "report.html", "table.csv", "table.tex", "tests.csv", "ledger.csv")
        }
    assert "ease" in (tmp_path / "kept" / "report.html").read_text(encoding="utf-8")
    plan = json.loads((tmp_path / "kept" / "plan.json").read_text(encoding="utf-8"))
    assert list(plan["models"]) == ["popularity", "itemknn"]


@pytest.mark.parametrize(
    ("left", "complete"),
    [
        (LeftOut("itemknn", "the data set has no features"), True),
        (LeftOut("itemknn", "seed 1: its process was killed (signal 9)", tried_again=True), False),
        (LeftOut("itemknn", NOT_ASKED_FOR), False),
    ],
)
def test_it_is_complete_once_the_whole_command_has_nothing_left_to_do(
    here: Path, monkeypatch: pytest.MonkeyPatch, left: LeftOut, complete: bool
) -> None:
    found = ComparisonResults.read(here / comparisons.OUT / "small" / "comparison.json")
    fewer = replace(found, models=found.models[:1], left_out=(left,))
    monkeypatch.setattr(ComparisonResults, "read", lambda _: fewer)
    kept = comparisons.kept_in(comparisons.OUT, SMALL)
    assert kept is not None
    assert kept.complete is complete


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"profile": "cold-item"}, "profile: expected cold-item, found metammf"),
        ({"minutes": 5}, f"minutes: expected 5, found {float(SMALL.minutes)}"),
        ({"models": ("popularity",)}, "models besides: expected [], found ['itemknn']"),
    ],
)
def test_another_comparison_in_the_folder_is_refused(here: Path, tmp_path: Path, change, told: str) -> None:
    with pytest.raises(SystemExit) as refused:
        comparisons.copy(replace(SMALL, **change), comparisons.OUT, tmp_path / "kept")
    assert told in str(refused.value)
    assert not (tmp_path / "kept").exists()


def test_what_has_not_begun_is_left_alone(here: Path, tmp_path: Path) -> None:
    other = replace(SMALL, name="other")
    assert not comparisons.copy(other, comparisons.OUT, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    assert comparisons.describe(other, comparisons.OUT, 2).startswith(
        "other: 0 of 2 models done, 0 trials\n  metammf compare "
    )
    assert comparisons.describe(SMALL, comparisons.OUT, 2).startswith("small: 2 of 2 models done, 2 trials\n")


def test_the_list_says_the_commands(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    comparisons.main(["--list", "--only", "world", "--out", "elsewhere", "--jobs", "3"])
    told = capsys.readouterr().out
    assert told.startswith("world: 0 of ")
    assert "--out elsewhere/world" in told
    assert told.endswith("--jobs 3\n")
