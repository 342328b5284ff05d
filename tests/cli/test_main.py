"""What every command has in common: exit statuses, one message, help at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

from metammf.cli import main as module
from metammf.cli.main import main

COMMANDS = [
    (),
    ("demo",),
    ("data",),
    ("data", "import"),
    ("data", "describe"),
    ("data", "generate"),
    ("data", "export"),
    ("train",),
    ("evaluate",),
    ("recommend",),
    ("similar",),
    ("embed",),
    ("explain",),
    ("runs",),
    ("recipes",),
]

HELP_OF_ALL = """
import sys
from metammf.cli.main import main
for command in {commands!r}:
    assert main([*command, "--help"]) == 0, command
heavy = [name for name in ("torch", "polars", "scipy", "altair") if name in sys.modules]
assert not heavy, heavy
"""


def test_help_of_every_command_imports_nothing_heavy():
    code = HELP_OF_ALL.format(commands=COMMANDS)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("Usage: ") == len(COMMANDS)


def test_every_command_is_listed(metammf):
    listed = metammf("--help").out
    for command in COMMANDS[1:]:
        assert command[0] in listed


def test_without_a_word_it_prints_help(metammf):
    outcome = metammf()
    assert (outcome.status, outcome.err) == (0, "")
    assert "Usage: metammf" in outcome.out


def test_version(metammf):
    from importlib.metadata import version

    assert metammf("--version").out.strip() == version("metammf")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("trian",), '"trian"'),
        (("train",), "DATA"),
        (("train", "data", "--recipe", "mf"), "--out"),
        (("train", "data", "--recipe", "mf", "--out", "run", "--seed", "one"), '"one"'),
        (("train", "data", "--recipe", "mf", "--out", "run", "--recip", "mf"), "Did you mean --recipe?"),
        (("train", "data", "--recipe", "mf", "--out", "run", "--placebo", "nois"), '"noise"'),
        (("train", "data", "more", "--recipe", "mf", "--out", "run"), "more"),
        (("evaluate", "run", "--part", "tests"), '"test"'),
        (("recommend", "run", "-k", "ten"), '"ten"'),
        (("data", "generate", "out"), "--users"),
    ],
)
def test_wrong_usage_is_one_line(refused, arguments, told):
    assert told in refused(*arguments)


def test_a_negative_seed_is_told(refused, groups, tmp_path):
    for words in (
        ("data", "describe", groups),
        ("data", "export", groups, tmp_path / "out", "--format", "mmrec", "--split", "random"),
        ("data", "generate", tmp_path / "out", "--users", 50, "--items", 50, "--interactions", 500),
    ):
        assert "seed: expected a whole number of at least 0, got -1" in refused(*words, "--seed", -1)


def test_debug_shows_a_traceback_with_the_same_status(metammf, tmp_path):
    quiet = metammf("evaluate", tmp_path)
    assert quiet.status == 2
    assert "not a run" in quiet.message
    loud = metammf("evaluate", tmp_path, "--debug")
    assert loud.status == 2
    assert "Traceback" in loud.err
    assert "RunError" in loud.err


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "big.parquet"), 2, "big.parquet: No space left on device"),
        (MemoryError("Unable to allocate 8 TiB"), 2, "out of memory: Unable to allocate 8 TiB"),
        (ZeroDivisionError("by zero"), 1, "a fault of metammf's own (ZeroDivisionError: by zero); --debug shows where"),
    ],
)
def test_what_is_no_error_of_ours_is_one_message_too(metammf, monkeypatch, error, status, told):
    def fail(*_arguments, **_options):
        raise error

    monkeypatch.setattr(module, "app", fail)
    outcome = metammf("recipes")
    assert (outcome.status, outcome.message) == (status, told)


def test_a_script_exits_with_the_status(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["metammf", "recipes"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert "metammf-gcn" in capsys.readouterr().out


def test_a_reader_that_has_had_enough_is_no_error(started):
    process = started("recipes", stdout=subprocess.PIPE)
    process.stdout.close()
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (0, "")
