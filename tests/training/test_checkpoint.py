"""Going on from a checkpoint as if nothing had happened, and refusing what is no checkpoint of this run."""

from __future__ import annotations

import json
import struct
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from metammf.errors import NonFiniteLossError, RunError
from metammf.models.metammf import MetaMMFConfig
from metammf.models.mf import MFConfig
from metammf.testing.data import taste_groups
from metammf.training.checkpoint import EpochRecord, Progress, load_checkpoint, previous_path, save_checkpoint
from metammf.training.config import TrainingConfig
from metammf.training.fit import build_model, fit
from metammf.training.loop import CheckpointFile, Trainer
from metammf.training.objectives import make_objective

if TYPE_CHECKING:
    from pathlib import Path

    from metammf.recommender import Recommender

DEVELOPMENT = taste_groups(6, cold=1, lacking=True).development
MMF = MetaMMFConfig(
    backbone="graphsage",
    embedding_dim=8,
    hidden_dims=(6,),
    meta_dim=2,
    cp_rank=2,
    fusion_dropout=0.3,
    id_dropout=0.3,
    hidden_dropout=0.4,
)
TRAINING = TrainingConfig(epochs=5, batch_size=100, learning_rate=0.02, evaluate_every=2, patience=2)


class KilledError(Exception):
    """As if the process had been."""


class KillAfter:
    """A listener that ends it all after an epoch, or in the midst of the next."""

    def __init__(self, epoch: int, steps: int = 0) -> None:
        self.epoch, self.steps = epoch, steps

    def on_start(self, epochs: int, steps_per_epoch: int, progress: Progress) -> None:
        self.resumed_at = progress.epoch

    def on_step(self, epoch: int, step: int, loss: float) -> None:
        if self.steps and epoch == self.epoch + 1 and step % 3 == self.steps % 3:
            raise KilledError

    def on_epoch(self, record: EpochRecord) -> None:
        if not self.steps and record.epoch == self.epoch:
            raise KilledError


def run(file: CheckpointFile | None, *listeners: Any, **settings: Any) -> Recommender:
    training = TRAINING.model_copy(update=settings)
    return fit(MMF, DEVELOPMENT, training=training, seed=1, checkpoint=file, listeners=listeners)


def told(recommender: Recommender) -> list[EpochRecord]:
    times = {field.name: None for field in fields(EpochRecord) if "seconds" in field.name}
    return [replace(record, peak_resident_mib=None, **times) for record in recommender.history]


def same(first: Recommender, second: Recommender) -> bool:
    weights = second.model.state_dict()
    return all(torch.equal(value, weights[name]) for name, value in first.model.state_dict().items())


@pytest.fixture
def file(tmp_path: Path) -> CheckpointFile:
    return CheckpointFile(tmp_path / "checkpoint.safetensors", "this run")


@pytest.mark.parametrize(
    ("epoch", "steps", "optimizer"), [(1, 0, "adam"), (2, 2, "adam"), (3, 0, "adamw"), (4, 0, "adam")]
)
def test_resumed_is_bit_equal_with_undisturbed(file: CheckpointFile, epoch: int, steps: int, optimizer: str) -> None:
    undisturbed = run(None, optimizer=optimizer)
    with pytest.raises(KilledError):
        run(file, KillAfter(epoch, steps), optimizer=optimizer)
    torch.rand(3)
    watch = KillAfter(99)
    resumed = run(file, watch, optimizer=optimizer)
    assert watch.resumed_at == epoch
    assert told(resumed) == told(undisturbed)
    assert same(resumed, undisturbed)


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adamw", "weight_decay": 1e-3},
        {"objective": "softmax", "batch_size": 16, "batches_per_step": 2},
        {"max_steps_per_epoch": 3, "l2_reg": 0.1, "gradient_clip": 0.1},
        {"validation_users": 5, "max_steps": 11},
    ],
)
def test_resumed_by_touched_rows_is_bit_equal_too(file: CheckpointFile, settings: dict[str, Any]) -> None:
    model = MMF.model_copy(update={"backbone": "mf"})
    training = TRAINING.model_copy(update={"table_updates": "touched", **settings})

    def run(checkpoint: CheckpointFile | None, *listeners: Any) -> Recommender:
        return fit(model, DEVELOPMENT, training=training, seed=1, checkpoint=checkpoint, listeners=listeners)

    undisturbed = run(None)
    with pytest.raises(KilledError):
        run(file, KillAfter(2))
    resumed = run(file)
    assert told(resumed) == told(undisturbed)
    assert same(resumed, undisturbed)


