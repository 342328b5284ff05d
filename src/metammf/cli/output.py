"""Tables to files: Parquet or CSV, by the extension, atomically and in the order given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from metammf.errors import ConfigError, DataError
from metammf.files import atomic_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def check_extension(path: Path, known: Sequence[str] = (".parquet", ".csv")) -> None:
    """Say so before the work is done, not after.

    Raises:
        ConfigError: the extension is none of `known`, or the path is a folder.
    """
    if path.suffix.lower() not in known:
        raise ConfigError(f"{path}: expected a name that ends in {' or '.join(known)}")
    check_file(path)


def check_file(path: Path) -> None:
    """Say before the work is done that a file cannot be written there.

    Raises:
        ConfigError: the path is a folder.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder: expected a file's name")


def check_workers(engine: str, workers: int | None) -> None:
    """Say before the work is done that one process has no workers.

    Raises:
        ConfigError: workers of another engine than Ray.
    """
    if engine != "ray" and workers is not None:
        raise ConfigError("--workers is for --engine ray")


def write_table(frame: pl.DataFrame, path: Path) -> None:
    """Write a table by its file's extension.

    Raises:
        ConfigError: the extension is neither .parquet nor .csv.
        DataError: the file cannot be written.
    """
    check_extension(path)
    try:
        with atomic_path(path) as part:
            if path.suffix.lower() == ".parquet":
                frame.write_parquet(part)
            else:
                frame.write_csv(part)
    except (OSError, pl.exceptions.PolarsError) as error:  # a full disk, for one
        raise DataError(f"cannot write {path}: {error}") from error
