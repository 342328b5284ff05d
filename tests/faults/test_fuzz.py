"""Every reader of foreign files on a few damaged ones: `make fuzz` on a small scale."""

from __future__ import annotations

import sys

import pytest

import fuzz


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux does")
@pytest.mark.parametrize("name", fuzz.READERS)
def test_damage_gives_our_error_or_data(tmp_path, name):
    tried, _ = fuzz.fuzz(fuzz.READERS[name], tmp_path / "files", seconds=30, cases=25)
    assert tried >= 25


@pytest.mark.parametrize(
    ("read", "told"),
    [
        (lambda _: {}["key"], "key"),
        (lambda _: exec("import os; os.system('true')"), "asked for"),
        (lambda _: exec("import warnings; warnings.warn('leaks')"), "leaks"),
        (lambda _: (_ for _ in ()).throw(fuzz.MetaMMFError("somewhere")), "names no file"),
    ],
)
def test_what_no_reader_may_do_is_found(tmp_path, read, told):
    with pytest.raises((KeyError, AssertionError, UserWarning), match=told):
        fuzz.try_one(fuzz.Reader(lambda _: None, read), tmp_path)


def test_a_failing_file_stays(tmp_path):
    def read(folder):
        if (folder / "a").read_bytes() != b"whole":
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fuzz.fuzz(
            fuzz.Reader(lambda folder: (folder / "a").write_bytes(b"whole"), read), tmp_path / "f", seconds=9, cases=9
        )
    assert (tmp_path / "f" / "a").read_bytes() != b"whole"
