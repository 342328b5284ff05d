from __future__ import annotations

import json
import signal

import numpy as np
import pytest
from safetensors.numpy import load_file

from metammf.files import read_json
from metammf.recommender import Recommender


def tensors(run):
    return load_file(run / "recommender" / "tensors.safetensors")


def assert_equal_weights(first, second):
    one, other = tensors(first), tensors(second)
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def losses(run):
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


# What comes out ---------------------------------------------------------------------------------------------------------


def test_a_run_is_a_folder_that_tells_what_made_it(dynamic, groups):
    names = {path.name for path in dynamic.iterdir()} - {".lock", "evaluation"}
    assert names == {
        "run.json",
        "environment.json",
        "log.jsonl",
        "checkpoint.safetensors",
        "metrics.json",
        "recommender",
    }
    record = read_json(dynamic / "run.json")
    assert record["state"] == "finished"
    assert record["config"]["model"]["hidden_dims"] == [8]
    assert record["sources"]["model.hidden_dims"] == "--set"
    assert record["sources"]["model.backbone"] == "recipe metammf-mf"
    assert record["sources"]["model.meta_dim"] == "recipe metammf-mf"
    assert record["sources"]["model.feature_scaling"] == "default"
    assert record["data"]["path"] == str(groups)
    assert len(record["data"]["sha256"]) == 64
    assert record["split"] == {"method": "published", "train": 96, "validation": 16, "test": 48}
    assert read_json(dynamic / "environment.json")["packages"]["torch"]
    assert len(losses(dynamic)) == 15


def test_it_has_learned_the_groups(dynamic):
    # What is left of the group's ten items: one that is held out for test, and two cold ones.
    found = Recommender.load(dynamic).recommend("user-3", k=3)
    assert found["title"].to_list() == ["group 1"] * 3


def test_the_same_seed_gives_the_same_weights_and_another_others(metammf, groups, tmp_path, dynamic, small):
    def train(name, *options):
        run = tmp_path / name
        words = ("train", groups, "--recipe", "metammf-mf", *small, "--set", "training.epochs=15", *options)
        assert metammf(*words, "--out", run).status == 0
        return run

    assert_equal_weights(dynamic, train("again"))
    other = tensors(train("other", "--seed", 1))
    assert not np.array_equal(tensors(dynamic)["vectors/items"], other["vectors/items"])


@pytest.mark.parametrize("placebo", ["noise", "shuffle"])
def test_placebo_replaces_the_features_and_is_recorded(metammf, groups, tmp_path, small, placebo):
    run = tmp_path / "run"
    words = ("train", groups, "--recipe", "metammf-mf", *small, "--set", "training.epochs=1")
    assert metammf(*words, "--placebo", placebo, "--out", run).status == 0
    assert metammf(*words, "--out", tmp_path / "plain").status == 0
    assert read_json(run / "run.json")["config"]["placebo"] == placebo
    assert f"finished, {placebo}" in metammf("runs", tmp_path).out
    assert not np.array_equal(tensors(run)["vectors/items"], tensors(tmp_path / "plain")["vectors/items"])


def test_refit_trains_on_validation_too(metammf, refused, groups, tmp_path, small):
    run = tmp_path / "run"
    words = ("train", groups, "--recipe", "metammf-mf", *small, "--set", "training.epochs=3")
    assert metammf(*words, "--refit", "--out", run).status == 0
    assert read_json(run / "metrics.json")["refit"] is True
    assert len(tensors(run)["train/users"]) == 96 + 16
    assert len(tensors(run)["validation/users"]) == 0
    assert "refitted" in refused("evaluate", run, "--part", "validation")
    assert "refitted" in refused("evaluate", run, "--seen", "train")
    assert metammf("evaluate", run).status == 0


