"""Measure every recipe on every real data set: one JSON a data set, recipe and seed, under ``results/recipes/``.

    python scripts/measure.py                     everything that is missing, two runs at a time
    python scripts/measure.py --only tiktok       one data set
    python scripts/measure.py --list              what there is and what is missing

A result that is there, made by the same config on the same data, is not made again; a run that was cut off goes on from its
checkpoint. The test part is read once a run, at its end.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from metammf.data.dataset import Dataset
    from metammf.evaluation.result import Evaluation
    from metammf.experiments.config import Merged, RunConfig
    from metammf.experiments.run import Run
    from metammf.training.loop import Precision

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "recipes"
RUNS = ROOT / "runs" / "results"
DATASETS = ROOT / "datasets"
PER_USER = ("recall@20", "ndcg@20", "cold_among_all/ndcg@20", "warm/ndcg@20")


@dataclass(frozen=True)
class Bench:
    """A data set under one protocol.

    Args:
        name: Of the results' folder.
        source: Folder of the real data.
        recipes: Recipe -> placebos to run it with beside the real features.
        settings: On top of every recipe's.
        budgets: On top of one recipe's, so that none of its runs takes longer than half an hour on two cores.
        bfloat16: Recipes that are trained under bfloat16 autocast, twice as fast at the paper's widths where every step fuses
            all items, and evaluated in float32.
        seen: Masking of the test part.
        split_follows_seed: Whether each seed draws a split of its own.
        seeds: One run each.
    """

    name: str
    source: str
    recipes: dict[str, tuple[str, ...]]
    settings: tuple[str, ...] = ()
    budgets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    bfloat16: tuple[str, ...] = ()
    seen: str = "train"
    split_follows_seed: bool = False
    seeds: tuple[int, ...] = (0, 1, 2)

    @property
    def is_world(self) -> bool:
        """Whether each seed draws a world of its own, the demo's, and the recipes are the demo's models."""
        return self.source == "world"

    def folder(self, seed: int = 0) -> Path:
        """Return where the data set lies once `prepare` has put it there; each world of a seed has its own."""
        return DATASETS / (f"{self.source}-{seed}" if self.is_world else self.source)


@dataclass(frozen=True)
class Job:
    """One run."""

    bench: str
    recipe: str
    placebo: str | None
    seed: int

    @property
    def name(self) -> str:
        """Recipe and placebo."""
        return self.recipe + (f"+{self.placebo}" if self.placebo else "")

    @property
    def result(self) -> Path:
        """Where the result is."""
        return RESULTS / self.bench / f"{self.name}-{self.seed}.json"


SOLVED = ("popularity", "p3", "ease")
CONTROLS: dict[str, tuple[str, ...]] = dict.fromkeys(SOLVED, ())
FUSED: dict[str, tuple[str, ...]] = {
    "lightgcn": (),
    "metammf-lightgcn": ("noise",),
    "static-lightgcn": ("noise",),
}
COLD: dict[str, tuple[str, ...]] = {
    "lightgcn-cold": (),
    "metammf-cold": ("noise",),
    "metammf-cold-cp": (),
    "static-cold": ("noise",),
}
PAPER: dict[str, tuple[str, ...]] = {
    "metammf-mf": ("noise",),
    "static-mf": ("noise",),
    "metammf-gcn": ("noise",),
    "static-gcn": ("noise",),
}
# A step at the paper's widths is half a second of fusing; validation is best within some ten epochs of GCN, later with MF.
PAPER_BUDGETS: dict[str, tuple[str, ...]] = {
    recipe: (f"training.epochs={epochs}", "training.patience=3")
    for backbone, epochs in (("mf", 16), ("gcn", 10))
    for recipe in (f"metammf-{backbone}", f"static-{backbone}")
}
BENCHES = {
    bench.name: bench
    for bench in (
        Bench(
            "tiktok", "tiktok", CONTROLS | FUSED | PAPER, budgets=PAPER_BUDGETS, bfloat16=("metammf-gcn", "static-gcn")
        ),
        Bench("lfm2k-cold", "lfm2k", CONTROLS | COLD, ("split.method=cold-item",), split_follows_seed=True),
        Bench(
            "lfm2k-cold-audio",
            "lfm2k",
            dict.fromkeys(("metammf-cold", "static-cold"), ()),
            ("split.method=cold-item", 'model.modalities=["vggish", "whisper"]'),
            split_follows_seed=True,
        ),
        Bench("lfm2k", "lfm2k", CONTROLS | COLD),
        Bench(
            "movielens-small",
            "movielens-small",
            CONTROLS | COLD,
            ("split.method=user-time",),
            seen="train+validation",
        ),
        Bench(
            "world",
            "world",
            {"popularity": (), "ease": ()}
            | dict.fromkeys(("metammf-gcn", "static-gcn", "metammf-mf", "static-mf"), ("noise",)),
            seen="train+validation",
            split_follows_seed=True,
            seeds=(0, 1, 2, 3, 4),
        ),
    )
}


def jobs(only: str | None) -> list[Job]:
    """Return all runs, those of the first seed first."""
    found = [
        Job(bench.name, recipe, placebo, seed)
        for bench in BENCHES.values()
        if only in (None, bench.name)
        for recipe, placebos in bench.recipes.items()
        for placebo in (None, *placebos)
        for seed in (bench.seeds[:1] if recipe in SOLVED and not bench.split_follows_seed else bench.seeds)
    ]
    return sorted(found, key=lambda job: job.seed)


def data_folder() -> Path:
    """Return where the real data sets lie: METAMMF_DATA, else beside the checkout."""
    return Path(os.environ.get("METAMMF_DATA", ROOT.parent / "shared" / "data"))


def prepare(bench: Bench, seed: int = 0) -> Path:
    """Import the data set, or generate the world, where that is not done yet, and return its folder."""
    from metammf import import_dataset, save_dataset
    from metammf.data.synthetic import generate_world, save_world
    from metammf.experiments.demo_plan import DemoPlan

    folder = bench.folder(seed)
    if bench.is_world:
        plan = DemoPlan(seed=seed)
        world = generate_world(users=plan.users, items=plan.items, interactions=plan.interactions, seed=seed)
        if not _holds(folder, world.dataset):
            shutil.rmtree(folder, ignore_errors=True)
            save_world(world, folder)
        return folder
    if not (folder / "dataset.json").is_file():
        save_dataset(import_dataset(data_folder() / bench.source), folder)
    return folder


def _holds(folder: Path, dataset: Dataset) -> bool:
    """Tell whether the folder holds this data set: a world may have been drawn by another version."""
    from metammf import load_dataset

    if not (folder / "dataset.json").is_file():
        return False
    log, drawn = load_dataset(folder).interactions, dataset.interactions
    return np.array_equal(log.users, drawn.users) and np.array_equal(log.items, drawn.items)


def asked(job: Job) -> Merged:
    """Return the config of a job, as its recipe stands now."""
    from metammf.experiments.config import Merged, merge, parse_settings
    from metammf.experiments.demo_plan import DemoPlan

    bench = BENCHES[job.bench]
    if bench.is_world:
        plan = DemoPlan(seed=job.seed, placebo_seeds=1)
        key = job.recipe + ("-noise" if job.placebo else "")
        return Merged(plan.config(next(entry for entry in plan.entries if entry.key == key), job.seed), {})
    settings = parse_settings([*bench.settings, *bench.budgets.get(job.recipe, ())])
    if bench.split_follows_seed:
        settings["split.seed"] = job.seed
    return merge(job.recipe, settings, {"seed": job.seed, "placebo": job.placebo})


def digest(config: RunConfig) -> str:
    """Return what names a config in that of a run's folder: a recipe that has changed since gets a folder of its own."""
    return hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:8]


