from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BEGINS = {".svg": b"<svg", ".png": b"\x89PNG\r\n", ".pdf": b"%PDF-", ".html": b"<!DOCTYPE html>"}


@pytest.mark.parametrize("suffix", list(BEGINS))
def test_a_picture(metammf: Callable[..., Any], dynamic: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"why{suffix}"
    told = metammf("explain", dynamic, "--item", "item-0", "--out", path)
    assert told.status == 0, told.err
    assert path.read_bytes().startswith(BEGINS[suffix])
    assert "What counts in item item-0" in told.out
    assert told.out.splitlines()[-1].endswith(path.name)


@pytest.mark.parametrize(("suffix", "read"), [(".csv", pl.read_csv), (".parquet", pl.read_parquet)])
def test_a_table_for_a_user(
    metammf: Callable[..., Any], dynamic: Path, tmp_path: Path, suffix: str, read: Callable[..., pl.DataFrame]
) -> None:
    path = tmp_path / f"why{suffix}"
    told = metammf("explain", dynamic, "--item", "item-0", "--user", "user-0", "--out", path)
    assert told.status == 0, told.err
    found = read(path)
    assert found.columns == ["modality", "present", "leave_one_out", "gradient_x_input", "share"]
    assert found["share"].sum() == pytest.approx(1)
    assert "item item-0 for user user-0" in told.out


def test_its_help_says_what_each_column_is(metammf: Callable[..., Any]) -> None:
    told = " ".join(metammf("explain", "--help").out.split())
    for column in ("leave_one_out", "gradient_x_input", "share"):
        assert column in told
    assert "below zero, the score is higher without the modality" in told


def test_the_picture_of_a_pair_says_so(metammf: Callable[..., Any], dynamic: Path, tmp_path: Path) -> None:
    metammf("explain", dynamic, "--item", "item-0", "--user", "user-0", "--out", tmp_path / "why.svg")
    assert "item item-0 for user user-0" in (tmp_path / "why.svg").read_text(encoding="utf-8")


def test_a_kind_of_file_that_there_is_not(refused: Callable[..., str], dynamic: Path, tmp_path: Path) -> None:
    message = refused("explain", dynamic, "--item", "item-0", "--out", tmp_path / "why.gif")
    assert message.endswith("expected a name that ends in .svg, .png, .pdf, .html, .csv, .parquet")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_item(refused: Callable[..., str], dynamic: Path, tmp_path: Path) -> None:
    assert "item-999" in refused("explain", dynamic, "--item", "item-999", "--out", tmp_path / "why.svg")
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_content(refused: Callable[..., str], popular: Path) -> None:
    assert "popularity" in refused("explain", popular, "--item", "item-0")


def test_a_picture_without_the_extra_is_refused_at_once(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    message = refused("explain", tmp_path / "no-run", "--item", "1", "--out", tmp_path / "why.svg")
    assert message == "a picture needs vl-convert-python: pip install 'metammf[report]'"


def test_a_table_needs_no_extra(
    metammf: Callable[..., Any], dynamic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "altair", None)
    assert metammf("explain", dynamic, "--item", "item-0", "--out", tmp_path / "why.csv").status == 0
