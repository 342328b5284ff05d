"""``metammf runs``."""

from pathlib import Path


def runs(folder: Path = Path("runs"), /) -> None:
    """List the runs in a folder: what they are of, whether they are finished, stopped or still training, and their figures.

    Parameters
    ----------
    folder
        Where runs are.
    """
    from metammf.cli.console import err, out, table
    from metammf.errors import DataError
    from metammf.experiments.listing import STOPPED, list_runs

    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    found = list_runs(folder)
    if not found:
        out.print(f"no runs in {folder}")
        return
    table(list(found[0]), (list(row.values()) for row in found))
    if any(row["state"].split(",")[0] == STOPPED for row in found):
        err.print(f"{STOPPED}: the command that began the run goes on with it by --resume")
