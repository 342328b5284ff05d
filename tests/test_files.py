from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

import pytest

from metammf.errors import DataError, WriteError
from metammf.files import (
    atomic_folder,
    atomic_open,
    atomic_path,
    is_leftover,
    read_json,
    remove_leftovers,
    sha256,
    write_json,
)


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


def test_the_old_file_is_kept_where_asked(tmp_path):
    for number in range(3):
        with atomic_path(tmp_path / "a.txt", previous=tmp_path / "b.txt") as part:
            part.write_text(str(number))
    assert ((tmp_path / "a.txt").read_text(), (tmp_path / "b.txt").read_text()) == ("2", "1")
    assert names(tmp_path) == ["a.txt", "b.txt"]


def test_file_and_name_are_on_the_disk_before_it_returns(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append(stat.S_ISDIR(os.fstat(handle).st_mode)), sync(handle)))
    monkeypatch.setattr(Path, "replace", lambda old, new: (done.append("moved"), replace(old, new)))
    with atomic_path(tmp_path / "a.txt") as part:
        part.write_text("x")
    assert done == [False, "moved", True]
    done.clear()
    with atomic_folder(tmp_path / "out", marker="mark") as part:
        (part / "mark").write_text("x")
    assert done == [True, False, "moved", True]  # the folder, the file in it, and the folder's name


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EROFS])
def test_a_full_disk_is_our_error_and_names_the_file(tmp_path, number):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(WriteError, match=r"cannot write .*a\.txt: "), atomic_open(tmp_path / "a.txt"):
        raise OSError(number, os.strerror(number))
    with pytest.raises(WriteError, match=r"cannot write .*out: "), atomic_folder(tmp_path / "out", marker="m"):
        raise OSError(number, os.strerror(number))
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_what_a_killed_process_left_is_told_by_its_name_and_removed(tmp_path):
    with atomic_path(tmp_path / "a.txt") as part:
        part.write_text("x")
        assert is_leftover(part.name)
    with atomic_folder(tmp_path / "out", marker="m") as part:
        assert is_leftover(part.name)
    (tmp_path / ".out.1.part").mkdir()
    (tmp_path / ".out.1.part" / "file").touch()
    (tmp_path / ".a.txt.1.part").touch()
    (tmp_path / "own.part").touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["a.txt", "out", "own.part"]


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
    (tmp_path / "e.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="not readable as JSON"):
        read_json(tmp_path / "e.json")


def test_hashes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()