def test_a_solved_model_accepts_training_settings_and_ignores_them(metammf, groups, tmp_path):
    run = tmp_path / "run"
    assert metammf("train", groups, "--recipe", "ease", "--set", "training.epochs=7", "--out", run).status == 0
    assert "evaluate" in metammf("train", groups, "--recipe", "p3", "--out", tmp_path / "p3").out


def test_what_a_solved_model_reaches_on_validation_is_told_and_kept(metammf, groups, tmp_path):
    words = ("train", groups, "--recipe", "ease", "--set", "training.metric=ndcg@5", "--out")
    told = metammf(*words, tmp_path / "run")
    assert told.status == 0
    kept = read_json(tmp_path / "run" / "evaluation" / "validation-train.json")["metrics"]
    assert {"ndcg@5", "ndcg@10", "ndcg@20"} <= kept.keys()
    shown = dict(line.split() for line in told.out.splitlines() if "@" in line)
    assert {name.partition("@")[0] for name in shown} == {
        *("hit_rate", "map", "micro_recall", "mrr", "ndcg", "precision", "recall")
    }
    assert float(shown["ndcg@5"]) == pytest.approx(kept["ndcg@5"], abs=1e-3)
    assert metammf("runs", tmp_path).out.splitlines()[-1].split()[-1] == shown["ndcg@5"]
    again = metammf(*words, tmp_path / "refitted", "--refit")
    assert (again.status, "@" in again.out) == (0, False)


