"""Detects ONNX files with weights in other files, without the onnx package.

An external tensor names a path, and such paths have led outside the model's folder more than once
(CVE-2022-25882, CVE-2024-27318 and later ones). edgeattn never writes such files and refuses them
before a runtime opens them. Field numbers are those of onnx.proto; the encoding is the Protocol
Buffers wire format.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgeattn.errors import UnsafeModelError

# Message -> field number -> message, for the fields that can lead to a tensor.
_FIELDS: Mapping[str, Mapping[int, str]] = {
    "Model": {7: "Graph", 25: "Function"},
    "Function": {7: "Node"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
}  # fmt: skip
_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Depth of nested graphs; no real model is deeper.
_MAX_DEPTH = 64


def refuse_external_data(path: Path) -> None:
    """Raise :class:`UnsafeModelError` if a tensor of the file is stored in another file.

    A malformed file is accepted: the runtime reports it.
    """
    if path.stat().st_size == 0:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            name = next(_external(data, "Model", 0, len(data), 0), None)
        except ValueError:
            return
    if name is not None:
        raise UnsafeModelError(
            f"{path.name} was refused: it stores the tensor {name!r} in another file.",
            hint="Save the model with its weights in the file: onnx.save(model, path).",
        )


def _external(data: mmap.mmap, message: str, start: int, end: int, depth: int) -> Iterator[str]:
    """The names of the external tensors within ``data[start:end]``."""
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    if message == "Tensor":
        name, external = "", False
        for field, kind, first, last in _fields(data, start, end):
            if field == _NAME and kind == _BYTES:
                name = data[first:last].decode("utf-8", "replace")
            external |= field == _EXTERNAL_DATA or (field == _DATA_LOCATION and first != 0)
        if external:
            yield name
        return
    nested = _FIELDS[message]
    for field, kind, first, last in _fields(data, start, end):
        if kind == _BYTES and field in nested:
            yield from _external(data, nested[field], first, last, depth + 1)


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """``(field, wire type, start, end)``; for a varint, ``start`` is its value."""
    position = start
    while position < end:
        key, position = _varint(data, position, end)
        kind = key & 7
        if kind == _VARINT:
            value, position = _varint(data, position, end)
            yield key >> 3, kind, value, position
            continue
        if kind == _BYTES:
            length, position = _varint(data, position, end)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")
        if position + length > end:
            raise ValueError("a field exceeds its message")
        yield key >> 3, kind, position, position + length
        position += length


def _varint(data: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("a varint does not end")
