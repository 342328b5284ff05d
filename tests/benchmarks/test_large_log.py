"""The benchmark of a long log runs at a small size, each step by the command that a user would type."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_steps_are_told_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import fill_tables
    import large_log

    small = ["--users", "200", "--items", "100", "--interactions", "3000", "--folder", str(tmp_path / "made")]
    written = tmp_path / "log.json"
    for steps in (["generate", "write CSV, whole"], ["import CSV, whole"]):
        words = [str(large_log.__file__), *small, "--k-core", "2", "--json", str(written), "--only", *steps]
        monkeypatch.setattr(sys, "argv", words)
        large_log.main()
    found = json.loads(written.read_text("utf-8"))
    assert str(tmp_path) not in written.read_text("utf-8")
    names = [row["step"] for row in found["tables"][0]["rows"]]
    assert names == ["generate", "write CSV, whole-number ids", "import CSV, whole-number ids"]
    assert all(row["peak MiB"] > 20 for row in found["tables"][0]["rows"])
    assert "import CSV" in capsys.readouterr().out
    assert fill_tables.section(found, None)
