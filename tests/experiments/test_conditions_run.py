from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from metammf.data.folder import load_dataset
from metammf.data.synthetic import generate_world, load_truth, save_world
from metammf.errors import ConfigError, FileFormatError, RunError
from metammf.evaluation.significance import holm, per_user_mean
from metammf.experiments.conditions import ROLES, ConditionsAsk, RealData, make_conditions
from metammf.experiments.conditions_results import ConditionsResults
from metammf.experiments.conditions_run import pooled, run_conditions
from metammf.experiments.evaluating import evaluated_once
from metammf.experiments.run import Run
from metammf.experiments.study_jobs import STUDY_FILE, StudyOptions

if TYPE_CHECKING:
    from pathlib import Path

    from metammf.evaluation.result import Evaluation
    from metammf.experiments.conditions import ConditionsPlan

SETTINGS = {
    "model.hidden_dims": [8],
    "model.embedding_dim": 8,
    "training.epochs": 1,
    "training.batch_size": 500,
}
OPTIONS = StudyOptions(num_seeds=2, settings=SETTINGS, apart=False)


def planned(**more: Any) -> ConditionsPlan:
    return make_conditions(ConditionsAsk(users=40, items=120, vary={"diversity": (0,)}, settings=SETTINGS, **more))


@pytest.fixture(scope="module")
def study(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ConditionsResults]:
    out = tmp_path_factory.mktemp("study") / "conditions"
    return out, run_conditions(planned(real=(RealData(folder),)), out, OPTIONS)


def test_a_world_a_seed_and_models_on_each(study: tuple[Path, ConditionsResults], folder: Path) -> None:
    out, found = study
    assert sorted(path.name for path in (out / "worlds").iterdir()) == [
        f"{key}-{seed}" for key in ("default", "diversity-0") for seed in (0, 1)
    ]
    default, shared, real = found.conditions
    assert (default.axis, shared.axis, shared.value, real.world) == (None, "diversity", 0.0, None)
    assert [len(one.data) for one in found.conditions] == [2, 2, 1]
    assert real.diversity == real.spread == ()
    truths = [load_truth(out / "worlds" / f"default-{seed}") for seed in (0, 1)]
    assert default.spread == tuple(8 * truth.utility_deviation for truth in truths)
    assert real.data[0].name == load_dataset(folder).name
    assert default.diversity == tuple(load_truth(out / "worlds" / f"default-{seed}").mix_diversity for seed in (0, 1))
    assert max(shared.diversity) < 0.1 < min(default.diversity)
    for one in found.conditions:
        assert tuple(one.models) == ROLES
        assert [row.placebo for row in one.models.values()] == [None, None, "noise"]
        assert all([run.seed for run in row.seeds] == [0, 1] for row in one.models.values())


def of_run(out: Path, key: str, seed: int) -> Evaluation:
    (path,) = (out / "runs").glob(f"{key}-{seed}-*")
    return evaluated_once(Run.load(path), "test", "train+validation")


def test_gains_are_over_the_users_of_all_worlds(study: tuple[Path, ConditionsResults]) -> None:
    out, found = study
    default = found.conditions[0]
    test = found.test(default, "all")
    assert test is not None
    values: dict[str, list[float]] = {
        role: [
            value
            for seed in (0, 1)
            for value in of_run(out, f"default-{role}", seed).per_user["ndcg@20"].drop_nulls().to_list()
        ]
        for role in ("dynamic", "static")
    }
    assert test.num_users == len(values["static"])
    assert test.difference == pytest.approx(np.mean(values["dynamic"]) - np.mean(values["static"]))
    assert default.gains("ndcg@20") == pytest.approx(
        [
            default.models["dynamic"].seeds[seed].test["all"]["ndcg@20"]
            - default.models["static"].seeds[seed].test["all"]["ndcg@20"]
            for seed in (0, 1)
        ]
    )


def test_seeds_of_a_real_data_set_are_averaged_user_by_user(study: tuple[Path, ConditionsResults]) -> None:
    out, found = study
    real = found.conditions[-1]
    test = found.test(real, "all", "noise")
    assert test is not None
    _, ours = per_user_mean([of_run(out, f"{real.key}-dynamic", seed) for seed in (0, 1)], "ndcg@20")
    assert test.num_users == len(ours)
    assert test.mean_a == pytest.approx(ours.mean())


def test_tests_are_corrected_over_the_conditions(study: tuple[Path, ConditionsResults]) -> None:
    _, found = study
    for metric in ("ndcg@20", "recall@20"):
        for over in ("static", "noise"):
            tests = [found.test(one, "all", over, metric) for one in found.conditions]
            told = [(one.p, one.p_holm) for one in tests if one is not None]
            assert len(told) == 3
            assert [p for _, p in told] == pytest.approx(holm([p for p, _ in told]))


