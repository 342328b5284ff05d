"""``metammf explain``."""

from pathlib import Path


def explain(
    run: Path, /, *, item: str, user: str | None = None, out: Path | None = None, data: Path | None = None
) -> None:
    """Show how much each modality of an item counts, for its fused vector or for its score for a user.

    Parameters
    ----------
    run
        A finished run of a model that fuses content.
    item
        An item's id.
    user
        A user's id: explain the score of the item for this user.
    out
        A picture (.svg, .png, .pdf, .html) or a table (.csv, .parquet), by the extension.
    data
        The data set's folder, where it is no longer where it was trained on.
    """
    from metammf.cli.console import out as screen
    from metammf.cli.console import table
    from metammf.cli.output import write_table
    from metammf.errors import ConfigError
    from metammf.recommender import Recommender

    pictures = (".svg", ".png", ".pdf", ".html")
    tables = (".csv", ".parquet")
    if out is not None and out.suffix.lower() not in pictures + tables:
        raise ConfigError(f"{out}: expected a name that ends in {', '.join(pictures + tables)}")
    recommender = Recommender.load(run)
    if data is not None:
        recommender.data_path = data
    found = recommender.explain(item, user)
    about = f"item {item}" if user is None else f"item {item} for user {user}"
    screen.print(f"What counts in {about}:")
    table(found.columns, found.iter_rows())
    if out is None:
        return
    if out.suffix.lower() in tables:
        write_table(found, out)
    else:
        from metammf.report.figures import contributions_chart, save_chart

        save_chart(contributions_chart(found, about), out)
    screen.print(f"{out}")
