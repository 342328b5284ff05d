from __future__ import annotations

import json
import shutil
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors import safe_open

from metammf.data.dataset import Catalog
from metammf.data.folder import load_dataset, save_dataset
from metammf.errors import ConfigError, DataError, ForeignModelError, MissingExtraError, RunError
from metammf.experiments.config import merge
from metammf.experiments.environment import source_hash
from metammf.experiments.evaluating import evaluate_run
from metammf.experiments.listing import list_runs
from metammf.experiments.run import LOCK, Run, RunOptions, train_run
from metammf.recommender import Recommender
from metammf.training.checkpoint import load_checkpoint, save_checkpoint

SMALL = {"model.hidden_dims": [8], "model.embedding_dim": 16, "training.epochs": 2, "training.metric": "ndcg@5"}


class Told:
    """A listener that keeps what it is told, and may do something after an epoch."""

    def __init__(self, after=None):
        self.starts, self.steps, self.epochs, self.after = [], [], [], after

    def on_start(self, epochs, steps_per_epoch, progress):
        self.starts.append((epochs, steps_per_epoch, progress.epoch))

    def on_step(self, epoch, step, loss):
        self.steps.append((epoch, step))

    def on_epoch(self, record):
        self.epochs.append(record.epoch)
        if self.after is not None:
            self.after(record)


@pytest.fixture(scope="module")
def dynamic(folder, tmp_path_factory):
    return train_run(merge("metammf-mf", SMALL), folder, tmp_path_factory.mktemp("runs") / "dynamic")


def test_a_run_knows_the_code_that_trained_it(dynamic, tmp_path):
    """Where that is not noted, or its file is damaged or gone, nobody knows."""
    assert dynamic.source == source_hash()
    copy = Run.load(shutil.copytree(dynamic.path, tmp_path / "copy"))
    environment = copy.path / "environment.json"
    for text in ("{}", "[]", "{"):
        environment.write_text(text)
        assert copy.source is None
    environment.unlink()
    assert copy.source is None


def test_what_is_read_back_is_what_was_trained(dynamic, folder):
    again = Run.load(dynamic.path)
    assert again.config == dynamic.config
    assert again.finished
    split, published = again.split(), load_dataset(folder).split()
    assert (split.test.keys == published.test.keys).all()
    users = torch.arange(17)
    assert torch.equal(again.recommender().scores(users), dynamic.recommender().scores(users))


def test_evaluation_lies_beside_the_run_and_is_listed(dynamic):
    assert list_runs(dynamic.path.parent)[0]["test"] is None
    found = evaluate_run(dynamic, ks=(3, 5, 20))
    assert json.loads((dynamic.path / "evaluation" / "test-train+validation.json").read_text()) == found.to_dict()
    row = list_runs(dynamic.path.parent)[0]
    assert row["model"] == "metammf mf cp"
    assert row["test"] == found.metrics["ndcg@5"]
    assert 0 < row["validation"] <= 1


def test_a_run_that_cannot_be_written_to_is_evaluated_all_the_same(dynamic, tmp_path, caplog):
    shutil.copytree(dynamic.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "evaluation", ignore_errors=True)
    (tmp_path / "run" / "evaluation").touch()  # a file where the folder would be: not even root can write there
    found = evaluate_run(Run.load(tmp_path / "run"), ks=(5,))
    assert found.metrics == evaluate_run(dynamic, ks=(5,)).metrics
    assert "not kept beside the run" in caplog.text


def test_listeners_are_told_of_every_step_and_epoch(folder, tmp_path):
    told = Told()
    train_run(merge("metammf-mf", SMALL), folder, tmp_path / "run", RunOptions(listeners=(told,)))
    assert told.starts == [(2, 1, 0)]
    assert told.steps == [(1, 1), (2, 2)]
    assert told.epochs == [1, 2]


def test_interrupted_training_goes_on_where_it_was(folder, tmp_path):
    def stop(record):
        if record.epoch == 3:
            raise KeyboardInterrupt

    config = merge("metammf-mf", SMALL | {"training.epochs": 5})
    with pytest.raises(KeyboardInterrupt):
        train_run(config, folder, tmp_path / "run", RunOptions(listeners=(Told(stop),)))
    interrupted = dict(Run.load(tmp_path / "run").record)
    told = Told()
    resumed = train_run(config, folder, tmp_path / "run", RunOptions(resume=True, listeners=(told,)))
    assert (told.starts, told.epochs) == ([(5, 1, 3)], [4, 5])
    straight = train_run(config, folder, tmp_path / "straight")
    users = torch.arange(17)
    assert torch.equal(resumed.recommender().scores(users), straight.recommender().scores(users))
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5]
    assert resumed.record["seconds"] == pytest.approx(
        sum(line["seconds"] + line["evaluation_seconds"] for line in lines), abs=1e-3
    )
    assert resumed.record["started"] == interrupted["started"]


