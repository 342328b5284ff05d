"""What the schema that Arrow's writers leave in a Parquet file unfolds to, before the table library unfolds it.

It is a FlatBuffer (https://flatbuffers.dev/internals/, Arrow's `Message.fbs` and `Schema.fbs`; the numbers below are their
slots), whose parts may refer to one part again and again: a file of two KiB could fill all memory.
"""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass

_MAX_DEPTH = 16
_FIELD = 8  # bytes that a field takes at least
_SHARED = 4  # a writer may share texts that are equal
_WITH_TAIL = (10, 14)  # types that hold a text or a vector: Timestamp, Union


class FoldedError(Exception):
    """It unfolds to far more than there is of it, or is damaged."""


def check_arrow_schema(text: bytes) -> None:
    """Walk the fields of a schema as Parquet keeps it, in base 64.

    Raises:
        FoldedError: its fields, unfolded, take far more than its bytes, are nested too deeply, or are not there.
    """
    try:
        message = base64.b64decode(text, validate=True)
        message = message[8 if message[:4] == b"\xff\xff\xff\xff" else 4 :]
        walk = _Walk(message, left=_SHARED * len(message))
        schema = walk.refer(walk.refer(0), 2)
        if schema:
            walk.notes(walk.refer(schema, 2))
            walk.fields(walk.refer(schema, 1), 0)
    except (ValueError, struct.error) as error:
        raise FoldedError("the schema of Arrow is damaged") from error


@dataclass
class _Walk:
    """Reads tables of a FlatBuffer; `left` says how many bytes may still be unfolded."""

    data: bytes
    left: int

    def number(self, place: int, code: str = "<I") -> int:
        if place < 0:
            raise FoldedError("the schema of Arrow is damaged")
        return int(struct.unpack_from(code, self.data, place)[0])

    def refer(self, place: int, slot: int | None = None) -> int:
        """Follow the offset that stands at `place`, or in a slot of the table there; 0 where the slot is empty."""
        if slot is not None:
            place = self.slot(place, slot)
        return place + self.number(place) if place or slot is None else 0

    def slot(self, table: int, slot: int) -> int:
        layout = table - self.number(table, "<i")
        inside = 4 + 2 * slot
        offset = self.number(layout + inside, "<H") if inside < self.number(layout, "<H") else 0
        return table + offset if offset else 0

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise FoldedError("the schema of Arrow unfolds to far more than its bytes")

    def length(self, place: int) -> int:
        """Take a text or vector, whose length stands before it."""
        count = self.number(place) if place else 0
        self.take(count)
        return count

    def notes(self, vector: int) -> None:
        for entry in range(self.length(vector)):
            pair = self.refer(vector + 4 + 4 * entry)
            for slot in (0, 1):
                self.length(self.refer(pair, slot))

    def fields(self, vector: int, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise FoldedError("the schema of Arrow is nested too deeply")
        for entry in range(self.length(vector)):
            self.take(_FIELD)
            field = self.refer(vector + 4 + 4 * entry)
            self.length(self.refer(field, 0))
            kind, about = self.slot(field, 2), self.refer(field, 3)
            if kind and about and self.number(kind, "<B") in _WITH_TAIL:
                self.length(self.refer(about, 1))
            self.fields(self.refer(field, 5), depth + 1)
            self.notes(self.refer(field, 6))
