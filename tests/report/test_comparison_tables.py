"""Comparisons as tables of the documents."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import fill_readme
from comparison_tables import short_table, whole_table
from comparisons import COMPARISONS
from doc_tables import ORDER, decimals, table
from metammf.experiments.config import recipe_names

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from metammf.experiments.comparison_results import ComparisonResults, ModelResult


def rows_of(lines: list[str]) -> dict[str, dict[str, str]]:
    """Name of a row -> heading -> cell."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return {row[0]: dict(zip(cells[0], row, strict=True)) for row in cells[1:]}


def test_all_models_in_the_order_of_validation_with_costs(comparison: ComparisonResults) -> None:
    lines = whole_table(comparison)
    rows = rows_of(lines)
    assert list(rows) == [
        "MetaMMF on LightGCN",
        "MetaMMF on LightGCN, features replaced by noise",
        "EASE",
        "Popularity",
        "VBPR",
        "*MMHCL, as published*",
        "*MDMNS, as published*",
    ]
    ours, vbpr = rows["MetaMMF on LightGCN"], rows["VBPR"]
    model = next(one for one in comparison.models if one.name == "vbpr")
    assert vbpr["R@20"] == decimals(model.mean("recall@20") or 0, model.deviation("recall@20"))
    assert vbpr["published"] == ".0380 / .0134"
    assert rows["*MDMNS, as published*"]["N@20"] == ".0525"
    costs = ("trials (ended)", "chosen", "minutes", "peak MiB", "s an epoch")
    assert tuple(vbpr[head] for head in costs) == ("3 (2)", "no. 1", "0.7", "512", "0.82")
    assert rows["Popularity"]["trials (ended)"] == "1 (1)"
    (note,) = (line for line in lines if line.startswith("Trials: all of the ledger, and in brackets those that ended"))
    assert note.endswith("no. 0 is always the recipe as it stands.")
    assert ours["N@20"].startswith("**")
    assert ours["cold N@20"].startswith("**")
    assert rows["MetaMMF on LightGCN, features replaced by noise"]["N@20"].endswith(" †")
    assert lines[0].startswith("4 models, 10 minutes of one core and at most 20 trials each, 3 seeds; ordered by N@20")
    assert any(line.startswith("- MetaMMF on LightGCN, the MetaMMF that validation puts first, is") for line in lines)
    assert "- Left out: GAT, ids alone: the loss became infinite." in lines


def test_a_short_table_names_below_it_what_was_hardly_searched_or_left_out(comparison: ComparisonResults) -> None:
    above, searched, left, end = short_table(comparison)[-4:]
    assert (above, left, end) == ("", "- Left out: GAT, ids alone: the loss became infinite.", "")
    assert searched.startswith(
        "- Hardly searched, since fewer than 3 of their trials ended: MetaMMF on LightGCN; MetaMMF"
    )
    assert not any("Left out" in line for line in short_table(replace(comparison, left_out=())))
    alone = replace(comparison, left_out=(), models=comparison.models[:1])  # popularity, which has nothing to search
    assert short_table(alone)[-1] == ""
    assert not any(line.startswith("- ") for line in short_table(alone))


def test_a_comparison_that_is_not_done_says_so(comparison: ComparisonResults) -> None:
    assert whole_table(replace(comparison, complete=False))[0].endswith("Not all models are done.")


def test_the_short_table_has_the_first_ours_and_the_controls(
    comparison: ComparisonResults, made_up_model: Callable[[str, float], ModelResult]
) -> None:
    others = [made_up_model(name, value) for name, value in (("mgcn", 0.06), ("bm3", 0.059), ("grcn", 0.001))]
    rows = rows_of(short_table(replace(comparison, models=(*comparison.models, *others))))
    assert list(rows) == [
        "1. MGCN",
        "2. BM3",
        "3. MetaMMF on LightGCN",
        "MetaMMF on LightGCN, features replaced by noise",
        "4. EASE",
        "5. Popularity",
    ]
    assert list(rows["4. EASE"]) == ["model", "R@20", "N@20", "cold R@20", "cold N@20", "published"]


def test_every_recipe_has_a_place_in_the_order() -> None:
    assert set(recipe_names()) == set(ORDER)


def test_numbers_and_rows() -> None:
    assert (decimals(0.04851), decimals(1.0), decimals(0.1, 0.00204)) == (".0485", "1.0000", ".1000 ± .0020")
    assert table(["a", "b"], [["c", "d"]]) == ["| a | b |", "|---|---:|", "| c | d |", ""]


def test_what_is_there_is_put_between_its_marks_and_the_rest_stays(
    comparison: ComparisonResults, tmp_path: Path
) -> None:
    results, readme = tmp_path / "docs" / "results.md", tmp_path / "README.md"
    results.parent.mkdir()
    empty = {name: f"<!-- comparison-{name}:begin -->\n<!-- comparison-{name}:end -->" for name in COMPARISONS}
    results.write_text("above\n\n" + "\n\n".join(empty.values()) + "\n\nbelow\n", encoding="utf-8")
    readme.write_text(f"above\n\n{empty['lfm2k']}\n", encoding="utf-8")
    (tmp_path / "results" / "tiktok").mkdir(parents=True)
    comparison.write(tmp_path / "results" / "tiktok" / "comparison.json")
    for _ in range(2):
        fill_readme.fill_comparisons(tmp_path)
        text = results.read_text(encoding="utf-8")
        assert text.startswith("above\n\n<!-- comparison-tiktok:begin -->\n\n4 models, ")
        assert text.count("MetaMMF on LightGCN, features replaced by noise |") == 1
        assert all(
            f"Not run yet: `python scripts/comparisons.py --only {name}`." in text for name in set(empty) - {"tiktok"}
        )
    assert readme.read_text(encoding="utf-8") == f"above\n\n{empty['lfm2k']}\n"
    readme.write_text(empty["tiktok"], encoding="utf-8")
    fill_readme.fill_comparisons(tmp_path)
    assert "| 1. MetaMMF on LightGCN |" in readme.read_text(encoding="utf-8")


def test_the_results_page_has_a_place_for_each_comparison() -> None:
    text = (fill_readme.ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    places = [text.find(f"<!-- comparison-{name}:{mark} -->") for name in COMPARISONS for mark in ("begin", "end")]
    assert -1 not in places
    assert places == sorted(places)
