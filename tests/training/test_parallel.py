"""Two processes on loopback against one."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from metammf.errors import ConfigError, RunError, TrainingError
from metammf.files import read_json, write_json
from metammf.models.lightgcn import LightGCNConfig
from metammf.models.mf import MFConfig
from metammf.testing.data import taste_groups
from metammf.training.config import TrainingConfig
from metammf.training.fit import build_model, fit
from metammf.training.loop import CheckpointFile
from metammf.training.objectives import draw_batch, make_objective
from metammf.training.parallel import Parallel, collective, joined
from metammf.training.sampling import NegativeSampler
from metammf.training.sharded_checkpoint import has_shards, load_shards
from metammf.training.sharding import ShardedTable, sharded

WORKER = Path(__file__).with_name("parallel_worker.py")
WORK = runpy.run_path(str(WORKER))
SPLIT = taste_groups()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Folders of what one process and what two have learned."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    threads = torch.get_num_threads()
    WORK["main"](one)
    torch.set_num_threads(threads)
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = subprocess.run([*launcher, str(WORKER), str(two)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return one, two


@pytest.mark.slow
@pytest.mark.parametrize("name", WORK["SETTINGS"])
def test_two_processes_learn_what_one_does(outcomes, name):
    """Weights, losses and metrics of every epoch; the two hold the same bits."""
    expected = load_file(outcomes[0] / f"{name}-0.safetensors")
    first, second = (load_file(outcomes[1] / f"{name}-{rank}.safetensors") for rank in range(2))
    assert_close(first, expected)
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


@pytest.mark.slow
@pytest.mark.parametrize("name", WORK["SHARDED"])
def test_sharded_tables_learn_the_same(outcomes, name):
    """Broken off after two epochs and gone on with by two processes."""
    expected = load_file(outcomes[0] / f"{name}-0.safetensors")
    for rank in range(2):
        assert_close(load_file(outcomes[1] / f"{name}-sharded-{rank}.safetensors"), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", WORK["SHARDED"])
def test_one_process_goes_on_from_what_two_have_sharded(outcomes, tmp_path, name):
    """And the shards make place for its own checkpoint."""
    folder = shutil.copytree(outcomes[1] / name, tmp_path / "run")
    checkpoint = CheckpointFile(folder / "checkpoint.safetensors", "print")
    assert len(list(folder.rglob("*.safetensors"))) == 2
    found = WORK["learn"](name, Parallel(), checkpoint=checkpoint)
    assert_close(found, load_file(outcomes[0] / f"{name}-0.safetensors"))
    # One that ends after a single epoch more has none before.
    assert {path.name for path in folder.iterdir()} - {"checkpoint.previous.safetensors"} == {"checkpoint.safetensors"}


@pytest.mark.slow
def test_shards_are_gone_on_from_beside_a_damaged_file(outcomes, tmp_path, caplog):
    """As a kill leaves them between the writing of shards and the removal of the file that they replace."""
    folder = shutil.copytree(outcomes[1] / "mf-dense", tmp_path / "run")
    checkpoint = CheckpointFile(folder / "checkpoint.safetensors", "print")
    for name in ("checkpoint.safetensors", "checkpoint.previous.safetensors"):
        (folder / name).write_bytes(b"cut")
    found = WORK["learn"]("mf-dense", Parallel(), checkpoint=checkpoint)
    assert_close(found, load_file(outcomes[0] / "mf-dense-0.safetensors"))
    assert "no good checkpoint is left" in caplog.text
    assert "the end of epoch 2 is gone on from" in caplog.text


@pytest.mark.slow
def test_shards_tell_whose_they_are(outcomes, tmp_path):
    path = shutil.copytree(outcomes[1] / "mf-dense", tmp_path / "run") / "checkpoint.safetensors"
    assert has_shards(path, "print")
    assert not has_shards(path, "another")
    assert not has_shards(tmp_path / "checkpoint.safetensors", "print")
    sorted(path.parent.rglob("*.safetensors"))[0].write_bytes(b"cut")
    assert not has_shards(path, "print")


@pytest.mark.slow
def test_shards_take_the_place_of_both_files(outcomes):
    """Broken off with whole tables, gone on with by sharded ones."""
    assert {path.name for path in (outcomes[1] / "mf-dense.changed").glob("*.safetensors")} == set()


@pytest.mark.slow
def test_damaged_shards_are_told(outcomes, tmp_path):
    for number, (words, told) in enumerate(
        (
            ({"fingerprint": "another"}, "another config, seed or data set"),
            ({"format": "another"}, "expected the form"),
            ({"progress": {}}, "damaged"),
            ({"folder": "nowhere"}, "damaged"),
        )
    ):
        folder = shutil.copytree(outcomes[1] / "mf-dense", tmp_path / str(number))
        header = folder / "checkpoint.shards.json"
        write_json(header, read_json(header) | words)
        with pytest.raises(RunError, match=told):
            load_shards(folder / "checkpoint.safetensors", "print")
    folder = shutil.copytree(outcomes[1] / "mf-dense", tmp_path / "damaged")
    shard = sorted(folder.rglob("*.safetensors"))[0]
    for content in (shard.read_bytes()[:200], b"\xff" * shard.stat().st_size):
        shard.write_bytes(content)
        with pytest.raises(RunError, match="damaged"):
            load_shards(folder / "checkpoint.safetensors", "print")
    shard.unlink()
    with pytest.raises(RunError, match="not those that were written"):
        load_shards(folder / "checkpoint.safetensors", "print")


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-4, msg=lambda told, key=key: f"{key}: {told}")


@pytest.mark.parametrize("size", [2, 3, 7])
def test_shares_make_up_the_batch(size):
    users = torch.tensor([3, 1, 3, 0, 2])
    shares = [Parallel(rank, size).share(users) for rank in range(size)]
    counted = [mine for mine, part in shares if part]
    assert sorted(torch.cat(counted).tolist()) == [0, 1, 2, 3, 4]
    assert sum(part for _, part in shares) == pytest.approx(1)
    assert all(len(mine) for mine, _ in shares)
    if size == 2:  # whole users as far as may be
        assert [users[mine].tolist() for mine, _ in shares] == [[0, 1, 2], [3, 3]]


@pytest.mark.parametrize("objective", ["bpr", "bce", "softmax"])
@pytest.mark.parametrize("size", [2, 5, 9])
def test_gradients_of_the_shares_add_up(objective, size):
    """To those of the whole batch: penalty on shared negatives, and processes for which nothing is left, included."""
    config = TrainingConfig(objective=objective, l2_reg=0.1, shared_negatives=6, num_negatives=2)
    users, items = (torch.from_numpy(side[:8].astype(np.int64)) for side in (SPLIT.train.users, SPLIT.train.items))
    sampler = NegativeSampler(SPLIT.train)
    gradients = []
    for team in ([Parallel()], [Parallel(rank, size) for rank in range(size)]):
        model = build_model(MFConfig(embedding_dim=4), SPLIT.development, seed=0, device=torch.device("cpu"))
        for process in team:
            batch = draw_batch(users, items, sampler, config, torch.Generator().manual_seed(1), process)
            loss = sum(make_objective(config)(model, batch).values())
            (loss if batch.part is None else batch.part * loss).backward()
        gradients.append({name: value.grad for name, value in model.named_parameters()})
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected)


def test_alone_there_is_nobody_to_talk_to():
    alone = Parallel()
    weights = torch.nn.Parameter(torch.ones(2))
    weights.grad = torch.ones(2)
    alone.agree([weights])
    alone.agree_on_draws(torch.device("cpu"))
    alone.add_gradients([weights])
    assert alone.leads
    assert alone.share(torch.arange(3)) == (None, None)
    assert alone.tell({"a": 1}) == {"a": 1}
    assert alone.total({"loss": 2.0}, torch.device("cpu")) == {"loss": 2.0}
    assert torch.equal(weights.grad, torch.ones(2))
    with joined("cpu") as (parallel, device):
        assert (parallel, device) == (Parallel(), "cpu")


def test_one_card_for_several_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="a card each"), joined("cuda:0"):
        pass


def test_a_process_without_a_card_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(ConfigError, match="process 1 of this machine has no card: there are 1"), joined("cuda"):
        pass


def test_processes_that_cannot_be_reached(monkeypatch):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "none")):
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError, match="cannot reach each other"), joined("cpu"):
        pass


def test_tables_that_are_propagated_cannot_be_sharded():
    with pytest.raises(ConfigError, match="backbone propagates them whole"):
        fit(LightGCNConfig(embedding_dim=4), SPLIT.development, parallel=Parallel(0, 2), shard=True)


def test_alone_nothing_is_sharded():
    training = TrainingConfig(epochs=1)
    recommender = fit(MFConfig(embedding_dim=4), SPLIT.development, training=training, shard=True)
    assert not sharded(recommender.model)


@pytest.mark.parametrize(("rows", "size"), [(5, 2), (6, 3), (3, 4)])
def test_rows_are_divided_as_a_dtensor_divides_them(rows, size):
    table = torch.nn.Embedding(rows, 2)
    shards = [ShardedTable(table, Parallel(rank, size)) for rank in range(size)]
    assert torch.equal(torch.cat([shard.weight for shard in shards]), table.weight)
    expected = [len(chunk) for chunk in torch.chunk(table.weight, size)]
    assert [len(shard.weight) for shard in shards][: len(expected)] == expected
    assert all(torch.equal(shard.shard(table.weight), shard.weight) for shard in shards)
    # A slice would keep the whole table in memory, for as long as its rows are trained.
    assert all(shard.shard(table.weight).untyped_storage().nbytes() == len(shard.weight) * 2 * 4 for shard in shards)


def test_an_exchange_that_fails_is_told_as_the_end_of_another():
    with pytest.raises(TrainingError, match="another process of this training has ended"), collective():
        raise RuntimeError("Connection closed by peer")


def test_an_objective_of_a_papers_own_is_refused(monkeypatch):
    monkeypatch.setattr("metammf.models.mf.MF.objective", lambda *_: lambda _model, _batch: {})
    with pytest.raises(ConfigError, match="objective of its own"):
        fit(MFConfig(embedding_dim=4), SPLIT.development, parallel=Parallel(0, 2))
