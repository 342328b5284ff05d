"""What the benchmarks share: medians of interleaved runs, ratios between them, peak memory, one JSON form.

Times of another machine are other times; the ratios of one run are what to keep. Nothing here is asserted in tests.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import shlex
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
import torch

from metammf.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from multiprocessing.connection import Connection

ABSENT = 77
"""Exit code of a benchmark that had nothing to run on."""
PLACES = ("--json", "--envs", "--folder")
"""Options that say where things lie on this machine, which is nobody's matter."""
Given = ParamSpec("Given")
Found = TypeVar("Found")
Cell = str | float | None
Row = dict[str, Cell]


class Absent(Exception):  # noqa: N818  # no error: what it says is what the benchmark has to say
    """What a benchmark needs is not on this machine."""


@dataclass(frozen=True)
class Peak:
    """The most memory that a process of its own held.

    Args:
        rise_mib: Above what was resident before the work began.
        resident_mib: In all, the interpreter and its libraries included (VmHWM).
    """

    rise_mib: float
    resident_mib: float


@dataclass(frozen=True)
class Timing:
    """One way to do the work.

    Args:
        name: The way.
        seconds: Median wall-clock time of a run.
        spread: Slowest run over fastest.
        per_second: Units of work a second, at the median.
        ratio: `per_second` over that of the way all are compared with.
        peak: Memory while it runs, or None where not measured.
    """

    name: str
    seconds: float
    spread: float
    per_second: float
    ratio: float
    peak: Peak | None = None

    def row(self, unit: str) -> Row:
        """Return it as a row of a table."""
        memory = {} if self.peak is None else asdict(self.peak)
        return {
            "way": self.name,
            "median s": self.seconds,
            "max/min": self.spread,
            f"{unit}/s": self.per_second,
            "ratio": self.ratio,
            "rise MiB": memory.get("rise_mib"),
            "peak MiB": memory.get("resident_mib"),
        }


@dataclass(frozen=True)
class Table:
    """Figures under one title.

    Args:
        title: What they are of.
        rows: Column -> value; the columns of the first row, units in their names.
        notes: Sentences to stand under it.
    """

    title: str
    rows: Sequence[Mapping[str, Cell]]
    notes: Sequence[str] = ()


def measure(
    ways: Mapping[str, Callable[[], object]],
    *,
    against: str,
    units: float | Mapping[str, float] = 1.0,
    repeats: int = 5,
    peaks: Mapping[str, Peak] | None = None,
) -> list[Timing]:
    """Run each way once to warm up, then all in turn `repeats` times, so that a busy machine slows all alike.

    Args:
        ways: Name -> what to run.
        against: The way whose rate is 1.
        units: Work done by one run, of all or of each.
        repeats: Runs of each way that count.
        peaks: Memory by way, from `peak_memory`.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, run in ways.items():
            start = perf_counter()
            run()
            if turn:
                times[name].append(perf_counter() - start)
    return timings(times, against=against, units=units, peaks=peaks)


def timings(
    times: Mapping[str, Sequence[float]],
    *,
    against: str,
    units: float | Mapping[str, float] = 1.0,
    peaks: Mapping[str, Peak] | None = None,
) -> list[Timing]:
    """Take medians of seconds measured by way; see `measure`."""
    work = dict.fromkeys(times, units) if isinstance(units, int | float) else units
    rates = {name: work[name] / statistics.median(seconds) for name, seconds in times.items()}
    return [
        Timing(
            name,
            statistics.median(seconds),
            max(seconds) / min(seconds),
            rates[name],
            rates[name] / rates[against],
            (peaks or {}).get(name),
        )
        for name, seconds in times.items()
    ]


def run_or_say(measured: Callable[[], None]) -> None:
    """Run a benchmark; where what it needs is absent, say so and leave with the code that `run_all.py` knows."""
    try:
        measured()
    except Absent as absent:
        print(f"not run: {absent}")
        sys.exit(ABSENT)


def backward(loss: torch.Tensor) -> None:
    """Run the backward pass."""
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped


def alone(work: Callable[Given, Found], *args: Given.args, **options: Given.kwargs) -> Found:
    """Return ``work(*args)``, done in a process of its own; `work` is a function of a module.

    Raises:
        RuntimeError: the process raised, or died without a word (as one that is killed for its memory does).
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_send, args=(theirs, work, args, options))
    child.start()
    theirs.close()
    try:
        found, trouble = ours.recv()
    except EOFError:
        child.join()
        raise RuntimeError(f"{work.__name__}: the process ended with {child.exitcode} and no result") from None
    child.join()
    if trouble is not None:
        raise RuntimeError(f"{work.__name__}: {trouble}")
    return found


