"""int8 activations with int8 weights in any graph of a ``.tflite`` file.

TensorFlow's quantizer does not support loops. Here an operator becomes int8 if XNNPACK has a kernel
for it; a QUANTIZE and a DEQUANTIZE connect it to others.
"""

from typing import Any

import numpy as np

from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.arithmetic import (
    INTEGER_RANGES,
    affine_parameters,
    quantize_symmetric,
)
from edgeattn_converters.quantization.mask_fills import limit_fills
from edgeattn_converters.quantization.ranges import Ranges, merge_ranges
from edgeattn_converters.quantization.tflite_int16 import (
    ACTIVATIONS,
    ELEMENTWISE,
    MOVING,
    Int16Pass,
)

Scale = tuple[float, int]  # scale and zero point
# Operators whose output has a fixed scale.
FIXED_SCALES = {"LOGISTIC": (1 / 256, -128), "SOFTMAX": (1 / 256, -128), "TANH": (1 / 128, 0)}
# Operators whose inputs have one scale.
JOINING = {"PACK", "CONCATENATION"}
SUPPORTED = {"LOGISTIC", "TANH", "FULLY_CONNECTED"} | MOVING | JOINING | ELEMENTWISE
# Operator versions with int8 kernels, if not 2.
VERSIONS = {"RESHAPE": 1, "FULLY_CONNECTED": 5}


class Int8Pass(Int16Pass):
    """Turns operators of ``graph`` to int8, in place, by :meth:`run`.

    ``floats`` are the tensors of the graph whose operators stay float32. Dense weights get one
    scale per channel.
    """

    def __init__(self, file: TFLiteFile, graph: Any, ranges: Ranges, floats: set[int]) -> None:
        super().__init__(file, _joined_ranges(file, graph, ranges), set(), per_channel_dense=True)
        self._graph = graph
        self._floats = floats

    def _is_supported(self, operator: Any) -> bool:
        file, tensors = self._file, self._graph.tensors
        kind = file.kind(operator)
        outputs = [int(i) for i in operator.outputs]
        if kind not in SUPPORTED or self._floats.intersection(outputs):
            return False
        inputs = [int(operator.inputs[k]) for k in _activations(kind, operator)]
        if any(file.dtype(tensors[i]) != "FLOAT32" for i in (*inputs, *outputs)):
            return False
        if kind == "FULLY_CONNECTED" and file.constant(tensors[int(operator.inputs[1])]) is None:
            return False
        if kind in MOVING and inputs[0] not in self._pending and len(outputs) == 1:
            return False  # converting a float only to move it gains nothing
        if kind in JOINING and not self._have_one_scale(inputs):
            return False
        known = [i in self._ranges or file.constant(tensors[i]) is not None for i in inputs]
        return all(known) and all(i in self._ranges or kind in FIXED_SCALES for i in outputs)

    def _have_one_scale(self, inputs: list[int]) -> bool:
        scales = {
            self._scale_of(self._int16[i]) if i in self._pending else self._scale_for(i)
            for i in inputs
        }
        return len(scales) == 1

    def _scale_of(self, index: int) -> Scale:
        parameters = self._graph.tensors[index].quantization
        return float(parameters.scale[0]), int(parameters.zeroPoint[0])

    def _scale_for(self, index: int) -> Scale | None:
        """The scale of a float tensor's range; None if it is unknown."""
        value = self._file.constant(self._graph.tensors[index])
        if value is None and index not in self._ranges:
            return None
        low, high = self._ranges[index] if value is None else (value.min(), value.max())
        return affine_parameters(float(low), float(high), "int8")

    def _to_int16(self, operator: Any) -> list[Any]:
        """Let ``operator`` use int8 tensors; returns the conversions that it needs before it."""
        file, tensors = self._file, self._graph.tensors
        kind = file.kind(operator)
        limit_fills(file, self._graph, operator, self._ranges)
        conversions = []
        inputs = [int(i) for i in operator.inputs]
        for position in _activations(kind, operator):
            index = inputs[position]
            is_new = index not in self._int16
            inputs[position] = self._int8_tensor(index)
            if is_new and file.constant(tensors[index]) is None:
                conversions.append(file.new_operator("QUANTIZE", [index], [inputs[position]], 2))
        if kind == "FULLY_CONNECTED":
            self._use_int8_weights(inputs, kind)
        scale = FIXED_SCALES.get(kind)
        if kind in MOVING:
            scale = self._scale_of(inputs[ACTIVATIONS[kind][0]])
        operator.inputs = inputs
        operator.outputs = [self._int8_tensor(int(i), scale) for i in operator.outputs]
        file.code_index(kind, VERSIONS.get(kind, 2))
        return conversions

    def _int8_tensor(self, index: int, scale: Scale | None = None) -> int:
        """The int8 tensor of a float tensor, with the scale of its range if none is given."""
        if index in self._int16:
            return self._int16[index]
        scale = scale or self._scale_for(index)
        assert scale is not None
        tensor = self._graph.tensors[index]
        value = self._file.constant(tensor)
        integers = None
        if value is not None:
            limits = INTEGER_RANGES["int8"]
            integers = np.clip(np.rint(value / scale[0]) + scale[1], *limits).astype(np.int8)
        self._int16[index] = self._file.add_tensor(
            self._graph,
            f"{self._file.name(tensor)}/int8",
            "INT8",
            tensor.shape,
            value=integers,
            quantization=self._file.quantization(np.array([scale[0]], np.float32), scale[1]),
        )
        return self._int16[index]

    def _use_int8_weights(self, inputs: list[int], kind: str) -> None:
        """Replace the weights and the bias among ``inputs`` by integers, in place."""
        key = (inputs[1], True)
        if key not in self._weights:
            value = self._file.constant(self._graph.tensors[inputs[1]])
            assert value is not None
            integers, scale = quantize_symmetric(value, 0)
            self._weights[key] = (self._add_tensor(inputs[1], "INT8", scale, integers), scale)
        inputs[1], scale = self._weights[key]
        if len(inputs) > 2 and inputs[2] >= 0:
            bias = self._file.constant(self._graph.tensors[inputs[2]])
            assert bias is not None
            product = np.asarray(scale, np.float64) * self._scale_of(inputs[0])[0]
            integers = np.rint(bias / product).astype(np.int32)
            inputs[2] = self._add_tensor(inputs[2], "INT32", product.astype(np.float32), integers)


def _activations(kind: str, operator: Any) -> tuple[int, ...]:
    """The positions of an operator's inputs that are activations."""
    return tuple(range(len(operator.inputs))) if kind in JOINING else ACTIVATIONS[kind]


def _joined_ranges(file: TFLiteFile, graph: Any, ranges: Ranges) -> Ranges:
    """The ranges, with a common one for tensors whose kernels require equal scales."""
    groups: dict[int, set[int]] = {}
    for operator in graph.operators:
        kind = file.kind(operator)
        if kind not in MOVING | JOINING:
            continue
        members = {int(operator.inputs[k]) for k in _activations(kind, operator)}
        members.update(int(i) for i in operator.outputs)
        members = {i for i in members if i in ranges}
        for group in [groups[i] for i in members if i in groups]:
            members |= group
        groups.update(dict.fromkeys(members, members))
    common = dict(ranges)
    for group in groups.values():
        merged = merge_ranges([{0: ranges[i]} for i in group])
        common.update(dict.fromkeys(group, merged[0]))
    return common
