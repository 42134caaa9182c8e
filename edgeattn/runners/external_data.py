"""Detects ONNX files with weights in other files, without the onnx package.

An external tensor names a path, and such paths have led outside the model's folder more than once
(CVE-2022-25882, CVE-2024-27318 and later ones). edgeattn never writes such files and refuses them
before a runtime opens them. Field numbers are those of onnx.proto; the encoding is the Protocol
Buffers wire format.
"""

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgeattn.errors import UnsafeModelError
from edgeattn.runners.protobuf import BYTES, fields

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
        for field, kind, first, last in fields(data, start, end):
            if field == _NAME and kind == BYTES:
                name = data[first:last].decode("utf-8", "replace")
            external |= field == _EXTERNAL_DATA or (field == _DATA_LOCATION and first != 0)
        if external:
            yield name
        return
    nested = _FIELDS[message]
    for field, kind, first, last in fields(data, start, end):
        if kind == BYTES and field in nested:
            yield from _external(data, nested[field], first, last, depth + 1)
