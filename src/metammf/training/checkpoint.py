"""Checkpoints: one safetensors file, written atomically, with all that is needed to go on as if nothing had happened.

The checkpoint before stays beside it as ``NAME.previous.safetensors``. A checksum over header and tensors finds a damaged
one, and training goes on from the one before then. On the disk that takes three checkpoints while the newest is
written, two between. In memory it takes nothing for tensors of the processor, and a copy of the state for those of a GPU.

Everything that is drawn at random in an epoch comes from a generator seeded by (seed, epoch), so that the end of an epoch
needs no generator state to be kept.
"""

from __future__ import annotations

import json
import logging
import zlib
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from metammf.errors import RunError, WriteError
from metammf.files import atomic_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

FORMAT = "metammf-checkpoint-2"

log = logging.getLogger(__name__)


def previous_path(path: Path) -> Path:
    """Return where the checkpoint before that at `path` is kept."""
    return path.with_suffix(f".previous{path.suffix}")


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch did.

    Args:
        epoch: From 1.
        step: Steps taken since the start.
        terms: Mean of each term of the loss over the epoch.
        metrics: Validation metrics; empty where validation was not looked at.
        seconds: Training alone.
        evaluation_seconds: Looking at validation.
        best: Whether this is the best epoch so far.
        peak_resident_mib: The most memory that the process had held by its end; None where the system does not tell.
        processor_seconds: Processor time of training alone, of all threads; None where it was not measured yet.
        evaluation_processor_seconds: The same of looking at validation.
    """

    epoch: int
    step: int
    terms: Mapping[str, float]
    metrics: Mapping[str, float]
    seconds: float
    evaluation_seconds: float
    best: bool
    peak_resident_mib: float | None = None
    processor_seconds: float | None = None
    evaluation_processor_seconds: float | None = None

    @property
    def loss(self) -> float:
        """The sum of the terms."""
        return sum(self.terms.values())


@dataclass
class Progress:
    """Where training stands.

    Args:
        history: One record an epoch.
        best: Validation metric of the best epoch.
        best_epoch: From 1; 0 before the first look at validation.
        finished: Whether training has come to its end.
    """

    history: list[EpochRecord] = field(default_factory=list)
    best: float = float("-inf")
    best_epoch: int = 0
    finished: bool = False

    @property
    def epoch(self) -> int:
        """Epochs behind us."""
        return self.history[-1].epoch if self.history else 0

    @property
    def step(self) -> int:
        """Steps behind us."""
        return self.history[-1].step if self.history else 0


def save_checkpoint(
    path: Path,
    fingerprint: str,
    progress: Progress,
    model: Mapping[str, Tensor],
    best: Mapping[str, Tensor],
    optimizer: Mapping[str, Any],
) -> None:
    """Write all of it to `path`, atomically; what was there goes to `previous_path`.

    Args:
        path: The file.
        fingerprint: Names config, data and seed; loading under another is refused.
        progress: Where training stands.
        model: The model's state.
        best: The state of the best epoch; may be empty.
        optimizer: The optimizer's state dict.

    Raises:
        WriteError: the file cannot be written; the old one stays.
    """
    tensors = flattened(model, best, optimizer)
    header = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "progress": json.dumps(asdict(progress)),
        "param_groups": json.dumps(optimizer["param_groups"]),
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    header["crc32"] = _checksum(header, tensors)
    try:
        with atomic_path(path, previous=previous_path(path)) as part:
            save_file(tensors, part, metadata=header)
    except SafetensorError as error:  # a full disk, for one
        raise WriteError(path, error) from error


def _checksum(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Return the CRC-32 of all that a checkpoint says, as eight hexadecimal digits: cheap beside writing it."""
    found = 0
    for key, text in sorted(header.items()):
        if key != "crc32":
            found = zlib.crc32(f"{key}={text};".encode(), found)
    for name, value in sorted(tensors.items()):
        found = zlib.crc32(f"{name} {value.dtype} {tuple(value.shape)};".encode(), found)
        if value.numel():
            found = zlib.crc32(value.reshape(-1).view(torch.uint8).numpy().data, found)
    return f"{found:08x}"


