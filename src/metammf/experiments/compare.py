"""A comparison: the same split, protocol and budget for every model, settings searched on validation alone, test read once a run.

::

    plan.json           what was asked for: data set, profile, budget, and each model's recipe
    ledger.jsonl        one line a trial
    models/NAME/        trial-N, the run folder of a trial that is not over; seed-N, that of a final run
    comparison.json     what was found so far: `metammf.experiments.comparison_results`

The same command goes on where it was, whatever ended it. More models and more seeds may join; another profile, budget or data set
is another comparison, since it would choose again after the test part was read.
"""

from __future__ import annotations

import itertools
import logging
import math
import shutil
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metammf.data.folder import load_dataset
from metammf.errors import ConfigError, DataError, FileFormatError, LeakageError, RunError
from metammf.evaluation.result import Evaluation
from metammf.experiments.audit import FittingAudit, audit
from metammf.experiments.comparison_results import (
    Budget,
    Check,
    ComparisonResults,
    DataSummary,
    LeftOut,
    ModelResult,
    PublishedFigure,
)
from metammf.experiments.config import from_mapping, same_run
from metammf.experiments.contenders import Contender, contenders, left_out
from metammf.experiments.environment import environment, short_source, source_hash
from metammf.experiments.evaluating import EVALUATIONS
from metammf.experiments.finals import FINAL_FILE, Final, FinalJob, NoFinal, read_final, run_final
from metammf.experiments.jobs import run_as_they_come
from metammf.experiments.ledger import Ledger
from metammf.experiments.measuring import data_summary
from metammf.experiments.pair_tests import PairTests, improvements
from metammf.experiments.profiles import profile_named
from metammf.experiments.proposing import require_optuna
from metammf.experiments.published import is_elsewhere, published_for, read_published
from metammf.experiments.run import data_hash, locked, untouched
from metammf.experiments.search_space import misfit, with_settings
from metammf.experiments.tuning import (
    TRIAL_SHARE,
    TrialJob,
    best_trial,
    chosen_config,
    died_trial,
    is_over,
    run_trial,
    seconds_left,
    spent,
    spread,
    trials_in_all,
)
from metammf.files import read_json, write_json
from metammf.training.fit import pick_device

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from metammf.data.dataset import Dataset
    from metammf.data.splitting import Split
    from metammf.experiments.comparison_results import Trial
    from metammf.experiments.config import RunConfig, SplitConfig
    from metammf.experiments.profiles import Profile
    from metammf.experiments.workers import Death

    Progress = Callable[[int, int, str], None]

PLAN_FILE = "plan.json"
LEDGER_FILE = "ledger.jsonl"
RESULTS_FILE = "comparison.json"
FORMAT = "metammf-comparison-plan-1"
FIRST_SEED = 1
"""Of the final runs; trials are of seed 0, so that no final run repeats the one that was chosen."""

NOT_ASKED_FOR = "begun in this folder by an earlier command, and not asked for in this one"
"""Of a model that is told of all the same: what was looked at is not to go away because of what came out."""

