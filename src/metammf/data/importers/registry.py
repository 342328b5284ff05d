"""The foreign formats that are known, and which one a folder or file is of."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metammf.data.progress import Progress, silent
from metammf.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from metammf.data.dataset import Dataset


@dataclass(frozen=True)
class Format:
    """A foreign format; its module holds ``recognise(source) -> bool`` and ``read(source, **options) -> Dataset``.

    Args:
        name: As asked for.
        looks_like: What a folder or file of this format holds, for messages.
    """

    name: str
    looks_like: str

    @property
    def module(self) -> ModuleType:
        """The importer's module."""
        return import_module(f"metammf.data.importers.{self.name}")

    @property
    def read(self) -> Callable[..., Dataset]:
        """The importer."""
        return self.module.read

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the options that the importer takes."""
        return tuple(name for name in self._parameters[1:] if name != "progress")

    @property
    def tells_progress(self) -> bool:
        """Whether the importer says how far it is."""
        return "progress" in self._parameters

    @property
    def _parameters(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.read).parameters)


# In the order in which they are tried.
FORMATS: tuple[Format, ...] = (
    Format("tiktok", "trnMat.pkl, valMat.pkl, tstMat.pkl and *_feat.npy"),
    Format("movielens", "ratings.csv, movies.csv, and optional tags.csv, features.npz"),
    Format("recbole", "NAME.inter with typed columns (user_id:token), or NAME.train.inter, .valid.inter, .test.inter"),
    Format("mmrec", "one .inter file with the columns userID, itemID, rating, x_label, and *.npy"),
    Format("metammf", "train.npy, val_full.npy, test_full.npy or user_item_dict.npy, and v_feat.npy, a_feat.npy, ..."),
    Format("log", "a .csv, .tsv or .parquet file with the columns user_id, item_id"),
)


def recognise(source: Path | str) -> Format | None:
    """Return the format that a folder or file is of, or None."""
    path = Path(source)
    return next((known for known in FORMATS if known.module.recognise(path)), None)


def import_dataset(
    source: Path | str,
    format: str | None = None,  # noqa: A002  # the command line's word
    *,
    progress: Progress = silent,
    **options: Any,
) -> Dataset:
    """Read a data set of a foreign format.

    Args:
        source: A folder, or the file of a log.
        format: One of `FORMATS`; recognised where None.
        progress: Called now and then by those importers that read logs of any size.
        **options: What the format's importer takes.

    Raises:
        ConfigError: the format or an option is not known.
        DataError: there is no such source, or its format is not recognised.
        FileFormatError: a file is not what it should be.
    """
    path = Path(source)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if format is None:
        chosen = recognise(path)
        if chosen is None:
            known = "\n".join(f"  {known.name}: {known.looks_like}" for known in FORMATS)
            raise DataError(f"{path}: its format is not recognised; the formats are:\n{known}")
    else:
        names = [known.name for known in FORMATS]
        if format not in names:
            raise ConfigError(f"unknown format {format!r}{did_you_mean(format, names)}; there are: {', '.join(names)}")
        chosen = FORMATS[names.index(format)]
    for name in options:
        if name not in chosen.options:
            raise ConfigError(
                f"the {chosen.name} form takes no option {name!r}{did_you_mean(name, chosen.options)}; it takes:"
                f" {', '.join(chosen.options) or 'none'}"
            )
    if chosen.tells_progress:
        options["progress"] = progress
    return chosen.read(path, **options)
