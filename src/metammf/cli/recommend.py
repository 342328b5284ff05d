"""``metammf recommend``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from metammf.ranking.feeds import Feeds
    from metammf.recommender import Recommender


def recommend(
    run: Path,
    /,
    *,
    user: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    all_users: Annotated[bool, Parameter(negative="")] = False,
    watched: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    k: Annotated[int, Parameter(name=("-k", "--k"))] = 10,
    seen: Literal["train", "train+validation", "none"] = "train+validation",
    exclude: Path | None = None,
    out: Path | None = None,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
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
    watched
        Ids of items: recommend to a user who is new and has watched these, which do not come.
    k
        How many items.
    seen
        What is left out: what the user has seen in train and validation, in train alone, or nothing.
    exclude
        A text file of item ids, one a line, that are not to come.
    out
        Write user_id, item_id, rank, score here (of --watched without user_id): one Parquet or CSV file by the extension; with
        --all-users and no extension a folder of Parquet files, which the same command goes on with where it was interrupted.
    engine
        ray shares the users among processes, into a folder (extra: ray).
    workers
        Processes of Ray (default: as many as there are cores).
    """
    import polars as pl

    from metammf.cli.console import bar, err, ids_of
    from metammf.cli.console import table as show
    from metammf.errors import ConfigError
    from metammf.recommender import Recommender

    if bool(user) + all_users + bool(watched) != 1:
        raise ConfigError(
            "expected one of --user ID... (users of the data set), --all-users, and --watched ID... (what a new user has watched)"
        )
    user = list(dict.fromkeys(user or ()))  # nobody twice
    _check_out(out, engine, workers, all_users=all_users)
    recommender = Recommender.load(run)
    barred = _lines(exclude) if exclude is not None else []
    if watched:
        if seen != "train+validation":
            raise ConfigError("--seen is for users of the data set: what a new one has watched never comes")
        with ids_of(run):
            _for_a_new_user(recommender, watched, k, barred, out)
        return
    with ids_of(run), bar("users") as progress:
        task = progress.add_task("users", total=None, note="")

        def note(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        if out is None:
            table = pl.concat(recommender.recommend_many(user or None, k, seen=seen, exclude=barred, progress=note))
            rows = table.height
        else:
            feeds = recommender.feeds(k, seen=seen, exclude=barred)
            if out.suffix:
                rows = _write_file(recommender, feeds, user, out, note)
            else:
                asked = {"k": k, "seen": seen, "exclude": sorted(barred)}
                rows = _write_folder(run, feeds, asked, out, engine, workers, note)
    if out is None:
        show(table.columns, table.iter_rows())
    else:
        err.print(f"{out}: {rows} rows")
    _tell_of_strangers(recommender, user)


def _for_a_new_user(
    recommender: "Recommender", watched: list[str], k: int, barred: list[str], out: Path | None
) -> None:
    from metammf.cli.console import err
    from metammf.cli.console import table as show
    from metammf.cli.output import write_table

    found = recommender.recommend_for(watched, k, exclude=barred)
    if out is None:
        show(found.columns, found.iter_rows())
    else:
        write_table(found, out)
        err.print(f"{out}: {found.height} rows")


def _check_out(out: Path | None, engine: str, workers: int | None, *, all_users: bool) -> None:
    from metammf.cli.output import check_extension, check_workers
    from metammf.errors import ConfigError

    if engine == "ray" and not all_users:
        raise ConfigError("--engine ray is for --all-users: one process ranks for a few as fast")
    if engine == "ray" and (out is None or out.suffix):
        raise ConfigError("--engine ray writes a folder: name one with --out, without an extension")
    check_workers(engine, workers)
    if out is not None and (out.suffix or not all_users):
        check_extension(out)


def _write_file(
    recommender: "Recommender",
    feeds: "Feeds",
    named: list[str] | None,
    out: Path,
    progress: "Callable[[int, int], None]",
) -> int:
    import numpy as np

    from metammf.experiments.feed_files import write_feed_file

    ids = recommender.catalog.user_ids
    users = ids.indices(named) if named else np.arange(len(ids))
    return write_feed_file(feeds, users, out, progress=progress)


def _write_folder(
    run: Path,
    feeds: "Feeds",
    asked: "Mapping[str, object]",
    out: Path,
    engine: str,
    workers: int | None,
    progress: "Callable[[int, int], None]",
) -> int:
    from metammf.experiments.feed_files import OneProcess, write_feed_folder
    from metammf.experiments.ray_engine import RayEngine
    from metammf.recommender_files import recommender_hash

    asked = {"recommender": recommender_hash(run), **asked}
    if engine == "local":
        return write_feed_folder(feeds, out, asked, OneProcess(), progress=progress)
    with RayEngine(workers) as pool:
        return write_feed_folder(feeds, out, asked, pool, progress=progress)


def _tell_of_strangers(recommender: "Recommender", named: list[str] | None) -> None:
    from metammf.cli.console import err

    what = "the popular items" if recommender.strangers == "popularity" else "what the model has for the unknown"
    if named:
        for one in named:
            if not recommender.has_history(one):
                err.print(f"user {one} has no history: these are {what}")
        return
    count = int((recommender.train.user_counts == 0).sum())
    if count:
        err.print(f"{count:,} user{'s' if count > 1 else ''} without history: {what} for them")


def _cause(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _lines(path: Path) -> list[str]:
    from metammf.errors import FileFormatError

    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(
            path, f"cannot be read ({_cause(error)})", "a text file of item ids, one a line"
        ) from error
    return [line.strip() for line in lines if line.strip()]
