"""``metammf study``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from metammf.experiments.conditions import ConditionsAsk
    from metammf.experiments.conditions_results import ConditionsResults
    from metammf.experiments.study_jobs import StudyOptions
    from metammf.experiments.study_results import StudyResults, StudyRow
    from metammf.report.tables import Cell

Texts = Annotated[list[str] | None, Parameter(negative="")]
CONDITIONS = "conditions"
_OTHERS = {False: ("--vary", "--users", "--items", "--placebo"), True: ("--values",)}
"""Options that mean nothing to the other studies, and to that of conditions."""


def study(
    name: Literal["overall", "fusion", "depth", "rank", "modalities", "map", "width", "placebo", "conditions"],
    /,
    *data: str,
    out: Path,
    recipe: Texts = None,
    values: Annotated[list[int] | None, Parameter(negative="")] = None,
    vary: Texts = None,
    users: int = 2_000,
    items: int | None = None,
    placebo: Literal["everywhere", "default"] = "everywhere",
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    choose: Texts = None,
    split: str | None = None,
    seen: Literal["train", "train+validation"] = "train+validation",
    metric: str = "ndcg@20",
    seeds: int = 3,
    seed: int = 0,
    jobs: int = 1,
    device: str = "cpu",
    precision: Literal["float32", "bfloat16"] = "float32",
) -> None:
    """Run one of the paper's studies, the placebo study or the map of conditions, and write its table, figure and page.

    The same command goes on where it was. Validation chooses each run's epoch and, with --choose, each variant's settings; the
    test part is read once a final run.

    Parameters
    ----------
    name
        overall, fusion (static against dynamic), depth (of the fusion), rank (CP against dense), modalities (subsets), map (of
        the fused vectors), width (meta channels), placebo (features shuffled, noise, dropped) or conditions (static against
        dynamic on generated worlds, one setting varied at a time).
    data
        A data set's folder in our layout. Of conditions: real data sets beside the worlds, none or several, each as
        DIR[,RECIPE][,KEY=VALUE...].
    out
        The study's folder.
    recipe
        A model's recipe or TOML file; may be repeated (default: the study's own).
    values
        Depths, ranks or widths, one each; may be repeated (default: the study's own).
    vary
        Of conditions: AXIS=VALUE,VALUE,..., with the axes strength, diversity, density and cold; may be repeated (default: all
        four at values of their own).
    users
        Of conditions: users of each world.
    items
        Of conditions: clips of each world (default: 3,200, and more for more than 2,500 users).
    placebo
        Of conditions: where the dynamic fusion is also fed noise, in all of them or in the default world alone.
    set_
        KEY=VALUE on top of every recipe; may be repeated.
    choose
        KEY=VALUE,VALUE,... that validation chooses among, for each variant alike, with the first seed; may be repeated.
    split
        As of `metammf train`; not needed where the data set carries a split.
    seen
        What the test part's rankings leave out.
    metric
        What validation chooses settings by, and figures and tests are about: NAME@10 or NAME@20.
    seeds
        Final runs of each variant; of conditions also worlds of each kind.
    seed
        Of the first.
    jobs
        Runs at a time, one thread each.
    device
        cpu, cuda, cuda:1, ...
    precision
        bfloat16 runs forward passes in half precision.
    """
    from metammf.cli.console import command_line, going_on, show_warnings

    with going_on(out):  # of a folder that is there, whatever an interrupt hits: imports take their time too
        from metammf.errors import ConfigError
        from metammf.experiments.conditions import ConditionsAsk, read_axis, read_real
        from metammf.experiments.config import parse_settings
        from metammf.experiments.study_jobs import StudyOptions
        from metammf.report.figures import require_extra

        for option, value, least in (("--seeds", seeds, 1), ("--jobs", jobs, 1), ("--seed", seed, 0)):
            if value < least:
                raise ConfigError(f"{option}: expected a whole number of at least {least}, got {value}")
        require_extra("the report")
        show_warnings()
        settings: dict[str, Any] = parse_settings(set_ or [])
        if split is not None:
            settings["split.method"] = split
        options = StudyOptions(
            num_seeds=seeds,
            seed=seed,
            settings=settings,
            choose=_choices(choose or []),
            metric=metric,
            seen=seen,
            workers=jobs,
            device=device,
            precision=precision,
        )
        given = {
            "--recipe": recipe,
            "--values": values,
            "--vary": vary,
            "--users": users if users != 2_000 else None,
            "--items": items,
            "--placebo": placebo if placebo != "everywhere" else None,
            "--set": set_,
            "--choose": choose,
            "--split": split,
            "--seen": seen if seen != "train+validation" else None,
            "--metric": metric if metric != "ndcg@20" else None,
            "--seeds": seeds if seeds != 3 else None,
            "--seed": seed or None,
            "--device": device if device != "cpu" else None,
            "--precision": precision if precision != "float32" else None,
        }
        command = command_line(["metammf", "study", name, *data, "--out", str(out)], given)
        _refuse(name, [option for option in _OTHERS[name == CONDITIONS] if given[option] is not None])
        if name == CONDITIONS:
            if len(recipe or ()) > 1:
                raise ConfigError(f"study {name}: expected one --recipe, for the worlds, got {len(recipe or ())}")
            ask = ConditionsAsk(
                recipe=recipe[0] if recipe else None,
                vary=dict(read_axis(word) for word in vary or ()),
                users=users,
                real=tuple(read_real(word) for word in data),
                settings=settings,
                placebo=placebo,
                items=items,
            )
            _conditions(ask, out, options, command)
        else:
            _one_data_set(name, data, out, options, tuple(recipe or ()), tuple(values or ()), command)


def _refuse(name: str, options: list[str]) -> None:
    from metammf.errors import ConfigError

    if options:
        raise ConfigError(f"study {name} has no use for {', '.join(options)}")


def _one_data_set(
    name: str,
    data: tuple[str, ...],
    out: Path,
    options: "StudyOptions",
    recipes: tuple[str, ...],
    values: tuple[int, ...],
    command: str,
) -> None:
    from metammf.cli.console import steps
    from metammf.data.folder import load_dataset
    from metammf.errors import ConfigError
    from metammf.experiments.studies import Ask, make_plan
    from metammf.experiments.study_run import run_study
    from metammf.report.study_page import write_study

    if len(data) != 1:
        raise ConfigError(f"study {name}: expected one data set's folder, got {len(data)}")
    folder = Path(data[0])
    plan = make_plan(name, Ask(recipes, values, options.settings, load_dataset(folder).features.modalities))
    with steps(f"study {name}") as show:
        results = run_study(plan, folder, out, options, command=command, progress=show)
    _summarise(results, write_study(results, out))
    _refuse_nothing(results.rows, out)


def _refuse_nothing(rows: "Iterable[StudyRow]", out: Path) -> None:
    """Say last, after the page that tells of each, that there is no result.

    Raises:
        RunError: all variants have failed.
    """
    from metammf.errors import RunError

    if all(row.failed is not None for row in rows):
        raise RunError(f"{out}: no variant came to an end; beside each stands why")


def _conditions(ask: "ConditionsAsk", out: Path, options: "StudyOptions", command: str) -> None:
    from dataclasses import replace

    from metammf.cli import console
    from metammf.experiments.conditions import make_conditions
    from metammf.experiments.conditions_run import run_conditions
    from metammf.report.conditions_page import findings, write_conditions

    plan = make_conditions(ask)
    # Many short runs, of which nobody asks how much memory each takes.
    options = replace(options, apart=False)
    with console.steps(f"study {CONDITIONS}") as show:
        results = run_conditions(plan, out, options, command=command, progress=show)
    page = write_conditions(results, out)
    _tabulate(results)
    for finding in findings(results):
        console.out.print(finding)
    console.out.print(str(page.resolve()))
    _refuse_nothing((row for one in results.conditions for row in one.models.values()), out)


def _tabulate(results: "ConditionsResults") -> None:
    """Print a row a condition and table of test items; how many worlds or seeds agree in sign where there are several."""
    from metammf.cli.console import table
    from metammf.experiments.conditions import ROLES
    from metammf.experiments.conditions_run import TESTED_TABLES
    from metammf.report.conditions_page import agreement
    from metammf.report.tables import of_metric

    rows = []
    several = len(results.seed_numbers) > 1
    for one in results.conditions:
        for name in (name.replace("_", " ") for name in TESTED_TABLES):
            seeds = {role: row.seeds for role, row in one.models.items()}
            means = [_told(of_metric(seeds.get(role, ()), results.metric, name)) for role in ROLES]
            gain = results.gain(one, name)
            told = ("", "") if gain is None else (f"{gain.test.difference:+.4f}", f"{gain.test.p_holm:.2g}")
            agree = ("" if gain is None else agreement(gain),) if several else ()
            rows.append((one.label, name, *means, *told, *agree))
    columns = ("condition", "test items", "dynamic", "static", "fed noise", "gain over static", "p after Holm")
    table((*columns, "agree") if several else columns, rows, title=f"{results.title}: test, {results.metric}")


def _told(cell: "Cell | None") -> str:
    """A mean, and its deviation over seeds where there is one."""
    return "" if cell is None else f"{cell.mean:.4f}" + (f" ± {cell.std:.4f}" if cell.std else "")


def _choices(pairs: list[str]) -> dict[str, tuple[Any, ...]]:
    """Read KEY=VALUE,VALUE,...; a comma within brackets or quotes is part of a value.

    Raises:
        ConfigError: a pair is no such thing, or its key is of no section.
    """
    from metammf.errors import ConfigError
    from metammf.experiments.config import parse_settings

    found: dict[str, tuple[Any, ...]] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if equals and not all(word.strip() for word in text.split(",")):
            raise ConfigError(f"--choose {pair!r}: expected {key}=VALUE,VALUE,..., got an empty value")
        # Numbers, and what stands in quotes or brackets, are a TOML list; words are not, and stand one by one then.
        listed = parse_settings([f"{key}=[{text}]" if equals else pair])
        for name, value in listed.items():
            words = [parse_settings([f"{name}={word}"])[name] for word in text.split(",")]
            found[name] = tuple(value if isinstance(value, list) else words)
    return found


def _summarise(results: "StudyResults", page: Path) -> None:
    from metammf.cli.console import out, table
    from metammf.report.cold_items import study_without_guesses
    from metammf.report.study_page import findings
    from metammf.report.tables import of_metric

    results = study_without_guesses(results)
    shown_tables = ("all", "cold among all", "cold among cold", "cold users")
    tables = [name for name in shown_tables if _any_has(results, name)]
    rows = []
    for row in results.rows:
        shown = [_told(of_metric(row.seeds, results.metric, name)) for name in tables]
        rows.append((row.label, *shown, row.parameters))
    table((f"test, {results.metric}", *tables, "parameters"), rows, title=f"{results.title}: {results.data.name}")
    for finding in findings(results):
        out.print(finding)
    out.print(str(page.resolve()))


def _any_has(results: "StudyResults", table: str) -> bool:
    """Whether any run has numbers of a table."""
    return any(table in seed.test for row in results.rows for seed in row.seeds)
