"""One setting changed at a time: what is measured, and when it is measured again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import ablate
import measure
from metammf.data.synthetic import generate_world, save_world
from metammf.experiments.config import merge

if TYPE_CHECKING:
    from pathlib import Path

STUDY = ablate.Study("small", "small", "ease", {"as it stands": (), "more decay": ("model.l2=50.0",)})


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of a small data set, in which the scripts are at work; its folder of results."""
    save_world(generate_world(users=40, items=120, seed=0), tmp_path / "datasets" / "small")
    bench = replace(ablate.BENCHES["tiktok"], name="small", source="small")
    for name, value in (
        ("BENCHES", {"small": bench}),
        ("DATASETS", tmp_path / "datasets"),
        ("RUNS", tmp_path / "runs"),
        ("ABLATIONS", tmp_path / "results"),
    ):
        monkeypatch.setattr(ablate, name, value)
    return tmp_path / "results" / "small"


def test_a_study_can_be_measured_again_once_its_recipe_has_changed(results: Path) -> None:
    ablate.run(STUDY, "as it stands")
    found = ablate.found_of(STUDY, "as it stands")
    assert found is not None
    assert found["settings"] == []
    changed = replace(STUDY, common=("model.l2=7.0",))
    assert ablate.found_of(changed, "as it stands") is None
    ablate.run(changed, "as it stands")
    assert ablate.found_of(changed, "as it stands") is not None
    assert ablate.found_of(STUDY, "as it stands") is None
    assert [path.name for path in results.iterdir()] == ["as-it-stands.json"]


def test_the_changes_of_a_study_have_a_result_each() -> None:
    for study in ablate.STUDIES:
        assert len({ablate.result_of(study, change) for change in study.changes}) == len(study.changes)


@pytest.mark.parametrize(("bench", "same"), [("tiktok", True), ("lfm2k", False)])
def test_a_result_older_than_the_extractors_width_is_of_a_recipe_that_leaves_it_as_wide_as_the_features(
    bench: str, same: bool
) -> None:
    asked = merge("metammf-lightgcn").config
    before = asked.model_dump(mode="json")
    del before["model"]["meta_hidden_dim"]
    assert measure.is_of(asked, before, bench) is same
    assert measure.is_of(asked, asked.model_dump(mode="json"), bench)
    before["model"]["cp_rank"] = 3
    assert not measure.is_of(asked, before, bench)
