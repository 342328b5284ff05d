"""``metammf compare``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from metammf.experiments.comparison_results import ComparisonResults, ModelResult


def compare(
    data: Path,
    /,
    *,
    models: Annotated[list[str], Parameter(negative="")],
    out: Path,
    profile: str,
    seeds: int = 3,
    minutes: float = 10.0,
    trials: int = 20,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    published: Path | None = None,
    jobs: int = 1,
    device: str = "cpu",
) -> None:
    """Compare models fairly: one split, one protocol, one budget of tuning each; the test part is read once a final run.

    Settings are searched on validation alone, around each recipe, whose own settings are the first trial. The same command goes
    on where it was, whatever ended it. Writes comparison.json, a line a trial in ledger.jsonl, a page and tables (CSV, LaTeX).

    Parameters
    ----------
    data
        A data set's folder in our layout.
    models
        Recipes or TOML files, separated by commas. RECIPE+SECTION.KEY=VALUE changes a setting and holds it; RECIPE+noise,
        RECIPE+shuffle and RECIPE+drop replace the features by noise, shuffle them across items, or let every item lack them all.
    out
        The comparison's folder.
    profile
        The protocol: metammf, hkuds-tiktok, mmrec, user-time, global-time, cold-item or cold-user.
    seeds
        Final runs of each model at the settings chosen; one that is solved in closed form needs but one.
    minutes
        Of one core's time, for each model's search; one trial takes half of them at most, unless it is the last.
    trials
        Settings that each model may try, at most.
    set_
        KEY=VALUE for all models, such as training.epochs=50; may be repeated.
    published
        A CSV of published figures to lay beside: model, metric, value, picked_on, source. Some ship for hkuds-tiktok.
    jobs
        Runs at a time, one thread each.
    device
        cpu, cuda, cuda:1, ...; on a GPU the budget is of wall-clock time.
    """
    from metammf.cli.console import command_line, going_on, show_warnings, steps
    from metammf.cli.console import out as screen
    from metammf.errors import RunError
    from metammf.experiments.compare import RESULTS_FILE, ComparisonPlan, run_comparison
    from metammf.experiments.config import parse_settings
    from metammf.experiments.contenders import split_names
    from metammf.report.comparison_page import write_comparison
    from metammf.report.figures import require_extra

    require_extra("the report")
    show_warnings()
    names = split_names(models)
    plan = ComparisonPlan(
        data=data,
        models=tuple(names),
        profile=profile,
        minutes=minutes,
        trials=trials,
        seeds=seeds,
        settings=parse_settings(set_ or []),
        jobs=jobs,
        device=device,
        published=published,
    )
    words = ["metammf", "compare", str(data), "--models", ",".join(names), "--profile", profile, "--out", str(out)]
    given = {
        "--seeds": seeds,
        "--minutes": f"{minutes:g}",
        "--trials": trials,
        "--jobs": jobs,
        "--set": set_,
        "--published": published,
        "--device": device if device != "cpu" else None,
    }
    with steps("comparing", "looking for leaks") as show, going_on(out):
        results = run_comparison(plan, out, progress=show, command=command_line(words, given))
    page = write_comparison(results, out)
    _summarise(results, out / RESULTS_FILE)
    screen.print(str(page.resolve()))
    if not results.models:
        raise RunError(f"{out}: no model came to an end; beside each stands what it was left out for")


def _summarise(results: "ComparisonResults", path: Path) -> None:
    from metammf.cli.console import out, table
    from metammf.report.comparison_table import chosen_told, trials_told
    from metammf.report.comparison_words import TRIALS_NOTE, findings

    metrics = [f"{name}@{k}" for k in results.profile.ks for name in results.profile.metrics]
    shown = [name for name in metrics if name in results.profile.tested] or metrics
    ranked = sorted(results.models, key=lambda one: one.validation(results.profile.chosen_by), reverse=True)
    rows = [
        (
            one.name,
            f"{one.validation(results.profile.chosen_by):.4f}",
            *(_cell(one, metric, place) for place in _tables(results) for metric in shown),
            one.parameters,
            trials_told(one),
            chosen_told(one),
            f"{sum(trial.seconds for trial in one.trials) / 60:.1f}",
        )
        for one in ranked
    ]
    heads = [f"{metric}{'' if place == 'all' else f', {place}'}" for place in _tables(results) for metric in shown]
    seeds = "one seed" if len(results.budget.seeds) == 1 else "mean ± deviation over seeds"
    title = f"{results.data.name}, profile {results.profile.name}: test, {seeds}; ordered by validation"
    columns = (
        "model",
        f"validation {results.profile.chosen_by}",
        *heads,
        "parameters",
        "trials (ended)",
        "chosen",
        "minutes",
    )
    table(columns, rows, title=title)
    out.print(TRIALS_NOTE)
    for told in findings(results):
        out.print(told)
    for one in results.left_out:
        out.print(f"left out: {one.name}: {one.reason}")
    out.print(str(path.resolve()))


def _tables(results: "ComparisonResults") -> list[str]:
    places = ("all", "cold among all", "cold users")
    return [place for place in places if any(place in one.seeds[0].test for one in results.models)]


def _cell(model: "ModelResult", metric: str, place: str) -> str:
    mean, deviation = model.mean(metric, place), model.deviation(metric, place)
    if mean is None:
        return ""
    return f"{mean:.4f}" if deviation is None else f"{mean:.4f} ± {deviation:.4f}"
