"""Who is told how training goes: a JSONL file, TensorBoard."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from metammf.errors import MissingExtraError
from metammf.files import atomic_open

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from metammf.training.checkpoint import EpochRecord, Progress


class JsonlLog:
    """One JSON object a line, an epoch each; always as long as the checkpoint's history.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records: list[EpochRecord] = []

    def on_start(self, epochs: int, steps_per_epoch: int, progress: Progress) -> None:
        """Write what is behind us, so that a resumed run has no line twice."""
        self._records = list(progress.history)
        self._write(self._records)

    def on_step(self, epoch: int, step: int, loss: float) -> None:
        """Nothing is written for a step."""

    def on_epoch(self, record: EpochRecord) -> None:
        """Add a line."""
        self._records.append(record)
        with self.path.open("a", encoding="utf-8", newline="\n") as stream:
            stream.write(json.dumps(_line(record)) + "\n")

    def _write(self, records: Iterable[EpochRecord]) -> None:
        with atomic_open(self.path) as stream:
            for record in records:
                stream.write(json.dumps(_line(record)) + "\n")


def _line(record: EpochRecord) -> dict[str, Any]:
    return asdict(record) | {"loss": record.loss}


class TensorBoardLog:
    """Scalars for TensorBoard (extra ``tensorboard``).

    Args:
        folder: Where the event files go.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("tensorboard", "tensorboard", "a log for TensorBoard") from error
        self._writer = SummaryWriter(str(folder))

    def on_start(self, epochs: int, steps_per_epoch: int, progress: Progress) -> None:
        """Nothing to do: event files are only added to."""

    def on_step(self, epoch: int, step: int, loss: float) -> None:
        """Add the loss of a step."""
        self._writer.add_scalar("loss/step", loss, step)

    def on_epoch(self, record: EpochRecord) -> None:
        """Add the epoch's loss, its terms and the metrics."""
        scalars = {"loss/epoch": record.loss} | {f"loss/{name}": value for name, value in record.terms.items()}
        scalars |= {f"validation/{name}": value for name, value in record.metrics.items()}
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, record.epoch)
        self._writer.flush()
