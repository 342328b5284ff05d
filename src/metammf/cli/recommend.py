"""``metammf recommend``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from metammf.recommender import Recommender


def recommend(
    run: Path,
    /,
    *,
    user: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    all_users: Annotated[bool, Parameter(negative="")] = False,
    k: Annotated[int, Parameter(name=("-k", "--k"))] = 10,
    seen: Literal["train", "train+validation", "none"] = "train+validation",
    exclude: Path | None = None,
    out: Path | None = None,
) -> None:
    """Recommend items to users: ranked, without what they have seen.

    Parameters
    ----------
    run
        A finished run.
    user
        Ids of users.
    all_users
        Every user of the data set instead.
    k
        How many items.
    seen
        What is left out: what the user has seen in train and validation, in train alone, or nothing.
    exclude
        A text file of item ids, one a line, that are not to come.
    out
        Write user_id, item_id, rank, score here, as Parquet or CSV by the extension.
    """
    import polars as pl

    from metammf.cli.console import bar, err
    from metammf.cli.console import table as show
    from metammf.cli.output import check_extension, write_table
    from metammf.errors import ConfigError
    from metammf.recommender import Recommender

    if bool(user) == all_users:
        raise ConfigError("name users with --user ID..., or ask for --all-users")
    if out is not None:
        check_extension(out)
    recommender = Recommender.load(run)
    barred = _lines(exclude) if exclude is not None else []
    with bar("users") as progress:
        task = progress.add_task("users", total=None, note="")
        frames = list(
            recommender.recommend_many(
                user if user else None,
                k,
                seen=seen,
                exclude=barred,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
        )
    table = pl.concat(frames)
    if out is not None:
        write_table(table.select("user_id", "item_id", "rank", "score"), out)
        err.print(f"{out}: {table.height} rows")
    else:
        show(table.columns, table.iter_rows())
    _tell_of_strangers(recommender, user)


def _tell_of_strangers(recommender: "Recommender", named: list[str] | None) -> None:
    from metammf.cli.console import err

    if named:
        for one in named:
            if not recommender.has_history(one):
                err.print(f"user {one} has no history: these are the popular items")
        return
    count = int((recommender.train.user_counts == 0).sum())
    if count:
        err.print(f"{count:,} user{'s' if count > 1 else ''} without history: popular items for them")


def _lines(path: Path) -> list[str]:
    from metammf.errors import FileFormatError

    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(path, f"cannot be read ({error})", "a text file of item ids, one a line") from error
    return [line.strip() for line in lines if line.strip()]
