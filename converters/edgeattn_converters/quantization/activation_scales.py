"""Activation functions whose values use few levels of the fixed scale of their integer kernel.

The results of int8 TANH, LOGISTIC and SOFTMAX have a step of 1/128 or 1/256, whatever their range
is. TensorFlow's quantizer gives float32 results of these operators the same step, where an integer
operator reads them; here they get that of their range.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.arithmetic import affine_parameters
from edgeattn_converters.quantization.ranges import Ranges
from edgeattn_converters.quantization.same_scales import SAME_SCALE
from edgeattn_converters.quantization.tflite_int8 import FIXED_SCALES

# An int8 result should use so many levels: 5 bits. Outside recurrent steps, where float32 costs
# little, 7 bits for the functions between layers.
MIN_LEVELS, MIN_LEVELS_ONCE = 32, 128
BETWEEN_LAYERS = {"TANH", "LOGISTIC"}
# A scale that is smaller than that of the range by more than rounding clips values.
CLIPPING = 1.01
# Operators that read integers of any scale.
_READERS = {"FULLY_CONNECTED", "MUL", "ADD", "SUB", "BATCH_MATMUL"}


def coarse_operators(file: TFLiteFile, ranges: Ranges, steps: set[str]) -> set[str]:
    """The activation functions of the main graph that use too few levels, by their outputs.

    Outside recurrent steps, whose operators are ``steps``, operators that only move or join their
    results follow them: the quantizer fails at joined values of which one has a fixed scale.
    """
    tensors = file.main.tensors
    coarse: set[str] = set()
    for operator in file.main.operators:
        kind, index = file.kind(operator), int(operator.outputs[0])
        name = file.name(tensors[index])
        is_step = name in steps
        if kind in FIXED_SCALES and index in ranges:
            is_once = kind in BETWEEN_LAYERS and not is_step
            levels = (ranges[index][1] - ranges[index][0]) / FIXED_SCALES[kind][0]
            if levels < (MIN_LEVELS_ONCE if is_once else MIN_LEVELS):
                coarse.add(name)
        elif (
            kind in SAME_SCALE
            and not is_step
            and not coarse.isdisjoint(file.name(tensors[int(i)]) for i in operator.inputs)
        ):
            coarse.update(file.name(tensors[int(i)]) for i in operator.outputs)
    return coarse


def use_measured_scales(file: TFLiteFile, ranges: Ranges) -> None:
    """Give the integers of float32 results the scale of their range, in place.

    The quantizer gives those of activation functions the fixed scale of their integer kernels, and
    those that a float32 operator moves to an integer one the scale of the latter's result, which
    clips values. A result that also goes where scales must be equal keeps its own.
    """
    graph = file.main
    makers = {
        int(operator.outputs[0]): file.kind(operator)
        for operator in graph.operators
        if file.dtype(graph.tensors[int(operator.outputs[0])]) == "FLOAT32"
    }
    readers_of: dict[int, list[Any]] = {}
    for operator in graph.operators:
        for index in {int(i) for i in operator.inputs}:
            readers_of.setdefault(index, []).append(operator)
    for operator in graph.operators:
        source = int(operator.inputs[0]) if len(operator.inputs) else -1
        if file.kind(operator) != "QUANTIZE" or source not in makers.keys() & ranges.keys():
            continue
        index = int(operator.outputs[0])
        if file.dtype(graph.tensors[index]) != "INT8":
            continue
        scale, zero_point = affine_parameters(*ranges[source], "int8")
        given = float(graph.tensors[index].quantization.scale[0])
        if makers[source] not in FIXED_SCALES and scale < CLIPPING * given:
            continue
        readers = readers_of.get(index, [])
        if _take_any_scale(file, readers):
            graph.tensors[index].quantization = file.quantization(
                np.array([scale], np.float32), zero_point
            )
            for reader in readers:
                _scale_bias(file, reader, scale)


def _take_any_scale(file: TFLiteFile, readers: Iterable[Any]) -> bool:
    return all(file.kind(reader) in _READERS for reader in readers)


def _scale_bias(file: TFLiteFile, operator: Any, scale: float) -> None:
    """Give the bias of a product the scale of an input of ``scale`` and its weights, in place."""
    if file.kind(operator) != "FULLY_CONNECTED" or len(operator.inputs) < 3:
        return
    tensors, index = file.main.tensors, int(operator.inputs[2])
    value = file.constant(tensors[index]) if index >= 0 else None
    if value is None:
        return
    bias = tensors[index]
    weight_scale = np.asarray(tensors[int(operator.inputs[1])].quantization.scale, np.float64)
    integers = np.rint(value * np.asarray(bias.quantization.scale) / (weight_scale * scale))
    inputs = [int(i) for i in operator.inputs]
    inputs[2] = file.add_tensor(
        file.main,
        f"{file.name(bias)}/scaled",
        "INT32",
        bias.shape,
        value=integers.astype(np.int32),
        quantization=file.quantization((weight_scale * scale).astype(np.float32)),
    )
    operator.inputs = inputs