def run(job: Job, threads: int) -> None:
    """Train, evaluate and write the result of one job."""
    import torch

    from metammf.experiments.evaluating import evaluate_run
    from metammf.experiments.measuring import cost
    from metammf.experiments.run import RunOptions, train_run
    from metammf.files import read_json, write_json

    torch.set_num_threads(threads)
    bench = BENCHES[job.bench]
    data = prepare(bench, job.seed)
    merged = asked(job)
    folder = RUNS / job.bench / f"{job.name}-{job.seed}-{digest(merged.config)}"
    precision: Precision = "bfloat16" if job.recipe in bench.bfloat16 else "float32"
    trained = train_run(merged, data, folder, RunOptions(device="cpu", resume=True, precision=precision))
    test = evaluate_run(trained, part="test", seen=bench.seen)  # type: ignore[arg-type]
    validation = evaluate_run(trained, part="validation")
    result = {
        "job": asdict(job) | {"name": job.name},
        "run": {key: trained.record[key] for key in ("config", "fingerprint", "split", "seconds", "epochs")}
        | {"data": trained.record["data"]["files"]},
        "environment": read_json(trained.path / "environment.json"),
        "cost": cost(trained),
        "test": test.to_dict(),
        "validation": validation.to_dict(),
        "test_per_user": _per_user(test),
    }
    if bench.is_world and "metammf" in merged.config.model.name and job.placebo is None:
        result["recovery"] = _recovery(trained, data)
    write_json(job.result, result)


