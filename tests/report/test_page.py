from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from metammf.errors import MissingExtraError
from metammf.report import words
from metammf.report.page import render_page

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Elements(HTMLParser):
    """A page's elements with their attributes, the text of its tables' rows, and its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.scripts: list[str] = []
        self._in = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        if tag == "script":
            self.scripts.append("")
        self._in = tag if tag == "script" else "cell" if tag in ("td", "th") else self._in

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "script"):
            self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            self.scripts[-1] += data
        if self._in == "cell":
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def page(demo_results: dict[str, Any]) -> str:
    return render_page(demo_results)


@pytest.fixture(scope="module")
def elements(page: str) -> Elements:
    return Elements(page)


def row_of(elements: Elements, label: str, width: int) -> list[str]:
    return next(row for row in elements.rows if row and row[0].strip() == label and len(row) == width)


def test_nothing_comes_from_the_network(elements: Elements) -> None:
    for tag, attributes in elements.found:
        assert not {"src", "href", "srcset", "action", "data"} & set(attributes), (tag, attributes)
        assert tag not in ("link", "iframe", "object", "img")
    policy = next(dict(a) for tag, a in elements.found if tag == "meta" and a.get("http-equiv"))
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_the_style_asks_for_nothing_either(page: str) -> None:
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_the_metrics_are_those_of_the_results(elements: Elements, results: dict[str, Any]) -> None:
    for model in results["models"]:
        row = row_of(elements, model["label"], 8)
        expected = [
            words.with_spread(found[metric]) if (found := words.of_table(model, table)) else "–"
            for table, metric in (
                ("all", "ndcg@20"),
                ("all", "recall@20"),
                ("warm", "ndcg@20"),
                ("cold_among_all", "ndcg@20"),
                ("cold_among_cold", "ndcg@20"),
            )
        ]
        assert row[1:6] == expected
        assert row[6] == f"{model['parameters']:,}"


def test_a_mean_over_seeds_is_that_of_the_runs(results: dict[str, Any]) -> None:
    for model in results["models"]:
        values = [run["evaluation"]["metrics"]["ndcg@20"] for run in model["runs"]]
        assert model["tables"]["all"]["ndcg@20"]["mean"] == pytest.approx(sum(values) / len(values))


def test_the_tests_are_those_of_the_results(elements: Elements, results: dict[str, Any]) -> None:
    shown = [row for row in elements.rows if len(row) == 9 and "−" in row[0]]
    assert len(shown) == len(results["comparisons"]) == 24
    for row, comparison in zip(shown, results["comparisons"], strict=True):
        assert row[3] == f"{comparison['mean_a']:.4f}"
        assert row[4] == f"{comparison['mean_b']:.4f}"
        assert row[5].startswith(words.signed(comparison["difference"]))
        assert row[8] == words.verdict(comparison)


def test_the_recovered_weights_are_those_of_the_results(elements: Elements, results: dict[str, Any]) -> None:
    for model in results["models"]:
        if model["recovery"]:
            row = row_of(elements, model["label"], 7)
            assert row[1].startswith(f"{model['recovery']['pearson']['mean']:.2f}")
            assert row[2].startswith(f"{model['recovery']['spearman']['mean']:.2f}")


def test_every_place_has_its_figure_and_every_figure_its_place(elements: Elements) -> None:
    places = [a["data-chart"] for _, a in elements.found if "data-chart" in a]
    specs = json.loads(next(text for text in elements.scripts if text.startswith("{")))
    assert sorted(places) == sorted(specs)
    assert len(places) == 4 + 1 + 4 + 4 + 2


def test_figures_show_the_numbers_of_the_results(elements: Elements, results: dict[str, Any]) -> None:
    specs = json.loads(next(text for text in elements.scripts if text.startswith("{")))
    bars = specs["bars-all"]["data"]["values"]
    assert {row["label"]: row["mean"] for row in bars} == {
        model["label"]: model["tables"]["all"]["ndcg@20"]["mean"] for model in results["models"]
    }
    points = specs["map-metammf-mf"]["data"]["values"]
    assert [point["item"] for point in points] == results["map"]["items"]


def test_headline_command_and_best_are_shown(page: str, results: dict[str, Any]) -> None:
    assert f"<h1>{words.headline(results)}</h1>" in page
    assert f"<code>{results['command']}</code>" in page
    assert 'class="best"' in page


def test_what_could_end_a_script_does_not(results: dict[str, Any]) -> None:
    results["map"]["titles"][0] = "</script><script>alert(1)</script>"
    results["command"] = "metammf demo --out '</code><b>'"
    page = render_page(results)
    assert "alert(1)</script>" not in page
    assert "</code><b>" not in page
    assert len(Elements(page).scripts) == 3


def test_a_world_without_cold_clips_has_no_tables_of_them(results: dict[str, Any]) -> None:
    for model in results["models"]:
        model["tables"]["cold_among_all"] = model["tables"]["cold_among_cold"] = {}
    results["comparisons"] = [row for row in results["comparisons"] if "cold" not in row["table"]]
    elements = Elements(render_page(results))
    assert "bars-cold_among_all" not in [a.get("data-chart") for _, a in elements.found]
    assert row_of(elements, "EASE", 8)[4] == "–"


def test_a_missing_extra_is_named(results: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match="the report needs jinja2"):
        render_page(results)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here to open the page in")
def test_a_browser_draws_every_figure(page: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    assert CHROMIUM is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000", "--enable-logging=stderr"]
    command = [CHROMIUM, *flags, "--dump-dom", path.as_uri()]
    drawn = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert drawn.stdout.count('class="marks"') == 15
    assert "cannot be drawn" not in re.sub(r"<script.*?</script>", "", drawn.stdout, flags=re.DOTALL)
    assert "CONSOLE" not in drawn.stderr
