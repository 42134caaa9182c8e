"""int16 activations over int8 weights in a ``.tflite`` file.

TensorFlow's own 16x8 quantizer makes files of any operator it knows, those among them that have no
int16 kernel, and knows no loops. Here an operator is made int16 where the runtimes' kernels are;
a QUANTIZE and a DEQUANTIZE stand where it meets one that is not.

All int16 tensors are symmetric, as the kernels want it (TensorFlow's "16x8 quantization" spec):
``real = int16 * scale``. Ranges are doubled, which costs one bit of sixteen and spares the values
that calibration has not seen from being cut off.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.tflite_ranges import Ranges
from edgeattn_converters.quantization.tflite_weights import CHANNELS, symmetric

HEADROOM = 2.0
LIMIT = 32767
# Kernels with an output of a fixed scale.
UNIT = {"LOGISTIC", "TANH", "SOFTMAX"}
UNIT_SCALE = 1 / 32768
# They hand on what they take, in its scale.
MOVING = {"RESHAPE", "TRANSPOSE", "STRIDED_SLICE", "SLICE", "SPLIT", "UNPACK"}
ELEMENTWISE = {"ADD", "SUB", "MUL"}
SUPPORTED = UNIT | MOVING | ELEMENTWISE | set(CHANNELS) | {"BATCH_MATMUL"}
# Positions of the inputs that are activations; the others are weights, shapes and axes.
ACTIVATIONS = {
    **dict.fromkeys(ELEMENTWISE | {"BATCH_MATMUL"}, (0, 1)),
    **dict.fromkeys(UNIT | MOVING | set(CHANNELS), (0,)),
    "SPLIT": (1,),
}


def widen(file: TFLiteFile, measured: Ranges, kept: set[str], *, per_channel_dense: bool) -> None:
    """Operators of the main graph become int16, in place, those called ``kept`` excepted."""
    _Pass(file, measured, kept, per_channel_dense).run()


class _Pass:
    def __init__(
        self, file: TFLiteFile, measured: Ranges, kept: set[str], per_channel_dense: bool
    ) -> None:
        self._file = file
        self._graph = file.main
        self._measured = measured
        self._kept = kept
        self._per_channel_dense = per_channel_dense
        self._twins: dict[int, int] = {}  # float tensor -> its int16
        self._integer: set[int] = set()  # floats that an int16 operator makes
        self._weights: dict[tuple[int, bool], tuple[int, Array]] = {}

    def run(self) -> None:
        operators: list[Any] = []
        for operator in list(self._graph.operators):
            if not self._fits(operator):
                operators += self._back_to_float(operator.inputs)
                operators.append(operator)
                continue
            made = [int(i) for i in operator.outputs]
            operators += self._to_integer(operator)
            operators.append(operator)
            self._integer.update(made)
        operators += self._back_to_float(self._graph.outputs)
        self._graph.operators = operators

    def _fits(self, operator: Any) -> bool:
        file, tensors = self._file, self._graph.tensors
        kind = file.kind(operator)
        if kind not in SUPPORTED:
            return False
        outputs = [int(i) for i in operator.outputs]
        if any(file.name(tensors[i]) in self._kept for i in outputs):
            return False
        inputs = [int(operator.inputs[k]) for k in ACTIVATIONS[kind]]
        if any(file.dtype(tensors[i]) != "FLOAT32" for i in (*inputs, *outputs)):
            return False
        if kind in CHANNELS and file.constant(tensors[int(operator.inputs[1])]) is None:
            return False
        known = [i in self._measured or file.constant(tensors[i]) is not None for i in inputs]
        if kind in MOVING and inputs[0] not in self._integer:
            return False  # nothing is gained by carrying a float as an integer
        return all(known) and all(i in self._measured or kind in UNIT for i in outputs)

    def _to_integer(self, operator: Any) -> list[Any]:
        """``operator`` on int16 twins; the conversions that it needs before it."""
        file, tensors = self._file, self._graph.tensors
        kind = file.kind(operator)
        before = []
        inputs = [int(i) for i in operator.inputs]
        for position in ACTIVATIONS[kind]:
            index = inputs[position]
            fresh = index not in self._twins
            inputs[position] = self._twin(index)
            constant = file.constant(tensors[index]) is not None
            if fresh and not constant:
                before.append(self._convert("QUANTIZE", index, inputs[position]))
        if kind in CHANNELS:
            self._use_weights(operator, inputs, kind)
        scale = None
        if kind in UNIT:
            scale = UNIT_SCALE
        elif kind in MOVING:
            source = tensors[inputs[ACTIVATIONS[kind][0]]]
            scale = float(source.quantization.scale[0])
        operator.inputs = inputs
        operator.outputs = [self._twin(int(i), scale) for i in operator.outputs]
        if kind in ("ADD", "SUB"):
            operator.builtinOptions.potScaleInt16 = False
        return before

    def _back_to_float(self, indices: Any) -> list[Any]:
        """Conversions to float32 of those that only an int16 operator has made."""
        after = []
        for index in map(int, indices):
            if index in self._integer:
                self._integer.discard(index)
                after.append(self._convert("DEQUANTIZE", self._twins[index], index))
        return after

    def _twin(self, index: int, scale: float | None = None) -> int:
        if index in self._twins:
            return self._twins[index]
        file, source = self._file, self._graph.tensors[index]
        value = file.constant(source)
        if scale is None:
            low, high = self._measured[index] if value is None else (value.min(), value.max())
            widest = max(abs(float(low)), abs(float(high))) or 1.0
            scale = widest * (HEADROOM if value is None else 1.0) / LIMIT
        stored = None
        if value is not None:
            stored = np.clip(np.rint(value / scale), -LIMIT, LIMIT).astype(np.int16)
        self._twins[index] = self._tensor(index, "INT16", np.array([scale], np.float32), stored)
        return self._twins[index]

    def _tensor(
        self, like: int, dtype: str, scale: Array, value: Array | None = None, axis: int = 0
    ) -> int:
        file, source = self._file, self._graph.tensors[like]
        tensor = file.schema.TensorT()
        tensor.name, tensor.shape = f"{file.name(source)}/{dtype.lower()}", source.shape
        tensor.shapeSignature = source.shapeSignature
        tensor.type = file.type_code(dtype)
        tensor.buffer = 0 if value is None else file.add_buffer(value)
        tensor.quantization = file.schema.QuantizationParametersT()
        tensor.quantization.scale = scale
        tensor.quantization.zeroPoint = np.zeros(len(scale), np.int64)
        tensor.quantization.quantizedDimension = axis
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _use_weights(self, operator: Any, inputs: list[int], kind: str) -> None:
        per_channel = kind != "FULLY_CONNECTED" or self._per_channel_dense
        key = (inputs[1], per_channel)
        axis = CHANNELS[kind]
        if key not in self._weights:
            value = self._file.constant(self._graph.tensors[inputs[1]])
            assert value is not None
            integers, scale = symmetric(value, axis if per_channel else None)
            at = axis if per_channel else 0
            self._weights[key] = (self._tensor(inputs[1], "INT8", scale, integers, at), scale)
        inputs[1], scale = self._weights[key]
        if len(inputs) > 2 and inputs[2] >= 0:
            bias = self._file.constant(self._graph.tensors[inputs[2]])
            assert bias is not None
            source = self._graph.tensors[inputs[0]].quantization.scale[0]
            product = np.asarray(scale, np.float64) * float(source)
            integers = np.rint(bias / product).astype(np.int64)
            inputs[2] = self._tensor(inputs[2], "INT64", product.astype(np.float32), integers)

    def _convert(self, kind: str, source: int, target: int) -> Any:
        operator = self._file.schema.OperatorT()
        operator.opcodeIndex = self._file.code_index(kind, 2 if kind == "QUANTIZE" else 3)
        operator.inputs, operator.outputs = [source], [target]
        return operator
