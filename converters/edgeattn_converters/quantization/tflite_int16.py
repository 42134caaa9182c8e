"""int16 activations with int8 weights in a ``.tflite`` file.

TensorFlow's own 16x8 quantizer also converts operators without an int16 kernel, and does not
support loops. Here an operator becomes int16 only if the runtimes have a kernel; a QUANTIZE and a
DEQUANTIZE connect it to others.

All int16 tensors are symmetric, ``real = int16 * scale``, as the kernels require (TensorFlow's
"16x8 quantization" specification). Ranges are doubled: that costs one of sixteen bits and avoids
clipping values that did not occur in calibration.
"""

from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.arithmetic import INTEGER_RANGES, quantize_symmetric
from edgeattn_converters.quantization.ranges import Ranges
from edgeattn_converters.quantization.tflite_weights import CHANNELS

HEADROOM = 2.0
LARGEST = INTEGER_RANGES["int16"][1]
# Operators whose output has a fixed scale.
FIXED_SCALE = {"LOGISTIC", "TANH", "SOFTMAX"}
OUTPUT_SCALE = 1 / 32768
# Operators whose output has the scale of their input.
MOVING = {"RESHAPE", "TRANSPOSE", "STRIDED_SLICE", "SLICE", "SPLIT", "UNPACK"}
ELEMENTWISE = {"ADD", "SUB", "MUL"}
SUPPORTED = FIXED_SCALE | MOVING | ELEMENTWISE | set(CHANNELS) | {"BATCH_MATMUL"}
# Positions of the inputs that are activations; the others are weights, shapes and axes.
ACTIVATIONS = {
    **dict.fromkeys(ELEMENTWISE | {"BATCH_MATMUL"}, (0, 1)),
    **dict.fromkeys(FIXED_SCALE | MOVING | set(CHANNELS), (0,)),
    "SPLIT": (1,),
}


