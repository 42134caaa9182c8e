"""Reading, editing and writing ``.tflite`` files."""

import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from edgeattn import first_bytes
from edgeattn.tensors import Array, TensorSpec
from edgeattn_converters.graphs import tflite_pack

SIGNATURE = "serving_default"
RUNTIME_KEY = "min_runtime_version"
DTYPES = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
}


class TFLiteFile:
    """A ``.tflite`` file in TensorFlow's object API.

    ``model`` is the file's ``ModelT``. The methods name operators and dtypes as the schema does
    (``FULLY_CONNECTED``, ``FLOAT32``) and give constants as arrays.
    """

    def __init__(self, content: bytes) -> None:
        from tensorflow.lite.python import schema_py_generated as schema

        self._set_model(schema.ModelT.InitFromPackedBuf(content, 0))

    def __getstate__(self) -> Any:
        return self.model

    def __setstate__(self, model: Any) -> None:
        self._set_model(model)

    def _set_model(self, model: Any) -> None:
        from tensorflow.lite.python import schema_py_generated as schema

        self.schema: Any = schema
        self.model: Any = model
        self._operator_types = _names(schema.BuiltinOperator)
        self._dtypes = _names(schema.TensorType)

    def copier(self) -> "Callable[[], TFLiteFile]":
        """A function that returns copies of the file as it is now.

        A copy takes a fraction of the time of reading the file.
        """
        buffers: list[pickle.PickleBuffer] = []
        content = pickle.dumps(self, 5, buffer_callback=buffers.append)
        return lambda: pickle.loads(content, buffers=buffers)

    @property
    def main(self) -> Any:
        """The graph that a runtime invokes; the others are the bodies of loops."""
        return self.model.subgraphs[0]

    def to_bytes(self) -> bytes:
        """The file with every table written where it is used."""
        import flatbuffers

        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(self.model.Pack(builder), file_identifier=first_bytes.TFLITE)
        return bytes(builder.Output())

    def pack(self) -> bytes:
        """The file without unused buffers and with equal tables written once."""
        self._drop_unused_buffers()
        return tflite_pack.pack(self.model, first_bytes.TFLITE)

    def _drop_unused_buffers(self) -> None:
        for graph in self.model.subgraphs:
            used = {int(i) for op in graph.operators for i in (*op.inputs, *op.outputs)}
            used.update(int(i) for i in (*graph.inputs, *graph.outputs))
            for index, tensor in enumerate(graph.tensors):
                data = self.model.buffers[int(tensor.buffer)].data
                if index not in used or data is None or not len(data):
                    tensor.buffer = 0
        # By convention, buffer 0 belongs to all tensors without a value.
        owners = [tensor for graph in self.model.subgraphs for tensor in graph.tensors]
        owners += list(self.model.metadata or [])
        retained = sorted({0, *(int(owner.buffer) for owner in owners)})
        renumbered = {old: new for new, old in enumerate(retained)}
        for owner in owners:
            owner.buffer = renumbered[int(owner.buffer)]
        self.model.buffers = [self.model.buffers[old] for old in retained]

    def strip(self) -> None:
        """Remove what no runtime reads: in a quantized file it is a fair share of the bytes.

        The inputs and outputs of every graph keep their names: runtimes and signatures use those
        of the main graph, and loops have no other names.
        """
        self.model.description = None
        self.model.metadata = [
            entry for entry in self.model.metadata or [] if _text(entry.name) == RUNTIME_KEY
        ]
        for graph in self.model.subgraphs:
            named = {int(index) for index in (*graph.inputs, *graph.outputs)}
            for index, tensor in enumerate(graph.tensors):
                if index not in named:
                    tensor.name = None
                if self.dtype(tensor) == "FLOAT32":
                    tensor.quantization = None
                # It only repeats the shape, unless an axis has a free size, as in some loops.
                signature = tensor.shapeSignature
                if signature is None or min(signature, default=0) >= 0:
                    tensor.shapeSignature = None

    def set_signature(self, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> None:
        """Replace all signatures by one that names the main graph's inputs and outputs in order."""
        signature = self.schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = SIGNATURE, 0
        for specs, side in ((inputs, "inputs"), (outputs, "outputs")):
            entries = []
            for spec, index in zip(specs, getattr(self.main, side), strict=True):
                entry = self.schema.TensorMapT()
                entry.name, entry.tensorIndex = spec.name, int(index)
                entries.append(entry)
            setattr(signature, side, entries)
        self.model.signatureDefs = [signature]

    @property
    def min_runtime_version(self) -> str | None:
        """The TensorFlow version that a runtime needs, as the metadata states it."""
        for entry in self.model.metadata or []:
            if _text(entry.name) == RUNTIME_KEY:
                data = bytes(self.model.buffers[entry.buffer].data)
                return data.split(b"\0")[0].decode() or None
        return None

    def require_runtime(self, version: str) -> None:
        """Raise the stated minimum runtime version to ``version``, if it is lower."""
        stated = self.min_runtime_version
        if stated is None or _numbers(stated) >= _numbers(version):
            return
        entry = next(item for item in self.model.metadata if _text(item.name) == RUNTIME_KEY)
        padded = version.encode().ljust(16, b"\0")
        self.model.buffers[entry.buffer].data = np.frombuffer(padded, np.uint8)

    def kind(self, operator: Any) -> str:
        """The operator's type, such as ``SOFTMAX``."""
        code = self.model.operatorCodes[operator.opcodeIndex]
        return self._operator_types[max(code.builtinCode, code.deprecatedBuiltinCode)]

    def operators(self) -> Iterator[tuple[Any, Any, str]]:
        """``(graph, operator, type)`` of every graph, including the bodies of loops."""
        for graph in self.model.subgraphs:
            for operator in graph.operators:
                yield graph, operator, self.kind(operator)

    def nested_operators(self, operator: Any) -> Iterator[tuple[Any, Any]]:
        """``(graph, operator)`` of an operator of the main graph and of the loops inside it."""
        pending = [(self.main, operator)]
        while pending:
            graph, item = pending.pop()
            yield graph, item
            for option in ("condSubgraphIndex", "bodySubgraphIndex"):
                index = getattr(item.builtinOptions, option, None)
                if index is not None:
                    body = self.model.subgraphs[index]
                    pending += [(body, other) for other in body.operators]

    def dtype(self, tensor: Any) -> str:
        """The tensor's dtype, such as ``FLOAT32``."""
        return self._dtypes[tensor.type]

    def name(self, tensor: Any) -> str:
        return _text(tensor.name)

    def constant(self, tensor: Any) -> Array | None:
        """The value of a constant tensor; None if it is computed or of another dtype."""
        data = self.model.buffers[tensor.buffer].data
        if data is None or not len(data):
            return None
        if self.dtype(tensor) == "INT4":
            return tflite_pack.unpack_int4(np.frombuffer(bytes(data), np.uint8), tensor.shape)
        if self.dtype(tensor) not in DTYPES:
            return None
        flat = np.frombuffer(bytes(data), DTYPES[self.dtype(tensor)])
        return flat.reshape(tensor.shape)

    def type_code(self, dtype: str) -> int:
        return int(getattr(self.schema.TensorType, dtype))

    def add_buffer(self, value: Array) -> int:
        """Append a buffer with the bytes of ``value``; returns its index."""
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(value.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        return len(self.model.buffers) - 1

    def quantization(self, scale: Array, zero_point: int = 0, axis: int = 0) -> Any:
        """Parameters of ``real = scale * (integer - zero_point)``, one scale per index of ``axis``
        or one in all."""
        parameters = self.schema.QuantizationParametersT()
        parameters.scale = scale
        parameters.zeroPoint = np.full(len(scale), zero_point, np.int64)
        parameters.quantizedDimension = axis
        return parameters

    def add_tensor(
        self,
        graph: Any,
        name: str,
        dtype: str,
        shape: Iterable[int],
        *,
        value: Array | None = None,
        quantization: Any = None,
    ) -> int:
        """Append a tensor to ``graph``, a constant if it has a ``value``; returns its index."""
        tensor = self.schema.TensorT()
        tensor.name, tensor.type, tensor.shape = name, self.type_code(dtype), shape
        tensor.buffer = 0 if value is None else self.add_buffer(value)
        tensor.quantization = quantization
        graph.tensors.append(tensor)
        return len(graph.tensors) - 1

    def new_operator(
        self, kind: str, inputs: list[int], outputs: list[int], version: int = 1
    ) -> Any:
        """An operator without options, in no graph yet."""
        operator = self.schema.OperatorT()
        operator.opcodeIndex = self.code_index(kind, version)
        operator.inputs, operator.outputs = inputs, outputs
        return operator

    def add_constant(self, graph: Any, value: Array, name: str = "") -> int:
        """Append a constant tensor of the dtype and shape of ``value``; returns its index."""
        return self.add_tensor(graph, name, value.dtype.name.upper(), value.shape, value=value)

    def copy_tensor(self, index: int) -> int:
        """Append a copy of a tensor of the main graph, made by a RESHAPE to its own shape."""
        source = self.main.tensors[index]
        shape = np.asarray(source.shape, np.int32)
        sizes = self.add_constant(self.main, shape, f"shape_{index}")
        copy = self.add_tensor(
            self.main, "", self.dtype(source), source.shape, quantization=source.quantization
        )
        self.main.operators.append(self.new_operator("RESHAPE", [index, sizes], [copy]))
        return copy

    def code_index(self, kind: str, version: int = 1) -> int:
        """The index of an operator type's code, added or raised to ``version`` if needed."""
        builtin = int(getattr(self.schema.BuiltinOperator, kind))
        for index, code in enumerate(self.model.operatorCodes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin:
                code.version = max(code.version, version)
                return index
        code = self.schema.OperatorCodeT()
        code.builtinCode, code.version = builtin, version
        code.deprecatedBuiltinCode = min(builtin, 127)
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1


def _names(enumeration: Any) -> dict[int, str]:
    return {v: k for k, v in vars(enumeration).items() if isinstance(v, int)}


def _text(name: bytes | str | None) -> str:
    return name.decode() if isinstance(name, bytes) else str(name or "")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
