"""Checkpoints: one safetensors file, written atomically, with all that is needed to go on as if nothing had happened.

Everything that is drawn at random in an epoch comes from a generator seeded by (seed, epoch), so that the end of an epoch
needs no generator state to be kept.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from metammf.errors import RunError
from metammf.files import atomic_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

FORMAT = "metammf-checkpoint-1"


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
    """

    epoch: int
    step: int
    terms: Mapping[str, float]
    metrics: Mapping[str, float]
    seconds: float
    evaluation_seconds: float
    best: bool
    peak_resident_mib: float | None = None

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
    """Write all of it to `path`, atomically.

    Args:
        path: The file.
        fingerprint: Names config, data and seed; loading under another is refused.
        progress: Where training stands.
        model: The model's state.
        best: The state of the best epoch; may be empty.
        optimizer: The optimizer's state dict.

    Raises:
        RunError: the file cannot be written.
    """
    tensors = {f"model/{name}": value for name, value in model.items()}
    tensors |= {f"best/{name}": value for name, value in best.items()}
    for index, state in optimizer["state"].items():
        tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in state.items()}
    header = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "progress": json.dumps(asdict(progress)),
        "param_groups": json.dumps(optimizer["param_groups"]),
    }
    try:
        with atomic_path(path) as part:
            save_file(
                {name: value.detach().cpu().contiguous() for name, value in tensors.items()}, part, metadata=header
            )
    except SafetensorError as error:  # a full disk, for one
        raise RunError(f"{path}: cannot be written ({error})") from error


@dataclass(frozen=True)
class Checkpoint:
    """What `save_checkpoint` wrote."""

    progress: Progress
    model: Mapping[str, Tensor]
    best: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]


def load_checkpoint(path: Path, fingerprint: str) -> Checkpoint:
    """Read a checkpoint back.

    Raises:
        RunError: the file is damaged, or was written under another config, seed or data.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            header = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: the checkpoint is damaged ({error}); train into a new folder") from error
    if header.get("format") != FORMAT:
        raise RunError(f"{path}: expected a checkpoint of the form {FORMAT}, got {header.get('format')!r}")
    try:
        written, saved = header["fingerprint"], _parsed(header, tensors)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{path}: the checkpoint is damaged ({error!r}); train into a new folder") from error
    if written != fingerprint:
        raise RunError(
            f"{path}: the checkpoint was written under another config, seed or data set; resume with the same, or train"
            " into a new folder"
        )
    return saved


def _parsed(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Checkpoint:
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
