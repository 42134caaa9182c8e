"""Reads the Protocol Buffers wire format without the protobuf package.

Whatever the parsers of runtimes might read differently raises :class:`ValueError`, so that no field
is visible to a runtime only: groups, which no format of today uses, and keys over 32 bits, which
these parsers truncate.
"""

import mmap
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_MAX_KEY = 2**32 - 1
_UINT64 = 2**64 - 1


def fields(data: bytes | mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """``(field, wire type, start, end)``; for a varint, ``start`` is its value."""
    position = start
    while position < end:
        key, position = varint(data, position, end)
        kind = key & 7
        if not 8 <= key <= _MAX_KEY:
            raise ValueError(f"field number {key >> 3}")
        if kind == VARINT:
            value, position = varint(data, position, end)
            yield key >> 3, kind, value & _UINT64, position
            continue
        if kind == BYTES:
            length, position = varint(data, position, end)
        elif kind in (FIXED32, FIXED64):
            length = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")
        if position + length > end:
            raise ValueError("a field exceeds its message")
        yield key >> 3, kind, position, position + length
        position += length


def varint(data: bytes | mmap.mmap, position: int, end: int) -> tuple[int, int]:
    """The varint at ``position``, and the position after it."""
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("a varint does not end")
