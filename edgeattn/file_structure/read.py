"""Reads the contents of a model file of either format."""

import mmap
from pathlib import Path

from edgeattn.errors import ArtifactError
from edgeattn.file_structure.contents import FileContents


def read_contents(
    path: Path, format: str, content: bytes | None = None, *, own_names: bool = True
) -> FileContents:
    """The contents of a file of ``format``, ``tflite`` or ``onnx``.

    ``content`` are its bytes, if they have been read. With ``own_names``, the signature of a TFLite
    file must have the names of the tensors, as in files of edgeattn. Raises :class:`ArtifactError`
    if the file cannot be read or is malformed.
    """
    try:
        if not (path.stat().st_size if content is None else len(content)):
            raise ValueError("it is empty")
        if content is not None:
            return parse_contents(content, format, own_names=own_names)
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return parse_contents(data, format, own_names=own_names)
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArtifactError(
            f"The structure of {path.name} cannot be read: {reason}.",
            hint="Convert the model again.",
        ) from error


def parse_contents(data: bytes | mmap.mmap, format: str, *, own_names: bool = True) -> FileContents:
    """The contents of the bytes of a file. Raises :class:`ValueError` if it is malformed."""
    if format == "tflite":
        from edgeattn.file_structure.tflite import read_tflite

        return read_tflite(data, own_names=own_names)
    from edgeattn.file_structure.onnx import read_onnx

    return read_onnx(data)
