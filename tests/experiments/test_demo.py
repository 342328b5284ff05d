from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from filelock import FileLock

from metammf.data.folder import load_dataset
from metammf.data.synthetic import load_truth
from metammf.errors import ConfigError, DataError, RunError
from metammf.evaluation.evaluate import evaluate
from metammf.experiments.demo import MARKER, REPORT_FILE, RESULTS_FILE, num_workers, run_demo, under_way
from metammf.experiments.demo_jobs import Job, run_jobs
from metammf.experiments.demo_plan import ENTRIES, DemoPlan
from metammf.experiments.demo_results import TABLES
from metammf.recommender import Recommender

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PLAN = DemoPlan(users=60, items=80, interactions=900, num_seeds=2, training={"epochs": 2}, workers=1)


def page(results: Mapping[str, Any]) -> str:
    return f"<html>{results['seed']}</html>"


@pytest.fixture(scope="module")
def steps() -> list[tuple[int, int, str]]:
    return []


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, str]]) -> Path:
    path = tmp_path_factory.mktemp("demo") / "demo"
    run_demo(path, PLAN, render=page, progress=lambda *step: steps.append(step), command="metammf demo --seed 0")
    return path


@pytest.fixture(scope="module")
def results(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / RESULTS_FILE).read_text(encoding="utf-8"))
    return found


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for demos that train nothing, and so find nothing."""
    monkeypatch.setattr("metammf.experiments.demo.run_jobs", lambda *_: [])
    monkeypatch.setattr("metammf.experiments.demo.collect", lambda *parts: {"seed": parts[2].seed})
    return tmp_path / "demo"


def test_the_folder_holds_page_results_world_and_runs(out: Path, results: dict[str, Any]) -> None:
    assert (out / REPORT_FILE).read_text(encoding="utf-8") == page(results)
    assert load_dataset(out / "world").num_items == len(load_truth(out / "world").modality_weights) == 80
    runs = {path.name for path in (out / "runs").iterdir()}
    assert {"metammf-gcn-0", "metammf-gcn-1", "ease-0", "static-mf-noise-0"} <= runs
    assert len(runs) == 4 * 2 + 2 + 4
    assert [entry.name for entry in out.parent.iterdir()] == ["demo"]


def test_every_model_is_in_the_results(results: dict[str, Any]) -> None:
    assert [model["key"] for model in results["models"]] == [entry.key for entry in PLAN.entries]
    assert {model["key"] for model in results["models"] if model["role"] == "control"} == {"ease", "popularity"}
    seeds = {model["key"]: [run["seed"] for run in model["runs"]] for model in results["models"]}
    assert (seeds["static-gcn"], seeds["ease"], seeds["static-gcn-noise"]) == ([0, 1], [0], [0])


def test_a_run_can_be_used_and_gives_the_numbers_reported(out: Path, results: dict[str, Any]) -> None:
    recommender = Recommender.load(out / "runs" / "metammf-mf-1")
    assert recommender.recommend(1, 3).height == 3
    assert recommender.explain(1).height == 3
    again = evaluate(recommender, load_dataset(out / "world").split())
    (model,) = (model for model in results["models"] if model["key"] == "metammf-mf")
    assert model["runs"][1]["evaluation"]["metrics"] == again.metrics


def test_means_and_deviations_are_over_seeds(results: dict[str, Any]) -> None:
    (model,) = (model for model in results["models"] if model["key"] == "static-gcn")
    evaluations = [run["evaluation"] for run in model["runs"]]
    values = [one["cold"]["among_cold"]["recall@10"] for one in evaluations]
    cell = model["tables"]["cold_among_cold"]["recall@10"]
    assert cell == pytest.approx({"mean": np.mean(values), "std": np.std(values, ddof=1)})


def test_each_dynamic_model_meets_its_twin_and_each_fusion_its_placebo(results: dict[str, Any]) -> None:
    pairs = {(row["model"], row["other"]) for row in results["comparisons"]}
    assert pairs == {
        ("metammf-gcn", "static-gcn"),
        ("metammf-mf", "static-mf"),
        *((key, f"{key}-noise") for key in ("metammf-gcn", "static-gcn", "metammf-mf", "static-mf")),
    }
    assert len(results["comparisons"]) == len(pairs) * len(TABLES)
    assert all(row["p_adjusted"] >= row["p_permutation"] for row in results["comparisons"])
    smallest = min(results["comparisons"], key=lambda row: row["p_permutation"])
    expected = min(1.0, smallest["p_permutation"] * len(results["comparisons"]))
    assert smallest["p_adjusted"] == pytest.approx(expected)


def test_twins_differ_in_the_fusion_alone() -> None:
    entries = {entry.key: entry for entry in ENTRIES}
    for entry in ENTRIES:
        if entry.twin is not None:
            dynamic, static = dict(entry.model), dict(entries[entry.twin].model)
            assert (dynamic.pop("fusion"), static.pop("fusion")) != ("concat", "concat")
            for setting in ("dynamic_layers", "dynamic_scale", "bounded_meta", "meta_dim", "cp_rank"):
                dynamic.pop(setting, None)
            assert dynamic == static


def test_the_curve_ends_where_training_did_and_marks_the_chosen_epoch(results: dict[str, Any]) -> None:
    for model in results["models"]:
        for run in model["runs"]:
            if model["role"] == "control":
                assert (run["epoch"], run["curve"]) == (None, [])
            else:
                assert [one["epoch"] for one in run["curve"]] == [1, 2]
                best = max(run["curve"], key=lambda one: one["metric"])
                assert run["epoch"] == best["epoch"]


def test_the_map_has_a_place_for_every_item(results: dict[str, Any]) -> None:
    plane = results["map"]
    assert sorted(plane["items"]) == list(range(1, 81))
    assert sorted(plane["panels"]) == ["metammf-gcn", "metammf-mf", "static-gcn", "static-mf"]
    assert all(len(panel["x"]) == len(panel["y"]) == 80 for panel in plane["panels"].values())


def test_the_map_knows_the_truth(out: Path, results: dict[str, Any]) -> None:
    truth = load_truth(out / "world")
    first = [truth.modalities[place] for place in truth.modality_weights.argmax(axis=1)]
    assert results["map"]["dominant"] == [first[item - 1] for item in results["map"]["items"]]


def test_progress_is_told(out: Path, steps: list[tuple[int, int, str]]) -> None:
    told = [step for step in steps if not step[2].startswith("training ")]  # on a slow machine there are looks between
    assert [done for done, _, _ in told] == list(range(15))
    assert {total for _, total, _ in told} == {14}
    assert told[1][2].startswith("metammf-gcn seed 0: ndcg@20 0.")


def test_processes_give_what_one_process_gives(out: Path, tmp_path: Path, results: dict[str, Any]) -> None:
    entries = [entry for entry in PLAN.entries if entry.key in ("metammf-mf", "popularity")]
    jobs = [Job(one.key, PLAN.config(one, 0), out / "world", tmp_path / one.key) for one in entries]
    done: list[str] = []
    outcomes = run_jobs(jobs, 2, lambda outcome: done.append(outcome.key))
    assert sorted(done) == [outcome.key for outcome in outcomes] == ["metammf-mf", "popularity"]
    for outcome in outcomes:
        (model,) = (model for model in results["models"] if model["key"] == outcome.key)
        assert outcome.evaluation.metrics == model["runs"][0]["evaluation"]["metrics"]


def test_an_error_in_a_process_comes_through(out: Path, tmp_path: Path) -> None:
    entry = next(entry for entry in PLAN.entries if entry.key == "popularity")
    jobs = [Job("x", PLAN.config(entry, 0), tmp_path / "nowhere", tmp_path / str(number)) for number in range(3)]
    with pytest.raises(DataError, match="nowhere"):
        run_jobs(jobs, 2, print)


def test_a_demo_is_replaced_whole(quick: Path) -> None:
    run_demo(quick, PLAN, render=page)
    (quick / "left-over").touch()
    run_demo(quick, replace(PLAN, seed=5), render=page)
    assert (quick / REPORT_FILE).read_text(encoding="utf-8") == "<html>5</html>"
    assert not (quick / "left-over").exists()
    assert [entry.name for entry in quick.parent.iterdir()] == ["demo"]


@pytest.mark.parametrize("stopped", [KeyboardInterrupt, RunError("no")])
def test_an_interrupt_leaves_the_old_demo_or_nothing(quick: Path, stopped: Any) -> None:
    def broken(results: Mapping[str, Any]) -> str:
        raise stopped

    kind = stopped if isinstance(stopped, type) else type(stopped)
    with pytest.raises(kind):
        run_demo(quick, PLAN, render=broken)
    assert list(quick.parent.iterdir()) == []
    run_demo(quick, PLAN, render=page)
    with pytest.raises(kind):
        run_demo(quick, replace(PLAN, seed=5), render=broken)
    assert (quick / REPORT_FILE).read_text(encoding="utf-8") == "<html>0</html>"
    assert [entry.name for entry in quick.parent.iterdir()] == ["demo"]


def test_a_demo_that_was_killed_can_be_replaced(quick: Path) -> None:
    quick.mkdir()
    (quick / MARKER).touch()
    (quick / "world").mkdir()
    run_demo(quick, PLAN, render=page)
    assert (quick / REPORT_FILE).exists()


def test_a_first_demo_puts_nothing_beside_it(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def looking(*_: object) -> list[Any]:
        seen.extend(entry.name for entry in quick.parent.iterdir())
        return []

    monkeypatch.setattr("metammf.experiments.demo.run_jobs", looking)
    run_demo(quick, PLAN, render=page)
    assert seen == ["demo"]


@pytest.mark.parametrize("begun", [True, False])
def test_what_a_kill_leaves_is_cleared_and_the_demo_before_it_comes_back(quick: Path, begun: bool) -> None:
    """A kill while a second demo ran leaves the first one beside it; one between two moves leaves that alone."""
    run_demo(quick, PLAN, render=page)
    quick.replace(quick.parent / ".demo.old")
    if begun:
        quick.mkdir()
        (quick / MARKER).touch()

    def broken(results: Mapping[str, Any]) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_demo(quick, replace(PLAN, seed=5), render=broken)
    assert (quick / REPORT_FILE).read_text(encoding="utf-8") == "<html>0</html>"
    assert [entry.name for entry in quick.parent.iterdir()] == ["demo"]


def test_somebody_elses_folder_beside_it_stays(quick: Path) -> None:
    beside = quick.parent / ".demo.old"
    beside.mkdir()
    (beside / "thesis.tex").touch()
    with pytest.raises(DataError, match=r"demo\.old exists and is not a demo's folder"):
        run_demo(quick, PLAN, render=page)
    assert [entry.name for entry in quick.parent.iterdir()] == [".demo.old"]


def test_what_is_under_way_is_told_by_the_logs(tmp_path: Path) -> None:
    entry = PLAN.entries[0]
    jobs = [Job(entry.key, PLAN.config(entry, seed), tmp_path, tmp_path / str(seed)) for seed in range(4)]
    assert under_way(jobs) == ""
    for seed, lines in ((0, 2), (1, 1), (2, 0)):
        jobs[seed].out.mkdir()
        (jobs[seed].out / "log.jsonl").write_text("{}\n" * lines)
    (jobs[0].out / "metrics.json").touch()
    assert under_way(jobs) == (
        "training metammf-gcn seed 1: epoch 1 of at most 2, metammf-gcn seed 2: epoch 0 of at most 2"
    )


def test_a_demo_tells_now_and_then_how_far_it_is(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, heard = [], threading.Event()

    def slow(*_: object) -> list[Any]:
        assert heard.wait(60)
        return []

    def progress(done: int, total: int, what: str) -> None:
        told.append((done, total, what))
        if what:
            heard.set()

    monkeypatch.setattr("metammf.experiments.demo.run_jobs", slow)
    monkeypatch.setattr("metammf.experiments.demo.under_way", lambda jobs: f"training {len(jobs)}")
    monkeypatch.setattr("metammf.experiments.demo.LOOK_SECONDS", 0.01)
    run_demo(quick, PLAN, render=page, progress=progress)
    assert told[:2] == [(0, 14, ""), (0, 14, "training 14")]


def test_a_plan_knows_how_many_runs_it_is(results: dict[str, Any]) -> None:
    assert PLAN.num_runs == sum(len(model["runs"]) for model in results["models"]) == 14
    assert DemoPlan().num_runs == 18
    assert num_workers(PLAN) == 1


def test_somebody_elses_folder_stays(quick: Path) -> None:
    quick.mkdir()
    (quick / "thesis.tex").touch()
    with pytest.raises(DataError, match=f"not a demo's folder .it has no {MARKER}."):
        run_demo(quick, PLAN, render=page)
    assert [entry.name for entry in quick.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_folder(quick: Path) -> None:
    quick.write_text("mine")
    with pytest.raises(DataError, match="not a demo's folder"):
        run_demo(quick, PLAN, render=page)
    with pytest.raises(DataError, match="cannot write"):
        run_demo(quick / "below", PLAN, render=page)
    assert quick.read_text() == "mine"


def test_two_demos_do_not_write_in_one_folder(quick: Path) -> None:
    run_demo(quick, PLAN, render=page)
    with FileLock(quick / ".lock"), pytest.raises(RunError, match="being written by another demo"):
        run_demo(quick, replace(PLAN, seed=5), render=page)
    assert (quick / REPORT_FILE).read_text(encoding="utf-8") == "<html>0</html>"
    assert [entry.name for entry in quick.parent.iterdir()] == ["demo"]


def test_a_world_that_cannot_be_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="users"):
        run_demo(tmp_path / "demo", replace(PLAN, users=3), render=page)
    assert list(tmp_path.iterdir()) == []
