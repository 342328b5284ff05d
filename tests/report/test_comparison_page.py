from __future__ import annotations

import csv
import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from metammf.errors import MissingExtraError
from metammf.experiments.comparison_results import PublishedFigure, Trial
from metammf.report.again import write_again
from metammf.report.cold_items import without_guesses
from metammf.report.comparison_page import comparison_page, write_comparison
from metammf.report.comparison_table import columns, kind_of, lines, main_latex, published_only
from metammf.report.comparison_words import findings, headline
from metammf.report.words import ONE_SEED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from metammf.experiments.comparison_results import ComparisonResults, ModelResult, TrialState


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def folder(comparison: ComparisonResults, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("comparison")
    assert write_comparison(comparison, path) == path / "report.html"
    return path


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def text_of(page: str) -> str:
    """What a reader sees, with one blank for each run of them."""
    body = re.sub(r"<(script|style).*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def test_the_files_beside_the_page(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        "report.html",
        "table.csv",
        "table.tex",
        "tests.csv",
        "ledger.csv",
    }


def test_nothing_comes_from_the_network(page: str) -> None:
    shown = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"\s(src|href|action|data)=", shown)
    assert "url(" not in shown
    assert "default-src 'none'" in shown


def test_what_could_end_an_element_does_not(page: str) -> None:
    assert "--out '<b>'" not in page
    assert "--out &#39;&lt;b&gt;&#39;" in page


def test_every_place_has_its_figure_and_every_figure_its_place(page: str) -> None:
    places = re.findall(r'data-chart="([^"]+)"', page)
    specs = json.loads(re.search(r'id="specs">(.*?)</script>', page, re.DOTALL).group(1))  # type: ignore[union-attr]
    assert sorted(places) == sorted(specs)
    assert set(places) == {"bars-all", "bars-cold among all", "bars-cold among cold", "leads", "spread", "cost"}
    assert len(specs["spread"]["layer"]) == 2


def test_the_page_says_all_of_it(page: str, comparison: ComparisonResults) -> None:
    text = text_of(page)
    for words in (
        "MetaMMF on LightGCN is first of 4 models by NDCG@20",
        "20 trials at most",
        "tested were Recall@20 and NDCG@20, and no other column is marked",
        "Settings searched",
        "none of 130 interactions is in two parts",
        "Left out: GAT, ids alone: the loss became infinite",
        "A processor, 2 cores, Linux",
        "MMHCL (published)",
        "the loss is not finite",
        "0.0001 to 0.01, log",
        "12,345",
        "The published split, train alone left out.",
    ):
        assert words in text
    assert "VBPR (published)" not in text  # it stands beside the vbpr of the comparison
    assert "DiffMM, Table 1; epoch picked on test" in page


