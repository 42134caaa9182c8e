"""Reads the contents of a model file of either format."""

import mmap
from pathlib import Path

from edgeattn.errors import ArtifactError
from edgeattn.file_structure.contents import FileContents


def read_contents(path: Path, format: str, content: bytes | None = None) -> FileContents:
    """The contents of a file of ``format``, ``tflite`` or ``onnx``.

    ``content`` are its bytes, if they have been read. Raises :class:`ArtifactError` if the file
    cannot be read or is malformed.
    """
    try:
        if not (path.stat().st_size if content is None else len(content)):
            raise ValueError("it is empty")
        if content is not None:
            return parse_contents(content, format)
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return parse_contents(data, format)
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArtifactError(
            f"The structure of {path.name} cannot be read: {reason}.",
            hint="Convert the model again.",
        ) from error


def parse_contents(data: bytes | mmap.mmap, format: str) -> FileContents:
    """The contents of the bytes of a file. Raises :class:`ValueError` if it is malformed."""
    if format == "tflite":
        from edgeattn.file_structure.tflite import read_tflite

        return read_tflite(data)
    from edgeattn.file_structure.onnx import read_onnx

    return read_onnx(data)