def flattened(
    model: Mapping[str, Tensor], best: Mapping[str, Tensor], optimizer: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Return all tensors of a checkpoint, each by a name of its own."""
    tensors = {f"model/{name}": value for name, value in model.items()}
    tensors |= {f"best/{name}": value for name, value in best.items()}
    for index, state in optimizer["state"].items():
        tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in state.items()}
    return tensors


@dataclass(frozen=True)
class Checkpoint:
    """What `save_checkpoint` wrote."""

    progress: Progress
    model: Mapping[str, Tensor]
    best: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]


class _DamagedError(Exception):
    """The file is no whole checkpoint."""


def load_checkpoint(path: Path, fingerprint: str) -> Checkpoint | None:
    """Read the last good checkpoint: that at `path`, or the one before where that is damaged or missing.

    A damaged one is removed once the one before has been read, so that it can never take that one's place.

    Returns:
        The checkpoint; None where there is none at all.

    Raises:
        RunError: there is no good one, or it was written under another config, seed or data.
    """
    before = previous_path(path)
    problem = "the checkpoint is missing"
    if path.exists():
        try:
            return _of_this_run(_read(path), path, fingerprint)
        except _DamagedError as error:
            problem = f"the checkpoint is damaged ({error})"
    elif not before.exists():
        return None
    try:
        saved = _of_this_run(_read(before), before, fingerprint)
    except _DamagedError as error:
        raise RunError(
            f"{path}: no good checkpoint is left to go on from: {problem}; the one before: {error}; train into a new folder"
        ) from error
    path.unlink(missing_ok=True)
    log.warning("%s: %s; going on from the one before, the end of epoch %d", path, problem, saved.progress.epoch)
    return saved


def has_checkpoint(path: Path, fingerprint: str) -> bool:
    """Whether there is a good checkpoint of this run at `path`, or before it."""
    for file in (path, previous_path(path)):
        try:
            if _read(file)[0] == fingerprint:
                return True
        except _DamagedError:
            continue
    return False


def remove_previous(path: Path) -> None:
    """Remove the checkpoint before: training is over, and nothing will go wrong with the last."""
    previous_path(path).unlink(missing_ok=True)


def _of_this_run(read: tuple[str, Checkpoint], path: Path, fingerprint: str) -> Checkpoint:
    written, saved = read
    if written != fingerprint:
        raise RunError(
            f"{path}: the checkpoint was written under another config, seed or data set; resume with the same, or train"
            " into a new folder"
        )
    return saved


def _read(path: Path) -> tuple[str, Checkpoint]:
    """Return the fingerprint of a checkpoint, and what it holds, in memory of its own."""
    try:
        with safe_open(path, framework="pt") as stream:
            header = stream.metadata() or {}
            if header.get("format") != FORMAT:
                _refuse_form(path, header.get("format"))
            tensors = {name: stream.get_tensor(name).clone() for name in stream.keys()}  # noqa: SIM118 - not a mapping
        if header.get("crc32") != _checksum(header, tensors):
            raise _DamagedError("its checksum does not fit its content")
        return header["fingerprint"], parsed(header, tensors)
    except (SafetensorError, OSError) as error:
        raise _DamagedError(str(error)) from error
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, RecursionError) as error:
        raise _DamagedError(repr(error)) from error


def _refuse_form(path: Path, form: str | None) -> NoReturn:
    if form is not None and form.startswith(FORMAT.rpartition("-")[0]):
        raise RunError(f"{path}: is of the form {form}, of another version of metammf; this one goes on from {FORMAT}")
    raise _DamagedError(f"expected a checkpoint of the form {FORMAT}, got {form!r}")


def parsed(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Checkpoint:
    """Return what a checkpoint's header and its tensors, as `flattened` named them, say."""
    progress = json.loads(header["progress"])
    progress["history"] = [EpochRecord(**record) for record in progress["history"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "optimizer":
            index, _, key = rest.partition("/")
            state.setdefault(int(index), {})[key] = value
    return Checkpoint(
        progress=Progress(**progress),
        model=_under("model/", tensors),
        best=_under("best/", tensors),
        optimizer={"state": state, "param_groups": json.loads(header["param_groups"])},
    )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
