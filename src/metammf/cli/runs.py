"""``metammf runs``."""

from pathlib import Path


def runs(folder: Path = Path("runs"), /) -> None:
    """List the runs in a folder.

    Parameters
    ----------
    folder
        Where runs are.
    """
    from metammf.cli.console import out, table
    from metammf.errors import DataError
    from metammf.experiments.listing import list_runs

    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    found = list_runs(folder)
    if not found:
        out.print(f"no runs in {folder}")
        return
    table(list(found[0]), (list(row.values()) for row in found))
