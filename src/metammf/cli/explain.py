"""``metammf explain``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def explain(
    run: Path,
    /,
    *,
    item: str,
    user: str | None = None,
    watched: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    out: Path | None = None,
    data: Path | None = None,
) -> None:
    """Show how much each modality of an item counts, for its fused vector or for its score for a user.

    Parameters
    ----------
    run
        A finished run of a model that fuses content.
    item
        An item's id.
    user
        A user's id: explain the score of the item for this user, along the item's own path (not through its graph neighbours).
    watched
        Ids of items: explain the score for a user who is new and has watched these.
    out
        A picture (.svg, .png, .pdf, .html) or a table (.csv, .parquet), by the extension.
    data
        The data set's folder, where it is no longer where it was trained on.
    """
    from metammf.cli.console import ids_of, table
    from metammf.cli.console import out as screen
    from metammf.cli.output import write_table
    from metammf.errors import ConfigError
    from metammf.recommender import Recommender
    from metammf.report.figures import PICTURES, contributions_chart, require_extra, save_chart

    tables = (".csv", ".parquet")
    kind = None if out is None else out.suffix.lower()
    if kind is not None and kind not in PICTURES + tables:
        raise ConfigError(f"{out}: expected a name that ends in {', '.join(PICTURES + tables)}")
    if kind in PICTURES:
        require_extra("a picture")
    recommender = Recommender.load(run)
    if data is not None:
        recommender.data_path = data
    with ids_of(run):
        found = recommender.explain(item, user, watched=watched)
    about = f"item {item}" if user is None else f"item {item} for user {user}"
    if watched:
        about = f"item {item} for who watched {', '.join(watched)}"
    screen.print(f"What counts in {about}:")
    table(found.columns, found.iter_rows())
    if out is None:
        return
    if kind in PICTURES:
        save_chart(contributions_chart(found, about), out)
    else:
        write_table(found, out)
    screen.print(f"{out}")
