"""``metammf evaluate``."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from metammf.evaluation.evaluate import Ranker


def evaluate(
    run: Path,
    /,
    *,
    part: Literal["test", "validation"] = "test",
    seen: Literal["train", "train+validation"] | None = None,
    k: Annotated[list[int] | None, Parameter(name=("-k", "--k"), negative="")] = None,
    all_users: Annotated[bool, Parameter(negative="")] = False,
    users: int | None = None,
    json: Path | None = None,
    per_user: Path | None = None,
    data: Path | None = None,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
) -> None:
    """Rank all items for the users of a part and measure where its interactions come out.

    Parameters
    ----------
    run
        A finished run.
    part
        The test part is to be read once, in the end; choose on validation.
    seen
        What is left out of each ranking: by default all that comes before the part. Published tables often mask train alone.
    k
        Length of the lists; may be repeated (default: 10 and 20).
    all_users
        Average over every user of the data set, those without an interaction in the part as zero.
    users
        Look at so many users of the part, always the same ones; all of them by default.
    json
        Write all of it here as JSON, at full precision.
    per_user
        Write each user's metrics here, as Parquet or CSV by the extension.
    data
        The data set's folder, where it is no longer where it was trained on.
    engine
        ray shares the users among processes (extra: ray).
    workers
        Processes of Ray (default: as many as there are cores).
    """
    from metammf.cli.console import bar, out
    from metammf.cli.output import check_extension, check_file, write_table
    from metammf.experiments.evaluating import evaluate_run
    from metammf.experiments.run import Run

    if json is not None:
        check_file(json)
    if per_user is not None:
        check_extension(per_user)
    with _ranker(engine, workers) as ranker, bar("ranking users") as progress:
        task = progress.add_task("rank", total=None, note="")
        result = evaluate_run(
            Run.load(run),
            part=part,
            seen=seen,
            ks=tuple(k or (10, 20)),
            all_users=all_users,
            sample=users,
            data=data,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
            ranker=ranker,
        )
    if json is not None:
        result.write_json(json)
    if per_user is not None:
        write_table(result.per_user, per_user)
    out.print(str(result))


@contextlib.contextmanager
def _ranker(engine: str, workers: int | None) -> "Iterator[Ranker]":
    from metammf.cli.output import check_workers
    from metammf.ranking.topk import rank

    check_workers(engine, workers)
    if engine == "local":
        yield rank
        return
    from metammf.experiments.ray_engine import RayEngine

    with RayEngine(workers) as pool:
        yield pool.rank
