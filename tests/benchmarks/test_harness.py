"""What the benchmarks share."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def test_medians_and_ratios_by_rate() -> None:
    import harness

    slow, fast = harness.timings(
        {"slow": [4.0, 2.0, 3.0], "fast": [1.0, 1.0, 2.0]}, against="slow", units={"slow": 3, "fast": 4}
    )
    assert (slow.seconds, slow.spread, slow.per_second, slow.ratio) == (3.0, 2.0, 1.0, 1.0)
    assert (fast.seconds, fast.spread, fast.per_second, fast.ratio) == (1.0, 2.0, 4.0, 4.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), ("way", "way"), (0, "0"), (0.0, "0"), (12, "12"), (1234567.8, "1,234,568"), (99.949, "99.95"),
     (1.5, "1.50"), (0.25, "0.25"), (0.0123, "0.0123"), (-0.5, "-0.50"), (0.00012345, "1.23e-04")],
)  # fmt: skip
def test_figures_have_about_three_digits(value: Any, text: str) -> None:
    import harness

    assert harness.figure(value) == text


def test_a_command_tells_nothing_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import harness

    script = Path(harness.__file__).parent / "peers" / "compare.py"
    words = [str(script), "vbpr", "--json", "/a/c.json", "--repeats", "3", "--envs=/a/b"]
    monkeypatch.setattr("sys.argv", words)
    assert harness.command() == "python benchmarks/peers/compare.py vbpr --repeats 3"


def test_memory_of_a_process_of_its_own() -> None:
    import harness

    peak = harness.peak_memory(partial, np.ones, 64 << 17)
    assert 60 < peak.rise_mib < 96  # pages that lie unused before count as well
    assert peak.resident_mib > peak.rise_mib + 20  # the interpreter and its libraries


def test_what_a_process_raises_is_told() -> None:
    import harness

    with pytest.raises(RuntimeError, match="divmod: ZeroDivisionError"):
        harness.alone(divmod, 1, 0)


def test_slope_of_a_power() -> None:
    import growth

    sizes = [10.0, 30.0, 100.0, 1000.0]
    slope, error = growth.fitted(sizes, [3 * size**1.5 for size in sizes])
    assert math.isclose(slope, 1.5)
    assert error is not None
    assert error < 1e-9
    assert growth.fitted(sizes[:2], [1.0, 3.0])[1] is None


def test_random_logs_have_the_size_asked_for() -> None:
    import logs

    split = logs.random_split(50, 40, 400, widths=(3, 2))
    assert [len(part) for part in (split.train, split.validation, split.test)] == [360, 20, 20]
    assert split.catalog.features.widths == {"modality 0": 3, "modality 1": 2}
    popular = np.sort(split.train.item_counts)[::-1]
    assert popular[:10].sum() > 2 * popular[-10:].sum()


def test_results_fill_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fill_tables
    import harness

    page = tmp_path / "README.md"
    page.write_text(f"above\n{fill_tables.BEGIN}\nold\n{fill_tables.END}\nbelow\n")
    table = harness.Table(
        "A table", [{"way": "a", "s": 1.5, "empty": None}, {"way": "b", "s": None, "empty": None}], ["A note."]
    )
    harness.write(tmp_path / "results" / "peers-x.json", "Peers", [table], {"quick": False})
    harness.write(tmp_path / "results" / "fusion.json", "Fusion", [table], {"quick": False})
    harness.write(tmp_path / "results" / "small.json", "Small", [table], {"quick": True})
    monkeypatch.setattr(fill_tables, "FOLDER", tmp_path)
    fill_tables.main()
    text = page.read_text()
    assert text.startswith(f"above\n{fill_tables.BEGIN}\n\nMeasured on ")
    assert text.endswith(f"{fill_tables.END}\nbelow\n")
    assert "| way | s |\n| :-- | --: |\n| a | 1.50 |\n| b |  |\n\nA note." in text
    assert text.index("### Fusion") < text.index("### Peers")
    assert "old" not in text
    assert "Small" not in text
