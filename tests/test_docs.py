"""What the documents show works as shown, and the reference pages are those of the program as it stands."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import write_reference
from metammf import generate_world, save_dataset
from metammf.cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TESTED = re.compile(r"<!-- tested -->\n```(\w+)\n(.*?)```", re.DOTALL)
STEP = re.compile(r"<!-- (?:file: (\S+)|run) -->\n```\w+\n(.*?)```", re.DOTALL)
QUICKLY = ("--set", "training.epochs=1", "--set", "model.hidden_dims=[8]")


def blocks(language):
    found = [
        (path, code) for path in PAGES for kind, code in TESTED.findall(path.read_text("utf-8")) if kind == language
    ]
    assert found
    return [pytest.param(code, id=path.name) for path, code in found]


@pytest.fixture
def own_data(tmp_path, monkeypatch):
    """The files that the documents speak of: log.csv, items.csv, features/, and mydata made of them."""
    rng = np.random.default_rng(0)
    users = ["alice", *(f"user-{number}" for number in range(1, 30))]
    pairs = [(user, f"clip-{item}") for user in users for item in rng.permutation(40)[:10]]
    log = pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row")
    log = log.with_columns(timestamp=pl.int_range(pl.len()), rating=pl.Series(rng.integers(1, 6, len(log))))
    monkeypatch.chdir(tmp_path)
    log.write_csv("log.csv")
    pl.DataFrame({"item_id": [f"clip-{item}" for item in range(40)]}).with_columns(
        title=pl.format("Clip {}", pl.int_range(pl.len()))
    ).write_csv("items.csv")
    Path("features").mkdir()
    for name, width in (("visual", 6), ("acoustic", 4)):
        np.save(f"features/{name}.npy", rng.standard_normal((40, width), dtype=np.float32))


@pytest.mark.parametrize("code", blocks("bash"))
def test_commands(own_data, capsys, code):
    if "data import" not in code:
        assert main(shlex.split("data import log.csv mydata --items items.csv --features features")) == 0
    for line in code.splitlines():
        program, *words = shlex.split(line, comments=True)
        assert program == "metammf"
        if words[0] == "train" and "ease" not in words:
            words += QUICKLY
        assert main(words) == 0, f"{line}: {capsys.readouterr().err}"


@pytest.mark.parametrize("code", blocks("python"))
def test_python(tmp_path, capsys, code):
    save_dataset(generate_world(users=60, items=80, interactions=900, seed=0).dataset, tmp_path / "world")
    quick = code.replace('"datasets/tiktok"', "DATA").replace("seed=0)", "seed=0, training=TrainingConfig(epochs=1))")
    assert quick.count("DATA") == quick.count("epochs=1") == 1
    lines = "from metammf import TrainingConfig\n" + quick
    exec(compile(lines, "README.md", "exec"), {"DATA": tmp_path / "world"})
    shown = capsys.readouterr().out
    assert "recall" in shown
    assert "item_id" in shown


def walk(line, monkeypatch):
    """Take one line of a shell; return its exit status. As in a process of its own, nothing of the outsider's is imported yet."""
    program, *words = shlex.split(line)
    for module in [name for name in sys.modules if name.partition(".")[0] == "mymodels"]:
        del sys.modules[module]
    if program == "export":
        name, value = words[0].split("=")
        monkeypatch.setenv(name, value)
        if name == "PYTHONPATH":
            monkeypatch.syspath_prepend(str(Path(value).resolve()))
        return 0
    if program == "metammf":
        return main(words)
    if program == "python":
        exec(compile(Path(words[0]).read_text("utf-8"), words[0], "exec"), {"__name__": "__main__"})
        return 0
    assert program == "pytest"
    return pytest.main([*words, "-q", "--rootdir=.", "-p", "no:cacheprovider", "-p", "no:xdist"])


def test_a_model_of_an_outsider(tmp_path, monkeypatch, capsys):
    """The page on adding a model, from top to bottom in an empty folder: every block is a file or is run."""
    text = (ROOT / "docs" / "adding-a-model.md").read_text("utf-8")
    steps = STEP.findall(text)
    assert len(steps) == text.count("\n```") // 2
    monkeypatch.chdir(tmp_path)
    for file, block in steps:
        if file:
            Path(file).parent.mkdir(exist_ok=True)
            Path(file).write_text(block, "utf-8")
            continue
        for line in block.splitlines():
            assert walk(line, monkeypatch) == 0, f"{line}: {capsys.readouterr()}"
    shown = capsys.readouterr().out
    assert "tower-noise" in shown
    assert "next: METAMMF_MODELS=mymodels.tower metammf evaluate runs/tower\n" in shown
    assert "recall" in shown


def test_installs_are_of_the_tested_versions_and_leave_a_clone_in_charge():
    """torch first, at its pin; extras that there are; and editable, as make installs it, or edits would do nothing."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    pinned = next(
        line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line.startswith("torch==")
    )
    readme, *pages = (page.read_text("utf-8") for page in PAGES)
    lines = [line for line in readme.splitlines() if line.startswith("pip install")]
    assert lines[0] == f"pip install -c constraints.txt {pinned}"
    found = re.findall(r"pip install ([^\n`]*)'\.\[([a-z,]+)\]'", "\n".join([readme, *pages]))
    assert len(found) >= 4
    for options, named in found:
        assert options == "-c constraints.txt -e "
        assert set(named.split(",")) <= set(extras)


def test_reference_pages_are_up_to_date():
    for page, text in write_reference.pages().items():
        assert page.read_text("utf-8") == text, f"{page.name} is stale: run scripts/write_reference.py"


def test_every_command_is_in_the_readme():
    text = (ROOT / "README.md").read_text("utf-8")
    for command in re.findall(
        r"^#{2,3} (metammf [a-z ]+)$", (ROOT / "docs" / "cli.md").read_text("utf-8"), re.MULTILINE
    ):
        assert command == "metammf data" or f"`{command}" in text, command