def test_tables_are_sharded_under_torchrun_alone(refused, groups, tmp_path):
    assert "torchrun" in refused("train", groups, "--recipe", "mf", "--shard-tables", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_data_set_without_a_split_asks_for_a_method(metammf, refused, unsplit, tmp_path):
    run = tmp_path / "run"
    message = refused("train", unsplit, "--recipe", "popularity", "--out", run)
    assert "carries no split" in message
    assert "leave-one-out" in message
    assert metammf("train", unsplit, "--recipe", "popularity", "--split", "leave-one-out", "--out", run).status == 0
    assert read_json(run / "run.json")["split"]["method"] == "leave-one-out"
    assert metammf("evaluate", run).status == 0


def test_a_recipe_may_be_a_file(metammf, groups, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text('[model]\nname = "rp3beta"\nbeta = 0.5\n')
    assert metammf("train", groups, "--recipe", recipe, "--out", tmp_path / "run").status == 0
    assert read_json(tmp_path / "run" / "run.json")["config"]["model"] == {"name": "rp3beta", "beta": 0.5}


def test_show_config_tells_where_values_come_from_and_trains_nothing(metammf, groups, tmp_path):
    told = metammf("train", groups, "--recipe", "mf", "--set", "training.epochs=3", "--seed", 4, "--show-config",
                   "--out", tmp_path / "run").out  # fmt: skip
    rows = {line.split()[0]: line.split()[1:] for line in told.splitlines()}
    assert rows["training.epochs"] == ["3", "--set"]
    assert rows["seed"] == ["4", "--seed"]
    assert rows["model.name"] == ["mf", "recipe", "mf"]
    assert rows["training.optimizer"] == ["adam", "default"]
    assert not (tmp_path / "run").exists()


# Bad input: status 2, one message, nothing left ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--recipe", "metamf-gcn"), "unknown recipe 'metamf-gcn' (did you mean 'metammf-gcn'?)"),
        (("--recipe", "nowhere.toml"), "nowhere.toml: cannot be read"),
        (("--recipe", "mf", "--set", "training.epoch=3"), "unknown setting 'training.epoch' (did you mean 'epochs'?)"),
        (("--recipe", "mf", "--set", "trainng.epochs=3"), "(did you mean 'training'?)"),
        (("--recipe", "metammf-mf", "--set", "model.cprank=3"), "(did you mean 'cp_rank'?)"),
        (("--recipe", "mf", "--set", "model.cp_rank=3"), "unknown setting 'model.cp_rank'"),
        (("--recipe", "mf", "--set", "training.epochs"), "expected SECTION.KEY=VALUE"),
        (("--recipe", "mf", "--set", "training.epochs=0"), "setting 'training.epochs'"),
        (("--recipe", "mf", "--set", "training.epochs=many"), "got 'many'"),
        (("--recipe", "mf", "--set", "training.metric=recal@20"), "expected NAME@K"),
        (("--recipe", "mf", "--split", "randm"), "'random'"),
        (("--recipe", "mf", "--split", "user-time"), "has no timestamps"),
        (("--recipe", "mf", "--device", "gpu"), "device 'gpu' is not available"),
        (("--recipe", "mf", "--seed", "-1"), "setting 'seed': Input should be greater than or equal to 0, got -1"),
        (("--recipe", "mf", "--threads", "0"), "--threads must be at least 1"),
        (("--recipe", "metammf-mf", "--set", 'model.modalities=["smell"]'), "smell"),
    ],
)
def test_what_does_not_fit_is_told_and_leaves_nothing(refused, groups, tmp_path, options, told):
    assert told in refused("train", groups, *options, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_is_none(refused, groups, tmp_path):
    recipe = tmp_path / "mine.toml"
    for text, told in (
        ("model = [", "not TOML"),
        ("[modle]\nname = 'mf'", "unknown section 'modle' (did you mean 'model'?)"),
        ("[training]\nepochs = 3", "names no model"),
        ("[model]\nname = 'mff'", "unknown model 'mff' (did you mean 'mf'?)"),
        ("[model]\nname = ':MF'", "cannot be imported"),
        ("[model]\nname = '.mf:MF'", "cannot be imported"),
        ("[model]\nname = " + "[" * 50_000, "not TOML"),
        ("[model]\nname = " + "9" * 5_000, "not TOML"),
    ):
        recipe.write_text(text)
        assert told in refused("train", groups, "--recipe", recipe, "--out", tmp_path / "run")


def test_data_that_is_not_there(refused, tmp_path):
    assert "no such folder" in refused("train", tmp_path / "nowhere", "--recipe", "mf", "--out", tmp_path / "run")
    assert "interactions.parquet" in refused("train", tmp_path, "--recipe", "mf", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_of_somebody_else_stays_as_it_is(refused, groups, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("")
    message = refused("train", groups, "--recipe", "popularity", "--out", mine, "--resume")
    assert "is not a run" in message
    assert [path.name for path in mine.iterdir()] == ["thesis.tex"]


def test_nothing_can_be_written(refused, groups, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot write" in refused("train", groups, "--recipe", "popularity", "--out", tmp_path / "file" / "run")


# Going on -----------------------------------------------------------------------------------------------------------------


def test_a_second_run_in_the_same_folder_asks_for_resume(metammf, refused, groups, popular):
    words = ("train", groups, "--recipe", "popularity", "--out", popular)
    before = (popular / "run.json").read_bytes()
    assert "--resume" in refused(*words)
    again = metammf(*words, "--resume")
    assert (again.status, again.out) == (0, f"{popular} is finished already\n")
    assert (popular / "run.json").read_bytes() == before


def test_resume_refuses_other_settings_and_names_them(refused, groups, dynamic, small):
    words = ("train", groups, *small, "--out", dynamic, "--resume")
    message = refused(*words, "--recipe", "metammf-mf", "--set", "training.epochs=16", "--seed", 2)
    assert "training.epochs was 15, is 16" in message
    assert "seed was 0, is 2" in message
    message = refused("train", groups, "--recipe", "popularity", "--out", dynamic, "--resume")
    assert "model.name was 'metammf', is 'popularity'" in message
    assert "model.cp_rank" not in message


def test_resume_refuses_other_data(refused, unsplit, dynamic, small):
    words = ("--recipe", "metammf-mf", *small, "--set", "training.epochs=15", "--split", "random", "--resume")
    assert "data set's content differs" in refused("train", unsplit, *words, "--out", dynamic)


def test_a_checkpoint_cut_short_is_told(metammf, refused, groups, tmp_path, small, monkeypatch):
    run = tmp_path / "run"
    words = ("train", groups, "--recipe", "metammf-mf", *small, "--set", "training.epochs=2", "--out", run)
    with monkeypatch.context() as patch:
        patch.setattr(Recommender, "save", _interrupt)
        assert metammf(*words).status == 130
    checkpoint = run / "checkpoint.safetensors"
    whole = checkpoint.read_bytes()
    (run / "checkpoint.previous.safetensors").unlink()
    for length in (0, 5, len(whole) // 2, len(whole) - 1):
        checkpoint.write_bytes(whole[:length])
        assert "train into a new folder" in refused(*words, "--resume")
    checkpoint.unlink()
    assert metammf(*words, "--resume").status == 0  # afresh


def _interrupt(*_arguments, **_options):
    raise KeyboardInterrupt


def test_a_damaged_run_is_told(metammf, refused, dynamic, groups, tmp_path):
    for text in ("", "[]", '{"state": "finished"}', '{"config": {"model": {"name": "nothing"}}}'):
        run = tmp_path / "run"
        run.mkdir(exist_ok=True)
        (run / "run.json").write_text(text)
        assert "damaged" in refused("evaluate", run)
        assert "damaged" in refused("train", groups, "--recipe", "popularity", "--out", run, "--resume")
        assert "damaged" in metammf("runs", tmp_path).out


def test_interrupted_killed_and_resumed_ends_bit_equal(metammf, refused, started, wait_for, groups, tmp_path, small):
    run, whole = tmp_path / "run", tmp_path / "whole"
    words = ("train", groups, "--recipe", "metammf-mf", *small, "--set", "training.epochs=8",
             "--set", "training.batch_size=10", "--set", "training.patience=none", "--threads", "1")  # fmt: skip

    def epochs():
        return (run / "log.jsonl").read_text().count("\n") if (run / "log.jsonl").is_file() else 0

    process = started(*words, "--out", run)
    wait_for(process, lambda: epochs() >= 1)
    assert "in use by another process" in refused(*words, "--out", run, "--resume")
    process.send_signal(signal.SIGINT)
    out, told = process.communicate(timeout=90)
    assert (process.returncode, out, told) == (
        130,
        "",
        f"metammf: interrupted; the same command with --resume goes on, from {run}\n",
    )
    assert "no finished recommender" in refused("evaluate", run)

    reached = epochs()
    process = started(*words, "--out", run, "--resume")
    wait_for(process, lambda: epochs() >= reached + 1)
    process.kill()
    process.communicate()

    reached = epochs()
    assert reached < 8
    assert metammf(*words, "--out", run, "--resume").status == 0
    assert metammf(*words, "--out", whole).status == 0
    assert losses(run) == losses(whole)
    assert_equal_weights(run, whole)


def test_termination_is_as_tidy_as_an_interrupt(metammf, started, wait_for, groups, tmp_path, small):
    run = tmp_path / "run"
    words = ("train", groups, "--recipe", "metammf-mf", *small, "--set", "training.epochs=2000",
             "--set", "training.batch_size=10", "--set", "training.patience=none", "--threads", "1")  # fmt: skip
    process = started(*words, "--out", run)
    wait_for(process, lambda: (run / "log.jsonl").is_file() and (run / "log.jsonl").read_text().count("\n") >= 1)
    process.terminate()
    _, told = process.communicate(timeout=90)
    assert process.returncode == 143
    assert told == f"metammf: terminated; the same command with --resume goes on, from {run}\n"
    assert not [path for path in run.rglob("*") if path.name.endswith(".part")]


def test_a_run_killed_before_its_first_word_starts_afresh(metammf, groups, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / ".lock").write_text("")
    (run / ".run.json.k2j3.part").write_text('{"conf')
    assert metammf("train", groups, "--recipe", "popularity", "--resume", "--out", run).status == 0
