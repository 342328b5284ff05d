"""Run all benchmarks, one after the other, and write what they measured to ``benchmarks/results/`` and to the README's tables.

``python benchmarks/run_all.py``, or ``make bench``. ``--quick`` runs each at a small size, to see that all works, and keeps no
results. A benchmark that needs what is absent says so, one that fails is told at the end, and the others go on.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from harness import ABSENT

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Job:
    """One command.

    Args:
        name: Of the JSON file.
        script: Beside this one.
        options: Of the script.
    """

    name: str
    script: str
    options: tuple[str, ...] = ()


def jobs(geometric: str | None) -> list[Job]:
    """Return what there is to run."""
    literal = [
        Job(f"literal-{name}-{part}", "literal.py", ("--backbone", backbone, "--part", part, "--repeats", "3"))
        for name, backbone in (("gcn", "graphsage"), ("mf", "mf"))
        for part in ("width", "equal")
    ]
    growth = [Job(f"growth-{axis}", "growth.py", ("--axis", axis)) for axis in ("users", "items", "interactions")]
    return [
        *literal,
        Job("fusion", "fusion.py", ("--repeats", "3")),
        Job("propagation", "propagation.py", ("--geometric", geometric) if geometric else ()),
        Job("negatives", "negatives.py"),
        Job("ranking", "ranking.py"),
        *growth,
        Job("device-cpu", "device.py", ("--device", "cpu", "--repeats", "3")),
        Job("device-cuda", "device.py", ("--device", "cuda")),
    ]


def run(job: Job, results: Path, *, quick: bool) -> str:
    """Run one and return what became of it."""
    command = [sys.executable, str(FOLDER / job.script), *job.options, *(["--quick"] if quick else [])]
    print(f"\n# {job.name}", flush=True)
    start = perf_counter()
    code = subprocess.run([*command, "--json", str(results / f"{job.name}.json")], check=False).returncode
    outcome = {0: "measured", ABSENT: "not run, see above"}.get(code, f"FAILED with {code}")
    return f"{job.name:<22} {outcome} ({perf_counter() - start:.0f} s)"


def main() -> None:
    """Run all."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="small sizes, some minutes; no results are kept")
    options.add_argument("--only", help="those whose name begins so")
    options.add_argument(
        "--geometric",
        default=os.environ.get("GEOMETRIC"),
        help="Python of an environment with PyTorch Geometric; the variable GEOMETRIC by default",
    )
    given = options.parse_args()
    results = FOLDER / "results" / ("quick" if given.quick else "")
    results.mkdir(parents=True, exist_ok=True)
    chosen = [job for job in jobs(given.geometric) if job.name.startswith(given.only or "")]
    lines = [run(job, results, quick=given.quick) for job in chosen]
    if not given.quick:
        subprocess.run([sys.executable, str(FOLDER / "fill_readme.py")], check=True)
    print("\n" + "\n".join(lines))
    sys.exit(any("FAILED" in line for line in lines))


if __name__ == "__main__":
    main()
