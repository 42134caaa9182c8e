"""int16 activations with int8 weights in a ``.tflite`` file.

TensorFlow's own 16x8 quantizer also converts operators without an int16 kernel, and does not
support loops. Here an operator becomes int16 only if the runtimes have a kernel; a QUANTIZE and a
DEQUANTIZE connect it to others. Operators that only move or select values follow those that
compute: converting a float for them would round it and gain nothing.

All int16 tensors are symmetric, ``real = int16 * scale``, as the kernels require (TensorFlow's
"16x8 quantization" specification). Ranges are doubled: that costs one of sixteen bits and avoids
clipping values that did not occur in calibration. Reciprocals and exponentials, such as the factor
of a normalization, grow by more if their input changes a little; their ranges are four times those
of calibration, unless calibration has values of very different sizes.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.arithmetic import (
    INTEGER_RANGES,
    MIN_ELEMENTS,
    quantize_symmetric,
)
from edgeattn_converters.quantization.mask_fills import limit_fills
from edgeattn_converters.quantization.ranges import Ranges
from edgeattn_converters.quantization.tflite_weights import CHANNELS

HEADROOM = 2.0
STEEP_HEADROOM = 4.0
# The largest quotient of the largest and the smallest value with which a range is narrow.
NARROW = 8.0
STEEP = {"RSQRT", "DIV", "EXP", "POW"}
LARGEST = INTEGER_RANGES["int16"][1]
# Operators whose output has a fixed scale.
FIXED_SCALE = {"LOGISTIC", "TANH", "SOFTMAX"}
OUTPUT_SCALE = 1 / 32768
# Operators whose output has the scale of their input, because they only move values.
MOVING = {"RESHAPE", "TRANSPOSE", "STRIDED_SLICE", "SLICE", "SPLIT", "UNPACK"}
# The same, with those that select values.
SELECTING = MOVING | {"EXPAND_DIMS", "SQUEEZE", "GATHER", "PAD", "MAX_POOL_2D", "REDUCE_MAX"}
SELECTING |= {"RESIZE_NEAREST_NEIGHBOR"}
# Operators whose output has the scale of their input too, but other values. RESIZE_BILINEAR is not
# included: its kernel rounds positions to 1/1024, an error of 52 dB.
AVERAGING = {"AVERAGE_POOL_2D"}
ELEMENTWISE = {"ADD", "SUB", "MUL"}
# Operators with one input that scale their result.
SCALING = {"MEAN", "RELU", "LEAKY_RELU"}
# Operators whose inputs and output have one scale.
JOINING = {"CONCATENATION", "PACK"}
# Axis of the output channels in the weights.
WEIGHTS = {**CHANNELS, "TRANSPOSE_CONV": 0}
SUPPORTED = FIXED_SCALE | SELECTING | AVERAGING | ELEMENTWISE | SCALING | JOINING | set(WEIGHTS)
SUPPORTED |= {"BATCH_MATMUL"}
# Positions of the inputs that are activations; the others are weights, shapes and axes.
ACTIVATIONS = {
    **dict.fromkeys(ELEMENTWISE | {"BATCH_MATMUL"}, (0, 1)),
    **dict.fromkeys(FIXED_SCALE | SELECTING | AVERAGING | SCALING | set(CHANNELS), (0,)),
    "TRANSPOSE_CONV": (2,),
    "SPLIT": (1,),
}
QUANTIZE_VERSION = 2


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
        self._requantized: dict[tuple[int, float], int] = {}
        self._squares = {
            int(operator.outputs[0])
            for operator in self._graph.operators
            if _is_square(file.kind(operator), operator)
        }
        self._steep = _steep_tensors(file)

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
        every = range(len(operator.inputs))
        inputs = [int(operator.inputs[k]) for k in ACTIVATIONS.get(kind, every)]
        if any(file.dtype(tensors[i]) != "FLOAT32" for i in (*inputs, *outputs)):
            return False
        if kind in WEIGHTS and file.constant(tensors[int(operator.inputs[1])]) is None:
            return False
        if kind in SELECTING | JOINING and not self._pending.issuperset(inputs):
            return False
        if kind == "MEAN" and inputs[0] in self._squares:
            return False  # its smallest values matter to the root of a normalization
        known = [i in self._ranges or file.constant(tensors[i]) is not None for i in inputs]
        return all(known) and all(i in self._ranges or kind in FIXED_SCALE for i in outputs)

    def _to_int16(self, operator: Any) -> list[Any]:
        """Let ``operator`` use int16 tensors; returns the conversions that it needs before it."""
        kind = self._file.kind(operator)
        if kind in JOINING:
            return self._join(operator, range(len(operator.inputs)))
        limit_fills(self._file, self._graph, operator, self._ranges)
        conversions = []
        inputs = [int(i) for i in operator.inputs]
        for position in ACTIVATIONS[kind]:
            index = inputs[position]
            is_new = index not in self._int16
            if kind == "BATCH_MATMUL" and self._is_large(index):
                inputs[position], needed = self._stored_int8(index)
                conversions += needed
                continue
            inputs[position] = self._counterpart(index)
            if is_new and self._file.constant(self._graph.tensors[index]) is None:
                conversions.append(self._quantize(index, inputs[position]))
        is_same = kind in SELECTING or kind in AVERAGING
        self._connect(operator, inputs, inputs[ACTIVATIONS[kind][0]] if is_same else None)
        return conversions

    def _join(self, operator: Any, positions: Iterable[int]) -> list[Any]:
        """The same for an operator whose inputs at ``positions`` have the scale of its output."""
        operator.outputs = [self._counterpart(int(operator.outputs[0]))]
        scale = self._scale(operator.outputs[0])
        conversions: list[Any] = []
        inputs = [int(i) for i in operator.inputs]
        for position in positions:
            inputs[position], needed = self._at_scale(inputs[position], scale)
            conversions += needed
        operator.inputs = inputs
        return conversions

    def _at_scale(self, index: int, scale: float) -> tuple[int, list[Any]]:
        """The counterpart of a float tensor with this scale, and the conversions that it needs."""
        value = self._file.constant(self._graph.tensors[index])
        if value is None and index not in self._int16:
            self._counterpart(index, scale)
            return self._int16[index], [self._quantize(index, self._int16[index])]
        source = self._counterpart(index) if value is None else index
        if value is None and self._scale(source) == scale:
            return source, []
        key = (source, scale)
        if key in self._requantized:
            return self._requantized[key], []
        integers = None
        if value is not None:
            integers = np.clip(np.rint(value / scale), -LARGEST, LARGEST).astype(np.int16)
        converted = self._add_tensor(index, "INT16", np.array([scale], np.float32), integers)
        self._requantized[key] = converted
        return converted, [] if value is not None else [self._quantize(source, converted)]

    def _is_large(self, index: int) -> bool:
        value = self._file.constant(self._graph.tensors[index])
        return value is not None and value.size >= MIN_ELEMENTS

    def _stored_int8(self, index: int) -> tuple[int, list[Any]]:
        """The int16 counterpart of weights that are stored as int8, and its conversions.

        BATCH_MATMUL has a kernel for two int16 inputs only.
        """
        if index in self._int16:
            return self._int16[index], []
        value = self._file.constant(self._graph.tensors[index])
        assert value is not None
        integers, scale = quantize_symmetric(value, None)
        stored = self._add_tensor(index, "INT8", scale, integers)
        restored = self._add_tensor(index, "FLOAT32", None, None)
        wide = self._counterpart(index, float(np.abs(value).max()) / LARGEST, is_stored=False)
        to_float = self._file.new_operator("DEQUANTIZE", [stored], [restored], 3)
        return wide, [to_float, self._quantize(restored, wide)]

    def _quantize(self, source: int, target: int) -> Any:
        return self._file.new_operator("QUANTIZE", [source], [target], QUANTIZE_VERSION)

    def _scale(self, index: int) -> float:
        return float(self._graph.tensors[index].quantization.scale[0])

    def _connect(self, operator: Any, inputs: list[int], source: int | None) -> None:
        """Give ``operator`` int16 ``inputs`` and outputs, in place.

        The outputs have the scale of the tensor ``source``, if there is one.
        """
        kind = self._file.kind(operator)
        if kind in WEIGHTS:
            self._use_int8_weights(inputs, kind)
        scale = None
        if kind in FIXED_SCALE:
            scale = OUTPUT_SCALE
        elif source is not None:
            scale = self._scale(source)
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

    def _counterpart(
        self, index: int, scale: float | None = None, *, is_stored: bool = True
    ) -> int:
        """The int16 tensor of a float tensor, with the scale of its range if none is given.

        That of a constant is one too if ``is_stored``.
        """
        if index in self._int16:
            return self._int16[index]
        value = self._file.constant(self._graph.tensors[index]) if is_stored else None
        if scale is None:
            low, high = self._ranges[index] if value is None else (value.min(), value.max())
            largest = max(abs(float(low)), abs(float(high))) or 1.0
            scale = largest * (self._headroom(index) if value is None else 1.0) / LARGEST
        integers = None
        if value is not None:
            integers = np.clip(np.rint(value / scale), -LARGEST, LARGEST).astype(np.int16)
        scales = np.array([scale], np.float32)
        self._int16[index] = self._add_tensor(index, "INT16", scales, integers)
        return self._int16[index]

    def _headroom(self, index: int) -> float:
        low, high = self._ranges.get(index, (0.0, 0.0))
        is_narrow = 0 < low < high < NARROW * low
        return STEEP_HEADROOM if index in self._steep and is_narrow else HEADROOM

    def _add_tensor(
        self, source: int, dtype: str, scale: Array | None, value: Array | None, axis: int = 0
    ) -> int:
        """Add a tensor of the name and shape of ``source`` in another dtype."""
        tensor = self._graph.tensors[source]
        return self._file.add_tensor(
            self._graph,
            f"{self._file.name(tensor)}/{dtype.lower()}",
            dtype,
            tensor.shape,
            value=value,
            quantization=None if scale is None else self._file.quantization(scale, axis=axis),
        )

    def _use_int8_weights(self, inputs: list[int], kind: str) -> None:
        """Replace the weights and the bias among ``inputs`` by integers, in place."""
        per_channel = kind != "FULLY_CONNECTED" or self._per_channel_dense
        key = (inputs[1], per_channel)
        if key not in self._weights:
            value = self._file.constant(self._graph.tensors[inputs[1]])
            assert value is not None
            axis = WEIGHTS[kind] if per_channel else None
            integers, scale = quantize_symmetric(value, axis)
            index = self._add_tensor(inputs[1], "INT8", scale, integers, axis or 0)
            self._weights[key] = (index, scale)
        inputs[1], scale = self._weights[key]
        last = 3 if kind == "TRANSPOSE_CONV" else 2
        if len(inputs) > last and inputs[last] >= 0:
            bias = self._file.constant(self._graph.tensors[inputs[last]])
            assert bias is not None
            product = np.asarray(scale, np.float64) * self._scale(inputs[ACTIVATIONS[kind][0]])
            integers = np.rint(bias / product).astype(np.int64)
            scales = product.astype(np.float32)
            inputs[last] = self._add_tensor(inputs[last], "INT64", scales, integers)


def _steep_tensors(file: TFLiteFile) -> set[int]:
    """The results of :data:`STEEP` operators, also moved, or multiplied by a constant."""
    steep: set[int] = set()
    for operator in file.main.operators:
        kind = file.kind(operator)
        inputs = [int(index) for index in operator.inputs if index >= 0]
        values = [k for k in inputs if file.constant(file.main.tensors[k]) is None]
        follows = kind in SELECTING | AVERAGING or (kind == "MUL" and len(values) == 1)
        if kind in STEEP or (follows and steep.intersection(values)):
            steep.update(int(index) for index in operator.outputs)
    return steep


def _is_square(kind: str, operator: Any) -> bool:
    """Whether an operator squares a value."""
    if kind == "MUL":
        return len({int(i) for i in operator.inputs}) == 1
    return kind in ("SQUARE", "SQUARED_DIFFERENCE")
