"""Messages between a process and its worker: JSON with numpy arrays behind it.

A frame is 8 bytes, the length of the JSON in little-endian order; the JSON; then the bytes of each
array in the order of its ``arrays`` list. Nothing that is received is ever executed. Files are not
sent: both processes see the same disk.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from edgeattn import errors

if TYPE_CHECKING:
    from edgeattn.tensors import Tensors

# A reply's JSON is small: a larger one is a fault, not an answer.
MAX_HEADER = 64 * 2**20


MAX_ARRAY = 8 * 2**30


CHUNK = 16 * 2**20


# What an array may hold: booleans, integers, real and complex numbers.
KINDS = "buifc"


def write_message(
    stream: IO[bytes], header: Mapping[str, Any], tensors: Tensors | None = None
) -> None:
    """Write one frame; ``TypeError`` for what a frame cannot hold, before anything is written."""
    write(stream, frame(header, tensors))


def write(stream: IO[bytes], frame: Sequence[Any]) -> None:
    for part in frame:
        stream.write(part)
    stream.flush()


def frame(header: Mapping[str, Any], tensors: Tensors | None = None) -> list[Any]:
    """The parts of a frame; arrays are made contiguous and little-endian on the way."""
    payload: list[Any] = []
    arrays: list[dict[str, Any]] = []
    if tensors:
        import numpy as np

        for name, value in tensors.items():
            array = np.ascontiguousarray(value)
            if array.dtype.kind not in KINDS:
                raise TypeError(f"array {name!r} is of {array.dtype}, which is no number")
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            # ascontiguousarray makes a scalar a vector: the shape is the original's.
            arrays.append({"name": name, "dtype": array.dtype.str, "shape": np.shape(value)})
            payload.append(array.reshape(-1).view("u1").data)
    text = json.dumps({**header, "arrays": arrays}).encode()
    return [struct.pack("<Q", len(text)), text, *payload]


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], Tensors]:
    """Read one frame; ``EOFError`` where the stream ends, ``ValueError`` where it is no frame."""
    (length,) = struct.unpack("<Q", _read(stream, 8))
    if length > MAX_HEADER:
        raise ValueError(f"a header of {length} bytes")
    try:
        header = json.loads(_read(stream, length))
        listed = [
            (str(entry["name"]), str(entry["dtype"]), tuple(int(axis) for axis in entry["shape"]))
            for entry in header.pop("arrays")
        ]
    except (TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"a header that is none: {error}") from error
    return header, {name: _read_array(stream, dtype, shape) for name, dtype, shape in listed}


def _read_array(stream: IO[bytes], name: str, shape: tuple[int, ...]) -> Any:
    import numpy as np

    try:
        dtype = np.dtype(name)
    except TypeError as error:
        raise ValueError(f"an array of {name!r}") from error
    size = dtype.itemsize * math.prod(shape)
    if dtype.kind not in KINDS or min(shape, default=0) < 0 or size > MAX_ARRAY:
        raise ValueError(f"an array of {name!r} and shape {shape}")
    return np.frombuffer(_read(stream, size), dtype).reshape(shape)


def _read(stream: IO[bytes], length: int) -> bytearray:
    # Filled as it comes: what is announced need not be true.
    received = bytearray()
    while len(received) < length:
        chunk = stream.read(min(length - len(received), CHUNK))
        if not chunk:
            raise EOFError("the other end has gone")
        received += chunk
    return received


def describe(error: errors.EdgeattnError) -> dict[str, Any]:
    return {"type": type(error).__name__, "message": error.message, "hint": error.hint}


def rebuild(data: Mapping[str, Any]) -> errors.EdgeattnError:
    kind = getattr(errors, str(data["type"]), None)
    if not (isinstance(kind, type) and issubclass(kind, errors.EdgeattnError)):
        kind = errors.EdgeattnError
    error: errors.EdgeattnError = kind(str(data["message"]), hint=data.get("hint"))
    if data.get("traceback"):
        error.add_note(str(data["traceback"]))
    return error