def test_killed_again_and_again(file: CheckpointFile) -> None:
    undisturbed = run(None, patience=None)
    for epoch in range(1, 5):
        with pytest.raises(KilledError):
            run(file, KillAfter(epoch), patience=None)
    resumed = run(file, patience=None)
    assert told(resumed) == told(undisturbed)
    assert same(resumed, undisturbed)


def test_a_finished_run_is_not_trained_further(file: CheckpointFile) -> None:
    first = run(file)
    before = file.path.read_bytes()
    again = run(file, KillAfter(0, steps=1))  # would end it at a step
    assert same(first, again)
    assert told(first) == told(again)
    assert file.path.read_bytes() == before


def test_no_checkpoint_yet_starts_afresh(file: CheckpointFile) -> None:
    assert not file.path.exists()
    assert same(run(file), run(None))


def test_a_loss_that_is_not_finite_leaves_the_last_checkpoint(file: CheckpointFile) -> None:
    objective, steps = make_objective(TRAINING), [0]

    def failing(model: Any, batch: Any) -> dict[str, torch.Tensor]:
        steps[0] += 1
        return {name: value + (torch.inf if steps[0] == 5 else 0) for name, value in objective(model, batch).items()}

    model = build_model(MMF, DEVELOPMENT, seed=1, device=torch.device("cpu"))
    with pytest.raises(NonFiniteLossError, match="epoch 2, step 5"):
        Trainer(model, failing, DEVELOPMENT, TRAINING, seed=1, checkpoint=file).run()
    saved = load_checkpoint(file.path, file.fingerprint)
    assert saved is not None
    assert saved.progress.epoch == 1
    assert same(run(file), run(None))


def test_the_one_before_alone_is_left_beside_it(file: CheckpointFile) -> None:
    run(file)
    assert {path.name for path in file.path.parent.iterdir()} == {file.path.name, previous_path(file.path).name}
    assert previous_path(file.path).name == "checkpoint.previous.safetensors"


def cut(path: Path, keep: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep) if isinstance(keep, float) else keep])


def flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 4
    path.write_bytes(content)


DAMAGE = [
    *((cut, keep) for keep in (0, 4, 100, 0.5, -1)),
    *((flip, place) for place in (0.0, 0.001, 0.05, 0.2, 0.5, 0.9, 1.0)),
]


@pytest.mark.parametrize(("damage", "where"), DAMAGE)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    file: CheckpointFile, caplog: pytest.LogCaptureFixture, damage: Any, where: float
) -> None:
    with pytest.raises(KilledError):
        run(file, KillAfter(3))
    damage(file.path, where)
    watch = KillAfter(99)
    resumed = run(file, watch)
    assert watch.resumed_at == 2
    assert "going on from the one before, the end of epoch 2" in caplog.text
    assert same(resumed, run(None))


@pytest.mark.parametrize(("damage", "where"), DAMAGE)
def test_where_both_are_damaged_the_message_says_what_to_do(file: CheckpointFile, damage: Any, where: float) -> None:
    run(file)
    for path in (file.path, previous_path(file.path)):
        damage(path, where)
    with pytest.raises(RunError, match=r"checkpoint is damaged .*; train into a new folder"):
        run(file)


