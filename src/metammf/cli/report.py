"""``metammf report``."""

from pathlib import Path


def report(folder: Path, /) -> None:
    """Make the page, tables and figures of a comparison, a study or a demo again, from what its folder holds.

    Parameters
    ----------
    folder
        What `metammf compare`, `metammf study` or `metammf demo` wrote.
    """
    from metammf.cli.console import out, show_warnings
    from metammf.report.again import write_again

    show_warnings()
    out.print(str(write_again(folder).resolve()))
