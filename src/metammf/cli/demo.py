"""``metammf demo``."""

import shlex
from pathlib import Path
from typing import Any


def demo(*, out: Path = Path("demo"), seed: int = 0) -> None:
    """Train and compare models on the embedded world, and write a report.

    Parameters
    ----------
    out
        The folder to write; an older demo in there is replaced once the new one is whole.
    seed
        Of the world and of training.
    """
    from metammf.cli.console import err, show_warnings, steps
    from metammf.errors import ConfigError
    from metammf.experiments.demo import REPORT_FILE, num_workers, run_demo
    from metammf.experiments.demo_plan import DemoPlan
    from metammf.report.figures import require_extra
    from metammf.report.page import render_page

    if seed < 0:
        raise ConfigError(f"--seed: expected a whole number of at least 0, got {seed}")
    require_extra("the report")
    show_warnings()
    command = f"metammf demo --seed {seed}" + (f" --out {shlex.quote(str(out))}" if out != Path("demo") else "")
    plan = DemoPlan(seed=seed)
    with steps("training", "generating a world") as show:

        def progress(done: int, total: int, what: str) -> None:
            if not what:  # the folder is ours, and training begins
                err.print(
                    f"{plan.num_runs} runs on a generated world, {num_workers(plan)} at a time: about half an hour on two"
                    " cores, and some minutes until the first is done"
                )
            show(done, total, what)

        results = run_demo(out, plan, render=render_page, progress=progress, command=command)
    _summarise(results, out / REPORT_FILE)


def _summarise(results: dict[str, Any], report: Path) -> None:
    from metammf.cli.console import out, table
    from metammf.report.words import TABLE_NAMES, headline, metric_name, number, of_table

    metric = results["metric"]
    rows = [
        (
            model["label"],
            len(model["runs"]),
            *(
                number(cells[metric]["mean"]) if metric in (cells := of_table(model, name)) else ""
                for name in TABLE_NAMES
            ),
        )
        for model in results["models"]
    ]
    columns = (f"test, {metric_name(metric)}", "seeds", *TABLE_NAMES.values())
    table(columns, rows, title="Means over the seeds of each model")
    out.print(f"\n{headline(results)}.")
    out.print(str(report.resolve()))
