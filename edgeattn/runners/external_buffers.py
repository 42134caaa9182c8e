"""Detects ``.tflite`` files with weights in other files.

LiteRT can store weights in files that the model names, as ONNX can. edgeattn never writes such
models and refuses them before a runtime opens them. The numbers of fields are those of
TensorFlow's ``schema.fbs``.
"""

from pathlib import Path

from edgeattn import first_bytes
from edgeattn.errors import UnsafeModelError
from edgeattn.runners.flatbuffer import FlatBuffer, Table

_GRAPHS, _BUFFERS, _EXTERNAL_GROUPS, _EXTERNAL_BUFFERS = 2, 4, 8, 9
_TENSORS, _EXTERNAL_BUFFER = 0, 10


def refuse_external_buffers(path: Path, content: bytes) -> None:
    """Raise :class:`UnsafeModelError` if the file names others, or a tensor is stored in one.

    ``content`` are the bytes of the file at ``path``. Raises :class:`ValueError` if it is malformed
    or a buffer leads outside of it.
    """
    model = FlatBuffer(content, first_bytes.TFLITE).root()
    for buffer in model.tables(_BUFFERS):
        stored_bytes(buffer, len(content))
    if (
        model.length(_EXTERNAL_GROUPS)
        or model.length(_EXTERNAL_BUFFERS)
        or any(
            tensor.integer(_EXTERNAL_BUFFER, "I")
            for graph in model.tables(_GRAPHS)
            for tensor in graph.tables(_TENSORS)
        )
    ):
        raise UnsafeModelError(
            f"{path.name} was refused: it stores weights in another file.",
            hint="Convert the model again, into a single file.",
        )


def stored_bytes(buffer: Table, file_size: int) -> int:
    """The size of a buffer's data, which files of more than 2 GB store after the FlatBuffer.

    Raises :class:`ValueError` if the data lead outside of the file.
    """
    offset, size = buffer.integer(1, "Q"), buffer.integer(2, "Q")
    if offset > 1:
        if offset + size > file_size:
            raise ValueError("a buffer leads outside the file")
        return size
    return buffer.content(0)[1]
