"""``metammf data``: import foreign data sets, describe, generate and export."""

import sys
from pathlib import Path
from typing import Literal

from cyclopts import App

app = App(name="data", help="Import, describe, generate and export data sets.")

FormatName = Literal["tiktok", "movielens", "recbole", "mmrec", "metammf", "log"]
ExportName = Literal["recbole", "mmrec"]


@app.command(name="import")
def import_(
    source: Path,
    out: Path,
    /,
    *,
    format: FormatName | None = None,  # noqa: A002  # the option's name
) -> None:
    """Import a foreign data set into a folder in our layout.

    Parameters
    ----------
    source
        A folder, or the file of a log.
    out
        The folder to write; one that metammf wrote before is replaced.
    format
        Recognised where it can be.
    """
    from metammf.data.folder import save_dataset
    from metammf.data.importers.registry import import_dataset

    dataset = import_dataset(source, format)
    save_dataset(dataset, out)
    sys.stdout.write(f"{out}: {dataset.interactions!r}\n")
