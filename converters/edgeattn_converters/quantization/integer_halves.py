"""Weights of int16 operators as the sum of two int8 values, whose products are added."""

from collections.abc import Collection
from copy import copy
from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.arithmetic import quantize_symmetric
from edgeattn_converters.quantization.ranges import Ranges
from edgeattn_converters.quantization.tflite_int16 import Int16Pass
from edgeattn_converters.quantization.tflite_weights import CHANNELS


class HalvesPass(Int16Pass):
    """Adds products with the low halves of weights to those with rounded weights."""

    def __init__(self, file: TFLiteFile, ranges: Ranges, in_halves: Collection[str]) -> None:
        """``in_halves`` are the names of outputs of products and lookups whose weights are the sum
        of two int8 values."""
        super().__init__(file, ranges, set(), per_channel_dense=True)
        self._in_halves = in_halves
        self._low_halves: dict[int, tuple[int, Array] | None] = {}

    def _output_name(self, operator: Any) -> str:
        return self._file.name(self._graph.tensors[int(operator.outputs[0])])

    def _sum(self, terms: list[int], output: int, activation: int = 0) -> Any:
        """An operator that adds two int16 tensors."""
        total = self._file.new_operator("ADD", terms, [output])
        total.builtinOptionsType = self._file.schema.BuiltinOptions.AddOptions
        total.builtinOptions = self._file.schema.AddOptionsT()
        total.builtinOptions.potScaleInt16 = False
        total.builtinOptions.fusedActivationFunction = activation
        return total

    def _split_weights(self, operator: Any, kind: str) -> int | None:
        """The float32 weights of a product that become two int8 values each; otherwise None."""
        is_split = kind in CHANNELS and self._output_name(operator) in self._in_halves
        return int(operator.inputs[1]) if is_split else None

    def _low_product(self, operator: Any, weights: int) -> list[Any]:
        """Add the product with what int8 weights are rounded by, again in int8.

        ``operator`` is the product of the rounded ``weights``, whose result becomes a sum. Weights
        have errors of 1/508 of a step then.
        """
        half = self._low_half(weights, CHANNELS[self._file.kind(operator)])
        if half is None:
            return []
        index, sums = half
        x, output = int(operator.inputs[0]), int(operator.outputs[0])
        # The largest result that any inputs can have, so that nothing is clipped.
        scale = sums.max() * self._scale(x)
        low = copy(operator)
        parts = [self._part(output, "high", self._scale(output)), self._part(output, "low", scale)]
        total = self._sum(parts, output, operator.builtinOptions.fusedActivationFunction)
        operator.builtinOptions = copy(operator.builtinOptions)
        operator.builtinOptions.fusedActivationFunction = (
            self._file.schema.ActivationFunctionType.NONE
        )
        low.builtinOptions = operator.builtinOptions
        operator.outputs, low.outputs = [parts[0]], [parts[1]]
        low.inputs = [x, index, *(self._no_bias(operator, int(i)) for i in operator.inputs[2:])]
        return [low, total]

    def _no_bias(self, operator: Any, bias: int) -> int:
        """Zeros in place of a bias: convolutions of LiteRT require one, unlike FULLY_CONNECTED."""
        if bias < 0 or self._file.kind(operator) == "FULLY_CONNECTED":
            return -1
        tensor = self._graph.tensors[bias]
        zeros = np.zeros(list(map(int, tensor.shape)), np.int64)
        scales = np.asarray(tensor.quantization.scale, np.float32)
        return self._add_tensor(bias, "INT64", scales, zeros)

    def _part(self, output: int, part: str, scale: float) -> int:
        """An int16 tensor of the name and shape of ``output``, for a term of its sum."""
        tensor = self._graph.tensors[output]
        return self._file.add_tensor(
            self._graph,
            f"{self._file.name(tensor)}/{part}",
            "INT16",
            tensor.shape,
            quantization=self._file.quantization(np.array([scale], np.float32)),
        )

    def _low_half(self, weights: int, axis: int | None) -> tuple[int, Array] | None:
        """The tensor of the low half of weights, and the sum of its magnitudes by channel; None if
        the high half is exact. Without ``axis``, there is one scale."""
        if weights not in self._low_halves:
            value = self._file.constant(self._graph.tensors[weights])
            assert value is not None
            integers, scale = quantize_symmetric(value, axis)
            shape = [-1 if k == axis else 1 for k in range(value.ndim)]
            rest = value - integers * scale.reshape(shape)
            others = tuple(k for k in range(value.ndim) if k != axis)
            low, scales = quantize_symmetric(rest, axis)
            half = self._add_tensor(weights, "INT8", scales, low, axis or 0) if low.any() else None
            sums = np.abs(rest).sum(axis=others)
            self._low_halves[weights] = None if half is None else (half, sums)
        return self._low_halves[weights]
