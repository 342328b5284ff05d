from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from filelock import FileLock

from metammf.data.synthetic import generate_world, save_world
from metammf.errors import ConfigError, DataError, FileFormatError, RunError, WriteError
from metammf.evaluation.result import Evaluation
from metammf.experiments import study_jobs
from metammf.experiments.environment import source_hash
from metammf.experiments.studies import Ask, Plan, Variant, make_plan
from metammf.experiments.study_jobs import MARKER, STUDY_FILE, StudyOptions
from metammf.experiments.study_results import StudyResults
from metammf.experiments.study_run import run_study

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SETTINGS = {
    "model.hidden_dims": [8],
    "model.embedding_dim": 8,
    "training.epochs": 2,
    "training.batch_size": 300,
    "training.learning_rate": 0.02,
}
OPTIONS = StudyOptions(num_seeds=2, settings=SETTINGS, apart=False)


def small(name: str, *recipes: str, **options: Any) -> Plan:
    ask = Ask(recipes or ("metammf-mf",), settings=SETTINGS, modalities=("visual", "textual"), **options)
    return make_plan(name, ask)


def pair(*variants: Variant, **options: Any) -> Plan:
    keys = [variant.key for variant in variants]
    return Plan("fusion", "Two of them", "Which?", variants, ((keys[0], keys[-1]),), **options)


DYNAMIC = Variant("dynamic", "dynamic", "metammf-mf", "dynamic")
POPULAR = Variant("popularity", "popularity", "popularity", "popularity")
ONE = replace(OPTIONS, num_seeds=1)
PLAIN = replace(OPTIONS, settings={key: value for key, value in SETTINGS.items() if key.startswith("training.")})
ONE_PLAIN = replace(PLAIN, num_seeds=1)


