"""``metammf compare``: a table in the end, errors of ours, and a kill that costs nothing but time."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import get_args

import pytest

from metammf.cli.compare import compare
from metammf.data.features import Placebo
from metammf.experiments.comparison_results import ComparisonResults

QUICK = ("--profile", "metammf", "--trials", 2, "--seeds", 1, "--set", "training.epochs=2")


def test_a_comparison_prints_who_leads_and_goes_on_where_it_was(metammf, groups, tmp_path):
    asked = ("compare", groups, "--models", "ease,popularity", *QUICK, "--out", tmp_path / "out")
    first = metammf(*asked)
    assert first.status == 0, first.err
    assert "two groups, profile metammf" in first.out
    assert "test, one seed; ordered by validation" in first.out.replace("\n", " ")
    assert "Trained with one seed" in first.out
    assert "Every other model is behind ease by a paired test over users." in first.out
    assert "trials (ended)" in first.out
    assert "2 (2)" in first.out
    assert "no. 0 is always the recipe as it stands" in first.out
    assert "Hardly searched, since fewer than 3 of their trials ended: ease." in first.out
    assert str(tmp_path / "out" / "comparison.json") in first.out
    assert "5/5 popularity seed 1: validation recall@10" in first.err
    results = ComparisonResults.read(tmp_path / "out" / "comparison.json")
    assert results.command.startswith(f"metammf compare {groups} --models ease,popularity --profile metammf")
    again = metammf(*asked)
    assert (again.status, again.out) == (0, first.out)
    assert "trial" not in again.err


def test_help_and_page_name_every_placebo():
    page = (Path(__file__).parents[2] / "docs" / "comparing.md").read_text("utf-8")
    for kind in get_args(Placebo):
        assert f"RECIPE+{kind}" in (compare.__doc__ or "")
        assert f"`vbpr+{kind}`" in page


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--models", "eas", *QUICK), "did you mean 'ease'"),
        (("--models", "ease", "--profile", "user_time"), "did you mean 'user-time'"),
        (
            ("--models", "ease", "--profile", "user-time"),
            "two groups has no timestamps; the profiles that fit it: metammf",
        ),
        (("--models", "ease", *QUICK, "--minutes", "0"), "--minutes: expected a finite number above 0, got 0"),
        (("--models", "ease", *QUICK, "--set", "split.seed=1"), "split.seed is the profile's to say"),
        (("--models", "ease", *QUICK, "--published", "nowhere.csv"), "nowhere.csv: cannot be read"),
    ],
)
def test_what_does_not_fit_is_one_message(refused, groups, tmp_path, words, told):
    assert told in refused("compare", groups, *words, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_killed_comparison_goes_on(metammf, started, wait_for, groups, tmp_path):
    """The process is killed outright, once a trial is in the ledger."""
    asked = ("compare", groups, "--models", "ease,mf", *QUICK, "--out")
    process = started(*asked, tmp_path / "killed")
    ledger = tmp_path / "killed" / "ledger.jsonl"
    wait_for(process, lambda: ledger.is_file() and ledger.stat().st_size > 0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = ledger.read_text()
    for out in ("killed", "straight"):
        assert metammf(*asked, tmp_path / out).status == 0
    assert ledger.read_text().startswith(before[: before.rfind("\n") + 1])
    killed, straight = (
        [
            {key: one for key, one in json.loads(line).items() if key != "seconds"}
            for line in path.read_text().splitlines()
        ]
        for path in (ledger, tmp_path / "straight" / "ledger.jsonl")
    )
    assert killed == straight
    assert finals(tmp_path / "killed") == finals(tmp_path / "straight")


def finals(out):
    models = ComparisonResults.read(out / "comparison.json").models
    return [seed.test for model in models for seed in model.seeds]
