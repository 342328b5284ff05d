from __future__ import annotations

import hashlib
import os
import stat

import pytest

from metammf.errors import DataError
from metammf.files import atomic_folder, atomic_open, atomic_path, read_json, sha256, write_json


class Interrupted(BaseException):
    """Like KeyboardInterrupt: no Exception."""


def fail_after(writing, error):
    writing.write_text("half")
    raise error


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_and_alone(tmp_path):
    with atomic_open(tmp_path / "deep" / "a.txt") as stream:
        stream.write("één\n")
        assert not (tmp_path / "deep" / "a.txt").exists()
    assert (tmp_path / "deep" / "a.txt").read_bytes() == "één\n".encode()
    assert names(tmp_path / "deep") == ["a.txt"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "deep" / "a.txt").stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("error", [ValueError, Interrupted])
def test_a_failure_keeps_the_old_file(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(error), atomic_path(target) as part:
        fail_after(part, error)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_is_replaced_only_where_it_is_ours(tmp_path):
    target = tmp_path / "out"
    for text in ("first", "second"):
        with atomic_folder(target, marker="mark") as part:
            (part / "mark").write_text(text)
    assert (target / "mark").read_text() == "second"
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "a.jpg").write_text("dear")
    with pytest.raises(DataError, match="not a folder that metammf wrote"), atomic_folder(foreign, marker="mark"):
        pass
    assert names(foreign) == ["a.jpg"]
    empty = tmp_path / "empty"
    empty.mkdir()
    with atomic_folder(empty, marker="mark") as part:
        (part / "mark").write_text("x")
    assert names(tmp_path) == ["empty", "out", "photos"]


@pytest.mark.parametrize("error", [ValueError, Interrupted])
def test_a_failure_keeps_the_old_folder(tmp_path, error):
    target = tmp_path / "out"
    with atomic_folder(target, marker="mark") as part:
        (part / "mark").write_text("old")
    with pytest.raises(error), atomic_folder(target, marker="mark") as part:
        fail_after(part / "mark", error)
    assert (target / "mark").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_a_place_that_cannot_be_written_is_our_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot write"), atomic_path(tmp_path / "file" / "a"):
        pass
    with pytest.raises(DataError, match="cannot write"), atomic_folder(tmp_path / "file" / "a", marker="m"):
        pass


def test_json_round_trip_and_refusals(tmp_path):
    value = {"a": [1, 2.5, None, "ü"], "b": {"c": True}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "ü" in (tmp_path / "a.json").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "b.json", float("nan"))
    assert names(tmp_path) == ["a.json"]
    with pytest.raises(DataError, match="no such file"):
        read_json(tmp_path / "c.json")
    (tmp_path / "d.json").write_bytes(b'{"a": \xff')
    with pytest.raises(DataError, match="not readable as JSON"):
        read_json(tmp_path / "d.json")


def test_hashes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()