def _recovery(trained: Run, data: Path) -> dict[str, Any]:
    """How well the fusion finds out which modality matters for which clip."""
    from metammf.data.synthetic import load_truth
    from metammf.experiments.recovery import recovery
    from metammf.explanation import in_chunks, item_contributions
    from metammf.models.content_table import content_of

    features, truth, model = trained.dataset().features, load_truth(data), trained.recommender().model
    shares = in_chunks(lambda chunk: item_contributions(model, chunk), content_of(features)).shares.numpy()  # type: ignore[arg-type]  # a fusion explains itself
    present = np.stack(list(features.present.values()), axis=1)
    return recovery(shares, truth.modality_weights, present, truth.modalities)


def _per_user(test: Evaluation) -> dict[str, Any]:
    """The values that paired tests need, by user id, zeros left out and told apart from users not in the table."""
    frame = test.per_user
    found: dict[str, Any] = {}
    for column in PER_USER:
        if column in frame.columns:
            rows = frame.filter(frame[column].is_not_null())
            hits = rows.filter(rows[column] > 0)
            values = {str(user): round(value, 6) for user, value in hits.select("user_id", column).iter_rows()}
            found[column] = {"users": [str(user) for user in rows["user_id"]], "values": values}
    return found


@dataclass
class Outcome:
    """What became of the jobs."""

    failed: list[Job] = field(default_factory=list)


# Feature columns, all modalities together, of the data sets whose results are older than `model.meta_hidden_dim`.
COLUMNS = {"tiktok": 256}


def is_of(config: RunConfig, found: Mapping[str, Any], bench: str) -> bool:
    """Tell whether a result, by the config in it, is of what is asked for now; a setting that is newer stood at its default."""
    from metammf.experiments.config import from_mapping, same_run

    return same_run(from_mapping(found), config, COLUMNS.get(bench, math.inf))


def is_there(job: Job) -> bool:
    """Tell whether there is a result of the job, of its recipe and data as they stand now."""
    from metammf import load_dataset
    from metammf.files import read_json

    if not job.result.is_file():
        return False
    found, data = read_json(job.result)["run"], load_dataset(prepare(BENCHES[job.bench], job.seed))
    return is_of(asked(job).config, found["config"], job.bench) and found["data"] == dict(data.hashes)


def schedule(todo: list[Job], at_once: int, threads: int) -> Outcome:
    """Run jobs in processes of their own, a few at a time."""
    outcome = Outcome()

    def one(job: Job) -> None:
        words = [job.bench, job.recipe, str(job.seed), *([job.placebo] if job.placebo else [])]
        print(f"start {' '.join(words)}", flush=True)
        done = subprocess.run(
            [sys.executable, __file__, "--threads", str(threads), "--one", *words],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            outcome.failed.append(job)
            print(f"FAILED {' '.join(words)}\n{done.stderr[-2000:]}", flush=True)
        else:
            print(f"done  {' '.join(words)}", flush=True)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(one, todo))
    return outcome


def main() -> None:
    """Read the options and do what they say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(BENCHES), help="one data set")
    parser.add_argument("--recipe", action="append", help="these recipes alone; may be repeated")
    parser.add_argument("--at-once", type=int, default=2, help="runs at a time (2)")
    parser.add_argument("--threads", type=int, default=1, help="threads a run (1)")
    parser.add_argument("--list", action="store_true", help="say what is there and what is missing")
    parser.add_argument("--one", nargs="+", metavar="WORD", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        bench, recipe, seed, *placebo = options.one
        run(Job(bench, recipe, placebo[0] if placebo else None, int(seed)), options.threads)
        return
    chosen = [job for job in jobs(options.only) if not options.recipe or job.recipe in options.recipe]
    if options.list:
        for job in chosen:
            print(f"{'there  ' if is_there(job) else 'missing'} {job.bench} {job.name} {job.seed}")
        return
    for bench, seed in {(job.bench, job.seed if BENCHES[job.bench].is_world else 0) for job in chosen}:
        prepare(BENCHES[bench], seed)
    outcome = schedule([job for job in chosen if not is_there(job)], options.at_once, options.threads)
    if outcome.failed:
        raise SystemExit(f"{len(outcome.failed)} runs failed; run this again to go on")


if __name__ == "__main__":
    main()
