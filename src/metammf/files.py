"""Writing to disk so that nothing is ever half there, and naming what a file holds by its hash."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from metammf.errors import DataError, WriteError

if TYPE_CHECKING:
    from collections.abc import Iterator


_PART, _OLD = ".part", ".old"
_NO_ROOM = {errno.ENOSPC, errno.EFBIG, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)}


@contextlib.contextmanager
def atomic_path(path: Path | str, *, previous: Path | None = None) -> Iterator[Path]:
    """Give a temporary path beside `path`; move what was written there into place when the block ends well.

    A reader sees the old file or the new one, never a part. On an error the old file stays and the temporary one
    is removed. What was written is on the disk, and so is its name, before this returns.

    Args:
        path: The file.
        previous: Where the old file goes, in the same folder; None: it is gone. Between the two moves, which a kill can
            part, the old file is there alone and the new one not yet.

    Raises:
        WriteError: the folder cannot be written to, or has no room.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_PART, dir=path.parent)
    except OSError as error:
        raise WriteError(path, error.strerror or error) from error
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.chmod(0o666 & ~_umask())
        if previous is not None and path.is_file():
            path.replace(previous)
        part.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise WriteError(path, error.strerror) from error
        raise


def _sync_folder(path: Path) -> None:
    """Bring a folder's names to the disk, where the system lets a folder be opened."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows
        return
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems know no such thing
            raise
    finally:
        os.close(handle)


def is_leftover(name: str) -> bool:
    """Whether a file or folder of this name is what a killed process had not finished writing."""
    return name.startswith(".") and name.endswith((_PART, _OLD))


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left unfinished in a folder; call it where nobody else can be writing there."""
    for entry in folder.iterdir():
        if is_leftover(entry.name):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


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

    An existing `path` is replaced only where `require_replaceable` lets it be. A kill between the two moves then leaves the
    old folder beside, in ``.NAME.*.old``, and none under its name.

    Raises:
        DataError: `path` exists and is something else.
        WriteError: it cannot be written.
    """
    require_replaceable(path, marker=marker)
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=_PART, dir=path.parent))
    except OSError as error:
        raise WriteError(path, error.strerror or error) from error
    try:
        yield part
        # The marker last: it may tell of the others, and is to be the younger then.
        for file in sorted([part, *part.rglob("*")], key=lambda file: file == part / marker):
            _settle(file)
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=_OLD, dir=path.parent))
            path.replace(old / path.name)
            part.replace(path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            part.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise WriteError(path, error.strerror) from error
        raise


def bring_to_disk(folder: Path) -> None:
    """Wait until the files of a folder, and their names, are on the disk."""
    for file in folder.iterdir():
        with file.open("rb") as written:
            os.fsync(written.fileno())
    _sync_folder(folder)


def _settle(file: Path) -> None:
    """Give a written file or folder the usual permissions, since some writers keep theirs, and bring it to the disk."""
    if file.is_dir():
        file.chmod(0o777 & ~_umask())
        _sync_folder(file)
        return
    file.chmod(0o666 & ~_umask())
    with file.open("rb") as written:
        os.fsync(written.fileno())


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
    except (OSError, ValueError, RecursionError) as error:  # the last of nesting that is too deep
        raise DataError(f"{path}: not readable as JSON ({error})") from error


def sha256(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
