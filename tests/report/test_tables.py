from __future__ import annotations

import csv
import io
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metammf.report.tables import Cell, csv_text, escaped, latex_text, of_values


def test_a_cell_is_mean_and_sample_deviation() -> None:
    cell = of_values([0.1, None, 0.3])
    assert cell is not None
    assert (cell.mean, cell.std, cell.count) == (pytest.approx(0.2), pytest.approx(0.02**0.5), 2)
    assert (cell.low, cell.high) == (pytest.approx(0.2 - 0.02**0.5), pytest.approx(0.2 + 0.02**0.5))
    assert of_values([0.1]) == Cell(0.1, None, 1)
    assert of_values([None]) is None


@given(
    st.lists(
        st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0")), min_size=2, max_size=2)
    )
)
def test_csv_reads_back_but_for_the_apostrophe_before_what_would_be_computed(rows: list[list[str]]) -> None:
    read = list(csv.reader(io.StringIO(csv_text(["a", "b"], rows), newline="")))
    assert read[0] == ["a", "b"]
    cells = zip(itertools.chain(*rows), itertools.chain(*read[1:]), strict=True)
    assert all(found in (cell, f"'{cell}") for cell, found in cells)
    assert not any(found[:1] in tuple("=@\t\n") and found for found in itertools.chain(*read))


@pytest.mark.parametrize("first", list("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"))
def test_no_cell_of_a_csv_is_a_formula(first: str) -> None:
    name = first + 'HYPERLINK("elsewhere")'
    read = list(csv.reader(io.StringIO(csv_text([name], [[name]]), newline="")))
    assert read == [[f"'{name}"], [f"'{name}"]]


@pytest.mark.parametrize("number", [-0.5, -3, "-0.5", "+3", "-.5", "-1.5e-05", "+1E3"])
def test_a_number_is_no_formula(number: float | str) -> None:
    assert csv_text(["a"], [[number]]) == f"a\n{number}\n"


@pytest.mark.parametrize("text", ["-", "--", "+1 -2", "-1+cmd|' /C calc'!A0", "-1e", "-\u0661"])
def test_what_only_begins_as_a_number_is_none(text: str) -> None:
    assert csv_text(["a"], [[text]]) == f"a\n'{text}\n"


def test_csv_keeps_full_precision_and_leaves_out_what_is_not_there() -> None:
    assert csv_text(["a"], [[0.1 + 0.2], [None]]) == 'a\n0.30000000000000004\n""\n'


def test_latex_has_as_many_cells_in_every_row_and_escapes() -> None:
    text = latex_text([("All_items", 2)], ["Model", "A%", "B", "C"], [["x", "1", "2", "3"]], "what & how", {0})
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    spans = [r" & \multicolumn{2}{c}{All\_items} &  \\", r"Model & A\% & B & C \\", r"x & 1 & 2 & 3 \\"]
    assert rows == spans
    assert r"\cmidrule(lr){2-3}" in text
    assert text.startswith("% what & how\n")
    assert escaped('a<b>|"c') == r"a\textless{}b\textgreater{}\textbar{}\texttt{\char34}c"
    assert escaped(r"a_b&c\d^~{}#$%") == (r"a\_b\&c\textbackslash{}d\textasciicircum{}\textasciitilde{}\{\}\#\$\%")
