"""Run all benchmarks, one after the other, and write what they measured to ``benchmarks/results/`` and to the README's tables.

``python benchmarks/run_all.py``, or ``make bench``. ``--quick`` runs each at a small size, to see that all works, and keeps no
results. A benchmark that needs what is absent says so, one that fails is told at the end, and the others go on.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from harness import ABSENT
from peers.worker import ENVIRONMENTS

FOLDER = Path(__file__).parent
MODELS = (("gcn", "graphsage"), ("mf", "mf"))
"""What MetaMMF_GCN and MetaMMF_MF are called in a file's name and by ``--backbone``."""


@dataclass(frozen=True)
class Job:
    """One command.

    Args:
        name: Of the JSON file.
        script: Beside this one.
        options: Of the script.
        small: Of the script at a small size, besides.
    """

    name: str
    script: str
    options: tuple[str, ...] = ()
    small: tuple[str, ...] = ("--quick",)


def jobs(environments: Path, scratch: Path) -> list[Job]:
    """Return what there is to run.

    Args:
        environments: Folder of the peers' environments.
        scratch: For what a benchmark writes beside its figures.
    """
    envs = ("--envs", str(environments))
    literal = [
        Job(f"literal-{name}-{part}", "literal.py", ("--backbone", backbone, "--part", part, *options))
        for name, backbone in MODELS
        for part, options in (("width", ("--repeats", "2")), ("equal", ("--hidden-dims", "16", "--threads", "1")))
    ]
    growth = [
        Job(f"growth-{axis}-{name}", "growth.py", ("--axis", axis, "--backbone", backbone))
        for axis in ("users", "items", "interactions")
        for name, backbone in MODELS
    ]
    log = ("--users", "300", "--items", "100", "--interactions", "3000", "--k-core", "2")
    return [
        *literal,
        Job("fusion", "fusion.py", ("--repeats", "3")),
        Job("propagation", "propagation.py", envs),
        Job("item-graph", "item_graph.py", ("--repeats", "2")),
        Job("models", "models.py"),
        Job("negatives", "negatives.py"),
        Job("ranking", "ranking.py", envs),
        Job("ranking-large", "ranking.py", (*envs, "--large")),
        *(Job(f"peers-{model}", "peers/compare.py", (model, *envs)) for model in ("lightgcn", "vbpr")),
        *growth,
        Job("startup", "startup.py"),
        Job("large-log", "large_log.py", ("--folder", str(scratch / "large-log")), log),
        Job("distributed", "distributed.py", ("--steps", "20")),
        Job("device-cpu", "device.py", ("--device", "cpu", "--repeats", "3")),
        Job("device-cuda", "device.py", ("--device", "cuda")),
    ]


def run(job: Job, results: Path, *, quick: bool) -> str:
    """Run one and return what became of it."""
    command = [sys.executable, str(FOLDER / job.script), *job.options, *(job.small if quick else ())]
    print(f"\n# {job.name}", flush=True)
    start = perf_counter()
    code = subprocess.run([*command, "--json", str(results / f"{job.name}.json")], check=False).returncode
    outcome = {0: "measured", ABSENT: "not run, see above"}.get(code, f"FAILED with {code}")
    return f"{job.name:<22} {outcome} ({perf_counter() - start:.0f} s)"


def main() -> None:
    """Run all."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="small sizes, some minutes; no results are kept")
    options.add_argument("--only", default="", help="those whose name begins so")
    options.add_argument(
        "--envs",
        type=Path,
        default=os.environ.get("ENVS") or ENVIRONMENTS,
        help="folder of the peers' environments; the variable ENVS by default",
    )
    given = options.parse_args()
    results = FOLDER / "results" / ("quick" if given.quick else "")
    results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        chosen = [job for job in jobs(given.envs, Path(scratch)) if job.name.startswith(given.only)]
        lines = [run(job, results, quick=given.quick) for job in chosen]
    if not given.quick:
        subprocess.run([sys.executable, str(FOLDER / "fill_tables.py")], check=True)
    print("\n" + "\n".join(lines))
    sys.exit(any("FAILED" in line for line in lines))


if __name__ == "__main__":
    main()