def test_killed_between_the_two_moves(file: CheckpointFile, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KilledError):
        run(file, KillAfter(3))
    file.path.replace(previous_path(file.path))
    watch = KillAfter(99)
    assert same(run(file, watch), run(None))
    assert watch.resumed_at == 3
    assert "the checkpoint is missing" in caplog.text


def test_a_damaged_one_never_takes_the_place_of_the_one_before(file: CheckpointFile) -> None:
    with pytest.raises(KilledError):
        run(file, KillAfter(3))
    good = previous_path(file.path).read_bytes()
    cut(file.path, 0.5)
    with pytest.raises(KilledError):
        run(file, KillAfter(2, steps=1))  # resumed at 2, killed before its end
    assert not file.path.exists()
    assert previous_path(file.path).read_bytes() == good


def test_saving_takes_no_second_copy_in_memory(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    state = {"table": torch.ones(16 << 20)}  # 64 MiB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    save_checkpoint(tmp_path / "c.safetensors", "f", Progress(), state, {}, {"state": {}, "param_groups": []})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10


def with_header(path: Path, change: Any) -> None:
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    change(header["__metadata__"])
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.update(progress="{"),
        lambda header: header.update(progress='{"history": [{"epoch": 1}]}'),
        lambda header: header.update(progress="[]"),
        lambda header: header.pop("progress"),
        lambda header: header.pop("fingerprint"),
        lambda header: header.pop("param_groups"),
        lambda header: header.update(param_groups="[]"),
    ],
)
def test_a_header_that_was_tampered_with(file: CheckpointFile, change: Any) -> None:
    run(file)
    previous_path(file.path).unlink()
    with_header(file.path, change)
    with pytest.raises(RunError, match="checkpoint"):
        run(file)


def test_a_checkpoint_of_another_version_is_named_and_left_alone(file: CheckpointFile) -> None:
    run(file)
    with_header(file.path, lambda header: header.update(format="metammf-checkpoint-99"))
    with pytest.raises(RunError, match="is of the form metammf-checkpoint-99, of another version"):
        run(file)
    assert file.path.exists()


def test_foreign_files(file: CheckpointFile, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, file.path)
    with pytest.raises(RunError, match="expected a checkpoint of the form"):
        run(file)
    file.path.write_bytes(b"PK\x03\x04 not this")
    with pytest.raises(RunError, match="damaged"):
        run(file)
    file.path.unlink()
    file.path.mkdir()
    with pytest.raises(RunError, match="damaged"):
        run(file)


def test_another_config_is_refused(file: CheckpointFile) -> None:
    run(file)
    with pytest.raises(RunError, match="another config, seed or data set"):
        run(CheckpointFile(file.path, "another run"))


def test_another_model_under_the_same_name_is_refused(file: CheckpointFile) -> None:
    run(file)
    with pytest.raises(RunError, match="checkpoint"):
        fit(MFConfig(embedding_dim=8), DEVELOPMENT, training=TRAINING, seed=1, checkpoint=file)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    record = EpochRecord(1, 10, {"bpr": 0.5, "l2": 0.25}, {"recall@20": 0.1}, 1.5, 0.5, best=True)
    assert record.loss == 0.75
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    path = tmp_path / "sub" / "checkpoint.safetensors"
    save_checkpoint(path, "f", Progress([record], 0.1, 1), layer.state_dict(), {}, optimizer.state_dict())
    found = load_checkpoint(path, "f")
    assert found is not None
    assert found.progress == Progress([record], 0.1, 1, finished=False)
    assert (found.progress.epoch, found.progress.step) == (1, 10)
    assert not found.best
    assert torch.equal(found.model["weight"], layer.weight)
    for index, state in optimizer.state_dict()["state"].items():
        assert all(torch.equal(found.optimizer["state"][index][name], value) for name, value in state.items())
    assert Progress().best == float("-inf")
    assert Progress().epoch == 0
