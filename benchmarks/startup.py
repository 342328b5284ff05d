"""How long the command line takes to answer: `--help` beside an interpreter that does nothing, and beside `import torch`.

``python benchmarks/startup.py``: medians of processes started in turn.
"""

from __future__ import annotations

import subprocess
import sys

from harness import measure, parser, report


def ways() -> dict[str, list[str]]:
    """Name what is started."""
    metammf = [sys.executable, "-m", "metammf"]
    return {
        "python that does nothing": [sys.executable, "-c", "pass"],
        "metammf --help": [*metammf, "--help"],
        "metammf train --help": [*metammf, "train", "--help"],
        "import torch": [sys.executable, "-c", "import torch"],
    }


def main() -> None:
    """Measure and report."""
    given = parser(__doc__).parse_args()
    commands = {
        name: lambda command=command: subprocess.run(command, check=True, capture_output=True)
        for name, command in ways().items()
    }
    repeats = 2 if given.quick else max(given.repeats, 9)
    report(given, measure(commands, against="python that does nothing", repeats=repeats), unit="starts")


if __name__ == "__main__":
    main()