@pytest.fixture(scope="module")
def found(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    return run_study(small("rank", values=(1, 4)), folder, tmp_path_factory.mktemp("study") / "rank", OPTIONS)


def test_a_row_a_variant_and_a_run_a_seed(found: StudyResults) -> None:
    assert [row.label for row in found.rows] == ["CP, R = 1", "CP, R = 4", "dense", "static"]
    assert [row.x for row in found.rows] == [1, 4, None, None]
    for row in found.rows:
        assert [one.seed for one in row.seeds] == [0, 1] == list(found.seed_numbers)
        assert row.failed is None
        assert not row.trials
        for one in row.seeds:
            assert one.epochs == 2
            assert 0 < one.test["all"]["ndcg@20"] <= 1
            assert set(one.test) == {"all", "warm", "cold among all", "cold among cold"}
            assert [epoch for epoch, _ in one.curve] == [1, 2]
    parameters = [row.parameters or 0 for row in found.rows]
    assert parameters[3] < parameters[0] < parameters[1] < parameters[2]


def test_tests_are_of_every_pair_and_table_and_corrected_together(found: StudyResults) -> None:
    assert [(test.a, test.table) for test in found.tests[:4]] == [
        ("metammf-mf-cp-1", table) for table in ("all", "warm", "cold among all", "cold among cold")
    ]
    assert len(found.tests) == 5 * 4  # each rank against dense and static, dense against static
    assert all(test.p_holm >= test.p for test in found.tests)
    first = found.tests[0]
    means = [np.mean([one.test["all"]["ndcg@20"] for one in row.seeds]) for row in (found.rows[0], found.rows[2])]
    assert (first.mean_a, first.mean_b) == pytest.approx(means)


def test_what_is_written_reads_back(found: StudyResults, tmp_path: Path) -> None:
    found.write(tmp_path / STUDY_FILE)
    assert StudyResults.read(tmp_path / STUDY_FILE) == StudyResults.read(tmp_path / STUDY_FILE)
    assert StudyResults.read(tmp_path / STUDY_FILE).rows[1].seeds == found.rows[1].seeds


@pytest.mark.parametrize(("change", "message"), [({"format": "x"}, "format"), ({"rows": 3}, "rows"), ({"no": 1}, "no")])
def test_what_is_no_study_is_refused(found: StudyResults, tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / STUDY_FILE
    found.write(path)
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(FileFormatError, match=message):
        StudyResults.read(path)


def test_it_goes_on_where_it_was_and_reads_no_test_part_twice(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = pair(DYNAMIC, POPULAR)
    first = run_study(plan, folder, tmp_path / "study", PLAIN)

    def not_again(*_: Any, **__: Any) -> None:
        raise AssertionError("evaluated again")

    monkeypatch.setattr("metammf.experiments.evaluating.evaluate", not_again)
    again = run_study(plan, folder, tmp_path / "study", PLAIN)
    assert again.rows == first.rows
    assert again.tests == first.tests


@pytest.mark.parametrize("content", [b"", b"PAR1damaged", b"[]"])
@pytest.mark.parametrize("ending", ["json", "parquet"])
def test_a_kept_evaluation_that_is_damaged_is_made_again(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, ending: str, content: bytes
) -> None:
    first = run_study(pair(POPULAR), folder, tmp_path / "study", ONE_PLAIN)
    kept = next((tmp_path / "study").glob(f"runs/*/evaluation/test-*.{ending}"))
    kept.write_bytes(content)
    again = run_study(pair(POPULAR), folder, tmp_path / "study", ONE_PLAIN)
    assert again.rows == first.rows
    assert f"{kept}: " in caplog.text
    assert "the run is evaluated again" in caplog.text
    assert Evaluation.read(kept.with_suffix(".json")).per_user.height > 0


def test_more_seeds_add_to_what_is_there(folder: Path, tmp_path: Path) -> None:
    plan, out = pair(DYNAMIC, POPULAR), tmp_path / "study"
    run_study(plan, folder, out, replace(PLAIN, num_seeds=1))
    before = {path.name for path in (out / "runs").iterdir()}
    found = run_study(plan, folder, out, PLAIN)
    assert before < {path.name for path in (out / "runs").iterdir()}
    assert [len(row.seeds) for row in found.rows] == [2, 1]  # what is solved draws nothing
    assert found.tests[0].num_users > 0


def test_validation_chooses_with_the_first_seed(folder: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    options = replace(PLAIN, choose={"training.learning_rate": (1e-6, 0.05), "training.num_negatives": (1, 2)})
    fixed = replace(DYNAMIC, key="fixed", label="fixed", settings={"training.learning_rate": 0.03})
    plan = pair(DYNAMIC, fixed, POPULAR)
    found = run_study(plan, folder, tmp_path / "study", options, progress=lambda *step: told.append(step))
    chosen, own, solved = found.rows
    assert len(chosen.trials) == 4
    assert {one.source for one in (*chosen.trials, *chosen.seeds)} == {source_hash()}
    best = max(chosen.trials, key=lambda trial: trial.value or 0)
    assert chosen.chosen == best.settings
    assert chosen.chosen["training.learning_rate"] == 0.05
    assert best.value == chosen.seeds[0].validation["ndcg@20"]
    assert [dict(trial.settings) for trial in own.trials] == [
        {"training.num_negatives": 1},
        {"training.num_negatives": 2},
    ]
    assert solved.trials == ()
    trials = [text for _, _, text in told if text.startswith("trial dynamic, seed 0: ndcg@20 ")]
    assert len(trials) == 4
    # The trial that was chosen is the first seed's final run: 6 trials, and what is left of 2 + 2 + 1 final runs.
    assert len(list((tmp_path / "study" / "runs").iterdir())) == 6 + 2 + 1


def test_a_variant_that_fails_says_so_and_the_others_go_on(folder: Path, tmp_path: Path) -> None:
    lacking = Variant("acoustic", "acoustic", "metammf-mf", "one", {"model.modalities": ["acoustic"]})
    found = run_study(pair(DYNAMIC, lacking, POPULAR), folder, tmp_path / "study", ONE_PLAIN)
    assert found.rows[1].failed is not None
    assert "unknown modality 'acoustic'" in found.rows[1].failed
    assert found.rows[1].seeds == ()
    assert found.rows[0].failed is None
    assert {(test.a, test.b) for test in found.tests} == {("dynamic", "popularity")}


def out_of_room(*_: Any, **__: Any) -> None:
    raise WriteError("evaluation.parquet", "No space left on device")


def out_of_memory(*_: Any, **__: Any) -> None:
    raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


@pytest.mark.parametrize("at", ["train_run", "evaluated_once", "num_parameters"])
def test_a_variant_that_needs_more_memory_than_there_is_says_so(
    at: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_jobs, at, out_of_memory)
    found = run_study(pair(POPULAR), folder, tmp_path / "study", ONE_PLAIN)
    assert found.rows[0].failed == "out of memory: can't allocate memory: you tried to allocate 9 bytes"


def test_a_disk_that_is_full_says_nothing_of_a_variant(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_jobs, "evaluated_once", out_of_room)
    with pytest.raises(WriteError, match="No space left"):
        run_study(pair(POPULAR), folder, tmp_path / "study", ONE_PLAIN)


def test_data_that_are_gone_say_nothing_of_a_variant(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shutil.copytree(folder, tmp_path / "data")
    train_run = study_jobs.train_run

    def gone(*asked: Any, **options: Any) -> Any:
        shutil.rmtree(data)
        return train_run(*asked, **options)

    monkeypatch.setattr(study_jobs, "train_run", gone)
    with pytest.raises(DataError, match="data"):
        run_study(pair(POPULAR), data, tmp_path / "study", ONE_PLAIN)


@pytest.mark.slow
def test_a_variant_whose_process_dies_says_so_and_is_tried_again(
    folder: Path, tmp_path: Path, fragile: Callable[[str, int], str]
) -> None:
    dying = Variant("dying", "dying", fragile("dying", 1), "dying")
    plan, options = pair(POPULAR, dying), replace(ONE_PLAIN, apart=True)
    found = run_study(plan, folder, tmp_path / "study", options)
    assert [row.failed for row in found.rows] == [None, "its process was killed (signal 9), perhaps for memory"]
    assert run_study(plan, folder, tmp_path / "study", options).rows[1].failed is None


def test_dropped_features_are_no_content(folder: Path, tmp_path: Path) -> None:
    found = run_study(small("placebo"), folder, tmp_path / "study", ONE)
    assert [row.placebo for row in found.rows] == [None, "shuffle", "noise", "drop"]
    cold = {row.placebo: row.seeds[0].test["cold among cold"]["ndcg@20"] for row in found.rows}
    assert len({round(value, 6) for value in cold.values()}) > 1
    assert all(row.failed is None for row in found.rows)


def test_cold_users_have_a_table_and_tests_where_the_split_makes_some(folder: Path, tmp_path: Path) -> None:
    options = replace(ONE_PLAIN, settings={"split.method": "cold-user", "split.cold_share": 0.3})
    ease = Variant("ease", "ease", "ease", "ease")
    found = run_study(pair(ease, POPULAR), folder, tmp_path / "study", options)
    assert all(0 <= row.seeds[0].test["cold users"]["ndcg@20"] <= 1 for row in found.rows)
    assert [test.table for test in found.tests if test.table in ("all", "cold users")] == ["all", "cold users"]


def test_a_map_by_who_watches_what(folder: Path, tmp_path: Path) -> None:
    found = run_study(small("map"), folder, tmp_path / "study", OPTIONS)
    assert found.mapped is not None
    assert found.mapped.grouped_by.startswith("communities of items")
    assert len(found.mapped.items) == len(found.mapped.groups) == 16  # the cold ones are of no community
    assert found.mapped.titles[0] == "group 0"
    assert set(found.mapped.panels) == {"metammf-mf-dynamic", "metammf-mf-static", "metammf-mf-noise"}
    assert all(len(panel["x"]) == len(panel["y"]) == 16 for panel in found.mapped.panels.values())
    assert [len(row.clusters) for row in found.rows] == [2, 2, 2]


def test_a_map_of_a_world_by_what_is_true(tmp_path: Path) -> None:
    save_world(generate_world(users=40, items=50, interactions=500, seed=0), tmp_path / "world")
    plan = small("map")
    found = run_study(replace(plan, variants=plan.variants[:2]), tmp_path / "world", tmp_path / "study", ONE)
    assert found.mapped is not None
    assert set(found.mapped.groups) <= {"visual", "acoustic", "textual"}
    assert len(found.mapped.items) == 50


def test_a_bad_setting_is_told_before_anything_is_trained(folder: Path, tmp_path: Path) -> None:
    for options, message in (
        (replace(PLAIN, choose={"model.cp_rnk": (1, 2)}), r"unknown setting 'model.cp_rnk' \(did you mean"),
        (replace(PLAIN, metric="ndcg@7"), "metric 'ndcg@7': expected NAME@K"),
    ):
        with pytest.raises(ConfigError, match=message):
            run_study(pair(DYNAMIC, POPULAR), folder, tmp_path / "study", options)
    assert list(tmp_path.iterdir()) == []


def test_folders_of_others_stay_as_they_are(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").touch()
    with pytest.raises(DataError, match="not a folder that metammf wrote"):
        run_study(pair(DYNAMIC, POPULAR), folder, out, PLAIN)
    (out / "thesis.tex").rename(out / MARKER)
    (out / MARKER).write_text("rank 0123\n")
    with pytest.raises(RunError, match="holds study rank: name another folder"):
        run_study(pair(DYNAMIC, POPULAR), folder, out, PLAIN)
    (out / MARKER).write_text("fusion 0123\n")
    with pytest.raises(RunError, match="holds study fusion of other data: name another folder"):
        run_study(pair(DYNAMIC, POPULAR), folder, out, PLAIN)


def test_one_study_a_folder_at_a_time(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / MARKER).write_text("fusion 0123\n")
    with FileLock(out / ".lock"), pytest.raises(RunError, match="is in use by another process"):
        run_study(pair(DYNAMIC, POPULAR), folder, out, PLAIN)
