"""A file that cannot grow, as on a full disk: one message, and nothing half-written."""

from __future__ import annotations

import resource
import sys

import pytest

from metammf.errors import DataError
from metammf.recommender import Recommender

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")


@pytest.fixture
def limited():
    """Let no file grow beyond some bytes; Python ignores the signal, so that writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["feeds.csv", "feeds.parquet"])
def test_recommend(refused, dynamic, tmp_path, limited, name):
    limited(100)
    told = refused("recommend", dynamic, "--all-users", "--out", tmp_path / name)
    limited(1 << 40)
    assert "File too large" in told
    assert list(tmp_path.iterdir()) == []


def test_checkpoint(metammf, refused, groups, tmp_path, small, limited):
    run = tmp_path / "run"
    words = ("train", groups, "--recipe", "metammf-mf", *small, "--set", "training.epochs=1", "--out", run)
    limited(8_000)
    told = refused(*words)
    limited(1 << 40)
    assert "File too large" in told
    assert not [path for path in run.rglob("*") if path.name.endswith(".part")]
    assert metammf(*words, "--resume").status == 0


def test_recommender(dynamic, tmp_path, limited):
    recommender = Recommender.load(dynamic)
    for size in (500, 3_000):
        limited(size)
        with pytest.raises(DataError, match="File too large"):
            recommender.save(tmp_path / "saved")
        limited(1 << 40)
        assert list(tmp_path.iterdir()) == []
