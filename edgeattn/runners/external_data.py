"""Detects ONNX files with weights in other files, without the onnx package.

An external tensor names a path, and such paths have led outside the model's folder more than once
(CVE-2022-25882, CVE-2024-27318 and later ones). edgeattn never writes such files and refuses them
before a runtime opens them, and also files that it cannot parse. Field numbers are those of
onnx.proto; the encoding is the Protocol Buffers wire format.
"""

import contextlib
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgeattn.errors import ArtifactError, UnsafeModelError
from edgeattn.runners.protobuf import BYTES, fields

# Message -> field number -> message, for the fields that can lead to a tensor.
FIELDS: Mapping[str, Mapping[int, str]] = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
}  # fmt: skip
_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14
# Depth of nested messages, which is that of protobuf's own parsers.
_MAX_DEPTH = 100


def refuse_external_data(path: Path, content: bytes | None = None) -> None:
    """Raise :class:`UnsafeModelError` if a tensor of the file is stored in another file.

    ``content`` are its bytes, if they have been read. Raises :class:`ArtifactError` if the file
    cannot be parsed: a runtime might read it differently.
    """
    if not (path.stat().st_size if content is None else len(content)):
        return
    try:
        with contextlib.ExitStack() as stack:
            data: bytes | mmap.mmap
            if content is None:
                number = stack.enter_context(path.open("rb")).fileno()
                data = stack.enter_context(mmap.mmap(number, 0, access=mmap.ACCESS_READ))
            else:
                data = content
            name = next(_external(data, "Model", 0, len(data), 0), None)
    except ValueError as error:
        raise ArtifactError(
            f"{path.name} was refused: it is malformed ({error}).",
            hint="Convert the model again, or save it again with: onnx.save(model, path).",
        ) from error
    if name is not None:
        raise UnsafeModelError(
            f"{path.name} was refused: it stores the tensor {name!r} in another file.",
            hint="Save the model with its weights in the file: onnx.save(model, path).",
        )


def _external(
    data: bytes | mmap.mmap, message: str, start: int, end: int, depth: int
) -> Iterator[str]:
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
    nested = FIELDS[message]
    for field, kind, first, last in fields(data, start, end):
        if kind == BYTES and field in nested:
            yield from _external(data, nested[field], first, last, depth + 1)
