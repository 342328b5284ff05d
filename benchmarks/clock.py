"""What training took, told by a listener of the training loop."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from harness import Peak, Row
    from metammf.training.checkpoint import EpochRecord, Progress


@dataclass(frozen=True)
class Run:
    """What training took.

    Args:
        step_s: Median seconds of a step.
        step_cpu_s: Processor seconds of a step, the mean.
        epoch_s: Seconds of an epoch.
        epoch_cpu_s: Processor seconds of an epoch.
        peak: Memory.
        losses: Of each step.
    """

    step_s: float
    step_cpu_s: float
    epoch_s: float
    epoch_cpu_s: float
    peak: Peak
    losses: list[float]

    def row(self, way: str, precision: str) -> Row:
        """Return it as a row of a table."""
        return {
            "way": way,
            "precision": precision,
            "s/step": self.step_s,
            "CPU s/step": self.step_cpu_s,
            "s/epoch": self.epoch_s,
            "CPU s/epoch": self.epoch_cpu_s,
            "rise MiB": self.peak.rise_mib,
            "peak MiB": self.peak.resident_mib,
        }


class Clock:
    """A listener that notes the time of each step."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.rest = (0.0, 0.0)

    def tick(self) -> None:
        """Note."""
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())

    def on_start(self, epochs: int, steps_per_epoch: int, progress: Progress) -> None:
        """The first step begins here."""
        self.tick()

    def on_step(self, epoch: int, step: int, loss: float) -> None:
        """A step was taken."""
        self.tick()

    def on_epoch(self, record: EpochRecord) -> None:
        """The epoch ends here: what comes behind its last step is done once an epoch."""
        self.rest = (time.perf_counter() - self.wall[-1], time.process_time() - self.cpu[-1])

    def run(self, steps_per_epoch: int, peak: Peak, losses: list[float]) -> Run:
        """Sum up; an epoch that was cut short is extended by its mean step, the first, which warms up, left out."""
        wall, cpu = (np.diff(times) for times in (self.wall, self.cpu))
        warm = slice(1, None) if len(wall) > 1 else slice(None)
        whole = len(wall) == steps_per_epoch
        epochs = [
            float(times.sum() if whole else times[warm].mean() * steps_per_epoch) + rest
            for times, rest in zip((wall, cpu), self.rest, strict=True)
        ]
        return Run(float(np.median(wall[warm])), float(cpu[warm].mean()), epochs[0], epochs[1], peak, losses)
