"""Graphs of ``.tflite`` files, including loop bodies."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeattn.diagnosis.graph import Constant, Encoding, Graph, Operator
from edgeattn.tensors import Array

RECODING = ("QUANTIZE", "DEQUANTIZE")
# Options that distinguish operators of one kind with the same inputs.
VARIANT_OPTIONS = ("axis", "num", "keepDims", "fusedActivationFunction", "strideH", "strideW")
# Options that quantizers do not change.
ATTRIBUTES = ("beta", "alpha", "cellClip", "projClip", "epsilon")
DTYPES = {
    name.upper(): name
    for name in ("float32", "float16", "int4", "int8", "uint8", "int16", "int32", "int64", "bool")
}


class GraphReader:
    """Reads the graphs of a TFLite model, an object of ``schema``."""

    def __init__(self, schema: Any, model: Any) -> None:
        self._model = model
        self._kinds = _names(schema.BuiltinOperator)
        types = _names(schema.TensorType)
        self._dtypes = {code: DTYPES.get(name, "other") for code, name in types.items()}

    def dtype(self, tensor: Any) -> str:
        """The numpy name of a tensor's dtype, or ``other``."""
        return self._dtypes[tensor.type]

    def read(
        self,
        subgraph: int = 0,
        *,
        inputs: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
    ) -> Graph:
        """A subgraph, by default the main one.

        Tensors are named by their index, in loop bodies by subgraph and index: ``3:17``. ``inputs``
        and ``outputs`` map names to tensors; without them, inputs and outputs are numbered.
        """
        graph = self._model.subgraphs[subgraph]

        def name_of(index: Any) -> str:
            return f"{subgraph}:{int(index)}" if subgraph else str(int(index))

        constants: dict[str, Constant] = {}
        encodings: dict[str, Encoding] = {}
        for index, tensor in enumerate(graph.tensors):
            encoding = self._encoding(tensor)
            values = _constant_values(self._model, tensor, encoding)
            if values is not None:
                constants[name_of(index)] = Constant(values, encoding)
            elif encoding.scale is not None:
                encodings[name_of(index)] = encoding
        operators: list[Operator] = []
        decoded: set[str] = set()
        bodies: dict[int, Graph] = {}
        for position, operator in enumerate(graph.operators):
            kind = self._kind(operator)
            reads = tuple("" if int(i) < 0 else name_of(i) for i in operator.inputs)
            writes = tuple(map(name_of, operator.outputs))
            if kind in RECODING and reads[0] in constants:
                # Weights that are stored small and decoded when the file is loaded.
                constants[writes[0]] = constants[reads[0]]
                decoded.add(writes[0])
                continue
            if kind == "WHILE":
                bodies[position] = self.read(int(operator.builtinOptions.bodySubgraphIndex))
            # A float input with integer weights is quantized by the operator itself.
            has_float_input = bool(reads) and reads[0] not in {*encodings, *constants}
            weights = [constants[n] for n in reads if n in constants and n not in decoded]
            quantizes = has_float_input and any(w.encoding.dtype == "int8" for w in weights)
            options = _options(operator.builtinOptions)
            recodes = kind in RECODING
            operators.append(Operator(position, kind, reads, writes, recodes, quantizes, *options))
        named = {k: _text(tensor.name) for k, tensor in enumerate(graph.tensors) if tensor.name}
        return Graph(
            tuple(operators),
            constants,
            inputs or {str(k): name_of(index) for k, index in enumerate(graph.inputs)},
            outputs or {str(k): name_of(index) for k, index in enumerate(graph.outputs)},
            encodings,
            {name_of(index): text for index, text in named.items()},
            bodies,
        )

    def _kind(self, operator: Any) -> str:
        code = self._model.operatorCodes[operator.opcodeIndex]
        return self._kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]

    def _encoding(self, tensor: Any) -> Encoding:
        dtype = self.dtype(tensor)
        quantization = tensor.quantization
        scales = None if quantization is None else quantization.scale
        if scales is None or not len(scales) or "int" not in dtype:
            return Encoding(dtype)
        if len(scales) > 1:
            return Encoding(dtype, None, 0, int(quantization.quantizedDimension))
        zero_point = quantization.zeroPoint
        return Encoding(dtype, float(scales[0]), 0 if zero_point is None else int(zero_point[0]))


def _names(enumeration: Any) -> dict[int, str]:
    return {v: k for k, v in vars(enumeration).items() if isinstance(v, int)}


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name or "")


def _options(options: Any) -> tuple[str, dict[str, str]]:
    """The variant and the attributes of an operator with these options."""
    variant = [f"{n}={getattr(options, n)}" for n in VARIANT_OPTIONS if hasattr(options, n)]
    attributes = {n: f"{getattr(options, n):.6g}" for n in ATTRIBUTES if hasattr(options, n)}
    return ",".join(variant), attributes


def _constant_values(model: Any, tensor: Any, encoding: Encoding) -> Array | None:
    """Return the decoded values of ``tensor``, ``None`` if it is not constant."""
    data = model.buffers[tensor.buffer].data
    if data is None or not len(data) or encoding.dtype == "other":
        return None
    shape = tensor.shape if tensor.shape is not None else ()
    stored = (
        _unpack_int4(data, shape)
        if encoding.dtype == "int4"
        else np.frombuffer(bytes(data), encoding.dtype).reshape(shape)
    )
    if encoding.channel_axis is None:
        return encoding.decode(stored)
    channels = [1] * stored.ndim
    channels[encoding.channel_axis] = -1
    scale = np.asarray(tensor.quantization.scale, np.float64).reshape(channels)
    zero_point = np.asarray(tensor.quantization.zeroPoint, np.float64).reshape(channels)
    return np.asarray((stored - zero_point) * scale, np.float32)


def _unpack_int4(data: Any, shape: Any) -> Array:
    """Unpack two int4 values per byte; the first is in the lower half."""
    packed = np.frombuffer(bytes(data), np.uint8)
    halves = np.stack([packed & 15, packed >> 4], axis=-1).ravel()[: int(np.prod(shape))]
    return ((halves.astype(np.int8) ^ 8) - 8).reshape(shape)