def test_users_of_several_worlds_are_kept_apart(study: tuple[Path, ConditionsResults]) -> None:
    out, _ = study
    first, second = (of_run(out, "default-static", seed) for seed in (0, 1))
    both = pooled({0: first, 1: second})
    assert len(both.per_user) == both.per_user["user_id"].n_unique() == len(first.per_user) + len(second.per_user)
    assert both.per_user["user_id"][0] == f"0/{first.per_user['user_id'][0]}"


def test_it_goes_on_where_it_was_and_takes_in_more(
    study: tuple[Path, ConditionsResults], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, found = study

    def not_again(*_: Any, **__: Any) -> None:
        raise AssertionError("done again")

    monkeypatch.setattr("metammf.experiments.evaluating.evaluate", not_again)
    monkeypatch.setattr("metammf.experiments.conditions_run.generate_world", not_again)
    again = run_conditions(planned(real=(RealData(folder),)), out, OPTIONS)
    assert (again.conditions, again.tests) == (found.conditions, found.tests)
    fewer = run_conditions(planned(), out, replace(OPTIONS, num_seeds=1))
    assert [one.key for one in fewer.conditions] == ["default", "diversity-0"]


def test_a_folder_holds_worlds_of_one_size(study: tuple[Path, ConditionsResults]) -> None:
    out, _ = study
    with pytest.raises(RunError, match="holds study conditions of other data: name another folder"):
        run_conditions(replace(planned(), size="50-users"), out, OPTIONS)


def test_a_world_that_is_not_the_one_asked_for_is_refused_and_one_begun_is_drawn_anew(tmp_path: Path) -> None:
    plan = make_conditions(ConditionsAsk(users=20, items=120, vary={"cold": (0.4,)}, settings=SETTINGS))
    options = replace(OPTIONS, num_seeds=1)
    run_conditions(plan, tmp_path / "out", options)
    stored = tmp_path / "out" / "worlds" / "cold-0.4-0"
    before = (stored / "truth.npz").read_bytes()
    (stored / "truth.npz").unlink()
    run_conditions(plan, tmp_path / "out", options)
    assert (stored / "truth.npz").read_bytes() == before
    world = generate_world(seed=0, users=20, items=120, interactions=480, cold_share=0.3)
    save_world(world, stored)
    with pytest.raises(RunError, match=r"cold-0.4-0 holds another world \(cold_share: expected 0.4, found 0.3\)"):
        run_conditions(plan, tmp_path / "out", options)


def test_what_is_written_reads_back(study: tuple[Path, ConditionsResults], tmp_path: Path) -> None:
    _, found = study
    found.write(tmp_path / STUDY_FILE)
    assert ConditionsResults.read(tmp_path / STUDY_FILE).tests == found.tests
    values = json.loads((tmp_path / STUDY_FILE).read_text(encoding="utf-8"))
    (tmp_path / STUDY_FILE).write_text(json.dumps(values | {"axes": 3}), encoding="utf-8")
    with pytest.raises(FileFormatError, match="axes"):
        ConditionsResults.read(tmp_path / STUDY_FILE)
    for one in values["conditions"]:
        del one["spread"]  # a file of before that was told
    (tmp_path / STUDY_FILE).write_text(json.dumps(values), encoding="utf-8")
    assert [one.spread for one in ConditionsResults.read(tmp_path / STUDY_FILE).conditions] == [(), (), ()]


def test_what_does_not_fit_is_told_before_anything_is_written(tmp_path: Path) -> None:
    for options in (replace(OPTIONS, metric="ndcg@7"), replace(OPTIONS, choose={"model.cp_rnk": (1, 2)})):
        with pytest.raises(ConfigError, match=r"ndcg@7|cp_rnk"):
            run_conditions(planned(), tmp_path / "out", options)
    crowded = make_conditions(ConditionsAsk(users=20, items=120, vary={"density": (1000,)}, settings=SETTINGS))
    with pytest.raises(ConfigError, match=r"study conditions, interactions a user 1000: interactions: expected 40"):
        run_conditions(crowded, tmp_path / "out", OPTIONS)
    assert list(tmp_path.iterdir()) == []


def test_validation_chooses_in_each_condition_alike(tmp_path: Path) -> None:
    plan = make_conditions(ConditionsAsk(users=20, items=120, vary={"cold": (0.2,)}, settings=SETTINGS))
    options = replace(OPTIONS, num_seeds=1, choose={"training.learning_rate": (1e-4, 0.03)})
    (default,) = run_conditions(plan, tmp_path / "out", options).conditions
    for row in default.models.values():
        assert len(row.trials) == 2
        assert row.chosen == max(row.trials, key=lambda trial: trial.value or 0).settings
