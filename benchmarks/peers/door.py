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
        self._started: float | None = None

    def next_epoch(self) -> None:
        """End the epoch that runs, if one does, and wait until the next may start."""
        self.end_epoch()
        command = self._command()
        if command != "epoch":
            raise SystemExit(f"expected the command 'epoch', got {command!r}")
        self._started = time.perf_counter()

    def serve(self, **commands: Callable[[], Any]) -> None:
        """End the epoch that runs, if one does, and carry out what the driver names until it says that all is done.

        Each answer holds the seconds that the command took and what it returned.
        """
        self.end_epoch()
        while (command := self._command()) != "finish":
            started = time.perf_counter()
            result = commands[command]()
            self._say(seconds=time.perf_counter() - started, result=result)
        versions = {name: importlib.metadata.version(name) for name in self._packages}
        self._say(peak_mib=peak_resident_mib(), versions={"python": platform.python_version(), **versions})

    def end_epoch(self) -> None:
        """Tell how long the epoch took, if one runs."""
        if self._started is not None:
            self._say(seconds=time.perf_counter() - self._started)
            self._started = None

    def _command(self) -> str:
        if not self._ready:  # the first thing that the driver hears: all is loaded and built
            self._ready = True
            self._say(ready=time.time())
        return sys.stdin.readline().strip() or "finish"

    def _say(self, **message: Any) -> None:
        self._line.write(json.dumps(message) + "\n")
        self._line.flush()


def peak_resident_mib() -> float:
    """Return the most memory that this process and its living children have held, each at its own peak (Linux)."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return sum(_peak_kib(process) for process in ["self", *children]) / 1024


def _peak_kib(process: str) -> int:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except FileNotFoundError:  # it has ended
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
