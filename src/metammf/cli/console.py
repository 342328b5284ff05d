"""What commands print with: tables on stdout, progress on stderr."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shlex
import sys
import time
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from metammf.errors import UnknownIdError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from metammf.training.checkpoint import EpochRecord
    from metammf.training.checkpoint import Progress as TrainingProgress

_FILE_WIDTH = 1000  # of a file: a table takes what it needs of it, and a row with a long path stays one line


def _console(*, stderr: bool = False) -> Console:
    """A console that shows text as it is, since titles hold brackets and paths are long; wide where there is no screen."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _FILE_WIDTH
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True, width=width)


out = _console()
err = _console(stderr=True)


def show_warnings(*, shown: bool = True) -> None:
    """Show what the library logs from warnings up; the library itself leaves logging alone.

    Args:
        shown: Errors alone where not, as where another process tells the same.
    """
    logging.basicConfig(
        level=logging.WARNING if shown else logging.ERROR,
        format="%(message)s" if err.is_terminal else "%(levelname)s: %(message)s",
        # In a file a message is one line, whatever its length.
        handlers=[RichHandler(console=err, show_path=False) if err.is_terminal else logging.StreamHandler(sys.stderr)],
    )


def command_line(words: Sequence[str], options: Mapping[str, Any]) -> str:
    """Return a command as a shell takes it.

    Args:
        words: What it begins with.
        options: Their values; a list gives an option as many times, None not at all.
    """
    listed = {
        option: value if isinstance(value, list) else [] if value is None else [value]
        for option, value in options.items()
    }
    given = ((option, str(one)) for option, values in listed.items() for one in values)
    return shlex.join([*words, *itertools.chain.from_iterable(given)])


def table(columns: Iterable[str], rows: Iterable[Iterable[Any]], *, title: str | None = None) -> None:
    """Print a table; numbers stand to the right."""
    grid = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    body = [list(row) for row in rows]
    for place, column in enumerate(columns):
        number = all(isinstance(row[place], int | float | None) for row in body)
        grid.add_column(column, justify="right" if number else "left", overflow="fold", no_wrap=number)
    for row in body:
        grid.add_row(*(_cell(value) for value in row))
    out.print(grid, soft_wrap=False)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    # Four significant digits: scores of graph models and random walks are small.
    return f"{value:.4g}" if value and not 1e-4 <= abs(value) < 1e4 else f"{value:#.4g}".rstrip(".")


def bar(description: str) -> Progress:
    """Return a progress bar on stderr, gone when it is done; none where stderr is no terminal."""
    return Progress(
        TextColumn(description, markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )


@contextlib.contextmanager
def steps(description: str, note: str = "") -> Iterator[Callable[[int, int, str], None]]:
    """Give what is to be told the steps done, how many there are, and what was done last.

    It shows a bar, and where there is no screen a line a step, with the time that it took so far and what is left at that pace.
    """
    begun, first = time.monotonic(), -1
    with bar(description) as progress:
        task = progress.add_task(description, total=None, note=note)

        def show(done: int, total: int, what: str) -> None:
            nonlocal first
            first = done if first < 0 else first  # what an earlier call has done took this one no time
            progress.update(task, completed=done, total=total, note=what)
            if what and not err.is_terminal:
                err.print(f"{done}/{total} {what} ({_pace(time.monotonic() - begun, done - first, total - done)})")

        yield show


def _pace(seconds: float, done: int, left: int) -> str:
    """Say how long the work has taken, and how long the rest takes at that pace, once there is one."""
    told = f"after {duration(seconds)}"
    return f"{told}, some {duration(seconds / done * left)} left" if done and left else told


def duration(seconds: float) -> str:
    """Return a time as people say it: ``45 s``, ``12 min``, ``2 h 5 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


@contextlib.contextmanager
def going_on(out: Path) -> Iterator[None]:
    """Say of an interrupt that the same command goes on, from the folder `out`, once that is there."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if not out.exists():
            raise
        word = f"{str(interrupt) or 'interrupted'}; the same command goes on, from {out}"
        raise type(interrupt)(word) from interrupt


@contextlib.contextmanager
def ids_of(run: Path) -> Iterator[None]:
    """Name the run in what is said of an id that it does not know."""
    try:
        yield
    except UnknownIdError as error:
        raise UnknownIdError(f"{run}: {error}") from error


class TrainingBar:
    """A listener that shows epoch, loss and validation metric; use it in a `with` block.

    Args:
        metric: The metric that chooses the epoch.
        name: Of what is trained.
        shown: Whether there is a bar at all.
    """

    def __init__(self, metric: str, name: str, *, shown: bool = True) -> None:
        self.metric, self.name = metric, name
        self._bar = bar(f"{name} epoch")
        self._bar.disable = self._bar.disable or not shown
        self._steps = 0
        self._note = ""
        self._shown = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def on_start(self, epochs: int, steps_per_epoch: int, progress: TrainingProgress) -> None:
        """Set the bar up, where training stands."""
        self._steps = max(1, steps_per_epoch)
        for task in self._bar.task_ids:
            self._bar.remove_task(task)
        self._bar.add_task(self.name, total=epochs, completed=progress.epoch, note="")

    def on_step(self, epoch: int, step: int, loss: float) -> None:
        """Move on by a fraction of an epoch, a few times a second at most."""
        now = time.monotonic()
        if now - self._shown > 0.2:
            self._shown = now
            self._bar.update(self._bar.task_ids[0], note=f"step {step}  loss {loss:.4f}  {self._note}")

    def on_epoch(self, record: EpochRecord) -> None:
        """Move on by an epoch."""
        if self.metric in record.metrics:
            best = " (best)" if record.best else ""
            self._note = f"{self.metric} {record.metrics[self.metric]:.4f}{best}"
        self._bar.update(self._bar.task_ids[0], completed=record.epoch, note=f"loss {record.loss:.4f}  {self._note}")
