"""What ships, and what it says of itself."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import metadata
from pathlib import Path

import pytest

import metammf

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TEXTS = [
    path
    for pattern in ("*.md", "*.cff", "Makefile", ".ci/run", "docs/**/*.md", "scripts/*", "src/**/*.py", "src/**/*.toml")
    for path in sorted(ROOT.glob(pattern))
    if path.is_file()
]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines)


def test_torch_is_pinned_first():
    assert (ROOT / "constraints.txt").read_text(encoding="utf-8").startswith("torch==2.13.0\n")


def test_every_direct_dependency_is_pinned():
    extras = PROJECT["optional-dependencies"]
    names = {re.split(r"[><=\[]", one)[0].lower() for one in sum(extras.values(), PROJECT["dependencies"])}
    pinned = {name.lower(): pin for name, pin in pins().items()}
    for name in sorted(names - {"metammf"}):
        assert name in pinned, name


def test_the_metadata_is_of_this_version():
    about = metadata("metammf")
    assert about["Version"] == PROJECT["version"] == metammf.__version__
    assert about["License-Expression"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert f"\nversion: {PROJECT['version']}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_path_of_one_machine_is_written_down(path):
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"/work/|/root/|/home/\w+|/tmp/|/opt/", text)
    assert not found


def test_links_of_the_documents_lead_somewhere():
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            if not target.startswith(("http:", "https:", "mailto:")):
                assert (path.parent / target).exists(), f"{path.name}: {target}"
