"""The ledger of a comparison: one JSON line a trial, written when the trial is over; a search is rebuilt from it."""

from __future__ import annotations

import functools
import json
import math
import os
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from metammf.errors import FileFormatError, WriteError
from metammf.experiments.comparison_results import Trial
from metammf.files import atomic_open

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Ledger:
    """The trials of all models, in the order in which they ended. One process writes.

    Args:
        path: The file; made by the first trial. A last line that a kill has cut off is taken away.

    Raises:
        FileFormatError: a line is no trial, or is not the next of its model.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._trials: dict[str, list[Trial]] = {}
        if not path.is_file():
            return
        text = path.read_text(encoding="utf-8", errors="replace")
        whole = text[: text.rfind("\n") + 1]
        for model, trial in self._read(whole):
            self._trials.setdefault(model, []).append(trial)
        if whole != text:
            with atomic_open(path) as stream:
                stream.write(whole)

    def trials(self, model: str) -> tuple[Trial, ...]:
        """Return the trials of a model, by number."""
        return tuple(self._trials.get(model, ()))

    def add(self, model: str, trial: Trial) -> None:
        """Add a trial; it is on the disk before this returns.

        Raises:
            WriteError: the file cannot be written.
        """
        line = json.dumps({"model": model, **_adapter().dump_python(trial, mode="json")}, allow_nan=False)
        try:
            with self.path.open("a", encoding="utf-8", newline="\n") as stream:
                stream.write(line + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise WriteError(self.path, error.strerror or error) from error
        self._trials.setdefault(model, []).append(trial)

    def _read(self, text: str) -> Iterator[tuple[str, Trial]]:
        counts: dict[str, int] = {}
        for number, line in enumerate(text.splitlines(), 1):
            try:
                values: dict[str, Any] = json.loads(line)
                model = str(values.pop("model"))
                trial = _adapter().validate_python(values)
                _check_numbers(trial)
            except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
                raise FileFormatError(self.path, f"line {number} is no trial ({error})") from error
            if trial.number != counts.get(model, 0):
                raise FileFormatError(
                    self.path, f"line {number} is trial {trial.number} of {model}", f"trial {counts.get(model, 0)}"
                )
            counts[model] = trial.number + 1
            yield model, trial


def _check_numbers(trial: Trial) -> None:
    """Look for what JSON cannot hold, and Python reads all the same: NaN and infinities.

    Raises:
        ValueError: there is one.
    """
    numbers = (trial.seconds, trial.value, *(value for _, value in trial.curve))
    if not all(value is None or math.isfinite(value) for value in numbers):
        raise ValueError("a value that is not finite")


@functools.cache
def _adapter() -> TypeAdapter[Trial]:
    return TypeAdapter(Trial)
