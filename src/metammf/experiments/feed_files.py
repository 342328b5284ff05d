"""Recommendations for many users on disk, in the memory of one part: a table, or a folder of parts.

::

    recommendations.json   what was asked for, and whether it is finished
    part-00000.parquet     user_id, item_id, rank, score of the first users, in their order
    part-00001.parquet     of the next

A part is whole or not there, so that an interrupted job goes on with the parts that are missing.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl
from filelock import FileLock, Timeout

from metammf.errors import ConfigError, DataError
from metammf.files import atomic_path, is_leftover, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from metammf.ranking.feeds import Feeds

FORMAT = "metammf-recommendations-1"
MARKER = "recommendations.json"
COLUMNS = ("user_id", "item_id", "rank", "score")
_LOCK = ".lock"
_PART_ROWS = 1 << 20


@dataclass(frozen=True)
class Part:
    """A file and the users that belong into it.

    Args:
        path: The file.
        start: The first of the users, by index.
        stop: Behind the last.
    """

    path: Path
    start: int
    stop: int


def write_part(feeds: Feeds, part: Part) -> int:
    """Write a part, whole or not at all, and return its rows."""
    return _write_parquet(feeds, np.arange(part.start, part.stop), part.path)


class Engine(Protocol):
    """Where parts are made."""

    def write(self, feeds: Feeds, parts: Sequence[Part]) -> Iterator[tuple[int, int]]:
        """Write the parts, in any order; yield for each its users and its rows."""


class OneProcess:
    """Parts one after another, here."""

    def write(self, feeds: Feeds, parts: Sequence[Part]) -> Iterator[tuple[int, int]]:
        """Write the parts in their order; yield for each its users and its rows."""
        for part in parts:
            yield part.stop - part.start, write_part(feeds, part)


def write_feed_folder(
    feeds: Feeds,
    folder: Path,
    asked: Mapping[str, Any],
    engine: Engine,
    *,
    users_per_part: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Recommend to every user, into a folder of parts; go on where an earlier call with the same wishes was interrupted.

    Args:
        feeds: What recommends.
        folder: New, empty, or begun by an earlier call.
        asked: Names all that the result depends on; parts of other wishes are never mixed.
        engine: Where parts are made.
        users_per_part: Rounded up to whole batches. Default: what makes about a million rows.
        progress: Called with the users done and the users in all.

    Returns:
        Rows in the folder.

    Raises:
        ConfigError: the folder holds recommendations of other wishes.
        DataError: the folder is something else, in use, or cannot be written.
    """
    parts = _parts(feeds, folder, users_per_part)
    asked = {**asked, "users": len(feeds.user_ids), "users_per_part": parts[0].stop if parts else 0}
    with _held(folder, asked):
        missing = []
        done = rows = 0
        for part in parts:
            written = _rows_of(part.path)
            if written is None:
                missing.append(part)
            else:
                done, rows = done + part.stop - part.start, rows + written
        for users, written in engine.write(feeds, missing):
            done, rows = done + users, rows + written
            if progress is not None:
                progress(done, len(feeds.user_ids))
        write_json(folder / MARKER, {"format": FORMAT, "asked": asked, "rows": rows, "finished": True})
    return rows


def _rows_of(path: Path) -> int | None:
    """Return the rows of a part; None where it is not there, or damaged, and so to be made."""
    try:
        return int(pl.scan_parquet(path).select(pl.len()).collect().item())
    except (OSError, pl.exceptions.PolarsError):
        return None


def write_feed_file(
    feeds: Feeds, users: NDArray[np.int64], path: Path, *, progress: Callable[[int, int], None] | None = None
) -> int:
    """Recommend to these users, into one Parquet or CSV file by its extension, whole or not at all; return its rows.

    Raises:
        DataError: the file cannot be written.
    """
    with _writing(path):
        if path.suffix.lower() == ".csv":
            return _write_csv(feeds, users, path, progress)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Polars writes a Parquet file from a query and not batch by batch: parts first, then the query over them.
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".part", dir=path.parent) as scratch:
            size = _users_per_part(feeds, None)
            rows = 0
            for number, start in enumerate(range(0, len(users), size)):
                rows += _write_parquet(feeds, users[start : start + size], Path(scratch) / _name(number))
                if progress is not None:
                    progress(min(start + size, len(users)), len(users))
            with atomic_path(path) as whole:
                pl.scan_parquet(Path(scratch) / "*.parquet").sink_parquet(whole)
        return rows


def _write_csv(feeds: Feeds, users: NDArray[np.int64], path: Path, progress: Callable[[int, int], None] | None) -> int:
    rows = 0
    with atomic_path(path) as part, part.open("wb") as stream:
        for done, frame in enumerate(feeds.frames(users), start=1):
            frame.select(COLUMNS).write_csv(stream, include_header=done == 1)
            rows += frame.height
            if progress is not None:
                progress(min(done * feeds.users_at_once, len(users)), len(users))
    return rows


def _write_parquet(feeds: Feeds, users: NDArray[np.int64], path: Path) -> int:
    table = pl.concat([frame.select(COLUMNS) for frame in feeds.frames(users)])
    with _writing(path), atomic_path(path) as part:
        table.write_parquet(part)
    return table.height


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:  # a full disk, for one
        raise DataError(f"cannot write {path}: {error}") from error


def _name(number: int) -> str:
    return f"part-{number:05}.parquet"


def _users_per_part(feeds: Feeds, wanted: int | None) -> int:
    at_once = feeds.users_at_once
    return at_once * max(1, -(-(_PART_ROWS // feeds.k if wanted is None else wanted) // at_once))


def _parts(feeds: Feeds, folder: Path, users_per_part: int | None) -> list[Part]:
    count, size = len(feeds.user_ids), _users_per_part(feeds, users_per_part)
    starts = range(0, count, size)
    return [Part(folder / _name(number), start, min(start + size, count)) for number, start in enumerate(starts)]


@contextlib.contextmanager
def _held(folder: Path, asked: Mapping[str, Any]) -> Iterator[None]:
    """Hold a folder for one job: made, or begun by an earlier call with the same wishes; rests of that are removed."""
    if folder.exists() and not (folder / MARKER).is_file() and (not folder.is_dir() or not _empty(folder)):
        raise DataError(f"{folder} exists and holds no recommendations (it has no {MARKER}): name another")
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / _LOCK, timeout=0):
            if (folder / MARKER).is_file():
                _check_same(folder, asked)
            else:
                write_json(folder / MARKER, {"format": FORMAT, "asked": asked, "finished": False})
            for rest in folder.glob(".*.part"):
                rest.unlink()
            yield
    except Timeout as error:
        raise DataError(f"{folder} is in use by another process") from error


def _empty(folder: Path) -> bool:
    """Whether there is nothing but what a job leaves that was killed before it had written its wishes down."""
    return all(entry.name == _LOCK or is_leftover(entry.name) for entry in folder.iterdir())


def _check_same(folder: Path, asked: Mapping[str, Any]) -> None:
    found = read_json(folder / MARKER)
    before = found.get("asked") if isinstance(found, dict) and found.get("format") == FORMAT else None
    if not isinstance(before, dict):
        raise DataError(f"{folder / MARKER}: expected the form {FORMAT}; name another folder")
    other = [f"{key} was {before.get(key)!r}, is {value!r}" for key, value in asked.items() if before.get(key) != value]
    if other:
        raise ConfigError(f"{folder} holds other recommendations ({'; '.join(other)}): name another folder")
