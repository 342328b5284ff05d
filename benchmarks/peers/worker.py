"""The driver's side of `door.py`: a script of this folder, run by the Python of an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE / ".env"
"""Where ``make_env.sh`` makes the environments, if it is not told otherwise."""


def interpreter(environments: Path, name: str) -> Path | None:
    """Return the Python of a peer's environment, or None where it was not made."""
    python = environments / name / "bin" / "python"
    return python if python.exists() else None


class Worker:
    """A process that has loaded and built what it needs, and waits to be asked.

    Args:
        name: Of its log, and for messages.
        python: Interpreter of its environment.
        script: In this folder.
        settings: What it is told; `threads` caps every library's threads, `scratch` is a folder for its log.

    Attributes:
        start_up: Seconds from the start of the process until it could begin its work.

    Raises:
        SystemExit: it ended before it should; its last lines are shown.
    """

    def __init__(self, name: str, python: Path, script: str, settings: dict[str, Any]) -> None:
        self.name = name
        self._log = Path(settings["scratch"], f"{name}.log")
        threads = str(settings["threads"])
        caps = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
        started = time.time()
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [python, HERE / script, json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | caps | {"CUDA_VISIBLE_DEVICES": ""},
            )
        self.start_up = self._hear()["ready"] - started

    def ask(self, command: str) -> dict[str, Any]:
        """Have it carry out a command; return its answer, `seconds` among it."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._hear()

    def finish(self) -> dict[str, Any]:
        """End it; return its peak memory and the versions that it ran with."""
        found = self.ask("finish")
        self._process.communicate()
        return found

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.communicate()
            last = self._log.read_text().splitlines()[-15:]
            raise SystemExit("\n".join([f"{self.name} ended with {self._process.returncode}:", *last]))
        return json.loads(line)