def test_the_csv_holds_the_numbers(folder: Path, comparison: ComparisonResults) -> None:
    with (folder / "table.csv").open(encoding="utf-8", newline="") as stream:
        rows = {row["model"]: row for row in csv.DictReader(stream)}
    assert next(iter(rows)) == "metammf-lightgcn"  # ordered by validation
    for model in comparison.models:
        row = rows[model.name]
        assert float(row["ndcg@20 all mean"]) == pytest.approx(model.mean("ndcg@20"), rel=1e-12)
        assert float(row["ndcg@20 all std"] or "nan") == pytest.approx(
            model.deviation("ndcg@20") or math.nan, nan_ok=True
        )
    searched = [rows["vbpr"][head] for head in ("settings searched", "trials", "trials_ended", "chosen_trial")]
    assert searched == ["1", "3", "2", "1"]
    assert rows["vbpr"]["published"] == "0.0134"
    assert rows["ease"]["published"] == ""
    with (folder / "tests.csv").open(encoding="utf-8", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == len(without_guesses(comparison).tests)
    with (folder / "ledger.csv").open(encoding="utf-8", newline="") as stream:
        ledger = list(csv.DictReader(stream))
    assert len(ledger) == sum(len(model.trials) for model in comparison.models)
    assert [row["state"] for row in ledger if row["chosen"] == "True"].count("pruned") == 4


def test_latex_marks_the_best_and_what_cannot_be_told_from_it(folder: Path) -> None:
    lines = (folder / "table.tex").read_text(encoding="utf-8").splitlines()
    rows = {line.split(" & ")[0]: line for line in lines if line.endswith(r"\\")}
    ours = "MetaMMF on LightGCN"
    best, noise, ease = rows[ours], rows[f"{ours}, features replaced by noise"], rows["EASE"]
    assert best.count(r"\textbf{") == 8
    assert r"\dagger" not in best + ease
    assert noise.count(r"\dagger") == 6  # recall@10 and ndcg@10 were not tested
    assert lines.index(noise) > lines.index(rows["VBPR"])  # placebos apart
    assert rows[rf"{ours}, \%"].count("$+") == 8
    assert rows["Model"].count("&") == best.count("&") == 8


def test_tables_and_figures_call_models_as_people_do(folder: Path, page: str) -> None:
    with (folder / "table.csv").open(encoding="utf-8", newline="") as stream:
        called = {row["model"]: row["label"] for row in csv.DictReader(stream)}
    assert called["metammf-lightgcn+noise"] == "MetaMMF on LightGCN, features replaced by noise"
    specs = json.loads(re.search(r'id="specs">(.*?)</script>', page, re.DOTALL).group(1))  # type: ignore[union-attr]
    for name in ("bars-all", "leads", "spread"):
        assert {row["label"] for row in values_of(specs[name])} <= set(called.values())
    # What was typed stands beside it in the main table, and by the dots of the costs.
    assert '<span class="pm typed">metammf-lightgcn<wbr>+noise</span>' in page
    assert {row["short"] for row in values_of(specs["cost"])} <= set(called)


def values_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """All rows of a figure, of its layers too."""
    layers = [spec, *spec.get("layer", ())]
    return [row for layer in layers for row in layer.get("data", {}).get("values", ()) if "label" in row]


def test_two_points_of_one_recipe_have_names_of_their_own(
    comparison: ComparisonResults, made_up_model: Callable[[str, float], ModelResult]
) -> None:
    twin = replace(made_up_model("metammf-lightgcn", 0.04), name="metammf-lightgcn+model.fusion=concat")
    page = comparison_page(replace(comparison, models=(*comparison.models, twin)))
    specs = json.loads(re.search(r'id="specs">(.*?)</script>', page, re.DOTALL).group(1))  # type: ignore[union-attr]
    shorts = {row["label"]: row["short"] for row in values_of(specs["cost"])}
    assert shorts["MetaMMF on LightGCN"] == "metammf-lightgcn"
    assert shorts["static twin of MetaMMF on LightGCN"] == "metammf-lightgcn, fusion=concat"


def with_twin_of(comparison: ComparisonResults, **changes: Any) -> ComparisonResults:
    """The same with a static twin of its MetaMMF, which a test finds 0.002 behind."""
    ours = next(model for model in comparison.models if model.name == "metammf-lightgcn")
    static = {"model": {"name": "metammf", "fusion": "concat"}}
    twin = replace(ours, name="static-lightgcn", recipe="static-lightgcn", config=static)
    test = next(one for one in comparison.tests if (one.metric, one.table, one.a) == ("ndcg@20", "all", ours.name))
    behind = replace(test, a=twin.name, b=ours.name, difference=-0.002, p_holm=0.01)
    models = (replace(twin, **changes), *comparison.models)
    return replace(comparison, models=models, tests=(behind, *comparison.tests))


def test_each_static_twin_is_told_of(comparison: ComparisonResults) -> None:
    """Not the last of them alone, which may be the weakest."""
    one = with_twin_of(comparison)
    first = one.models[0]
    gated = replace(first, name="metammf-lightgcn+model.fusion=gated", recipe="metammf-lightgcn")
    gated = replace(
        gated, overrides={"model.fusion": "gated"}, config={"model": {"name": "metammf", "fusion": "gated"}}
    )
    test = replace(one.tests[0], a=gated.name, difference=-0.001)
    both = replace(one, models=(first, *comparison.models, gated), tests=(*one.tests, test))
    told = [text for text in findings(both) if text.startswith("What dynamic fusion adds")]
    assert [text.partition("against ")[2].partition(":")[0] for text in told] == [first.name, gated.name]


def test_too_many_models_to_be_told_apart_are_said_to_be(comparison: ComparisonResults) -> None:
    """With 101 of them Holm multiplies the smallest p that there is by 5,050."""
    one = next(test for test in comparison.tests if (test.metric, test.table) == ("ndcg@20", "all"))
    for count, said in ((4950, False), (5050, True)):
        many = replace(comparison, tests=(one,) * count)
        assert any("that no two are told apart here says nothing" in text for text in findings(many)) is said
    assert "smallest p that it can give is 0.0001 after" in text_of(comparison_page(comparison))


def test_too_few_users_who_are_served_differently_are_said_to_be(comparison: ComparisonResults) -> None:
    """Of eight users' signs all are alike in two of 256 flips, and Holm multiplies that by ten."""
    one = next(test for test in comparison.tests if (test.metric, test.table) == ("ndcg@20", "all"))
    for differing, said in ((8, True), (9, False)):
        few = replace(comparison, tests=(replace(one, num_differing=3),) * 9 + (replace(one, num_differing=differing),))
        told = [text for text in findings(few) if "that no two are told apart here says nothing" in text]
        assert bool(told) is said
        if said:
            assert told[0].startswith(f"Of {one.num_users} users no two models serve more than 8 differently.")
            assert "can give is 0.078 after" in told[0]


def test_a_static_twin_is_a_control(comparison: ComparisonResults) -> None:
    results = with_twin_of(comparison)
    assert [kind_of(model) for model in results.models if model.recipe.endswith("-lightgcn")] == [
        *("static fusion", "MetaMMF", "placebo")
    ]
    assert headline(results).startswith("metammf-lightgcn is ")
    assert "static fusion" in text_of(comparison_page(results))


@pytest.mark.parametrize(
    ("changes", "twins"),
    [
        ({}, True),
        ({"recipe": "metammf-lightgcn", "overrides": {"model.fusion": "concat"}}, True),
        ({"recipe": "metammf-lightgcn", "overrides": {"model.fusion": "concat", "model.embedding_dim": 8}}, False),
        ({"recipe": "static-mf"}, False),
    ],
)
def test_what_dynamic_fusion_adds_is_the_distance_to_the_same_but_for_the_fusion(
    comparison: ComparisonResults, changes: dict[str, Any], twins: bool
) -> None:
    told = "What dynamic fusion adds to metammf-lightgcn, against static-lightgcn: +0.0020 (p\u00a0=\u00a00.010)."
    assert (told in findings(with_twin_of(comparison, **changes))) is twins


def test_what_something_adds_on_cold_items_is_told_as_well(comparison: ComparisonResults) -> None:
    one = with_twin_of(comparison)
    cold = replace(one.tests[0], table="cold among all", difference=0.004)
    told = next(text for text in findings(replace(one, tests=(*one.tests, cold))) if "dynamic fusion adds" in text)
    assert told.endswith(": +0.0020 (p\u00a0=\u00a00.010); cold among all −0.0040 (p\u00a0=\u00a00.010).")


def test_a_published_figure_stands_beside_its_model_whatever_was_changed_of_it(comparison: ComparisonResults) -> None:
    by_name = {model.name: model for model in comparison.models}
    vbpr, popularity = by_name["vbpr"], by_name["popularity"]
    changed = replace(
        comparison,
        models=(
            replace(vbpr, name="vbpr+training.epochs=9"),
            replace(vbpr, name="vbpr+noise", placebo="noise"),
            replace(popularity, name="mf", recipe="mf"),
        ),
        published=(*comparison.published, PublishedFigure("MF-BPR", "ndcg@20", 0.013, "DiffMM, Table 1", "test")),
    )
    beside = {line.model.name: {key: one.value for key, one in line.published.items()} for line in lines(changed)}
    assert beside == {
        "vbpr+training.epochs=9": {"ndcg@20": 0.0134, "recall@20": 0.038},
        "vbpr+noise": {},
        "mf": {"ndcg@20": 0.013},
    }
    assert [row["model"] for row in published_only(changed)] == ["MMHCL", "MDMNS"]


def test_where_all_are_at_nothing_none_is_best(comparison: ComparisonResults) -> None:
    def without_cold(model: ModelResult) -> ModelResult:
        seeds = [
            replace(one, test={**one.test, "cold among all": dict.fromkeys(one.test["cold among all"], 0.0)})
            for one in model.seeds
        ]
        return replace(model, seeds=tuple(seeds))

    bare = replace(comparison, models=tuple(without_cold(model) for model in comparison.models))
    places = [place for place, column in enumerate(columns(bare)) if column.table == "cold among all"]
    entries = [line.entries[place] for line in lines(bare) for place in places]
    assert entries
    assert not any(entry.best or entry.level for entry in entries)
    assert "cold among all: none above 0" in " ".join(findings(bare))
    assert 'data-chart="bars-cold among all"' not in comparison_page(bare)


def test_the_headline_reads_right_whoever_wins(
    comparison: ComparisonResults, made_up_model: Callable[[str, float], ModelResult]
) -> None:
    assert headline(comparison) == "metammf-lightgcn is first of 4 models by NDCG@20"
    level = replace(comparison, tests=tuple(replace(test, p_holm=0.2) for test in comparison.tests))
    assert headline(level).endswith("by NDCG@20, level with ease")
    without = replace(comparison, models=tuple(model for model in comparison.models if model.model != "metammf"))
    assert headline(without) == "ease is first of 3 models by NDCG@20"
    swapped = [
        replace(model, seeds=made_up_model("x", 0.9).seeds) if model.name == "ease" else model
        for model in comparison.models
    ]
    assert headline(replace(comparison, models=tuple(swapped))).startswith(
        "metammf-lightgcn is second of 4 models by NDCG@20, behind ease"
    )


def test_the_headline_where_there_is_nothing_to_compare(comparison: ComparisonResults) -> None:
    none = replace(comparison, models=(), tests=())
    assert headline(none) == "No model came to an end"
    assert headline(replace(none, complete=False)) == "No model is done yet"
    by_name = {model.name: model for model in comparison.models}
    placebo = next(model for model in comparison.models if model.placebo)
    assert headline(replace(comparison, models=(placebo,))) == "Placebos alone: nothing to lay beside them"
    assert headline(replace(comparison, models=(by_name["ease"],))) == "ease alone: nothing to compare it with"


def test_a_difference_of_models_at_other_settings_is_called_one_of_searches_too(comparison: ComparisonResults) -> None:
    def told(rate: float) -> str:
        models = tuple(
            replace(model, chosen={"training.learning_rate": rate if model.placebo else 0.1})
            for model in comparison.models
        )
        return next(text for text in findings(replace(comparison, models=models)) if "content adds" in text)

    assert told(0.2).endswith("a difference of searches too.")
    assert "searches" not in told(0.1)


def test_findings_name_the_rivals_the_placebo_and_what_is_published(comparison: ComparisonResults) -> None:
    told = " ".join(findings(comparison))
    assert "metammf-lightgcn, the MetaMMF that validation puts first, is ahead of the best of the others, ease" in told
    assert "What content adds to metammf-lightgcn, against noise: no difference that a test can tell" in told
    assert (
        "Best published NDCG@20: 0.0525 (MDMNS, epoch picked on test); with the epoch picked on validation 0.0492"
        in told
    )


def test_who_was_hardly_searched_or_cut_short_is_named(comparison: ComparisonResults) -> None:
    """A pruned trial was looked at; one that the budget ended, or that failed, was not. Popularity has nothing to search."""

    def with_states(model: ModelResult, *states: TrialState, chosen: int = 0) -> ModelResult:
        trials = [Trial(place, {}, state, 9.0, 20 + place, 0.03) for place, state in enumerate(states)]
        settled = tuple(replace(seed, best_epoch=1, curve=((1, 0.03), (2, 0.02))) for seed in model.seeds)
        return replace(model, trials=tuple(trials), chosen_trial=chosen, seeds=settled)

    by_name = {model.name: model for model in comparison.models}
    ease, vbpr, ours = by_name["ease"], by_name["vbpr"], by_name["metammf-lightgcn"]
    models = (
        by_name["popularity"],
        with_states(ease, "finished", "failed", "finished"),
        with_states(vbpr, "stopped", "finished", "stopped", chosen=2),
        with_states(ours, "finished", "pruned", "pruned", "stopped", chosen=3),
    )
    told = findings(replace(comparison, models=models))
    assert (
        "Hardly searched, since fewer than 3 of their trials ended: ease; vbpr. 1 of these 2 stand at their recipe as it is. What"
        " a longer search would make of them is not known."
    ) in told
    assert (
        "Chosen from a trial that the budget cut short, whose epochs, in brackets, the final runs could not pass:"
        " metammf-lightgcn (23); vbpr (22)."
    ) in told
    rising = tuple(replace(seed, best_epoch=2, curve=((1, 0.02), (2, 0.03))) for seed in ours.seeds)
    told = findings(replace(comparison, models=(*models[:-1], replace(models[-1], seeds=rising))))
    assert next(text for text in told if "cut short" in text).endswith(
        "with more to learn, it may be: metammf-lightgcn."
    )
    searched = replace(comparison, models=tuple(with_states(model, "finished", "pruned", "pruned") for model in models))
    assert not [text for text in findings(searched) if "searched" in text or "cut short" in text]
    page = text_of(comparison_page(replace(comparison, models=models, tests=())))
    assert "Trials (ended) Chosen Minutes of search" in page
    assert "4 (3) no. 3 0.6" in page
    assert "no. 0 is always the recipe as it stands" in page


def test_a_comparison_that_has_just_begun(comparison: ComparisonResults) -> None:
    bare = replace(comparison, models=(), tests=(), improvements=(), published=(), complete=False)
    assert "not complete yet" in comparison_page(bare)
    alone = replace(bare, models=comparison.models[:1])
    assert "Popularity is first of one done so far" in comparison_page(alone)


def test_models_to_come_are_named(
    comparison: ComparisonResults, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    some = replace(comparison, complete=False, pending=("gat", "mmgcn"))
    assert headline(some) == "metammf-lightgcn is first of the 4 models done so far by NDCG@20"
    told = "Not complete yet, to come: gat and mmgcn; the same command goes on."
    assert findings(some)[0] == told
    assert "to come: GAT, ids alone and MMGCN; the same" in text_of(comparison_page(some))
    # A file of an older version does not name them.
    assert findings(replace(some, pending=()))[0].startswith("Not complete yet, not all runs")
    some.write(tmp_path / "comparison.json")
    write_again(tmp_path)
    assert told in caplog.text
    assert "Not complete" not in " ".join(findings(comparison))


def test_one_seed_is_said_to_be_one(comparison: ComparisonResults) -> None:
    single = replace(comparison, budget=replace(comparison.budget, seeds=(0,)))
    assert findings(single)[0] == ONE_SEED
    assert "Bars: NDCG@20 of one seed." in text_of(comparison_page(single))
    assert ", one seed.\n" in main_latex(single)
    assert ", means and deviations over 3 seeds.\n" in main_latex(comparison)
    assert ONE_SEED not in findings(comparison)


def test_a_missing_extra_is_named_and_nothing_written(
    comparison: ComparisonResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match="the report needs jinja2"):
        write_comparison(comparison, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here to open the page in")
def test_a_browser_draws_every_figure_and_sorts(page: str, tmp_path: Path) -> None:
    click = "document.querySelectorAll('#table table.sortable th button')[1].click();"
    path = tmp_path / "report.html"
    before, _, after = page.rpartition("</body>")  # the libraries speak of one too
    path.write_text(f"{before}<script>{click}{click}</script></body>{after}", encoding="utf-8")
    assert CHROMIUM is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000", "--enable-logging=stderr"]
    command = [CHROMIUM, *flags, "--dump-dom", path.as_uri()]
    drawn = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert drawn.stdout.count('class="marks"') == 6
    names = re.findall(r'<th scope="row" data-value="([^"]+)">', drawn.stdout)
    assert names.index("VBPR") < names.index("EASE") < names.index("MetaMMF on LightGCN")
    assert "CONSOLE" not in drawn.stderr