def test_a_run_from_before_a_setting_was_known_goes_on(folder, tmp_path):
    """The setting stood at its default then; the run's own fingerprint goes on being its checkpoint's."""
    whole = train_run(merge("metammf-mf", SMALL), folder, tmp_path / "whole")

    def stop(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(merge("metammf-mf", SMALL), folder, tmp_path / "old", RunOptions(listeners=(Told(stop),)))
    record = json.loads((tmp_path / "old" / "run.json").read_text("utf-8"))
    del record["config"]["training"]["batches_per_step"]
    record["fingerprint"] = "of another version"
    (tmp_path / "old" / "run.json").write_text(json.dumps(record), encoding="utf-8")
    _refingerprint(tmp_path / "old" / "checkpoint.safetensors", "of another version")
    again = train_run(merge("metammf-mf", SMALL), folder, tmp_path / "old", RunOptions(resume=True))
    assert again.record["fingerprint"] == "of another version"
    users = torch.arange(17)
    assert torch.equal(again.recommender().scores(users), whole.recommender().scores(users))
    other = merge("metammf-mf", SMALL | {"training.batches_per_step": 2})
    with pytest.raises(RunError, match=r"training\.batches_per_step was 1, is 2"):
        train_run(other, folder, tmp_path / "old", RunOptions(resume=True))


def _refingerprint(path, fingerprint):
    saved = load_checkpoint(path, json.loads(_header(path))["fingerprint"])
    save_checkpoint(path, fingerprint, saved.progress, saved.model, saved.best, saved.optimizer)


def _header(path):
    with safe_open(path, framework="pt") as stream:
        return json.dumps(stream.metadata())


def test_a_recommender_that_is_gone_is_made_again(folder, tmp_path):
    config = merge("metammf-mf", SMALL)
    scores = train_run(config, folder, tmp_path / "run").recommender().scores(torch.arange(17))
    shutil.rmtree(tmp_path / "run" / "recommender")
    assert not Run.load(tmp_path / "run").finished
    again = train_run(config, folder, tmp_path / "run", RunOptions(resume=True))
    assert torch.equal(again.recommender().scores(torch.arange(17)), scores)


def interrupted_after(epoch, config, folder, out):
    def stop(record):
        if record.epoch == epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(config, folder, out, RunOptions(listeners=(Told(stop),)))


@pytest.mark.parametrize("name", ["tensors.safetensors", "users.parquet", "items.parquet", "recommender.json"])
def test_a_recommender_that_is_damaged_says_so_and_is_made_again(folder, tmp_path, caplog, name):
    config = merge("metammf-mf", SMALL)
    scores = train_run(config, folder, tmp_path / "run").recommender().scores(torch.arange(17))
    file = tmp_path / "run" / "recommender" / name
    whole = file.read_bytes()
    for content in (whole[:-9], whole[: len(whole) // 2], b""):
        file.write_bytes(content)
        with pytest.raises(RunError, match=r"damaged .*--resume makes it again"):
            Recommender.load(tmp_path / "run")
        again = train_run(config, folder, tmp_path / "run", RunOptions(resume=True))
        assert again.trained
        assert torch.equal(again.recommender().scores(torch.arange(17)), scores)
        assert "made again from the checkpoint" in caplog.text
    assert not train_run(config, folder, tmp_path / "run", RunOptions(resume=True)).trained


def test_a_run_file_that_is_damaged_is_mended_where_the_checkpoint_is_of_this_run(folder, tmp_path, caplog):
    config, out = merge("metammf-mf", SMALL | {"training.epochs": 4}), tmp_path / "run"
    interrupted_after(2, config, folder, out)
    (out / "run.json").write_text('{"state": "trai')
    with pytest.raises(RunError, match=r"damaged .*--resume, mends it"):
        Run.load(out)
    with pytest.raises(RunError, match="damaged"):
        train_run(merge("metammf-mf", SMALL), folder, out, RunOptions(resume=True))
    told = Told()
    resumed = train_run(config, folder, out, RunOptions(resume=True, listeners=(told,)))
    assert told.epochs == [3, 4]
    assert Run.load(out).finished
    assert "written anew" in caplog.text
    straight = train_run(config, folder, tmp_path / "straight")
    users = torch.arange(17)
    assert torch.equal(resumed.recommender().scores(users), straight.recommender().scores(users))


def test_a_run_of_a_model_from_elsewhere_is_not_damaged(folder, tmp_path):
    """Its code is not run, the message says what runs it, and a list of runs goes on."""
    train_run(merge("popularity"), folder, tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    path.write_text(path.read_text().replace('"popularity"', '"mine.tower:Tower"'))
    with pytest.raises(ForeignModelError) as told:
        Run.load(tmp_path / "run")
    assert str(told.value).startswith(f"{tmp_path / 'run'}: the model 'mine.tower:Tower' is not one of metammf's")
    assert "METAMMF_MODELS=mine.tower" in str(told.value)
    assert not {"damaged", "--resume"} & set(str(told.value).replace("(", " ").split())
    (row,) = list_runs(tmp_path)
    assert (row["model"], row["state"]) == ("mine.tower:Tower", "not read (METAMMF_MODELS=mine.tower reads it)")


def test_what_a_killed_run_left_unfinished_is_removed_at_the_next_start(folder, tmp_path):
    config, out = merge("metammf-mf", SMALL | {"training.epochs": 4}), tmp_path / "run"
    interrupted_after(2, config, folder, out)
    (out / ".checkpoint.safetensors.ab12.part").write_bytes(b"half")
    for name in (".recommender.ab12.part", ".recommender.cd34.old"):
        (out / name).mkdir()
        (out / name / "tensors.safetensors").write_bytes(b"half")
    (out / "notes.part").write_text("somebody's")
    train_run(config, folder, out, RunOptions(resume=True))
    assert [path.name for path in out.iterdir() if path.name.endswith((".part", ".old"))] == ["notes.part"]
    assert not (out / "checkpoint.previous.safetensors").exists()


def test_the_lock_keeps_another_out_until_training_ends(folder, tmp_path):
    config, out = merge("metammf-mf", SMALL), tmp_path / "run"
    refused = []

    def second(_record):
        def train():
            try:
                train_run(config, folder, out, RunOptions(resume=True))
            except RunError as error:
                refused.append(str(error))

        thread = threading.Thread(target=train)
        thread.start()
        thread.join()

    train_run(config, folder, out, RunOptions(listeners=(Told(second),)))
    assert refused == [f"{out} is in use by another process: wait until that ends, or name another folder"] * 2
    assert train_run(config, folder, out, RunOptions(resume=True)).finished


def test_a_run_that_no_process_holds_is_stopped(folder, tmp_path):
    config, out = merge("metammf-mf", SMALL | {"training.epochs": 4}), tmp_path / "run"
    states = []

    def look(_record):
        states.append(list_runs(tmp_path)[0]["state"])

    train_run(config, folder, tmp_path / "other", RunOptions(listeners=(Told(look),)))
    assert states[0] == "training"
    shutil.rmtree(tmp_path / "other")
    interrupted_after(2, config, folder, out)
    assert [row["state"] for row in list_runs(tmp_path)] == ["stopped"]
    (out / ".lock").unlink(missing_ok=True)  # as in a copy of the folder
    assert [row["state"] for row in list_runs(tmp_path)] == ["stopped"]
    train_run(config, folder, out, RunOptions(resume=True))
    assert [row["state"] for row in list_runs(tmp_path)] == ["finished"]


def test_who_only_looks_does_not_keep_training_out(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("metammf.experiments.run._PATIENCE", 30)  # on a slow machine too
    config, out = merge("popularity"), tmp_path / "run"
    out.mkdir()
    glance = FileLock(out / LOCK, thread_local=False)
    glance.acquire()
    timer = threading.Timer(0.05, glance.release)
    timer.start()
    assert train_run(config, folder, out).finished
    timer.join()


def test_a_model_that_does_not_fit_leaves_no_run(folder, tmp_path):
    wrong = merge("metammf-mf", SMALL | {"model.modalities": ["smell"]})
    with pytest.raises((ConfigError, DataError), match="smell"):
        train_run(wrong, folder, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    with pytest.raises((ConfigError, DataError), match="smell"):
        train_run(wrong, folder, tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_placebo_needs_features(folder, tmp_path):
    dataset = load_dataset(folder)
    ids = Catalog(dataset.catalog.user_ids, dataset.catalog.item_ids, dataset.features.only(()))
    save_dataset(replace(dataset, catalog=ids), tmp_path / "bare")
    with pytest.raises(ConfigError, match="this data set has none"):
        train_run(merge("mf", {}, {"placebo": "noise"}), tmp_path / "bare", tmp_path / "run")
    with pytest.raises(ConfigError, match="no features"):
        train_run(merge("metammf-mf", SMALL), tmp_path / "bare", tmp_path / "run")
    with pytest.raises(ConfigError, match="and mf reads none"):
        train_run(merge("mf", {}, {"placebo": "noise"}), folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "run").exists()


def test_tensorboard_events(folder, tmp_path):
    train_run(merge("metammf-mf", SMALL), folder, tmp_path / "run", RunOptions(tensorboard=True))
    assert list((tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*"))


def test_validation_alone_decides_the_epoch_and_test_nothing(folder, tmp_path):
    """The log of a run holds validation metrics, and no figure of the test part."""
    run = train_run(merge("metammf-mf", SMALL), folder, tmp_path / "run")
    line = json.loads((run.path / "log.jsonl").read_text().splitlines()[0])
    assert {
        "epoch",
        "step",
        "terms",
        "metrics",
        "seconds",
        "evaluation_seconds",
        "best",
        "loss",
        "peak_resident_mib",
        "processor_seconds",
        "evaluation_processor_seconds",
    } == line.keys()
    chosen = json.loads((run.path / "metrics.json").read_text())["chosen"]
    best = max(json.loads(text)["metrics"]["ndcg@5"] for text in (run.path / "log.jsonl").read_text().splitlines())
    assert chosen["metrics"]["ndcg@5"] == best


def test_a_missing_extra_is_told_and_leaves_no_run(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'metammf\[tensorboard\]'"):
        train_run(merge("metammf-mf", SMALL), folder, tmp_path / "run", RunOptions(tensorboard=True))
    assert list(tmp_path.iterdir()) == []


# What stands behind a finished run -------------------------------------------------------------------------------

FIXED = {**SMALL, "training.patience": None}


def test_a_refit_is_as_long_as_what_was_chosen(folder, tmp_path):
    settings = {**FIXED, "training.max_steps": 3, "training.batch_size": 10}
    run = train_run(merge("metammf-mf", settings, {"refit": True}), folder, tmp_path / "run")
    with safe_open(run.path / "refit.safetensors", framework="pt") as stream:
        history = json.loads(stream.metadata()["progress"])["history"]
    assert [record["step"] for record in history] == [3]


def test_results_tell_a_refit_and_a_placebo(folder, tmp_path):
    plain = train_run(merge("metammf-mf", FIXED), folder, tmp_path / "plain")
    refit = train_run(merge("metammf-mf", FIXED, {"refit": True, "placebo": "noise"}), folder, tmp_path / "refit")
    assert evaluate_run(plain, ks=(5,)).to_dict()["run"] == {
        "model": "metammf",
        "seed": 0,
        "placebo": None,
        "refit": False,
    }
    told = evaluate_run(refit, ks=(5,))
    assert (told.run["placebo"], told.run["refit"]) == ("noise", True)
    assert "refitted on train and validation" in str(told)
    rows = {Path(row["run"]).name: row for row in list_runs(tmp_path)}
    assert rows["plain"]["test"] is not None
    assert rows["plain"]["refitted"] is None
    assert rows["refit"]["test"] is None
    assert rows["refit"]["refitted"] is not None


def test_an_explanation_reads_the_features_that_the_model_saw(folder, tmp_path):
    run = train_run(merge("metammf-mf", FIXED, {"placebo": "noise", "seed": 3}), folder, tmp_path / "run")
    found = Recommender.load(run.path).item_features()
    expected = load_dataset(folder).features.placebo("noise", 3)
    for name, matrix in expected.matrices.items():
        assert np.array_equal(found.matrices[name], matrix)


@pytest.mark.parametrize("damage", ["other", "gone"])
def test_an_explanation_refuses_features_that_have_changed(folder, tmp_path, damage):
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    run = train_run(merge("metammf-mf", FIXED), data, tmp_path / "run")
    item = Recommender.load(run.path).catalog.item_ids.ids[0]
    assert Recommender.load(run.path).explain(item).height == 2
    path = data / "features" / "visual.npy"
    if damage == "gone":
        path.unlink()
    else:
        np.save(path, np.load(path) + 1)
    with pytest.raises(DataError, match="visual"):
        Recommender.load(run.path).explain(item)


def test_another_precision_is_no_resumption(folder, tmp_path):
    train_run(merge("metammf-mf", FIXED), folder, tmp_path / "run", RunOptions(precision="bfloat16"))
    with pytest.raises(RunError, match="precision was 'bfloat16', is 'float32'"):
        train_run(merge("metammf-mf", FIXED), folder, tmp_path / "run", RunOptions(resume=True))
