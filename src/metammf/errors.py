"""Every error that metammf raises on purpose.

::

    MetaMMFError
    ├── DataError            a data set, file or argument that does not hold what it should
    │   ├── FileFormatError  a foreign file: names the file, what was expected and what was found
    │   ├── LeakageError     parts, times or features that would tell a model what it is asked for
    │   ├── UnknownIdError   an outside id that the data set does not know
    │   └── WriteError       a file that cannot be written: a full disk, for one
    ├── ConfigError          a setting that does not exist or does not fit
    ├── TrainingError        training cannot go on
    │   └── NonFiniteLossError
    ├── RunError             a run folder that is missing, locked, unfinished or damaged
    │   └── ForeignModelError  one of a model from elsewhere, whose code nobody has allowed to run
    └── MissingExtraError    an optional dependency that the call needs

The command line turns each of them into one message and exit status 2.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


_LONGEST = 1000


_NO_MEMORY = ("out of memory", "DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory")


class MetaMMFError(Exception):
    """The root: catch it to catch everything that metammf raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By default a copy in another process is made by calling the class with the message alone, which not all of them take.
        return _without_init, (type(self), self.args), self.__dict__


def _without_init(kind: type[MetaMMFError], arguments: tuple[Any, ...]) -> MetaMMFError:
    return kind.__new__(kind, *arguments)


class DataError(MetaMMFError):
    """A data set, file or argument does not hold what it should."""


class FileFormatError(DataError):
    """A file is not what it should be.

    Args:
        path: The file.
        found: What is wrong, with the row or column where there is one.
        expected: What would have been right.
    """

    def __init__(self, path: Path | str, found: str, expected: str | None = None) -> None:
        self.path = path
        if len(found) > _LONGEST:  # it may quote the file
            found = f"{found[:_LONGEST]}..."
        super().__init__(f"{path}: {found}" + (f"; expected {expected}" if expected else ""))


class LeakageError(DataError):
    """Parts, times or features would tell a model what it is asked for."""


class UnknownIdError(DataError):
    """An outside id is not in the data set."""


class WriteError(DataError):
    """A file cannot be written.

    Args:
        path: The file.
        reason: What the system says.
    """

    def __init__(self, path: Path | str, reason: object) -> None:
        super().__init__(f"cannot write {path}: {reason}")


class ConfigError(MetaMMFError):
    """A setting does not exist, or its value does not fit."""


class TrainingError(MetaMMFError):
    """Training cannot go on."""


class NonFiniteLossError(TrainingError):
    """The loss became NaN or infinite."""


class RunError(MetaMMFError):
    """A run folder is missing, locked, unfinished or damaged."""


class ForeignModelError(RunError):
    """A file asks for a model from elsewhere, and importing that would run code that nobody has allowed.

    Args:
        model: What the file names, ``package.module:Class``.
        path: The file or folder, where it is known.
    """

    def __init__(self, model: str, path: Path | str | None = None) -> None:
        self.model = model
        self.module = model.partition(":")[0]
        super().__init__(
            f"{'' if path is None else f'{path}: '}the model {model!r} is not one of metammf's, and reading it runs the code"
            f" of {self.module}: if you trust that, put METAMMF_MODELS={self.module} before the command, or import it first in"
            " Python"
        )


class MissingExtraError(MetaMMFError):
    """An optional dependency is not installed.

    Args:
        package: The distribution that is missing.
        extra: The extra of metammf that brings it.
        purpose: What it is needed for.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}: pip install 'metammf[{extra}]'")


def out_of_memory(error: BaseException) -> str | None:
    """Return in one line what an error says of memory that there is not; None where it is another.

    PyTorch raises a class of its own for a device, and on a CPU a bare RuntimeError, which only its words tell from others.
    """
    told = str(error).partition("\n")[0]
    if not isinstance(error, MemoryError):
        if not isinstance(error, RuntimeError) or not any(words in told for words in _NO_MEMORY):
            return None
        told = told.partition("DefaultCPUAllocator: ")[2] or told
    return f"out of memory: {told}" if told else "out of memory"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the nearest known word, or an empty string."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
