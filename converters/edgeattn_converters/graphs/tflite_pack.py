"""Writing a ``.tflite`` file with equal parts stored once, and packing int4 values.

A flatbuffer refers to its parts by offset, and several offsets may point to the same part. Sharing
the shapes, scales, options and tensors that are equal makes an unrolled recurrence much smaller,
because its steps differ in little else.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgeattn.tensors import Array

# The schema aligns the data of buffers to 16 bytes, for kernels that load many values at once.
ALIGNMENT = 16
INDEX_FIELDS = ("inputs", "outputs", "intermediates", "mutatingVariableInputs")


def pack_int4(values: Array) -> Array:
    """Pack integers from -8 to 7 two to a byte, the first in the lower half: uint8, 1-D."""
    flat = values.reshape(-1).astype(np.uint8) & 15
    flat = np.append(flat, np.zeros(flat.size % 2, np.uint8))
    return np.asarray(flat[0::2] | (flat[1::2] << 4), np.uint8)


def unpack_int4(data: Array, shape: Sequence[int]) -> Array:
    """The int8 array of ``shape`` that :func:`pack_int4` packed into ``data``."""
    halves = np.stack([data & 15, data >> 4], axis=1).reshape(-1)[: int(np.prod(shape))]
    return np.where(halves > 7, halves.astype(np.int8) - 16, halves).astype(np.int8).reshape(shape)


def pack(model: Any, identifier: bytes) -> bytes:
    """Write ``model``, a ``ModelT`` of the object API, to bytes."""
    builder = _sharing_builder()
    with _shared_tables(model):
        offset = model.Pack(builder)
    builder.Finish(offset, file_identifier=identifier)
    return bytes(builder.Output())


def _sharing_builder() -> Any:
    import flatbuffers

    class Builder(flatbuffers.Builder):
        """Writes equal vectors of numbers once, and aligns those that may be weights."""

        def __init__(self) -> None:
            super().__init__(1 << 16)
            self._offsets: dict[tuple[str, bytes], int] = {}

        def CreateNumpyVector(self, x: Array) -> int:
            key = (x.dtype.str, x.tobytes())
            if key not in self._offsets:
                if x.dtype == np.uint8 and x.size >= ALIGNMENT:
                    self.Prep(ALIGNMENT, x.size)
                self._offsets[key] = int(super().CreateNumpyVector(x))
            return self._offsets[key]

    return Builder()


class _SharedTable:
    """Packs a table once and returns the same offset from then on."""

    def __init__(self, table: Any) -> None:
        self._table, self._offset = table, 0

    def Pack(self, builder: Any) -> int:
        if not self._offset:
            self._offset = int(self._table.Pack(builder))
        return self._offset


@contextlib.contextmanager
def _shared_tables(model: Any) -> Iterator[None]:
    """Within the context, equal tables of ``model`` are one object and its lists are arrays."""
    shared: dict[Any, _SharedTable] = {}
    originals: list[tuple[Any, str, Any]] = []

    def replace(owner: Any, field: str, value: Any) -> None:
        originals.append((owner, field, getattr(owner, field)))
        setattr(owner, field, value)

    def share(table: Any) -> Any:
        return None if table is None else shared.setdefault(_key(table), _SharedTable(table))

    for graph in model.subgraphs:
        for tensor in graph.tensors:
            for field in ("shape", "shapeSignature"):
                if getattr(tensor, field) is not None:
                    replace(tensor, field, np.asarray(getattr(tensor, field), np.int32))
            if tensor.quantization is not None:
                _to_arrays(tensor.quantization)
        for operator in graph.operators:
            for field in INDEX_FIELDS:
                value = getattr(operator, field)
                if value is not None:
                    dtype = np.int32 if field != "mutatingVariableInputs" else np.bool_
                    replace(operator, field, np.asarray(value, dtype) if len(value) else None)
            replace(operator, "builtinOptions", share(operator.builtinOptions))
        replace(graph, "tensors", [share(tensor) for tensor in graph.tensors])
    try:
        yield
    finally:
        for owner, field, value in reversed(originals):
            setattr(owner, field, value)


def _to_arrays(parameters: Any) -> None:
    dtypes = {"scale": np.float32, "zeroPoint": np.int64, "min": np.float32, "max": np.float32}
    for field, dtype in dtypes.items():
        value = getattr(parameters, field)
        if value is not None:
            setattr(parameters, field, np.asarray(value, dtype))


def _key(value: Any) -> Any:
    """A hashable value that is equal for equal tables."""
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, list | tuple):
        return tuple(map(_key, value))
    if hasattr(value, "Pack"):
        return (type(value).__name__, *((k, _key(v)) for k, v in sorted(vars(value).items())))
    return value
