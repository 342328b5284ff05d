"""A large world from end to end: an epoch of training, an evaluation of 50,000 users, fifty items for every user.

    python benchmarks/large_world.py --folder /tmp/large                     1,000,000 users, 200,000 items, 20,000,000 pairs
    python benchmarks/large_world.py --folder /tmp/medium --size medium      300,000 users, 60,000 items, 6,000,000 pairs
    python benchmarks/large_world.py --folder /tmp/large --recipe metammf-gcn-large --steps 20
    python benchmarks/large_world.py --folder /tmp/many-items --size many-items --recipe lattice --steps 10

Each step runs in a process of its own, by the command that a user would type, and is told by its seconds and by its peak
resident memory, pages of the memory-mapped features included. What is there already in the folder is not made again, and
training that was cut off goes on. With ``--steps`` an epoch is cut after so many, and its whole time extrapolated.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from large_log import Figures, generation, run

SIZES = {
    "large": (1_000_000, 200_000, 20_000_000),
    "medium": (300_000, 60_000, 6_000_000),
    "many-items": (20_000, 100_000, 1_000_000),
    "small": (400, 200, 4_000),
}


def commands(given: argparse.Namespace) -> dict[str, tuple[list[str], Path]]:
    """Name the steps in order, each with its command and what it makes."""
    metammf = [sys.executable, "-m", "metammf"]
    folder = given.folder.resolve()
    world, trained, feeds = (str(folder / name) for name in ("world", given.recipe, f"{given.recipe}-feeds.parquet"))
    epoch = ["training.epochs=1", *([f"training.max_steps={given.steps}"] if given.steps else [])]
    settings = [word for setting in [*epoch, *given.set] for word in ("--set", setting)]
    return {
        "generate": (generation(world, *SIZES[given.size]), folder / "world" / "dataset.json"),
        "train an epoch": (
            [
                *(
                    *metammf,
                    "train",
                    world,
                    "--recipe",
                    given.recipe,
                    "--split",
                    "random",
                    "--out",
                    trained,
                    "--resume",
                ),
                *("--precision", given.precision, *settings),
            ],
            folder / given.recipe / "metrics.json",
        ),
        "evaluate 50,000 users": (
            [*metammf, "evaluate", trained, "--users", "50000"],
            folder / given.recipe / "evaluation" / "test-train+validation-50000-users.json",
        ),
        "50 items for every user": (
            [*metammf, "recommend", trained, "--all-users", "-k", "50", "--out", feeds],
            Path(feeds),
        ),
    }


def training(trained: Path) -> dict[str, Any]:
    """Return what the log of the training says of its epoch."""
    record = json.loads((trained / "log.jsonl").read_text("utf-8").splitlines()[-1])
    about = json.loads((trained / "run.json").read_text("utf-8"))
    return {"training": about["config"]["training"], "train": about["split"]["train"]} | {
        key: record[key] for key in ("step", "seconds", "evaluation_seconds", "metrics", "peak_resident_mib")
    }


def parse() -> argparse.Namespace:
    """Read the options."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", choices=SIZES, default="large")
    options.add_argument("--recipe", default="metammf-mf-large")
    options.add_argument("--precision", default="bfloat16")
    options.add_argument("--steps", type=int, help="end the epoch after so many steps")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the training")
    options.add_argument("--folder", type=Path, required=True, help="where the world and what is made of it lie")
    options.add_argument("--only", nargs="+", metavar="STEP", help="run these steps alone, by the start of their names")
    options.add_argument("--json", type=Path, help="write the figures here")
    return options.parse_args()


def main() -> None:
    """Run what is missing, print a line for each step, and write the JSON."""
    given = parse()
    given.folder.mkdir(parents=True, exist_ok=True)
    kept = given.folder / f"{given.recipe}-figures.json"
    found: dict[str, dict[str, float]] = json.loads(kept.read_text("utf-8")) if kept.is_file() else {}
    print(f"{'':<30}  {'seconds':>8}  {'processor':>9}  {'peak MiB':>8}")
    for name, (command, made) in commands(given).items():
        if given.only and not any(name.startswith(start) for start in given.only):
            continue
        if not made.exists():
            found[name] = asdict(run(command, given.folder / f"{given.recipe}-output.txt"))
            kept.write_text(json.dumps(found), encoding="utf-8")
        if name in found:
            figures = Figures(**found[name])
            line = f"{figures.seconds:>8.1f}  {figures.processor_seconds:>9.1f}  {figures.peak_mib:>8,.0f}"
            print(f"{name:<30}  {line}", flush=True)
    if given.json:
        publish(given, found)


def publish(given: argparse.Namespace, found: dict[str, dict[str, float]]) -> None:
    """Write the figures in the form that the README's tables are made of."""
    # Imported last: a child's peak is never below what its parent held when it was started.
    from harness import Table, write

    epoch = training(given.folder / given.recipe)
    whole = -(-epoch["train"] // (epoch["training"]["batch_size"] * _batches_per_step(epoch)))
    notes = [
        f"Training: {epoch['step']} of {whole} steps took {epoch['seconds']:.0f} s"
        + (
            f", a whole epoch by that {epoch['seconds'] / epoch['step'] * whole / 60:.0f} min"
            if epoch["step"] < whole
            else ""
        )
        + f"; a look at {epoch['training']['validation_users'] or 'all'} validation users {epoch['evaluation_seconds']:.0f} s."
    ]
    users, items, interactions = SIZES[given.size]
    title = f"{given.recipe}: {users:,} users, {items:,} items, {interactions:,} interactions"
    rows = [
        {
            "step": name,
            "seconds": each["seconds"],
            "processor s": each["processor_seconds"],
            "peak MiB": each["peak_mib"],
        }
        for name, each in found.items()
    ]
    write(
        given.json, title, [Table(title, rows, notes)], {"precision": given.precision, "set": given.set, "epoch": epoch}
    )


def _batches_per_step(epoch: dict[str, Any]) -> int:
    training = epoch["training"]
    batches = -(-epoch["train"] // training["batch_size"])
    return max(training["batches_per_step"], -(-batches // (training["max_steps_per_epoch"] or batches)))


if __name__ == "__main__":
    main()
