"""The ledger holds what was told it, less a line that a kill has cut off."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from metammf.errors import FileFormatError, WriteError
from metammf.experiments.comparison_results import Trial
from metammf.experiments.ledger import Ledger


def trial(number, value=0.5):
    return Trial(number, {"model.l2": 1.5}, "finished", 1.25, 3, value, ((1, 0.25), (3, value)))


@pytest.fixture
def path(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.add("ease", trial(0))
    ledger.add("mf", Trial(0, {}, "failed", 0.5, None, None, (), "the loss is not finite"))
    ledger.add("ease", trial(1, 0.75))
    return ledger.path


def test_what_was_added_is_read_back(path):
    ledger = Ledger(path)
    assert ledger.trials("ease") == (trial(0), trial(1, 0.75))
    assert ledger.trials("mf")[0].reason == "the loss is not finite"
    assert ledger.trials("p3") == ()


def test_a_line_of_before_trials_named_their_source_reads(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.pop("source") for line in lines] == [None] * 3
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert Ledger(path).trials("ease") == (trial(0), trial(1, 0.75))
    Ledger(path).add("p3", replace(trial(0), source="5" * 64))
    assert Ledger(path).trials("p3")[0].source == "5" * 64


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_line_that_was_cut_off_is_taken_away(path, cut):
    text = path.read_text()
    path.write_text(text[:-cut])
    ledger = Ledger(path)
    assert ledger.trials("ease") == (trial(0),)
    ledger.add("ease", trial(1, 0.75))
    assert path.read_text() == text


def test_a_damaged_line_is_refused_by_its_number(path):
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "{}", lines[2]]) + "\n")
    with pytest.raises(FileFormatError, match=r"ledger\.jsonl: line 2 is no trial"):
        Ledger(path)


def test_a_value_that_json_cannot_hold_is_refused(path):
    path.write_text(path.read_text().replace("0.75", "NaN"))
    with pytest.raises(FileFormatError, match=r"ledger\.jsonl: line 3 is no trial \(a value that is not finite\)"):
        Ledger(path)


def test_a_missing_trial_is_refused(path):
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[1:]) + "\n")
    with pytest.raises(FileFormatError, match="line 2 is trial 1 of ease; expected trial 0"):
        Ledger(path)


def test_a_ledger_that_cannot_be_written_is_told(tmp_path):
    ledger = Ledger(tmp_path / "nowhere" / "ledger.jsonl")
    with pytest.raises(WriteError):
        ledger.add("ease", trial(0))
