from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metammf.data.readers.text_faults import find_fault


class Text:
    """A file of these bytes."""

    def __init__(self, content):
        self.content = content

    def open(self, mode):
        assert mode == "rb"
        return io.BytesIO(self.content)


def fault(text, separator=",", quote='"'):
    found = find_fault(Text(text.encode()), separator, quote)
    return None if found is None else str(found).partition(": ")[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", None),
        ("a,b\r\n1,2\r\n3\r\n", None),
        ('a,b\n1,"2,3"\n"4\n5",6\n7,"8 ""9"", 10"', None),
        ("a,b\n1,2\n\n3,4,5\n", "row 2 (line 4) has 3 fields; expected at most 2, as the header has"),
        ("\na,b\n,\n1,2,", "row 1 (line 4) has 3 fields; expected at most 2, as the header has"),
        ('a,b\n1,"2\n3,"4,5\n', "row 1 (lines 2 to 3, which its quotes join) has 3 fields; expected at most 2, as"),
        ('a,b\n1,2\n3,"4\n5,6\n', "a quote that opens in row 2 (line 3) is never closed; expected quotes in pairs"),
    ],
)
def test_the_first_fault_is_named(text, message):
    found = fault(text)
    assert found is None if message is None else found.startswith(message)


def test_a_form_without_quotes():
    assert fault('a\tb\n1\t"2\n', "\t", None) is None
    assert fault('a\tb\n"1\t2\t3"\n', "\t", None).startswith("row 1 (line 2) has 3 fields")


cells = st.text(st.sampled_from('ab," \n'), min_size=1, max_size=5)


@given(st.lists(st.lists(cells, min_size=1, max_size=4), min_size=2, max_size=6))
def test_any_table_that_is_written_well_is_counted_as_it_is(rows):
    stream = io.StringIO()
    csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    wide = [number for number, row in enumerate(rows[1:], start=1) if len(row) > len(rows[0])]
    found = fault(stream.getvalue())
    assert found is None if not wide else found.startswith(f"row {wide[0]} (line")
