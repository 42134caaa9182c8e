"""Reads FlatBuffers without the flatbuffers package.

Every access is checked against the bounds of the file, and the number of elements that are read in
all is limited, because several offsets may refer to the same part. A violation raises
:class:`ValueError`.
"""

import mmap
import struct
from collections.abc import Iterator
from typing import Any

# Elements of vectors that are read in all; more than any model has.
MAX_ELEMENTS = 20_000_000
MAX_TEXT = 65_536  # bytes of a name
_SIZES = {kind: struct.calcsize(f"<{kind}") for kind in "bBHiIqQf"}


class FlatBuffer:
    """The bytes of a file and the number of elements that may still be read."""

    def __init__(self, data: bytes | mmap.mmap, identifier: bytes) -> None:
        if data[4:8] != identifier:
            raise ValueError(f"it does not start with the identifier {identifier.decode()}")
        self.data = data
        self._remaining = MAX_ELEMENTS

    def root(self) -> "Table":
        return Table(self, self.number("I", 0))

    def number(self, kind: str, position: int) -> int:
        """The integer of the :mod:`struct` type ``kind`` at ``position``."""
        value: int = self.unpack(kind, position, 1)[0]
        return value

    def unpack(self, kind: str, position: int, count: int) -> tuple[Any, ...]:
        self.require(position, _SIZES[kind] * count)
        self._remaining -= count
        if self._remaining < 0:
            raise ValueError("it has too many elements")
        return struct.unpack_from(f"<{count}{kind}", self.data, position)

    def require(self, position: int, size: int) -> None:
        if position < 0 or position + size > len(self.data):
            raise ValueError("an offset leads outside the file")


class Table:
    """A table; fields are numbered as in the schema."""

    __slots__ = ("_buffer", "_fields", "_position")

    def __init__(self, buffer: FlatBuffer, position: int) -> None:
        vtable = position - buffer.number("i", position)
        size = buffer.number("H", vtable)
        if size < 4 or size % 2:
            raise ValueError("a table has a malformed list of fields")
        self._buffer, self._position = buffer, position
        self._fields = buffer.unpack("H", vtable + 4, (size - 4) // 2)

    def integer(self, field: int, kind: str, default: int = 0) -> int:
        position = self._field(field)
        return default if position is None else self._buffer.number(kind, position)

    def real(self, field: int) -> float:
        position = self._field(field)
        return 0.0 if position is None else float(self._buffer.unpack("f", position, 1)[0])

    def table(self, field: int) -> "Table | None":
        position = self._reference(field)
        return None if position is None else Table(self._buffer, position)

    def tables(self, field: int) -> Iterator["Table"]:
        vector = self._vector(field)
        if vector is not None:
            start, count = vector
            for place in range(start, start + 4 * count, 4):
                yield Table(self._buffer, place + self._buffer.number("I", place))

    def numbers(self, field: int, kind: str) -> tuple[Any, ...]:
        """The elements of a vector of numbers; empty if the field is absent."""
        vector = self._vector(field)
        return () if vector is None else self._buffer.unpack(kind, *vector)

    def length(self, field: int) -> int:
        """The number of elements of a vector; 0 if the field is absent."""
        vector = self._vector(field)
        return 0 if vector is None else vector[1]

    def text(self, field: int) -> str:
        start, size = self.content(field)
        if size > MAX_TEXT:
            raise ValueError(f"a name of {size} bytes")
        return self._buffer.data[start : start + size].decode("utf-8", "replace")

    def content(self, field: int) -> tuple[int, int]:
        """Start and size of a vector of bytes."""
        start, size = self._vector(field) or (0, 0)
        self._buffer.require(start, size)
        return start, size

    def _field(self, field: int) -> int | None:
        offset = self._fields[field] if field < len(self._fields) else 0
        return self._position + offset if offset else None

    def _reference(self, field: int) -> int | None:
        position = self._field(field)
        return None if position is None else position + self._buffer.number("I", position)

    def _vector(self, field: int) -> tuple[int, int] | None:
        """Position and number of the elements."""
        position = self._reference(field)
        return None if position is None else (position + 4, self._buffer.number("I", position))
