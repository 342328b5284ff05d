"""Writing to disk so that nothing is ever half there, and naming what a file holds by its hash."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from metammf.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path`; move what was written there into place when the block ends well.

    A reader sees the old file or the new one, never a part. On an error the old file stays and the temporary one
    is removed.

    Raises:
        DataError: the folder cannot be written to.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.chmod(0o666 & ~_umask())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def atomic_open(path: Path | str, mode: str = "w") -> Iterator[IO[Any]]:
    """Open `path` for writing, atomically; text is UTF-8 with ``\\n`` line ends."""
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    with atomic_path(path) as part, part.open(mode, **text) as stream:  # type: ignore[call-overload]
        yield stream
        stream.flush()


def require_replaceable(path: Path | str, *, marker: str) -> None:
    """Refuse an existing `path` that is neither empty nor holds the file `marker`.

    So a mistyped name never costs anybody a folder of their own; asked before long work, it costs no time either.

    Raises:
        DataError: `path` exists and is something else.
    """
    path = Path(path)
    if path.exists() and not (path.is_dir() and ((path / marker).is_file() or not any(path.iterdir()))):
        raise DataError(f"{path} exists and is not a folder that metammf wrote (it has no {marker}): name another")


@contextlib.contextmanager
def atomic_folder(path: Path | str, *, marker: str) -> Iterator[Path]:
    """Give a temporary folder beside `path`; move it into place when the block ends well.

    An existing `path` is replaced only where `require_replaceable` lets it be.

    Raises:
        DataError: `path` exists and is something else, or cannot be written.
    """
    require_replaceable(path, marker=marker)
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        part.chmod(0o777 & ~_umask())
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        yield part
        for file in part.rglob("*"):
            file.chmod((0o777 if file.is_dir() else 0o666) & ~_umask())  # some writers keep theirs to themselves
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
            path.replace(old / path.name)
            part.replace(path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            part.replace(path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN is refused."""
    with atomic_open(path) as stream:
        json.dump(value, stream, indent=2, ensure_ascii=False, allow_nan=False)
        stream.write("\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        DataError: the file is missing or is not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as JSON ({error})") from error


def sha256(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