class Int16Pass:
    """Turns operators of the main graph to int16, in place, by :meth:`run`.

    ``float_names`` are the names of outputs whose operators stay float32.
    """

    def __init__(
        self, file: TFLiteFile, ranges: Ranges, float_names: set[str], per_channel_dense: bool
    ) -> None:
        self._file = file
        self._graph = file.main
        self._ranges = ranges
        self._float_names = float_names
        self._per_channel_dense = per_channel_dense
        self._int16: dict[int, int] = {}  # float tensor -> its int16 counterpart
        self._pending: set[int] = set()  # float tensors computed as int16 only, so far
        self._weights: dict[tuple[int, bool], tuple[int, Array]] = {}

    def run(self) -> None:
        operators: list[Any] = []
        for operator in list(self._graph.operators):
            if self._is_supported(operator):
                results = [int(i) for i in operator.outputs]
                operators += self._to_int16(operator)
                operators.append(operator)
                self._pending.update(results)
            else:
                operators += self._to_float(operator.inputs)
                operators.append(operator)
        operators += self._to_float(self._graph.outputs)
        self._graph.operators = operators

    def _is_supported(self, operator: Any) -> bool:
        file, tensors = self._file, self._graph.tensors
        kind = file.kind(operator)
        if kind not in SUPPORTED:
            return False
        outputs = [int(i) for i in operator.outputs]
        if any(file.name(tensors[i]) in self._float_names for i in outputs):
            return False
        inputs = [int(operator.inputs[k]) for k in ACTIVATIONS[kind]]
        if any(file.dtype(tensors[i]) != "FLOAT32" for i in (*inputs, *outputs)):
            return False
        if kind in CHANNELS and file.constant(tensors[int(operator.inputs[1])]) is None:
            return False
        if kind in MOVING and inputs[0] not in self._pending:
            return False  # converting a float only to move it gains nothing
        known = [i in self._ranges or file.constant(tensors[i]) is not None for i in inputs]
        return all(known) and all(i in self._ranges or kind in FIXED_SCALE for i in outputs)

    def _to_int16(self, operator: Any) -> list[Any]:
        """Let ``operator`` use int16 tensors; returns the conversions that it needs before it."""
        file, tensors = self._file, self._graph.tensors
        kind = file.kind(operator)
        conversions = []
        inputs = [int(i) for i in operator.inputs]
        for position in ACTIVATIONS[kind]:
            index = inputs[position]
            is_new = index not in self._int16
            inputs[position] = self._counterpart(index)
            if is_new and file.constant(tensors[index]) is None:
                conversions.append(file.new_operator("QUANTIZE", [index], [inputs[position]], 2))
        source = inputs[ACTIVATIONS[kind][0]] if kind in MOVING else None
        self._connect(operator, inputs, source)
        return conversions

    def _connect(self, operator: Any, inputs: list[int], source: int | None) -> None:
        """Give ``operator`` int16 ``inputs`` and outputs, in place.

        The outputs have the scale of the tensor ``source``, if there is one.
        """
        kind = self._file.kind(operator)
        if kind in CHANNELS:
            self._use_int8_weights(inputs, kind)
        scale = None
        if kind in FIXED_SCALE:
            scale = OUTPUT_SCALE
        elif source is not None:
            scale = float(self._graph.tensors[source].quantization.scale[0])
        operator.inputs = inputs
        operator.outputs = [self._counterpart(int(i), scale) for i in operator.outputs]
        if kind in ("ADD", "SUB"):
            operator.builtinOptions.potScaleInt16 = False

    def _to_float(self, indices: Any) -> list[Any]:
        """Conversions to float32 of those tensors that were computed as int16 only."""
        conversions = []
        for index in map(int, indices):
            if index in self._pending:
                self._pending.discard(index)
                conversions.append(
                    self._file.new_operator("DEQUANTIZE", [self._int16[index]], [index], 3)
                )
        return conversions

    def _counterpart(self, index: int, scale: float | None = None) -> int:
        """The int16 tensor of a float tensor, with the scale of its range if none is given."""
        if index in self._int16:
            return self._int16[index]
        value = self._file.constant(self._graph.tensors[index])
        if scale is None:
            low, high = self._ranges[index] if value is None else (value.min(), value.max())
            largest = max(abs(float(low)), abs(float(high))) or 1.0
            scale = largest * (HEADROOM if value is None else 1.0) / LARGEST
        integers = None
        if value is not None:
            integers = np.clip(np.rint(value / scale), -LARGEST, LARGEST).astype(np.int16)
        scales = np.array([scale], np.float32)
        self._int16[index] = self._add_tensor(index, "INT16", scales, integers)
        return self._int16[index]

    def _add_tensor(
        self, source: int, dtype: str, scale: Array, value: Array | None, axis: int = 0
    ) -> int:
        """Add a tensor of the name and shape of ``source`` in another dtype."""
        tensor = self._graph.tensors[source]
        return self._file.add_tensor(
            self._graph,
            f"{self._file.name(tensor)}/{dtype.lower()}",
            dtype,
            tensor.shape,
            value=value,
            quantization=self._file.quantization(scale, axis=axis),
        )

    def _use_int8_weights(self, inputs: list[int], kind: str) -> None:
        """Replace the weights and the bias among ``inputs`` by integers, in place."""
        per_channel = kind != "FULLY_CONNECTED" or self._per_channel_dense
        key = (inputs[1], per_channel)
        if key not in self._weights:
            value = self._file.constant(self._graph.tensors[inputs[1]])
            assert value is not None
            axis = CHANNELS[kind] if per_channel else None
            integers, scale = quantize_symmetric(value, axis)
            index = self._add_tensor(inputs[1], "INT8", scale, integers, axis or 0)
            self._weights[key] = (index, scale)
        inputs[1], scale = self._weights[key]
        if len(inputs) > 2 and inputs[2] >= 0:
            bias = self._file.constant(self._graph.tensors[inputs[2]])
            assert bias is not None
            input_scale = float(self._graph.tensors[inputs[0]].quantization.scale[0])
            product = np.asarray(scale, np.float64) * input_scale
            integers = np.rint(bias / product).astype(np.int64)
            inputs[2] = self._add_tensor(inputs[2], "INT64", product.astype(np.float32), integers)
