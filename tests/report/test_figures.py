from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from metammf.errors import ConfigError, DataError, MissingExtraError
from metammf.report import figures

if TYPE_CHECKING:
    from pathlib import Path

FOUND = pl.DataFrame(
    {
        "modality": ["visual", "acoustic", "textual"],
        "present": [True, True, False],
        "leave_one_out": [0.6, 0.2, 0.0],
        "gradient_x_input": [0.5, -0.1, 0.0],
        "share": [0.75, 0.25, 0.0],
    }
)
MODELS = {"metammf-mf": "MetaMMF_MF", "static-mf": "Static MF"}


def marks(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """All units of a chart, wherever they are nested."""
    inner = [part for key in ("layer", "vconcat", "hconcat") for part in spec.get(key, [])]
    return [unit for part in inner for unit in marks(part)] if inner else [spec]


@pytest.mark.parametrize(
    ("suffix", "begins"),
    [(".svg", b"<svg"), (".png", b"\x89PNG\r\n"), (".pdf", b"%PDF-"), (".html", b"<!DOCTYPE html>")],
)
def test_a_picture_of_each_kind(tmp_path: Path, suffix: str, begins: bytes) -> None:
    path = tmp_path / f"why{suffix}"
    figures.save_chart(figures.contributions_chart(FOUND, "item 7"), path)
    assert path.read_bytes().startswith(begins)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_the_svg_says_what_the_frame_says(tmp_path: Path) -> None:
    path = tmp_path / "why.svg"
    figures.save_chart(figures.contributions_chart(FOUND, "item 7 for user 3"), path)
    text = path.read_text(encoding="utf-8")
    for words in ("What counts in item 7 for user 3", "75%", "25%", "visual", "textual (lacking)"):
        assert words in text


def test_the_html_asks_for_nothing_from_the_network(tmp_path: Path) -> None:
    path = tmp_path / "why.html"
    figures.save_chart(figures.contributions_chart(FOUND, "item 7"), path)
    text = path.read_text(encoding="utf-8")
    around = re.sub(r"(<script[^>]*>).*?</script>", r"\1", text, flags=re.DOTALL)
    assert around.count("<script") == 2
    assert not re.search(r"\s(src|href)=", around)
    assert '"editor": false' in text


def test_capital_letters_in_the_extension(tmp_path: Path) -> None:
    figures.save_chart(figures.contributions_chart(FOUND, "item 7"), tmp_path / "why.SVG")
    assert (tmp_path / "why.SVG").stat().st_size > 1000


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"why\.gif: expected a name that ends in \.svg, \.png, \.pdf, \.html"):
        figures.save_chart(figures.contributions_chart(FOUND, "item 7"), tmp_path / "why.gif")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        figures.save_chart(figures.contributions_chart(FOUND, "item 7"), tmp_path / "file" / "why.svg")


@pytest.mark.parametrize(
    ("module", "distribution"), [("altair", "altair"), ("vl_convert", "vl-convert-python"), ("jinja2", "jinja2")]
)
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, module: str, distribution: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"a picture needs {distribution}: pip install 'metammf\[report\]'"):
        figures.contributions_chart(FOUND, "item 7")


def test_bars_have_whiskers_only_where_something_varies() -> None:
    still = [{"label": "MetaMMF_MF", "mean": 0.2, "std": 0.0, "low": 0.2, "high": 0.2, "placebo": False}]
    varied = [{**still[0], "std": 0.1, "low": 0.1, "high": 0.3}]
    kinds = [
        [unit["mark"]["type"] for unit in marks(figures.metric_chart(rows, MODELS, "NDCG@20").to_dict())]
        for rows in (still, varied)
    ]
    assert kinds == [["bar"], ["bar", "rule"]]


def test_models_have_one_colour_in_all_figures() -> None:
    bars = [{"label": "MetaMMF_MF", "mean": 0.2, "std": 0.0, "low": 0.2, "high": 0.2, "placebo": False}]
    curve = [{"label": "MetaMMF_MF", "seed": 0, "epoch": 1, "metric": 0.1, "chosen": True}]
    scales = [
        marks(chart.to_dict())[0]["encoding"]["color"]["scale"]
        for chart in (
            figures.metric_chart(bars, MODELS, "NDCG@20"),
            figures.curves_chart(curve, MODELS, "metric", "NDCG@20"),
        )
    ]
    assert scales[0] == scales[1]
    assert scales[0]["domain"] == ["MetaMMF_MF", "Static MF"]


def test_charts_are_as_wide_as_their_place_or_as_told() -> None:
    bins = {"true": [0.1, 0.9], "count": [3, 4], "low": [0.1, 0.6], "middle": [0.2, 0.7], "high": [0.3, 0.8]}
    assert {unit["width"] for unit in marks(figures.recovery_chart(bins, "#0072B2").to_dict()) if "width" in unit} <= {
        "container"
    }
    point = {"x": 0.0, "y": 1.0, "item": 7, "title": None, "modality": "visual", "weight": 0.9}
    assert figures.map_chart([point], ["visual"], width=300).to_dict()["width"] == 300
