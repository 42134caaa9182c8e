"""Messages between a process and its worker: JSON and numpy arrays.

A frame is the length of the JSON (8 bytes, little-endian), the JSON, and the bytes of each array
in the order of its ``arrays`` list. Received data is never executed. Files are not sent, because
both processes have the same file system.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from edgeattn import errors
from edgeattn.printable import Text, join_lines

if TYPE_CHECKING:
    from edgeattn.tensors import Tensors

# Bytes. Limits what a faulty worker can make the caller allocate.
MAX_HEADER = 16 * 2**20
MAX_ARRAYS = 8 * 2**30
CHUNK = 16 * 2**20
# Kinds of dtypes that an array may have: booleans, integers, floats and complex numbers.
KINDS = "buifc"


def write_message(
    stream: IO[bytes], header: Mapping[str, Any], tensors: Tensors | None = None
) -> None:
    """Write one frame. Raises :class:`TypeError`, and writes nothing, if it cannot be encoded."""
    write(stream, frame(header, tensors))


def write(stream: IO[bytes], parts: Sequence[Any]) -> None:
    for part in parts:
        stream.write(part)
    stream.flush()


def frame(header: Mapping[str, Any], tensors: Tensors | None = None) -> list[Any]:
    """The parts of a frame. Arrays are converted to contiguous, little-endian ones."""
    payload: list[Any] = []
    arrays: list[dict[str, Any]] = []
    if tensors:
        import numpy as np

        for name, value in tensors.items():
            array = np.ascontiguousarray(value)
            if array.dtype.kind not in KINDS:
                raise TypeError(f"array {name!r} has the dtype {array.dtype}, which is not numeric")
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            # The shape of the original: ascontiguousarray converts a scalar to a vector.
            arrays.append({"name": name, "dtype": array.dtype.str, "shape": np.shape(value)})
            payload.append(array.reshape(-1).view("u1").data)
    text = json.dumps({**header, "arrays": arrays}).encode()
    return [struct.pack("<Q", len(text)), text, *payload]


def read_message(stream: IO[bytes], max_arrays: int = MAX_ARRAYS) -> tuple[dict[str, Any], Tensors]:
    """Read one frame, whose arrays may have ``max_arrays`` bytes together.

    Raises :class:`EOFError` if the stream ends, and :class:`ValueError` if the frame is malformed.
    """
    (length,) = struct.unpack("<Q", _read(stream, 8))
    if length > MAX_HEADER:
        raise ValueError(f"header of {length} bytes")
    try:
        header = json.loads(_read(stream, length))
        entries = [
            (str(entry["name"]), str(entry["dtype"]), tuple(int(axis) for axis in entry["shape"]))
            for entry in header.pop("arrays")
        ]
    except (TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"malformed header: {error}") from error
    arrays = {}
    for name, dtype, shape in entries:
        arrays[name] = _read_array(stream, dtype, shape, max_arrays)
        max_arrays -= arrays[name].nbytes
    return header, arrays


def _read_array(stream: IO[bytes], name: str, shape: tuple[int, ...], max_size: int) -> Any:
    import numpy as np

    try:
        dtype = np.dtype(name)
    except TypeError as error:
        raise ValueError(f"unknown dtype {name!r}") from error
    size = dtype.itemsize * math.prod(shape)
    if dtype.kind not in KINDS or min(shape, default=0) < 0 or size > max_size:
        raise ValueError(f"invalid array of dtype {name!r} and shape {shape}")
    return np.frombuffer(_read(stream, size), dtype).reshape(shape)


def _read(stream: IO[bytes], length: int) -> bytearray:
    # In chunks, because the sender may not send as much as it announces.
    received = bytearray()
    while len(received) < length:
        chunk = stream.read(min(length - len(received), CHUNK))
        if not chunk:
            raise EOFError("the connection was closed")
        received += chunk
    return received


def error_to_json(error: errors.EdgeattnError) -> dict[str, Any]:
    """The type, message and hint of an error; ``lines`` is whether line feeds separate lines."""
    lines = isinstance(error.message, Text)
    # Errors of the converters are subclasses of those that every process knows.
    known = next(c for c in type(error).__mro__ if getattr(errors, c.__name__, None) is c)
    header = {"type": known.__name__, "message": error.message, "hint": error.hint}
    return {**header, "lines": True} if lines else header


def error_from_json(data: Mapping[str, Any]) -> errors.EdgeattnError:
    error_type = getattr(errors, str(data["type"]), None)
    if not (isinstance(error_type, type) and issubclass(error_type, errors.EdgeattnError)):
        error_type = errors.EdgeattnError
    message = str(data["message"])
    if data.get("lines"):
        message = join_lines(message.split("\n"))
    error: errors.EdgeattnError = error_type(
        message, hint=None if data.get("hint") is None else str(data["hint"])
    )
    if data.get("traceback"):
        error.add_note(str(data["traceback"]))
    return error
