"""Run the comparisons that the README and docs/results.md show, and keep of each what is worth it under ``results/``.

    python scripts/comparisons.py                     all of them, one after the other; each goes on where it was
    python scripts/comparisons.py --only tiktok       one
    python scripts/comparisons.py --list              how far each has come, and its command
    python scripts/comparisons.py --copy              keep what stands so far, and run nothing

Kept in ``results/NAME/``: the page, the tables, the paired tests, the ledger, the plan, and comparison.json, which has no value
of a single user. Run folders stay in ``runs/comparisons/NAME/``.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))
from measure import BENCHES, ROOT, prepare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metammf.experiments.comparison_results import ComparisonResults

RESULTS = ROOT / "results"
OUT = Path("runs") / "comparisons"
"""Where the comparisons' folders are, from the root of the checkout."""
JOBS = 2

# Who takes part: controls, models that read content, models that pass messages, then MetaMMF. Whose steps cost the fusion of all
# items shares each among some batches. MMHCL contrasts a sample of the nodes, not all of them with all. InvRL, whose recipe first
# assigns environments after forty epochs, more than the budget lets it train for, does so after five, and every five.
INVRL = "invrl+model.warmup_epochs=5+model.reassign_every=5"
CONTENT = ("vbpr", "bm3", "freedom", "lattice", "mgcn", "mmhcl+model.contrasted_nodes=1024", "diffmm")
FIELD = (
    *("popularity", "itemknn", "p3", "rp3beta", "ease", "content-knn", "mf"),
    *CONTENT,
    *("ngcf", "grcn", "mmgcn", "graphsage", "gat", INVRL, "lightgcn"),
)
PAPER = ("metammf-mf+training.batches_per_step=4", "metammf-gcn+training.batches_per_step=10")
# The best form, its static twin, and its placebo: the same tuning on features of noise.
WARM = (*PAPER, "metammf-lightgcn", "static-lightgcn", "metammf-lightgcn+noise")
# The same at three times the width, with the ids alone as wide: where it takes part, twin and placebo are its own.
WIDE = ("metammf-wide", "metammf-wide+model.fusion=concat", "metammf-wide+noise", "lightgcn+model.embedding_dim=192")
# Two of the field with MetaMMF's objective in place of their own: what of a lead over them is training.
TRAINED = ("freedom-softmax", "mgcn-softmax")
# InvRL's recipe had been measured before it was seen that it assigns no environment within the budget: both are told.
AS_IT_STOOD = ("invrl",)
COLD = ("lightgcn-cold", *PAPER, "metammf-cold", "static-cold", "metammf-cold+noise")
# Of each model that reads content and is trained, the placebo beside it.
READING = (*CONTENT, "grcn", "mmgcn", INVRL, *PAPER, "metammf-lightgcn", "static-lightgcn")
PLACEBOS = tuple(name for model in READING for name in (model, f"{model}+noise"))
CONTROL = (
    *("popularity", "itemknn", "p3", "ease", "vbpr", "freedom", "lightgcn"),
    *("metammf-lightgcn", "static-lightgcn", "metammf-lightgcn+noise"),
)


@dataclass(frozen=True)
class Comparison:
    """One comparison.

    Args:
        name: Of its folders.
        bench: Whose data set: of `measure.BENCHES`; of a world, that of seed 0.
        profile: The protocol.
        models: Who takes part, in this order.
        minutes: Of one core, for the search of each.
        trials: Of each, at most.
        seeds: Final runs of each.
    """

    name: str
    bench: str
    profile: str
    models: tuple[str, ...]
    minutes: float = 2
    trials: int = 20
    seeds: int = 3

    def command(self, out: Path = OUT, jobs: int = JOBS) -> list[str]:
        """Return what to type, as `metammf compare` itself writes it into its report."""
        data = BENCHES[self.bench].folder().relative_to(ROOT)
        return [
            *("metammf", "compare", str(data), "--models", ",".join(self.models), "--profile", self.profile),
            *("--out", str(out / self.name), "--seeds", str(self.seeds), "--minutes", f"{self.minutes:g}"),
            *("--trials", str(self.trials), "--jobs", str(jobs)),
        ]


# A world carries a split of its own, in time, with clips uploaded after the end of training. `global-time` makes the same of it,
# with the lists and masks of the other temporal comparisons; `cold-item` would throw a seventh of its interactions away.
COMPARISONS = {
    one.name: one
    for one in (
        Comparison(
            "tiktok",
            "tiktok",
            "hkuds-tiktok",
            (*WIDE, *FIELD, *AS_IT_STOOD, *PAPER, "metammf-lightgcn", *TRAINED),
            minutes=10,
        ),
        Comparison("lfm2k", "lfm2k", "mmrec", FIELD + WARM),
        Comparison("lfm2k-placebo", "lfm2k", "mmrec", PLACEBOS),
        Comparison("lfm2k-cold", "lfm2k", "cold-item", FIELD + COLD),
        Comparison("movielens-small", "movielens-small", "user-time", FIELD + WARM),
        Comparison("movielens-small-global", "movielens-small", "global-time", CONTROL),
        Comparison("world", "world", "global-time", FIELD + COLD),
    )
}


