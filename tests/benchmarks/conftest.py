"""The benchmarks are scripts beside the package: they find each other in their own folder."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the benchmarks, on the path."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return FOLDER