_ASKED = {
    "format": "form of plan.json",
    "data": "data set (by SHA-256)",
    "profile": "profile",
    "split": "split",
    "minutes": "number of --minutes",
    "trials": "number of --trials",
    "device": "device",
}
"""What plan.json must agree on, as messages call it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ComparisonPlan:
    """What is compared, and how.

    Args:
        data: The data set's folder.
        models: Recipes, with changes; see `metammf.experiments.contenders`.
        profile: Name of the protocol.
        minutes: Of one core, for the search of each model; a trial takes half of them at most, unless it is the last.
        trials: Trials of each model, at most, the recipe's own settings among them.
        seeds: Final runs of each model; one that is solved draws nothing and gets one, unless it has a placebo that is drawn.
        settings: Dotted key -> value, on top of every recipe's.
        jobs: Runs at a time, one thread each.
        device: Where they run.
        published: A CSV of figures to lay beside; by default those that ship for the profile.
        here: Stay in this process, one run at a time; peak memory is then that of all runs so far.
    """

    data: Path
    models: tuple[str, ...]
    profile: str
    minutes: float = 10.0
    trials: int = 20
    seeds: int = 3
    settings: Mapping[str, Any] = field(default_factory=dict)
    jobs: int = 1
    device: str = "cpu"
    published: Path | None = None
    here: bool = False

    def __post_init__(self) -> None:
        for name in ("trials", "seeds", "jobs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name}: expected a whole number of at least 1, got {getattr(self, name)}")
        if not 0 < self.minutes < math.inf:
            raise ConfigError(f"--minutes: expected a finite number above 0, got {self.minutes:g}")

    def budget(self, trial_share: float) -> Budget:
        """Return the budget of each model, of which a trial may take a share of the time."""
        return Budget(self.minutes, self.trials, tuple(range(FIRST_SEED, FIRST_SEED + self.seeds)), trial_share)


def run_comparison(
    plan: ComparisonPlan, out: Path | str, *, progress: Progress | None = None, command: str = "metammf compare"
) -> ComparisonResults:
    """Compare models, or go on with a comparison.

    Args:
        plan: What is compared.
        out: The folder.
        progress: Called with the steps done, how many there are, and what was done last. A step is a final run, or a trial or
            its part of the budget's time: a search that is over has taken all of its steps, so that there are always as many.
        command: What the results say made them.

    Raises:
        ConfigError: a recipe, a setting, the profile or the device does not exist or does not fit, or no model can be compared.
        DataError: the data set lacks what the profile needs.
        LeakageError: the audit fails.
        MissingExtraError: Optuna is not installed.
        RunError: `out` is something else, is in use, or holds another comparison; or a process was told to end.
    """
    # By its own name, and before any trial: "auto" has no clock of its own, and one that is not there is no trial's fault.
    plan = replace(plan, device=str(pick_device(plan.device)))
    profile = profile_named(plan.profile)
    dataset = load_dataset(plan.data)
    split_config = profile.split(dataset)
    split = split_config.apply(dataset)
    if is_elsewhere(profile.name, split):
        log.warning(
            "profile %s: %s is not the split that it is named for; nothing published is of this one",
            profile.name,
            dataset.name,
        )
        profile = profile.elsewhere()
    checks = audit(dataset, split)
    asked = contenders(plan.models, profile, split_config, plan.settings, dataset.features.modalities)
    if any(one.space for one in asked):
        require_optuna()
    published = read_published(plan.published) if plan.published else published_for(profile.name, split)
    able, unable, fitting = _admitted(asked, dataset, split)
    if not able:
        raise ConfigError("no model can be compared: " + "; ".join(f"{one.name}: {one.reason}" for one in unable))
    out = Path(out)
    _refuse_foreign(out)
    with locked(out):
        written = _agree(out / PLAN_FILE, plan, split_config, dataset, able)
        # As it was begun, where that is the same run said otherwise.
        able = [replace(one, config=from_mapping(written["models"][one.name], from_file=True)) for one in able]
        setting = _Setting(
            plan,
            profile,
            split_config,
            data_summary(dataset, split),
            (*checks, *fitting),
            published,
            command,
            plan.budget(written["trial_share"]),
            written["started"],
        )
        asked_for = {one.name for one in asked}
        unable += [LeftOut(name, NOT_ASKED_FOR) for name in written["models"] if name not in asked_for]
        return _Comparison(setting, able, unable, out, progress).run()


def _admitted(
    asked: tuple[Contender, ...], dataset: Dataset, split: Split
) -> tuple[list[Contender], list[LeftOut], list[Check]]:
    """Tell the models that the data set can serve from those that it cannot; look at what the former fit on features."""
    able: list[Contender] = []
    unable: list[LeftOut] = []
    checks: list[Check] = []
    fitting = FittingAudit(split.development)
    for one in asked:
        reason = left_out(one, dataset)
        if reason is None and one.content:
            try:
                checks += fitting.check(one.config.model, one.name)
            except LeakageError:
                raise
            except (ConfigError, DataError) as error:
                reason = LeftOut(one.name, str(error))
        if reason is None:
            able.append(one)
        else:
            log.warning("%s is left out: %s", reason.name, reason.reason)
            unable.append(reason)
    return able, unable, checks


def _refuse_foreign(out: Path) -> None:
    if not untouched(out) and not (out / PLAN_FILE).is_file():
        raise RunError(f"{out} exists and is not a comparison's folder (it has no {PLAN_FILE}): name another")


def _agree(
    path: Path, plan: ComparisonPlan, split: SplitConfig, dataset: Dataset, able: list[Contender]
) -> dict[str, Any]:
    """Write what is asked for, or check that it is what was begun; return what is written."""
    asked = {
        "format": FORMAT,
        "data": data_hash(dataset),
        "profile": plan.profile,
        "split": split.model_dump(mode="json"),
        "minutes": plan.minutes,
        "trials": plan.trials,
        "device": plan.device,
    }
    models = {one.name: one.config.model_dump(mode="json") for one in able}
    started, share = datetime.now(UTC).isoformat(timespec="seconds"), TRIAL_SHARE
    if path.is_file():
        before = read_json(path)
        if not _is_plan(before):
            raise FileFormatError(path, "it is damaged", "what `metammf compare` wrote")
        for key, value in asked.items():
            if before.get(key) != value:
                raise RunError(
                    f"{path.parent} holds a comparison with another {_ASKED[key]}: {before.get(key)!r}, and now {value!r} is"
                    " asked for; going on would choose again after the test part was read: name another folder"
                )
        columns = sum(dataset.features.widths.values())
        for name, config in before["models"].items():
            begun = from_mapping(config, from_file=True)
            if name in models and not same_run(begun, from_mapping(models[name]), columns):
                raise RunError(f"{path.parent}: {name} was begun with other settings; name another folder")
        models, started = {**models, **before["models"]}, before["started"]
        share = before.get("trial_share", 1.0)  # a search goes on as it was begun, before there was a share too
    written = {**asked, "trial_share": share, "started": started, "models": models}
    write_json(path, written)
    return written


def _is_plan(before: Any) -> bool:
    """Whether what stands in plan.json has the parts that are read."""
    if not isinstance(before, dict) or not isinstance(before.get("models"), dict):
        return False
    share = before.get("trial_share", 1.0)
    return isinstance(before.get("started"), str) and isinstance(share, int | float) and 0 < share <= 1


@dataclass(frozen=True)
class _Setting:
    """What holds for all models of a comparison."""

    plan: ComparisonPlan
    profile: Profile
    split: SplitConfig
    data: DataSummary
    checks: tuple[Check, ...]
    published: tuple[PublishedFigure, ...]
    command: str
    budget: Budget
    started: str


class _Comparison:
    """The work: which run is next, what came of each, and what has been found so far."""

    def __init__(
        self,
        setting: _Setting,
        able: list[Contender],
        unable: list[LeftOut],
        out: Path,
        progress: Progress | None,
    ) -> None:
        self.setting, self.plan, self.budget = setting, setting.plan, setting.budget
        self.asked, self.able = tuple(able), {one.name: one for one in able}
        self.unable, self.out, self.progress = unable, out, progress
        self.ledger = Ledger(out / LEDGER_FILE)
        self.tests = PairTests(setting.profile.tested, setting.profile.tables)
        self.finals: dict[str, dict[int, Final]] = {name: {} for name in self.able}
        self.models: dict[str, ModelResult] = {}
        self._numbers = itertools.count()
        self._running: dict[int, tuple[Contender, TrialJob | FinalJob]] = {}

    def run(self) -> ComparisonResults:
        for contender in list(self.able.values()):
            self._take_up(contender)
        self._warn_of_other_sources()
        self._tell("")
        run_as_they_come(work, self._next, self._done, self.plan.jobs, here=self.plan.here, died=died)
        results = self._results(complete=not any(one.tried_again for one in self.unable))
        results.write(self.out / RESULTS_FILE)
        return results

    # Which run is next ------------------------------------------------------------------------------------------------

    def _next(self) -> tuple[int, TrialJob | FinalJob, bool] | None:
        for contender in self.able.values():
            job = self._next_of(contender)
            if job is not None:
                number = next(self._numbers)
                self._running[number] = contender, job
                # A process of its own, so that a final run's peak memory is its own.
                return number, job, isinstance(job, FinalJob)
        return None

    def _next_of(self, contender: Contender) -> TrialJob | FinalJob | None:
        trials = self.ledger.trials(contender.name)
        mine = [job for other, job in self._running.values() if other.name == contender.name]
        if not is_over(trials, self.budget, contender.space):
            # One after the other, so that each is asked for in knowledge of all before: the outcome depends on no clock.
            return None if mine else self._trial_job(contender, trials)
        running = {job.config.seed for job in mine}
        todo = [
            seed for seed in self._seeds(contender) if seed not in self.finals[contender.name] and seed not in running
        ]
        if not todo or best_trial(trials) is None:
            return None
        return self._final_job(contender, todo[0])

    def _seeds(self, contender: Contender) -> tuple[int, ...]:
        return self.budget.seeds if contender.drawn else self.budget.seeds[:1]

    def _trial_job(self, contender: Contender, trials: tuple[Trial, ...]) -> TrialJob:
        return TrialJob(
            contender.name,
            f"{contender.config.model.name} {self.setting.data.sha256}",
            contender.config,
            contender.space,
            trials,
            seconds_left(trials, self.budget, contender.space),
            self.plan.data,
            self._folder(contender) / f"trial-{len(trials)}",
            self.plan.device,
        )

    def _final_job(self, contender: Contender, seed: int) -> FinalJob:
        profile = self.setting.profile
        return FinalJob(
            self._chosen(contender, seed),
            self.plan.data,
            self._folder(contender) / f"seed-{seed}",
            profile.seen,
            profile.ks,
            self.plan.device,
        )

    def _chosen(self, contender: Contender, seed: int) -> RunConfig:
        best = best_trial(self.ledger.trials(contender.name))
        assert best is not None
        return with_settings(chosen_config(contender.config, best), {"seed": seed})

    def _folder(self, contender: Contender) -> Path:
        return self.out / "models" / contender.folder

    # What came of it --------------------------------------------------------------------------------------------------

    def _take_up(self, contender: Contender) -> None:
        """Take over what an earlier call has done, and finish what a kill has left of it.

        Raises:
            RunError: its search is not over, and its trials are of another, of another version of the program for one.
        """
        trials = self.ledger.trials(contender.name)
        for trial in () if is_over(trials, self.budget, contender.space) else trials:
            if other := misfit(contender.space, trial.settings):
                raise RunError(
                    f"{self.ledger.path}: trial {trial.number} of {contender.name} is of another search ({other}): go on with the"
                    " version that began it, or name another folder"
                )
        for trial in trials:  # a kill may have come between a trial's line and the end of its folder
            shutil.rmtree(self._folder(contender) / f"trial-{trial.number}", ignore_errors=True)
        if is_over(trials, self.budget, contender.space):
            self._search_is_over(contender)
        if contender.name in self.able and best_trial(trials) is not None:
            for seed in self._seeds(contender):
                final = read_final(self._folder(contender) / f"seed-{seed}", self._chosen(contender, seed))
                if final is not None:
                    self.finals[contender.name][seed] = final
            self._finish(contender)

    def _warn_of_other_sources(self) -> None:
        """Say so where code goes on with what other code has begun; of one without a source that is so, for this one notes it."""
        if all(self._next_of(contender) is None for contender in self.able.values()):
            return
        there = [trial.source for name in self.able for trial in self.ledger.trials(name)]
        there += [final.result.source for name in self.able for final in self.finals[name].values()]
        others = [source for source in there if source != source_hash()]
        if others:
            told = ", ".join(dict.fromkeys(map(short_source, others)))
            log.warning(
                "%s: %d of %d trials and final runs are of other source than this program's, %s (%s); it goes on, and the results"
                " tell which is of which",
                self.out,
                len(others),
                len(there),
                short_source(source_hash()),
                told,
            )

    def _done(self, number: int, outcome: Trial | Final | NoFinal) -> None:
        contender, job = self._running.pop(number)
        if isinstance(outcome, NoFinal):
            # With fewer seeds than the others it would not be compared as they are.
            reason = f"seed {outcome.seed}: {outcome.reason}; the same command tries it again"
            self._leave_out(contender, reason, tried_again=True)
            self._tell("")
            return
        if isinstance(outcome, Final):
            self.finals[contender.name][outcome.result.seed] = outcome
            self._tell(self._of_final(contender, outcome))
            if self._finish(contender):
                self._results(complete=False).write(self.out / RESULTS_FILE)
            return
        self.ledger.add(contender.name, outcome)
        shutil.rmtree(job.out, ignore_errors=True)  # the ledger has all that is wanted of it
        self._tell(self._of_trial(contender, outcome))
        self._search_is_over(contender)

    def _search_is_over(self, contender: Contender) -> None:
        """Leave a model out where its search is over and has nothing to show."""
        trials = self.ledger.trials(contender.name)
        if is_over(trials, self.budget, contender.space) and best_trial(trials) is None:
            self._leave_out(contender, f"no trial has come to a value; the recipe's own: {trials[0].reason}")

    def _leave_out(self, contender: Contender, reason: str, *, tried_again: bool = False) -> None:
        """Go on without a model, unless that has been said: another of its runs may have been under way."""
        if self.able.pop(contender.name, None) is not None:
            log.warning("%s is left out: %s", contender.name, reason)
            self.unable.append(LeftOut(contender.name, reason, tried_again))

    def _finish(self, contender: Contender) -> bool:
        """Put a model's results together once all its runs are there."""
        finals, seeds = self.finals[contender.name], self._seeds(contender)
        if any(seed not in finals for seed in seeds):
            return False
        trials = self.ledger.trials(contender.name)
        best = best_trial(trials)
        assert best is not None
        config = chosen_config(contender.config, best)
        self.models[contender.name] = ModelResult(
            name=contender.name,
            model=config.model.name,
            recipe=contender.recipe,
            overrides=contender.overrides,
            placebo=config.placebo,
            content=contender.content,
            solved=contender.solved,
            parameters=finals[seeds[0]].parameters,
            space=contender.space,
            trials=trials,
            spread=spread(trials),
            chosen=best.settings,
            chosen_trial=best.number,
            config=config.model_dump(mode="json", include={"model", "training", "split"}),
            seeds=tuple(finals[seed].result for seed in seeds),
        )
        self.tests.add(contender.name, [self._evaluation(contender, seed) for seed in seeds])
        return True

    def _evaluation(self, contender: Contender, seed: int) -> Evaluation:
        """Read the test evaluation that a final run has kept; of the users, the columns that are tested.

        Raises:
            RunError: it is missing, or damaged.
        """
        run = self._folder(contender) / f"seed-{seed}"
        try:
            return Evaluation.read(
                run / EVALUATIONS / f"test-{self.setting.profile.seen}.json", ["user_id", *self.tests.columns]
            )
        except DataError as error:
            raise RunError(
                f"{error}; remove {run / FINAL_FILE}, and the same command measures that run again"
            ) from error

    def _results(self, *, complete: bool) -> ComparisonResults:
        setting, order = self.setting, [name for name in self.able if name in self.models]
        models = tuple(self.models[name] for name in order)
        told = environment(self.plan.device, "float32", self.plan.jobs) | {"threads": 1}
        return ComparisonResults(
            data=setting.data,
            profile=setting.profile.summary(setting.split),
            budget=self.budget,
            command=setting.command,
            environment=told,
            started=setting.started,
            updated=datetime.now(UTC).isoformat(timespec="seconds"),
            complete=complete,
            audit=setting.checks,
            models=models,
            left_out=tuple(self.unable),
            tests=self.tests.results(order),
            improvements=improvements(models, setting.profile.tested, setting.profile.tables),
            published=setting.published,
            pending=tuple(name for name in self.able if name not in self.models),
        )

    # What is told -----------------------------------------------------------------------------------------------------

    def _tell(self, what: str) -> None:
        if self.progress is None:
            return
        steps = [self._steps(contender) for contender in self.asked]
        self.progress(sum(done for done, _ in steps), sum(total for _, total in steps), what)

    def _steps(self, contender: Contender) -> tuple[int, int]:
        """Return the steps of a model that are done and those that there are, which stay as many whatever comes.

        A search has as many steps as it may have trials, and is as far as the nearer of its two ends: trials or time. One that
        is over, or a model that was left out, has taken them all.
        """
        steps, seeds = trials_in_all(self.budget, contender.space), len(self._seeds(contender))
        if contender.name not in self.able:
            return steps + seeds, steps + seeds
        trials = self.ledger.trials(contender.name)
        done = steps
        if not is_over(trials, self.budget, contender.space):
            by_time = math.floor(steps * spent(trials) / (60 * self.budget.minutes))
            done = max(sum(trial.counts for trial in trials), by_time)
        return done + len(self.finals[contender.name]), steps + seeds

    def _of_trial(self, contender: Contender, trial: Trial) -> str:
        trials, whole = self.ledger.trials(contender.name), 60 * self.budget.minutes
        best, used = best_trial(trials), spent(trials)
        state: str = trial.state
        if trial.state == "stopped":
            state = f"stopped at {'the end' if used >= whole else 'its share'} of the budget"
        value = trial.reason if trial.value is None else f"{self.setting.profile.chosen_by} {trial.value:.4f}"
        so_far = "" if best is None or best.value is None else f", best {best.value:.4f}"
        time = f"all {whole:.0f} s are used" if used >= whole else f"{used:.0f} of {whole:.0f} s used"
        return f"{contender.name} trial {trial.number} {state}: {value}{so_far}; {time}"

    def _of_final(self, contender: Contender, final: Final) -> str:
        metric = self.setting.profile.chosen_by
        value = final.result.validation[metric]
        return (
            f"{contender.name} seed {final.result.seed}: validation {metric} {value:.4f}, {final.result.seconds:.0f} s"
        )


def work(job: TrialJob | FinalJob) -> Trial | Final | NoFinal:
    """Do one run of a comparison, in whatever process."""
    return run_trial(job) if isinstance(job, TrialJob) else run_final(job)


def died(job: TrialJob | FinalJob, death: Death) -> Trial | NoFinal:
    """Return what to note of a run whose process died."""
    return died_trial(job, death) if isinstance(job, TrialJob) else NoFinal(job.config.seed, death.reason)