def _send(pipe: Connection, work: Callable[..., object], args: tuple[object, ...], options: dict[str, Any]) -> None:
    try:
        pipe.send((work(*args, **options), None))
    except Exception as error:
        pipe.send((None, f"{type(error).__name__}: {error}"))
        raise


class PeakMeter:
    """Measure memory between its making and `read`, in a process that does nothing else. Linux alone."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark to what is resident now
        self.before = _status("VmRSS")

    def read(self) -> Peak:
        """Return the peak so far."""
        highest = _status("VmHWM")
        return Peak((highest - self.before) / 1024, highest / 1024)


def peak_memory(prepare: Callable[..., Callable[[], object]], *args: object) -> Peak:
    """Return the memory that ``prepare(*args)()`` takes, in a process of its own.

    `prepare`, a function of a module, builds the inputs; they do not count in the rise. Linux alone.
    """
    return alone(_peak, prepare, args)


def _peak(prepare: Callable[..., Callable[[], object]], args: tuple[object, ...]) -> Peak:
    run = prepare(*args)
    meter = PeakMeter()
    run()
    return meter.read()


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def figure(value: Cell) -> str:
    """Set a number with about three digits that count; text as it is, nothing for None."""
    if value is None or isinstance(value, str):
        return value or ""
    size = abs(value)
    if isinstance(value, int) or size >= 100 or size == 0:
        return f"{value:,.0f}"
    return f"{value:.2f}" if size >= 0.1 else f"{value:.4f}" if size >= 0.001 else f"{value:.2e}"


def text(table: Table) -> str:
    """Set a table in lines for a terminal."""
    columns = list(table.rows[0])
    cells = [columns, *([figure(row.get(column)) for column in columns] for row in table.rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    lines = [
        "  ".join(cell.ljust(width) if place == 0 else cell.rjust(width) for place, (cell, width) in enumerate(parts))
        for parts in ([*zip(line, widths, strict=True)] for line in cells)
    ]
    return "\n".join([f"== {table.title}", *lines, *table.notes])


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with what every benchmark takes: ``--threads``, ``--repeats``, ``--json``, ``--quick``."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    options.add_argument("--repeats", type=int, default=5, help="runs of each way that count")
    options.add_argument("--json", type=Path, help="write the figures here")
    options.add_argument("--quick", action="store_true", help="a small size, to see that all works")
    return options


def report(
    options: argparse.Namespace,
    found: list[Timing],
    *,
    unit: str = "runs",
    title: str | None = None,
    notes: Sequence[str] = (),
    **settings: object,
) -> None:
    """Print timings as one table, and write it where ``--json`` says; the title is the script's name by default."""
    title = title or Path(sys.argv[0]).stem
    publish(options, title, [Table(title, [timing.row(unit) for timing in found], notes)], **settings)


def publish(options: argparse.Namespace, title: str, tables: Sequence[Table], **settings: object) -> None:
    """Print tables, and write them where ``--json`` says."""
    for table in tables:
        print(text(table), end="\n\n")
    if options.json:
        write(
            options.json,
            title,
            tables,
            settings | {"repeats": options.repeats, "threads": options.threads, "quick": options.quick},
        )


def write(path: Path, title: str, tables: Sequence[Table], settings: Mapping[str, object]) -> None:
    """Write figures in the form that ``fill_tables.py`` reads."""
    found = {
        "title": title,
        "command": command(),
        "settings": dict(settings),
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "tables": [asdict(table) for table in tables],
    }
    write_json(path, found)


def command() -> str:
    """Return the command at hand, less the machine's own paths."""
    script, home = Path(sys.argv[0]).resolve(), Path(__file__).resolve().parents[1]
    words = [str(script.relative_to(home)) if script.is_relative_to(home) else script.name]
    values = iter(sys.argv[1:])
    for word in values:
        if word.partition("=")[0] in PLACES:
            if "=" not in word:
                next(values, None)
            continue
        words.append(word)
    return shlex.join(["python", *words])


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
