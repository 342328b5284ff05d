"""How a peer's script talks to the driver: one line of JSON at a time. The standard library alone, for any environment.

A script loads, builds, and then calls `Door.next_epoch` before each epoch and `Door.serve` after the last. Between those the
driver says when to go on, so that a single process works at a time and all take turns.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Door:
    """The worker's side.

    Args:
        packages: Distributions whose versions are told.

    Attributes:
        settings: What the driver asks for.
    """

    def __init__(self, *packages: str) -> None:
        # What libraries print is not the driver's business: its line keeps the old descriptor, they get standard error.
        self._line = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.settings: dict[str, Any] = json.loads(sys.argv[1])
        self._packages = packages
        self._ready = False
        self._started: tuple[float, float] | None = None

    def next_epoch(self) -> None:
        """End the epoch that runs, if one does, and wait until the next may start."""
        self.end_epoch()
        command = self._command()
        if command != "epoch":
            raise SystemExit(f"expected the command 'epoch', got {command!r}")
        self._started = _clocks()

    def serve(self, **commands: Callable[[], Any]) -> None:
        """End the epoch that runs, if one does, and carry out what the driver names until it says that all is done.

        Each answer holds the seconds that the command took, on the wall and of all processors, and what it returned.
        """
        self.end_epoch()
        while (command := self._command()) != "finish":
            self._started = _clocks()
            result = commands[command]()
            self._tell(result)
        versions = {name: importlib.metadata.version(name) for name in self._packages}
        self._say(peak_mib=peak_resident_mib(), versions={"python": platform.python_version(), **versions})

    def end_epoch(self) -> None:
        """Tell how long the epoch took, if one runs."""
        if self._started is not None:
            self._tell(None)

    def _tell(self, result: Any) -> None:
        assert self._started is not None
        wall, processors = (now - then for now, then in zip(_clocks(), self._started, strict=True))
        self._started = None
        self._say(seconds=wall, cpu_seconds=processors, result=result)

    def _command(self) -> str:
        if not self._ready:  # the first thing that the driver hears: all is loaded and built
            self._ready = True
            self._say(ready=time.time())
        return sys.stdin.readline().strip() or "finish"

    def _say(self, **message: Any) -> None:
        self._line.write(json.dumps(message) + "\n")
        self._line.flush()


def _clocks() -> tuple[float, float]:
    """Return the time on the wall, and what this process and its living children have had of all processors (Linux)."""
    ticks = sum(sum(map(int, _read(child, "stat").rpartition(")")[2].split()[11:13])) for child in _children())
    return time.perf_counter(), time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def peak_resident_mib() -> float:
    """Return the most memory that this process and its living children have held, each at its own peak (Linux)."""
    lines = [line for process in ("self", *_children()) for line in _read(process, "status").splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def _children() -> list[str]:
    threads = Path("/proc/self/task").iterdir()
    return [child for thread in threads for child in _text(thread / "children").split()]


def _read(process: str, name: str) -> str:
    return _text(Path("/proc", process, name))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return ""
