"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Of whoever started the tests: readline, which pytest loads, hands the screen's width to every process that it starts, and
# what the tests read would be wrapped at it.
os.environ.pop("COLUMNS", None)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real data sets: METAMMF_DATA, else ../shared/data beside the checkout.

    Absent on a user's machine, where these tests skip; never absent in CI.
    """
    default = Path(__file__).parents[2] / "shared" / "data"
    path = Path(os.environ.get("METAMMF_DATA", default)).resolve()
    if not (path / "tiktok").is_dir():
        message = f"no real data sets at {path}: set METAMMF_DATA to a folder that holds tiktok, lfm2k, movielens-small"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path
