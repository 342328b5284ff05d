"""``metammf train``."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from metammf.experiments.config import Merged
    from metammf.experiments.run import Run


def train(
    data: Path,
    /,
    *,
    recipe: str,
    out: Path,
    split: str | None = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    seed: int | None = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    refit: Annotated[bool, Parameter(negative="")] = False,
    placebo: Literal["noise", "shuffle", "drop"] | None = None,
    device: str = "auto",
    precision: Literal["float32", "bfloat16"] = "float32",
    threads: int | None = None,
    shard_tables: Annotated[bool, Parameter(negative="")] = False,
    tensorboard: Annotated[bool, Parameter(negative="")] = False,
    show_config: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Train a model on a data set, into a run folder; under `torchrun` with as many processes as that starts.

    Parameters
    ----------
    data
        A data set's folder in our layout (`metammf data import` makes one).
    recipe
        A recipe's name (`metammf recipes` lists them) or a TOML file.
    out
        The run's folder.
    split
        published, random, leave-one-out, user-time, global-time, cold-item or cold-user; not needed where the data set carries
        a split.
    set_
        KEY=VALUE, such as model.cp_rank=32 or training.epochs=20; may be repeated.
    seed
        Of the weights and of what training draws (default: the recipe's, or 0).
    resume
        Go on from the run's checkpoint; afresh where there is none, at once where the run is finished.
    refit
        In the end train again on train and validation together, at the settings and epoch chosen, for deployment.
    placebo
        Replace the features by noise of the same shape, shuffle them across items, or let every item lack them all.
    device
        auto, cpu, cuda, cuda:1, ...
    precision
        bfloat16 runs forward passes in half precision.
    threads
        Processor threads (default: as many as there are cores).
    shard_tables
        Under `torchrun`, divide the tables of free vectors among the processes, where the model reads them by rows.
    tensorboard
        Write a log for TensorBoard as well (extra: tensorboard).
    show_config
        Print every setting and where it came from, and do nothing else.
    """
    from metammf.experiments.config import merge, parse_settings

    merged = merge(
        recipe,
        parse_settings(set_ or []),
        {"split.method": split, "seed": seed, "placebo": placebo, "refit": refit or None},
    )
    if show_config:
        _show(merged)
        return
    import torch

    from metammf.cli.console import TrainingBar, show_warnings
    from metammf.cli.console import out as screen
    from metammf.errors import ConfigError
    from metammf.experiments.run import RunOptions, train_run
    from metammf.training.parallel import joined

    if shard_tables and "WORLD_SIZE" not in os.environ:
        raise ConfigError("--shard-tables divides tables among the processes that `torchrun` starts: start it by that")
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"--threads must be at least 1, got {threads}")
        torch.set_num_threads(threads)
    with (
        joined(device) as (parallel, own_device),
        TrainingBar(merged.config.training.metric, recipe, shown=parallel.leads) as progress,
    ):
        show_warnings(shown=parallel.leads)
        options = RunOptions(
            device=own_device,
            precision=precision,
            resume=resume,
            tensorboard=tensorboard,
            listeners=(progress,) if parallel.leads else (),
            parallel=parallel,
            shard_tables=shard_tables,
        )
        try:
            run = train_run(merged, data, out, options)
        except KeyboardInterrupt as interrupt:
            word = f"{str(interrupt) or 'interrupted'}; the same command with --resume goes on, from {out}"
            raise type(interrupt)(word) from interrupt
    if not parallel.leads:
        return
    if not run.trained:
        screen.print(f"{out} is finished already")
        return
    _report(run)


def _show(merged: "Merged") -> None:
    from metammf.cli.console import table

    tree = merged.config.model_dump(mode="json")
    rows = []
    for key, source in merged.sources.items():
        section, dot, name = key.partition(".")
        rows.append((key, str(tree[section][name] if dot else tree[section]), source))
    table(("setting", "value", "from"), rows)


def _validation(run: "Run") -> "Mapping[str, float]":
    """Return what a solved model reaches on validation, which no epoch has looked at; nothing where there is none to look at."""
    from metammf.cli.console import bar
    from metammf.experiments.evaluating import evaluate_run

    if run.config.refit or not run.record["split"]["validation"]:
        return {}
    k = int(run.config.training.metric.partition("@")[2])
    with bar("ranking users") as progress:
        task = progress.add_task("validation", total=None, note="")
        found = evaluate_run(
            run,
            part="validation",
            ks=sorted({10, 20, k}),
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    # Those that training looks at: what a user's list can tell.
    return {name: value for name, value in found.metrics.items() if name in found.per_user.columns}


def _report(run: "Run") -> None:
    from metammf.cli.console import out, table
    from metammf.experiments.run import METRICS
    from metammf.files import read_json
    from metammf.models.registry import needs_trust

    chosen = read_json(run.path / METRICS)["chosen"]
    out.print(f"{run.config.model.name} trained in {run.record['seconds']:.0f} s: {run.path}")
    metrics, what = (chosen["metrics"], f"epoch {chosen['epoch']}") if chosen else (_validation(run), "solved")
    if metrics:
        table(("validation", what), sorted(metrics.items()))
    module = needs_trust(run.config.model.name)
    trusted = "" if module is None else f"METAMMF_MODELS={shlex.quote(module)} "
    out.print(f"next: {trusted}metammf evaluate {shlex.quote(str(run.path))}")
