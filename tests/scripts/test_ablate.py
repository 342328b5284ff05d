"""One setting changed at a time: what is measured, and when it is measured again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import ablate
from metammf.data.synthetic import generate_world, save_world

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
