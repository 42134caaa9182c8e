"""A ``.tflite`` file with everything in it that is equal written once.

A flatbuffer holds offsets, and several may lead to the same place: what shapes, scales, options and
tensors have in common is shared. Steps that are written out are made of little else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgeattn.tensors import Array

# Where kernels may read many values at once, the schema wants a weight to begin.
ALIGNMENT = 16
INT32 = ("inputs", "outputs", "intermediates", "mutatingVariableInputs")


def pack_int4(value: Array) -> Array:
    """int8 from -8 to 7, two to a byte, the first in the lower half."""
    flat = value.reshape(-1).astype(np.uint8) & 15
    flat = np.append(flat, np.zeros(flat.size % 2, np.uint8))
    return np.asarray(flat[0::2] | (flat[1::2] << 4), np.uint8)


def unpack_int4(data: Array, shape: Sequence[int]) -> Array:
    """What :func:`pack_int4` made bytes of."""
    halves = np.stack([data & 15, data >> 4], axis=1).reshape(-1)[: int(np.prod(shape))]
    return np.where(halves > 7, halves.astype(np.int8) - 16, halves).astype(np.int8).reshape(shape)


def packed(model: Any, schema: Any, identifier: bytes) -> bytes:
    """``model`` (a ``ModelT``) as bytes."""
    builder = _builder()
    with _shared(model, schema):
        offset = model.Pack(builder)
    builder.Finish(offset, file_identifier=identifier)
    return bytes(builder.Output())


def _builder() -> Any:
    import flatbuffers

    class Builder(flatbuffers.Builder):
        """Writes a vector of numbers once, and aligns what may be a weight."""

        def __init__(self) -> None:
            super().__init__(1 << 16)
            self._written: dict[tuple[str, bytes], int] = {}

        def CreateNumpyVector(self, x: Array) -> int:
            key = (x.dtype.str, x.tobytes())
            if key not in self._written:
                if x.dtype == np.uint8 and x.size >= ALIGNMENT:
                    self.Prep(ALIGNMENT, x.size)
                self._written[key] = int(super().CreateNumpyVector(x))
            return self._written[key]

    return Builder()


class _Once:
    """Stands for equal tables: packs the one, and says where it lies from then on."""

    def __init__(self, table: Any) -> None:
        self._table, self._offset = table, 0

    def Pack(self, builder: Any) -> int:
        if not self._offset:
            self._offset = int(self._table.Pack(builder))
        return self._offset


@contextlib.contextmanager
def _shared(model: Any, schema: Any) -> Iterator[None]:
    """Within it, equal tables of ``model`` are one, and its lists of numbers are arrays."""
    once: dict[Any, _Once] = {}
    before: list[tuple[Any, str, Any]] = []

    def put(holder: Any, field: str, value: Any) -> None:
        before.append((holder, field, getattr(holder, field)))
        setattr(holder, field, value)

    def one(table: Any) -> Any:
        key = _key(table)
        return None if table is None else once.setdefault(key, _Once(table))

    for graph in model.subgraphs:
        for tensor in graph.tensors:
            for field in ("shape", "shapeSignature"):
                if getattr(tensor, field) is not None:
                    put(tensor, field, np.asarray(getattr(tensor, field), np.int32))
            if tensor.quantization is not None:
                _as_arrays(tensor.quantization)
        for operator in graph.operators:
            for field in INT32:
                value = getattr(operator, field)
                if value is not None:
                    kind = np.int32 if field != "mutatingVariableInputs" else np.bool_
                    put(operator, field, np.asarray(value, kind) if len(value) else None)
            put(operator, "builtinOptions", one(operator.builtinOptions))
        put(graph, "tensors", [one(tensor) for tensor in graph.tensors])
    try:
        yield
    finally:
        for holder, field, value in reversed(before):
            setattr(holder, field, value)


def _as_arrays(parameters: Any) -> None:
    kinds = {"scale": np.float32, "zeroPoint": np.int64, "min": np.float32, "max": np.float32}
    for field, kind in kinds.items():
        value = getattr(parameters, field)
        if value is not None:
            setattr(parameters, field, np.asarray(value, kind))


def _key(value: Any) -> Any:
    """What makes a table equal to another."""
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, list | tuple):
        return tuple(map(_key, value))
    if hasattr(value, "Pack"):
        return (type(value).__name__, *((k, _key(v)) for k, v in sorted(vars(value).items())))
    return value
