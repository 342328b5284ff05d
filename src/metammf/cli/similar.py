"""``metammf similar``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def similar(
    run: Path, /, *, item: str, k: Annotated[int, Parameter(name=("-k", "--k"))] = 10, out: Path | None = None
) -> None:
    """Show the items whose vectors are nearest to an item's.

    Parameters
    ----------
    run
        A finished run.
    item
        An item's id.
    k
        How many.
    out
        Write them here as well, as Parquet or CSV by the extension.
    """
    from metammf.cli.console import ids_of, table
    from metammf.cli.output import check_extension, write_table
    from metammf.recommender import Recommender

    if out is not None:
        check_extension(out)
    recommender = Recommender.load(run)
    with ids_of(run):
        found = recommender.similar(item, k)
    if out is not None:
        write_table(found, out)
    table(found.columns, found.iter_rows())
