"""A ``.tflite`` file as objects: what the passes over it share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from edgeattn.tensors import Array, TensorSpec
from edgeattn_converters.graphs import tflite_pack as packing

IDENTIFIER = b"TFL3"
RUNTIME = "min_runtime_version"
DTYPES = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
}


class TFLiteFile:
    """``content`` unpacked: operators by name, constants as arrays."""

    def __init__(self, content: bytes) -> None:
        from tensorflow.lite.python import schema_py_generated as schema

        self.schema: Any = schema
        self.model: Any = schema.ModelT.InitFromPackedBuf(content, 0)
        self._operators = {
            v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)
        }
        self._types = {v: k for k, v in vars(schema.TensorType).items() if isinstance(v, int)}

    def pack(self) -> bytes:
        """The file, without the buffers that nothing uses any more, and what is equal only once."""
        self._drop_unused()
        return packing.packed(self.model, self.schema, IDENTIFIER)

    def _drop_unused(self) -> None:
        for graph in self.model.subgraphs:
            taken = {int(i) for op in graph.operators for i in (*op.inputs, *op.outputs)}
            taken.update(int(i) for i in (*graph.inputs, *graph.outputs))
            for index, tensor in enumerate(graph.tensors):
                data = self.model.buffers[int(tensor.buffer)].data
                if index not in taken or data is None or not len(data):
                    tensor.buffer = 0
        # The first buffer is that of all tensors without a value, by convention.
        holders = [tensor for graph in self.model.subgraphs for tensor in graph.tensors]
        holders += list(self.model.metadata or [])
        used = sorted({0, *(int(holder.buffer) for holder in holders)})
        moved = {old: new for new, old in enumerate(used)}
        for holder in holders:
            holder.buffer = moved[int(holder.buffer)]
        self.model.buffers = [self.model.buffers[old] for old in used]

    def strip(self) -> None:
        """What only people read goes: in a quantized file it is a fair part of the bytes.

        Inputs, outputs and what a signature names keep theirs; so do loops' graphs theirs, which
        have no others.
        """
        self.model.description = None
        self.model.metadata = [
            entry for entry in self.model.metadata or [] if _text(entry.name) == RUNTIME
        ]
        for graph in self.model.subgraphs:
            kept = {int(index) for index in (*graph.inputs, *graph.outputs)}
            for index, tensor in enumerate(graph.tensors):
                if index not in kept:
                    tensor.name = None
                if self.dtype(tensor) == "FLOAT32":
                    tensor.quantization = None
                # Every axis is fixed: the signature only repeats the shape.
                tensor.shapeSignature = None

    def sign(self, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> None:
        """The signature's names for the main graph's inputs and outputs, in their order."""
        for signature in self.model.signatureDefs or []:
            for specs, end in ((inputs, "inputs"), (outputs, "outputs")):
                entries = []
                for spec, index in zip(specs, getattr(self.main, end), strict=True):
                    entry = self.schema.TensorMapT()
                    entry.name, entry.tensorIndex = spec.name, int(index)
                    entries.append(entry)
                setattr(signature, end, entries)

    def needs_runtime(self, version: str) -> None:
        """Raise the runtime version that the file says it needs, to ``version`` at least."""
        for entry in self.model.metadata or []:
            if _text(entry.name) != RUNTIME:
                continue
            data = self.model.buffers[entry.buffer].data
            told = bytes(data).split(b"\0")[0].decode()
            if _numbers(told) < _numbers(version):
                padded = version.encode().ljust(16, b"\0")
                self.model.buffers[entry.buffer].data = np.frombuffer(padded, np.uint8)

    @property
    def main(self) -> Any:
        return self.model.subgraphs[0]

    def kind(self, operator: Any) -> str:
        code = self.model.operatorCodes[operator.opcodeIndex]
        return str(self._operators[max(code.builtinCode, code.deprecatedBuiltinCode)])

    def operators(self) -> Iterator[tuple[Any, Any, str]]:
        """``(graph, operator, name)`` of all graphs, those of loops among them."""
        for graph in self.model.subgraphs:
            for operator in graph.operators:
                yield graph, operator, self.kind(operator)

    def within(self, operator: Any) -> Iterator[tuple[Any, Any]]:
        """``(graph, operator)`` of this one of the main graph's, and of the loops that it is."""
        waiting = [(self.main, operator)]
        while waiting:
            graph, item = waiting.pop()
            yield graph, item
            for field in ("condSubgraphIndex", "bodySubgraphIndex"):
                index = getattr(item.builtinOptions, field, None)
                if index is not None:
                    inner = self.model.subgraphs[index]
                    waiting += [(inner, other) for other in inner.operators]

    def dtype(self, tensor: Any) -> str:
        return str(self._types[tensor.type])

    def name(self, tensor: Any) -> str:
        return _text(tensor.name)

    def constant(self, tensor: Any) -> Array | None:
        """The value of a constant tensor, None where it is computed."""
        data = self.model.buffers[tensor.buffer].data
        if data is None or not len(data):
            return None
        if self.dtype(tensor) == "INT4":
            return packing.unpack_int4(np.frombuffer(bytes(data), np.uint8), tensor.shape)
        if self.dtype(tensor) not in DTYPES:
            return None
        flat = np.frombuffer(bytes(data), DTYPES[self.dtype(tensor)])
        return flat.reshape(tensor.shape)

    def add_buffer(self, value: Array) -> int:
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(value.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        return len(self.model.buffers) - 1

    def copied(self, index: int) -> int:
        """A new tensor of the main graph with the value of another: of a RESHAPE to its shape."""
        source = self.main.tensors[index]
        sizes, target = self.schema.TensorT(), self.schema.TensorT()
        sizes.name, sizes.type = "", self.type_code("INT32")
        sizes.shape = [len(source.shape)]
        sizes.buffer = self.add_buffer(np.asarray(source.shape, np.int32))
        target.name, target.type, target.shape, target.buffer = "", source.type, source.shape, 0
        target.quantization = source.quantization
        self.main.tensors.extend([sizes, target])
        count = len(self.main.tensors)
        operator = self.schema.OperatorT()
        operator.opcodeIndex = self.code_index("RESHAPE")
        operator.inputs, operator.outputs = [index, count - 2], [count - 1]
        self.main.operators.append(operator)
        return count - 1

    def type_code(self, name: str) -> int:
        return int(getattr(self.schema.TensorType, name))

    def code_index(self, name: str, version: int = 1) -> int:
        """The index of an operator code, which is added where the file has none."""
        builtin = int(getattr(self.schema.BuiltinOperator, name))
        for index, code in enumerate(self.model.operatorCodes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin:
                code.version = max(code.version, version)
                return index
        code = self.schema.OperatorCodeT()
        code.builtinCode, code.version = builtin, version
        code.deprecatedBuiltinCode = min(builtin, 127)
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1


def _text(name: bytes | str | None) -> str:
    return name.decode() if isinstance(name, bytes) else str(name or "")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
