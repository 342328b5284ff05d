"""Tables of means over seeds: what their cells hold, and the same as LaTeX (booktabs) and CSV."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from metammf.experiments.comparison_results import SeedResult

TABLE_TITLES: Mapping[str, str] = {
    "all": "All test items",
    "warm": "Warm items",
    "cold among all": "Cold among all",
    "cold among cold": "Cold among cold",
    "cold users": "Cold users",
}
_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    # Other signs where the font's encoding is OT1, LaTeX's own; a typewriter has the straight quote in every encoding.
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\texttt{\char34}",
}
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""What a spreadsheet takes for the beginning of a formula; the last four are the full-width forms of the first."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Cell:
    """A mean over seeds.

    Args:
        mean: Of them.
        std: Sample standard deviation; None where there are fewer than two.
        count: Of the seeds.
    """

    mean: float
    std: float | None
    count: int

    @property
    def low(self) -> float:
        """One deviation below."""
        return self.mean - (self.std or 0.0)

    @property
    def high(self) -> float:
        """One above."""
        return self.mean + (self.std or 0.0)


def of_values(values: Iterable[float | None]) -> Cell | None:
    """Return mean and deviation of what is there; None where nothing is."""
    found = [value for value in values if value is not None]
    return Cell(mean(found), stdev(found) if len(found) > 1 else None, len(found)) if found else None


def of_metric(seeds: Iterable[SeedResult], metric: str, table: str = "all") -> Cell | None:
    """Return a test metric over seeds; None where the table has no interactions."""
    return of_values(one.test.get(table, {}).get(metric) for one in seeds)


def counted(seeds: int, what: str = "means") -> str:
    """Say over how many seeds something is: nothing is over one."""
    return f"{what} over {seeds} seeds" if seeds > 1 else "one seed"


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as CSV, numbers at full precision, nothing where there is none.

    Text that a spreadsheet would compute, "=1+1" for one, has an apostrophe before it.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([_csv_cell(value) for value in row] for row in (columns, *rows))
    return stream.getvalue()


def _csv_cell(value: Any) -> Any:
    if not isinstance(value, str):
        return "" if value is None else value
    return f"'{value}" if value.startswith(_FORMULA) and not _NUMBER.fullmatch(value) else value


def latex_text(
    groups: Sequence[tuple[str, int]], columns: Sequence[str], rows: Sequence[Sequence[str]], note: str, rules: set[int]
) -> str:
    """Return a booktabs table whose first column stands to the left.

    Args:
        groups: Heading and number of columns of each group above `columns`; the first of these is of none.
        columns: Headings, plain text.
        rows: Cells, LaTeX already: see `escaped`.
        note: A comment above it.
        rules: Numbers of the rows that a rule stands above.
    """
    above, rule, start = [""], [], 2
    for title, span in groups:
        above.append(rf"\multicolumn{{{span}}}{{c}}{{{escaped(title)}}}")
        rule.append(rf"\cmidrule(lr){{{start}-{start + span - 1}}}")
        start += span
    lines = [
        *(f"% {line}" for line in note.splitlines()),
        r"% \usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
        r"\toprule",
        " & ".join(above + [""] * (len(columns) - start + 1)) + r" \\",
        "".join(rule),
        " & ".join(escaped(title) for title in columns) + r" \\",
        r"\midrule",
    ]
    for number, row in enumerate(rows):
        lines += [r"\midrule"] if number in rules else []
        lines.append(" & ".join(row) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def escaped(text: str) -> str:
    """Return text as LaTeX prints it."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)
