"""A long log from end to end: generate, write as CSV, import with a k-core, load, split, describe, export.

    python benchmarks/large_log.py --users 300000 --items 60000 --interactions 6000000 --folder /tmp/log

Each step runs in a process of its own, as a user would run it, and is told by its wall-clock and processor seconds and by
its peak resident memory. What a step reads lies in the folder, and so do its figures: ``--only`` runs some of the steps again,
and the JSON holds those of all. A page of a memory-mapped file counts as resident, and is not memory that is needed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

METHODS = ("published", "random", "leave-one-out", "user-time", "global-time", "cold-item")
WIDTHS = "visual=128,acoustic=128,textual=384"


@dataclass(frozen=True)
class Figures:
    """What a step took.

    Args:
        seconds: Of the clock on the wall.
        processor_seconds: Of all threads together.
        peak_mib: Highest resident memory of the process.
    """

    seconds: float
    processor_seconds: float
    peak_mib: float


def run(command: list[str], log: Path) -> Figures:
    """Run a command, its output into a file, and say what it took; Linux alone."""
    start = perf_counter()
    with log.open("wb") as stream:
        child = os.posix_spawn(
            command[0],
            command,
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, stream.fileno(), 1), (os.POSIX_SPAWN_DUP2, stream.fileno(), 2)],
        )
        _, status, usage = os.wait4(child, 0)
    if status:
        sys.exit(f"{' '.join(command)}\n{log.read_text()}")
    return Figures(perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def generation(world: str, users: int, items: int, interactions: int) -> list[str]:
    """Return the command that writes a world with features of the widths that encoders give, in float16."""
    counts = [f"--users={users}", f"--items={items}", f"--interactions={interactions}"]
    shape = ["--widths", WIDTHS, "--dtype", "float16", "--cold-share", "0.02"]
    return [sys.executable, "-m", "metammf", "data", "generate", world, *counts, *shape]


def steps(folder: Path, given: argparse.Namespace) -> dict[str, list[str]]:
    """Name the steps in order, each with its command."""
    metammf = [sys.executable, "-m", "metammf", "data"]
    here = [sys.executable, __file__, "--folder", str(folder)]
    world, core = str(folder / "world"), ["--k-core", str(given.k_core)]
    return {
        "generate": generation(world, given.users, given.items, given.interactions),
        "load": [*here, "--load", "none"],
        **{f"load and split, {method}": [*here, "--load", method] for method in METHODS},
        "describe": [*metammf, "describe", world, "--json"],
        "export to MMRec": [*metammf, "export", world, str(folder / "mmrec"), "--format", "mmrec"],
        "write CSV, whole-number ids": [*here, "--write", "log.csv"],
        "write CSV, ids of text": [*here, "--write", "text.csv"],
        "import CSV, whole-number ids": [*metammf, "import", str(folder / "log.csv"), str(folder / "from-csv"), *core],
        "import CSV, ids of text": [*metammf, "import", str(folder / "text.csv"), str(folder / "from-text"), *core],
        "import Parquet": [
            *(*metammf, "import", str(folder / "world" / "interactions.parquet"), str(folder / "from-parquet"), *core)
        ],
    }


def write_csv(folder: Path, name: str) -> None:
    """Write the world's log as CSV; ``text.csv`` has ids that no number could be."""
    import polars as pl

    columns = ["user_id", "item_id", "timestamp"]
    log = pl.scan_parquet(folder / "world" / "interactions.parquet").select(columns)
    if name == "text.csv":
        log = log.with_columns(pl.format("user-{}-of-them", "user_id"), pl.format("clip-{}-of-them", "item_id"))
    log.select(columns).sink_csv(folder / name)


def load(folder: Path, method: str) -> None:
    """Load the world, and split it."""
    from metammf.data.folder import load_dataset

    dataset = load_dataset(folder / "world")
    if method != "none":
        print(dataset.split(method).development)


def parse() -> argparse.Namespace:
    """Read the options."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("users", 300_000), ("items", 60_000), ("interactions", 6_000_000), ("k-core", 5)):
        options.add_argument(f"--{name}", type=int, default=value)
    options.add_argument("--folder", type=Path, required=True, help="where the world and what is made of it lie")
    options.add_argument("--only", nargs="+", metavar="STEP", help="run these steps alone, by the start of their names")
    options.add_argument("--json", type=Path, help="write the figures here")
    options.add_argument("--load", metavar="METHOD", help=argparse.SUPPRESS)
    options.add_argument("--write", metavar="NAME", help=argparse.SUPPRESS)
    return options.parse_args()


def main() -> None:
    """Run the steps, or be one of them."""
    given = parse()
    if given.load:
        load(given.folder, given.load)
    elif given.write:
        write_csv(given.folder, given.write)
    else:
        measure(given)


def measure(given: argparse.Namespace) -> None:
    """Run the steps, print a line for each, and write the JSON."""
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "log-figures.json"
    found: dict[str, dict[str, float]] = json.loads(kept.read_text("utf-8")) if kept.is_file() else {}
    print(f"{'':<30}  {'seconds':>8}  {'processor':>9}  {'peak MiB':>8}")
    for name, command in steps(folder, given).items():
        if given.only and not any(name.startswith(start) for start in given.only):
            continue
        figures = run(command, folder / "output.txt")
        found[name] = asdict(figures)
        kept.write_text(json.dumps(found), encoding="utf-8")
        line = f"{figures.seconds:>8.1f}  {figures.processor_seconds:>9.1f}  {figures.peak_mib:>8,.0f}"
        print(f"{name:<30}  {line}", flush=True)
    if given.json:
        publish(given, {name: found[name] for name in steps(folder, given) if name in found})


def publish(given: argparse.Namespace, found: dict[str, dict[str, float]]) -> None:
    """Write the figures in the form that the README's tables are made of."""
    # Imported last: a child's peak is never below what its parent held when it was started.
    from harness import Table, write

    title = f"A log of {given.users:,} users, {given.items:,} items, {given.interactions:,} interactions"
    columns = {"seconds": "seconds", "processor_seconds": "processor s", "peak_mib": "peak MiB"}
    rows = [{"step": name, **{columns[key]: value for key, value in each.items()}} for name, each in found.items()]
    note = f"Imports take the {given.k_core}-core. Loading reads every value of the features, whose pages count."
    write(given.json, title, [Table(title, rows, [note])], {"k_core": given.k_core})


if __name__ == "__main__":
    main()
