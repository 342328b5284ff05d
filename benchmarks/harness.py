"""What the benchmarks share: medians of interleaved runs, ratios between them, peak memory, one JSON form.

Times of another machine are other times; the ratios of one run are what to keep. Nothing here is asserted in tests.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Timing:
    """One way to do the work.

    Args:
        name: The way.
        seconds: Median wall-clock time of a run.
        spread: Slowest run over fastest.
        per_second: Units of work a second, at the median.
        ratio: `per_second` over that of the way all are compared with.
        peak_mib: Rise of resident memory while it runs, or None where not measured.
    """

    name: str
    seconds: float
    spread: float
    per_second: float
    ratio: float
    peak_mib: float | None = None


def measure(
    ways: Mapping[str, Callable[[], object]],
    *,
    against: str,
    units: float | Mapping[str, float] = 1.0,
    repeats: int = 5,
    peaks: Mapping[str, float] | None = None,
) -> list[Timing]:
    """Run each way once to warm up, then all in turn `repeats` times, so that a busy machine slows all alike.

    Args:
        ways: Name -> what to run.
        against: The way whose rate is 1.
        units: Work done by one run, of all or of each.
        repeats: Runs of each way that count.
        peaks: MiB by way, from `peak_memory`.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, run in ways.items():
            start = perf_counter()
            run()
            if turn:
                times[name].append(perf_counter() - start)
    work = dict.fromkeys(ways, units) if isinstance(units, int | float) else units
    rates = {name: work[name] / statistics.median(times[name]) for name in ways}
    return [
        Timing(
            name,
            statistics.median(times[name]),
            max(times[name]) / min(times[name]),
            rates[name],
            rates[name] / rates[against],
            (peaks or {}).get(name),
        )
        for name in ways
    ]


def peak_memory(prepare: Callable[..., Callable[[], object]], *args: object) -> float:
    """Return by how many MiB resident memory rises at most while ``prepare(*args)()`` runs, in a process of its own.

    `prepare`, a function of a module, builds the inputs; they do not count. Linux alone.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_peak, args=(theirs, prepare, args))
    child.start()
    theirs.close()
    try:
        return float(ours.recv())
    finally:
        child.join()


def _peak(pipe: Any, prepare: Callable[..., Callable[[], object]], args: tuple[object, ...]) -> None:
    run = prepare(*args)
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark to what is resident now
    before = _status("VmRSS")
    run()
    pipe.send((_status("VmHWM") - before) / 1024)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def table(timings: list[Timing], unit: str = "runs") -> str:
    """Set timings in lines."""
    width = max(len(timing.name) for timing in timings)
    lines = [f"{'':<{width}}  {'median s':>9}  {'max/min':>7}  {unit + '/s':>12}  {'ratio':>7}  {'peak MiB':>9}"]
    for timing in timings:
        peak = "" if timing.peak_mib is None else f"{timing.peak_mib:,.0f}"
        lines.append(
            f"{timing.name:<{width}}  {timing.seconds:>9.4f}  {timing.spread:>7.2f}  {timing.per_second:>12,.0f}"
            f"  {timing.ratio:>7.2f}  {peak:>9}"
        )
    return "\n".join(lines)


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with what every benchmark takes: ``--threads``, ``--repeats``, ``--json``."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    options.add_argument("--repeats", type=int, default=5, help="runs of each way that count")
    options.add_argument("--json", type=Path, help="write the figures here")
    return options


def report(options: argparse.Namespace, timings: list[Timing], *, unit: str = "runs", **settings: object) -> None:
    """Print the figures, and write them where ``--json`` says."""
    print(table(timings, unit))
    if options.json:
        found = {
            "settings": settings | {"repeats": options.repeats, "threads": torch.get_num_threads()},
            "machine": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform()},
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
            "timings": [asdict(timing) for timing in timings],
        }
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
