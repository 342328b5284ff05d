from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from metammf import errors


def test_every_error_is_a_metammf_error():
    raised = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(raised) >= 9
    assert all(issubclass(error, errors.MetaMMFError) for error in raised)
    assert all(error.__name__ in (errors.__doc__ or "") for error in raised)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "out of memory"),
        (MemoryError("Unable to allocate 8 TiB"), "out of memory: Unable to allocate 8 TiB"),
        (RuntimeError("CUDA out of memory. Tried 9 GiB\nand more"), "out of memory: CUDA out of memory. Tried 9 GiB"),
        (
            RuntimeError("[enforce fail at alloc.cpp:1] DefaultCPUAllocator: not enough memory: you tried 9 bytes."),
            "out of memory: not enough memory: you tried 9 bytes.",
        ),
        (RuntimeError("shapes do not fit"), None),
        (errors.DataError("out of memory"), None),
    ],
)
def test_memory_that_there_is_not_is_told_from_a_fault(error, told):
    assert errors.out_of_memory(error) == told


def test_a_format_error_names_file_found_and_expected():
    error = errors.FileFormatError(Path("a/b.csv"), "row 3 is empty", "a number")
    assert str(error) == f"{Path('a/b.csv')}: row 3 is empty; expected a number"
    assert error.path == Path("a/b.csv")
    assert str(errors.FileFormatError("x", "is empty")) == "x: is empty"


@pytest.mark.parametrize(
    "error",
    [
        errors.ConfigError("no such setting"),
        errors.FileFormatError("a/b.csv", "row 3 is empty", "a number"),
        errors.ForeignModelError("mine.tower:Tower", "runs/a"),
        errors.MissingExtraError("altair", "report", "A report"),
        errors.WriteError("a/b", "No space left on device"),
    ],
)
def test_an_error_travels_between_processes(error):
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), str(copied), vars(copied)) == (type(error), str(error), vars(error))


def test_a_missing_extra_says_what_to_install():
    assert str(errors.MissingExtraError("altair", "report", "A report")).endswith("pip install 'metammf[report]'")


@pytest.mark.parametrize(
    ("word", "hint"), [("visul", " (did you mean 'visual'?)"), ("zzz", ""), ("visual", " (did you mean 'visual'?)")]
)
def test_the_nearest_word(word, hint):
    assert errors.did_you_mean(word, ["visual", "acoustic"]) == hint
