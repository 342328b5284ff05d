"""Where a text table breaks its own form: looked for after reading has failed, since the table library does not say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metammf.errors import FileFormatError

if TYPE_CHECKING:
    from pathlib import Path


def find_fault(path: Path, separator: str, quote: str | None) -> FileFormatError | None:
    """Return an error that names the first row of too many fields, or a quote that nothing closes; None where all is well.

    One pass over the lines, in the memory of one of them. Rows count from 1 below the header, without blank lines, and
    lines from 1, as editors count.

    Args:
        path: A text file that can be read, with a header.
        separator: Of fields.
        quote: The quoting character, or None where the form knows none.
    """
    comma, mark = separator.encode(), quote.encode() if quote else None
    header = row = 0
    fields, first, blank, opened = 1, 1, True, False
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            pieces = line.split(mark) if mark else [line]
            fields += sum(piece.count(comma) for piece in pieces[opened::2])
            blank &= len(pieces) == 1 and not line.strip(comma + b"\r\n")
            opened ^= len(pieces) % 2 == 0
            if opened:
                continue  # the row goes on in the next line
            if header and fields > header:
                where = f"line {first}" if first == number else f"lines {first} to {number}, which its quotes join"
                found = f"row {row + 1} ({where}) has {fields} fields"
                return FileFormatError(path, found, f"at most {header}, as the header has")
            if not header:
                header = 0 if blank else fields
            elif not blank:
                row += 1
            fields, first, blank = 1, number + 1, True
    if opened:
        found = f"a quote that opens in row {row + 1} (line {first}) is never closed"
        return FileFormatError(path, found, "quotes in pairs")
    return None
