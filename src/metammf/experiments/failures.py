"""Which errors are the failure of one run, that goes on record while the others go on; all other errors end the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metammf.data.folder import load_dataset
from metammf.errors import ConfigError, DataError, TrainingError, WriteError, out_of_memory

if TYPE_CHECKING:
    from pathlib import Path


def why_failed(error: Exception, data: Path) -> str | None:
    """Return what to put on record of a run that an error has ended; None where the error is to be raised again.

    A run fails by settings that do not fit, by training that cannot go on, and by memory that is not there. A disk that is full,
    a folder that is in use and a fault of ours say nothing of it.

    Args:
        error: What the run raised.
        data: The data set's folder.

    Raises:
        DataError: the data set can no longer be read, which says nothing of the run either.
    """
    if isinstance(error, WriteError):
        return None
    if isinstance(error, ConfigError | DataError | TrainingError):
        load_dataset(data)
        return str(error)
    return out_of_memory(error)