def run(one: Comparison, out: Path, jobs: int) -> int:
    """Run a comparison, or go on with it, and return the exit status of its command."""
    prepare(BENCHES[one.bench])
    command = one.command(out, jobs)
    print(shlex.join(command), flush=True)
    return subprocess.run([sys.executable, "-m", *command], check=False, cwd=ROOT).returncode


def kept_in(out: Path, one: Comparison) -> ComparisonResults | None:
    """Return what a comparison has found so far; None where it has not begun.

    The command that it holds becomes the one that makes all of it, so that it is complete once that has nothing left to do.

    Raises:
        SystemExit: the folder holds a comparison that this script does not ask for.
    """
    from metammf.experiments.compare import NOT_ASKED_FOR, RESULTS_FILE
    from metammf.experiments.comparison_results import ComparisonResults

    path = ROOT / out / one.name / RESULTS_FILE
    if not path.is_file():
        return None
    found = ComparisonResults.read(path)
    models = {model.name for model in found.models}
    # The command in the folder may have asked for fewer models than this one does.
    left_out = tuple(left for left in found.left_out if left.reason != NOT_ASKED_FOR or left.name not in one.models)
    done = models | {left.name for left in left_out if not left.tried_again}
    for what, there, asked in (
        ("profile", found.profile.name, one.profile),
        ("minutes", found.budget.minutes, one.minutes),
        ("trials", found.budget.trials, one.trials),
        ("seeds", len(found.budget.seeds), one.seeds),
        ("models besides", sorted(models - set(one.models)), []),
    ):
        if there != asked:
            raise SystemExit(
                f"{path}: {what}: expected {asked}, found {there}: see COMPARISONS in {Path(__file__).name}"
            )
    return replace(found, command=shlex.join(one.command()), complete=done >= set(one.models), left_out=left_out)


def copy(one: Comparison, out: Path, to: Path) -> bool:
    """Write what a comparison has found so far into a folder, page and tables made anew; tell whether there is anything."""
    from metammf.experiments.compare import PLAN_FILE, RESULTS_FILE
    from metammf.files import read_json, write_json
    from metammf.report.comparison_page import write_comparison

    found = kept_in(out, one)
    if found is None:
        return False
    to.mkdir(parents=True, exist_ok=True)
    found.write(to / RESULTS_FILE)
    write_json(to / PLAN_FILE, read_json(ROOT / out / one.name / PLAN_FILE))
    write_comparison(found, to)
    return True


def describe(one: Comparison, out: Path, jobs: int) -> str:
    """Return how far a comparison has come, and its command."""
    from metammf.experiments.compare import LEDGER_FILE

    found, ledger = kept_in(out, one), ROOT / out / one.name / LEDGER_FILE
    trials = ledger.read_bytes().count(b"\n") if ledger.is_file() else 0
    done = 0 if found is None else len(found.models)
    left = f", {len(found.left_out)} left out" if found is not None and found.left_out else ""
    return f"{one.name}: {done} of {len(one.models)} models done{left}, {trials} trials\n  {shlex.join(one.command(out, jobs))}"


def main(words: Sequence[str] | None = None) -> None:
    """Read the options and do what they say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(COMPARISONS), help="one comparison")
    parser.add_argument("--list", action="store_true", help="say how far each has come, and its command")
    parser.add_argument("--copy", action="store_true", help="keep what stands so far, and run nothing")
    parser.add_argument("--out", type=Path, default=OUT, help=f"where the comparisons' folders are ({OUT})")
    parser.add_argument("--jobs", type=int, default=JOBS, help=f"runs at a time, one thread each ({JOBS})")
    options = parser.parse_args(words)
    chosen = [one for one in COMPARISONS.values() if options.only in (None, one.name)]
    if options.list:
        print("\n".join(describe(one, options.out, options.jobs) for one in chosen))
        return
    failed = []
    for one in chosen:
        if not options.copy and run(one, options.out, options.jobs):
            failed.append(one.name)
        if copy(one, options.out, RESULTS / one.name):
            print(f"kept what {one.name} has found in {RESULTS / one.name}", flush=True)
    if failed:
        raise SystemExit(f"{', '.join(failed)} did not come to the end; run this again to go on")


if __name__ == "__main__":
    main()
