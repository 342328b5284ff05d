"""Training that is killed, cut and starved comes to the end it would have come to: `make faults` on a small scale."""

from __future__ import annotations

import sys

import pytest

import faults


@pytest.mark.skipif(sys.platform != "linux", reason="signals and limits of Linux")
@pytest.mark.slow
def test_five_kills_and_one_of_each_other_fault(capfd):
    status = faults.main(["--kills", "5", "--damages", "1"])
    told = capfd.readouterr().out
    assert status == 0, told


def test_a_fault_that_is_not_survived_is_told(tmp_path, capsys):
    def fails(_bench, _run):
        raise faults.NotSurvivedError("the weights differ")

    survived = faults._all(faults.Bench(tmp_path), [fails], 0, 1)
    assert survived.total() == 0
    assert "NOT SURVIVED: fails, number 0: the weights differ" in capsys.readouterr().out


def test_a_half_written_file_is_found(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"loss": 1}\n{"los')
    with pytest.raises(faults.NotSurvivedError, match=r"log\.jsonl is half-written"):
        faults.check_files(tmp_path)
