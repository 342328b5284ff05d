from __future__ import annotations

import functools
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from metammf.cli.main import Terminated
from metammf.errors import TrainingError
from metammf.experiments.study_jobs import StudyOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """All in this process: what is looked at is what is told, not memory."""
    monkeypatch.setattr("metammf.experiments.study_jobs.StudyOptions", functools.partial(StudyOptions, apart=False))


def _of_training(small: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the settings that any model has."""
    return tuple(word for word in small if word.startswith("training.") for word in ("--set", word))


def test_a_study_from_end_to_end_and_its_report_again(
    metammf: Callable[..., Any], groups: Path, small: tuple[str, ...], tmp_path: Path
) -> None:
    out = tmp_path / "my study"
    words = ["study", "rank", groups, "--out", out, "--recipe", "metammf-mf", "--values", 1, "--seeds", 1, *small]
    words += ["--set", "training.epochs=2", "--choose", "training.num_negatives=1,2", "--seen", "train"]
    told = metammf(*words)
    assert told.status == 0, told.err
    assert told.out.splitlines()[-1] == str(out / "report.html")
    assert "CP, R = 1" in told.out
    found = json.loads((out / "study.json").read_text(encoding="utf-8"))
    assert [row["label"] for row in found["rows"]] == ["CP, R = 1", "dense", "static"]
    assert [len(row["trials"]) for row in found["rows"]] == [2, 2, 2]
    assert found["seen"] == "train"
    assert found["command"].startswith(
        f"metammf study rank {groups} --out '{out}' --recipe metammf-mf --values 1 --set"
    )
    assert "--choose training.num_negatives=1,2 --seen train --seeds 1" in found["command"]
    page = (out / "report.html").read_text(encoding="utf-8")
    (out / "report.html").unlink()
    again = metammf("report", out)
    assert (again.status, again.out.strip()) == (0, str(out / "report.html"))
    assert (out / "report.html").read_text(encoding="utf-8") == page


def test_models_of_ids_alone_have_no_number_among_cold_items(
    metammf: Callable[..., Any], groups: Path, small: tuple[str, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    recipes = [word for name in ("metammf-mf", "popularity", "ease") for word in ("--recipe", name)]
    told = metammf("study", "overall", groups, "--out", out, *recipes, "--seeds", 1, *_of_training(small))
    assert told.status == 0, told.err
    found = json.loads((out / "study.json").read_text(encoding="utf-8"))
    assert [row["content"] for row in found["rows"]] == [True, False, False]
    cells = {
        name: len(line.split())
        for line in told.out.splitlines()
        for name in ("metammf-mf", "popularity", "ease")
        if line.startswith(f"{name} ") and line[-1].isdigit()
    }
    # The name, all, cold among all, cold among cold, the parameters.
    assert cells == {"metammf-mf": 5, "popularity": 4, "ease": 4}


def test_who_cannot_tell_cold_items_apart_has_no_number_among_them(
    metammf: Callable[..., Any], groups: Path, small: tuple[str, ...], tmp_path: Path
) -> None:
    words = ["study", "placebo", groups, "--out", tmp_path / "out", "--recipe", "metammf-mf", "--split", "cold-item"]
    told = metammf(*words, "--seeds", 1, *small, "--set", "training.epochs=1")
    assert told.status == 0, told.err
    rows = [line.split(": ")[1] for line in told.out.splitlines() if line.startswith("metammf-mf: ")]
    cells = {words[0]: len(words) for words in (row.replace("its ", "").split() for row in rows)}
    # The name, all, cold among all, cold among cold, the parameters.
    assert cells == {"features": 5, "shuffled": 5, "noise": 5, "dropped": 4}


def test_what_was_trained_before_is_said_to_be(
    metammf: Callable[..., Any], groups: Path, small: tuple[str, ...], tmp_path: Path
) -> None:
    words = ["study", "overall", groups, "--out", tmp_path / "out", "--recipe", "popularity", *_of_training(small)]
    first = metammf(*words)
    assert "final popularity, seed 0: ndcg@20 " in first.err
    assert "trained before" not in first.err
    lines = metammf(*words, "--recipe", "ease").err.splitlines()
    assert [("trained before" in line) for line in lines if " final " in line] == [True, False]


def test_a_world_that_was_generated_before_is_said_to_be(
    metammf: Callable[..., Any], small: tuple[str, ...], tmp_path: Path
) -> None:
    words = ["study", "conditions", "--out", tmp_path / "out", "--vary", "cold=0.2", "--users", 30, "--items", 120]
    words += ["--seeds", 1, *small, "--set", "training.epochs=1", "--placebo", "default"]
    assert "before" not in metammf(*words).err
    lines = [line.partition(" (after")[0] for line in metammf(*words).err.splitlines()]
    assert lines[0] == "1/1 world default world, seed 0, generated before"
    assert len(lines) == 1 + 3
    assert all(line.endswith(" on validation, trained before") for line in lines[1:])


@pytest.mark.parametrize(
    ("at", "begun"),
    [
        ("experiments.study_run.load_dataset", False),
        ("experiments.study_run.make_rows", True),
        ("report.study_page.write_study", True),
    ],
)
def test_an_interrupt_says_that_the_same_command_goes_on_once_there_is_a_folder(
    metammf: Callable[..., Any], groups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, begun: bool
) -> None:
    def interrupting(*_: Any, **__: Any) -> None:
        raise Terminated("terminated")

    monkeypatch.setattr(f"metammf.{at}", interrupting)
    out = tmp_path / "out"
    told = metammf("study", "overall", groups, "--out", out, "--recipe", "popularity")
    assert told.status == 143
    last = "metammf: terminated" + f"; the same command goes on, from {out}" * begun
    assert told.err.splitlines()[-1] == last


def test_a_study_none_of_whose_variants_can_be_run_is_refused(
    refused: Callable[..., str], featureless: Path, tmp_path: Path
) -> None:
    message = refused("study", "fusion", featureless, "--out", tmp_path / "out", "--seeds", 1)
    assert message == "study fusion: no variant can be run: each reads item content, and two groups has no features"
    assert list(tmp_path.iterdir()) == []


def test_a_study_with_a_variant_that_can_be_run_goes_on(
    metammf: Callable[..., Any], featureless: Path, tmp_path: Path
) -> None:
    words = ["study", "overall", featureless, "--out", tmp_path / "out", "--recipe", "popularity", "--recipe", "vbpr"]
    told = metammf(*words)
    assert told.status == 0, told.err
    assert "vbpr failed: the model takes content, and this data set has no features" in told.out


def test_a_study_that_came_to_nothing_is_no_success(
    metammf: Callable[..., Any], groups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverging(*_: Any, **__: Any) -> None:
        raise TrainingError("the loss is not finite")

    monkeypatch.setattr("metammf.experiments.study_jobs.train_run", diverging)
    out = tmp_path / "out"
    told = metammf("study", "overall", groups, "--out", out, "--recipe", "popularity", "--recipe", "ease")
    assert told.status == 2
    assert "ease failed: the loss is not finite" in told.out
    assert (out / "report.html").is_file()
    assert told.err.splitlines()[-1] == f"metammf: {out}: no variant came to an end; beside each stands why"


def test_a_map_of_conditions_that_came_to_nothing_is_no_success(
    metammf: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverging(*_: Any, **__: Any) -> None:
        raise TrainingError("the loss is not finite")

    monkeypatch.setattr("metammf.experiments.study_jobs.train_run", diverging)
    told = metammf("study", "conditions", "--out", tmp_path, "--vary", "cold=0.2", "--users", 30, "--items", 120)
    assert told.status == 2
    assert told.err.splitlines()[-1].endswith("no variant came to an end; beside each stands why")


def test_a_map_of_conditions_with_a_real_set(
    metammf: Callable[..., Any], groups: Path, small: tuple[str, ...], tmp_path: Path
) -> None:
    out = tmp_path / "map"
    words = ["study", "conditions", f"{groups},metammf-mf,training.epochs=2", "--out", out, "--vary", "cold=0.1,0.2"]
    words += ["--users", 30, "--items", 120, "--placebo", "default", "--seeds", 1, *small, "--set", "training.epochs=1"]
    told = metammf(*words)
    assert told.status == 0, told.err
    assert told.out.splitlines()[-1] == str(out / "report.html")
    assert "Cold share, all test items: " in told.out
    assert "agree" not in told.out  # there is one world each, and one seed
    lines = [line.split() for line in told.out.splitlines()]
    heads = next(line for line in lines if line[:3] == ["condition", "test", "items"])
    assert heads[3:] == ["dynamic", "static", "fed", "noise", "gain", "over", "static", "p", "after", "Holm"]
    # Means, the gain and its p, beside the two words of the condition and the name of the table; noise was asked for once.
    sizes = {
        tuple(line[:3]): len(line) for line in lines if line[2:3] == ["all"] or line[2:5] == ["cold", "among", "all"]
    }
    assert sizes[("default", "world", "all")] == 3 + 5
    assert sizes[("default", "world", "cold")] == 5 + 5
    assert ["cold", "share", "0.1", "all"] in [line[:4] for line in lines]
    found = json.loads((out / "study.json").read_text(encoding="utf-8"))
    assert [one["key"] for one in found["conditions"]] == ["default", "cold-0.1", groups.name]
    assert [list(one["models"]) for one in found["conditions"]] == [["dynamic", "static", "noise"]] + 2 * [
        ["dynamic", "static"]
    ]
    assert found["command"].startswith(f"metammf study conditions {groups},metammf-mf,training.epochs=2 --out {out}")
    assert "--vary cold=0.1,0.2 --users 30 --items 120 --placebo default" in found["command"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("conditions", "--values", 3), "study conditions has no use for --values"),
        (("conditions", "--recipe", "metammf-mf", "--recipe", "metammf-gcn"), "expected one --recipe, for the worlds"),
        (("conditions", "--vary", "cold"), "axis 'cold': expected cold=NUMBER,NUMBER,..."),
        (("conditions", "--vary", "cold=0.9", "--users", 30, "--items", 120), "cold_share: expected a share from 0"),
        (("rank", "--vary", "cold=0.1"), "study rank has no use for --vary"),
        (("rank",), "study rank: expected one data set's folder, got 0"),
        (("rank", "one", "two"), "study rank: expected one data set's folder, got 2"),
    ],
)
def test_what_is_of_other_studies_is_refused(
    refused: Callable[..., str], tmp_path: Path, words: tuple[Any, ...], message: str
) -> None:
    assert message in refused("study", *words, "--out", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--seeds", 0), "--seeds: expected a whole number of at least 1, got 0"),
        (("--choose", "model.cp_rank"), "setting 'model.cp_rank': expected SECTION.KEY=VALUE"),
        (("--choose", "model.cp_rank="), "expected model.cp_rank=VALUE,VALUE,..., got an empty value"),
        (("--choose", "cp_rank=1,2"), "setting 'cp_rank=[1,2]': expected SECTION.KEY=VALUE"),
        (("--choose", "model.cp_rnk=1,2"), "unknown setting 'model.cp_rnk' (did you mean 'cp_rank'?)"),
        (("--values", 3), "study fusion has no values to choose"),
        (("--recipe", "ease"), "study fusion is of MetaMMF's fusion, and recipe ease is of ease"),
    ],
)
def test_what_is_refused(
    refused: Callable[..., str], groups: Path, tmp_path: Path, words: tuple[Any, ...], message: str
) -> None:
    assert message in refused("study", "fusion", groups, "--out", tmp_path / "out", *words)
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_nothing_is_begun(
    refused: Callable[..., str], groups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "altair", None)
    message = refused("study", "fusion", groups, "--out", tmp_path / "out")
    assert message == "the report needs altair: pip install 'metammf[report]'"


def test_a_data_set_without_a_split_asks_for_a_method(
    refused: Callable[..., str], unsplit: Path, tmp_path: Path
) -> None:
    assert "split" in refused("study", "fusion", unsplit, "--out", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_no_report_of_nothing(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "expected one of comparison.json, study.json and results.json" in refused("report", tmp_path)
