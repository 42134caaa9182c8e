"""Integer operators for Lite Micro: what is float32 in a ``.tflite`` file becomes int16.

The pass does for a whole graph what :mod:`~edgeattn_converters.quantization.tflite_int16` does for
the operators that LiteRT has in int16: operators that only move or select values are included, and
conversions between two integer types replace those by way of float32.
"""

from collections.abc import Collection, Mapping
from copy import copy
from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.graphs.tflite_cleanup import join_conversions
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.arithmetic import quantize_symmetric
from edgeattn_converters.quantization.integer_forms import (
    COMPARISONS,
    JOINING,
    MOST_COUNTED,
    MOVING,
    NARROW,
    SUPPORTED,
    integer_threshold,
    joined_ranges,
    positions,
)
from edgeattn_converters.quantization.integer_halves import HalvesPass
from edgeattn_converters.quantization.integer_lstm import HIDDEN_SCALE, integer_lstm
from edgeattn_converters.quantization.mask_fills import limit_fills
from edgeattn_converters.quantization.mask_values import (
    COMPARING,
    saturated,
    tflite_mask_values,
)
from edgeattn_converters.quantization.ranges import Ranges
from edgeattn_converters.quantization.tflite_int16 import (
    FIXED_SCALE,
    LARGEST,
    OUTPUT_SCALE,
)
from edgeattn_converters.quantization.tflite_weights import CHANNELS, FUSED
from edgeattn_converters.quantization.value_bounds import within_bounds

# A cast of a truth value has the values 0 and 1.
TRUTH_SCALE = 1.0
# The int16 softmax looks up exponentials from exp(-10), which is 1.5 / 32768, to 1. Keys with lower
# scores, which should have no weight, get up to so many units.
TAIL = 2


class IntegerPass(HalvesPass):
    """Turns the float32 operators of the main graph to int16, in place, by :meth:`run`."""

    def __init__(
        self,
        file: TFLiteFile,
        ranges: Ranges,
        cells: Mapping[str, float],
        in_halves: Collection[str] = (),
        cut_tails: Collection[str] = (),
    ) -> None:
        """``cells`` are the largest magnitudes of the cells of fused LSTMs, by their outputs.

        ``in_halves`` are the names of outputs of products and lookups whose weights are the sum of
        two int8 values. ``cut_tails`` are those of softmaxes whose smallest weights become zero.
        """
        super().__init__(file, ranges, in_halves)
        self._cells = cells
        self._cut_tails = cut_tails
        self._measured = joined_ranges(file, ranges)
        self._ranges = joined_ranges(file, within_bounds(file, ranges))
        self._masks = tflite_mask_values(file)

    def run(self) -> None:
        operators: list[Any] = []
        for operator in list(self._graph.operators):
            results = [int(i) for i in operator.outputs]
            if self._is_supported(operator):
                before, after = self._to_integers(operator)
                operators += [*before, operator, *after]
                self._pending.update(index for index in results if index in self._int16)
            else:
                operators += [*self._to_float(operator.inputs), operator]
        operators += self._to_float(self._graph.outputs)
        self._graph.operators = operators
        join_conversions(self._file)

    def _is_supported(self, operator: Any) -> bool:
        file, tensors = self._file, self._graph.tensors
        kind = file.kind(operator)
        outputs = [int(i) for i in operator.outputs]
        if kind == FUSED:
            output = file.name(tensors[outputs[0]])
            return output in self._cells and int(operator.inputs[0]) in self._ranges
        if kind in COMPARISONS:
            source, constant = (tensors[int(i)] for i in operator.inputs)
            is_constant = file.constant(constant) is not None
            return is_constant and file.dtype(source) == file.dtype(constant) == "FLOAT32"
        if any(file.dtype(tensors[i]) != "FLOAT32" for i in outputs):
            return False
        if kind == "CAST":
            return file.dtype(tensors[int(operator.inputs[0])]) == "BOOL"
        if kind == "GATHER":
            return self._table(operator) is not None
        if kind == "CUMSUM":
            return self._counts(operator)
        if kind not in SUPPORTED:
            return False
        inputs = [int(operator.inputs[k]) for k in positions(file, operator)]
        if any(file.dtype(tensors[i]) != "FLOAT32" for i in inputs):
            return False
        if kind in CHANNELS and file.constant(tensors[int(operator.inputs[1])]) is None:
            return False
        known = [
            i in self._ranges or i in self._int16 or file.constant(tensors[i]) is not None
            for i in inputs
        ]
        # Other outputs have the scale of the input, or one that does not depend on the values.
        own_scale = kind not in (FIXED_SCALE | MOVING)
        return all(known) and (not own_scale or all(i in self._ranges for i in outputs))

    def _to_integers(self, operator: Any) -> tuple[list[Any], list[Any]]:
        """Let ``operator`` use integers; returns the conversions before it and after it."""
        kind = self._file.kind(operator)
        if kind == "CAST":
            operator.outputs = [self._counterpart(int(operator.outputs[0]), TRUTH_SCALE)]
            if operator.builtinOptions is not None:
                operator.builtinOptions.outDataType = self._file.type_code("INT16")
            return [], []
        if kind == "GATHER":
            return [], self._gather(operator)
        if kind == FUSED:
            return self._lstm(operator)
        if kind in NARROW:
            return self._narrow(operator)
        if kind == "CUMSUM":
            return self._narrow(operator, scale=TRUTH_SCALE)
        if kind in COMPARISONS:
            return self._compare(operator, kind), []
        if kind in JOINING:
            return self._join(operator, positions(self._file, operator)), []
        weights = self._split_weights(operator, kind)
        is_cut = self._output_name(operator) in self._cut_tails
        before = self._with_own_scale(operator, kind)
        if kind == "SOFTMAX" and is_cut:
            return before, [self._cut_tail(operator)]
        return before, [] if weights is None else self._low_product(operator, weights)

    def _cut_tail(self, operator: Any) -> Any:
        """The operator that subtracts :data:`TAIL` from the weights of an int16 softmax.

        An activation makes negative differences zero.
        """
        file, output = self._file, int(operator.outputs[0])
        weights = self._part(output, "softmax", OUTPUT_SCALE)
        tail = file.add_tensor(
            *(self._graph, "", "INT16", [1]),
            value=np.array([-TAIL], np.int16),
            quantization=file.quantization(np.array([OUTPUT_SCALE], np.float32)),
        )
        operator.outputs = [weights]
        return self._sum([weights, tail], output, file.schema.ActivationFunctionType.RELU)

    def _with_own_scale(self, operator: Any, kind: str) -> list[Any]:
        """As for LiteRT, with the operators that it has no int16 kernels for."""
        file = self._file
        limit_fills(file, self._graph, operator, self._ranges)
        inputs, conversions = [int(i) for i in operator.inputs], []
        for position in positions(file, operator):
            inputs[position], needed = self._integer(inputs[position])
            conversions += needed
        source = inputs[positions(file, operator)[0]] if kind in MOVING else None
        self._connect(operator, inputs, source)
        return conversions

    def _integer(self, index: int) -> tuple[int, list[Any]]:
        """The int16 counterpart of a float tensor, and the conversion that it needs, if any."""
        is_new = index not in self._int16
        integer = self._counterpart(index)
        if not is_new or self._file.constant(self._graph.tensors[index]) is not None:
            return integer, []
        return integer, [self._quantize(index, integer)]

    def _table(self, operator: Any) -> Array | None:
        """The float32 table that a lookup reads; None if it is no constant or no lookup of rows."""
        table = self._graph.tensors[int(operator.inputs[0])]
        is_float = self._file.dtype(table) == "FLOAT32"
        return self._file.constant(table) if is_float and not operator.builtinOptions.axis else None

    def _gather(self, operator: Any) -> list[Any]:
        """A lookup in an int8 table: Lite Micro has no int16 kernel for it.

        The rows become int16 after the lookup. With two halves, both are looked up and added.
        """
        value = self._table(operator)
        assert value is not None
        index, rows = int(operator.inputs[0]), int(operator.outputs[0])
        is_split = self._output_name(operator) in self._in_halves
        key = (index, False)
        if key not in self._weights:
            integers, scales = quantize_symmetric(value, None)
            self._weights[key] = (self._add_tensor(index, "INT8", scales, integers), scales)
        table, result = self._weights[key][0], self._counterpart(rows)
        half = self._low_half(index, None) if is_split else None
        if half is None:
            return [self._lookup(operator, table, rows, result)]
        low = copy(operator)
        # The largest integer of the low half, 127, becomes that of int16.
        low_scale = self._scale(half[0]) * 127 / LARGEST
        parts = [
            self._part(result, part, scale)
            for part, scale in (("high", self._scale(result)), ("low", low_scale))
        ]
        return [
            self._lookup(operator, table, rows, parts[0]),
            low,
            self._lookup(low, half[0], rows, parts[1]),
            self._sum(parts, result),
        ]

    def _lookup(self, operator: Any, table: int, rows: int, result: int) -> Any:
        """Let ``operator`` look up in an int8 ``table``; returns the conversion of the rows to the
        int16 tensor ``result``. ``rows`` are those in float32."""
        scale = np.array([self._scale(table)], np.float32)
        narrow = self._add_tensor(rows, "INT8", scale, None)
        operator.inputs = [table, *map(int, operator.inputs[1:])]
        operator.outputs = [narrow]
        return self._quantize(narrow, result)

    def _counts(self, operator: Any) -> bool:
        """Whether a cumulative sum counts truth values, few enough for int8."""
        source = int(operator.inputs[0])
        count = self._graph.tensors[source].shape
        is_truth = source in self._int16 and self._scale(self._int16[source]) == TRUTH_SCALE
        return (
            is_truth
            and max(count, default=0) <= MOST_COUNTED
            and int(operator.outputs[0]) in self._ranges
        )

    def _compare(self, operator: Any, kind: str) -> list[Any]:
        """A comparison with a constant, in int32: Lite Micro has no int16 kernel for it."""
        source, constant = map(int, operator.inputs)
        wide, conversions = self._integer(source)
        value = self._file.constant(self._graph.tensors[constant])
        assert value is not None
        threshold = integer_threshold(kind, value, self._scale(wide))
        if kind in COMPARING:
            threshold = saturated(self._masks.get(source), threshold, "int16")
        shape = self._graph.tensors[source].shape
        widest = self._file.add_tensor(self._graph, "", "INT32", shape)
        integer = self._file.add_tensor(
            self._graph, "", "INT32", value.shape, value=threshold.astype(np.int32)
        )
        operator.inputs = [widest, integer]
        return [*conversions, self._file.new_operator("CAST", [wide], [widest])]

    def _lstm(self, operator: Any) -> tuple[list[Any], list[Any]]:
        output = int(operator.outputs[0])
        x, conversions = self._integer(int(operator.inputs[0]))
        h = self._counterpart(output, HIDDEN_SCALE)
        largest = self._cells[self._file.name(self._graph.tensors[output])]
        *before, _, after = integer_lstm(self._file, operator, x, h, largest)
        return [*conversions, *before], [after]

    def _narrow(self, operator: Any, scale: float | None = None) -> tuple[list[Any], list[Any]]:
        """An operator in int8 between int16 ones: Lite Micro has no int16 kernel for it."""
        source, result = int(operator.inputs[0]), int(operator.outputs[0])
        wide, conversions = self._integer(source)
        if scale is None:
            measured = max(map(abs, self._measured.get(source, ())), default=0.0)
            scale = (measured or self._scale(wide) * LARGEST) / 127
        scales = np.array([scale], np.float32)
        ends = [self._add_tensor(index, "INT8", scales, None) for index in (source, result)]
        operator.inputs = [ends[0], *map(int, operator.inputs[1:])]
        operator.outputs = [ends[1]]
        before = [*conversions, self._quantize(wide, ends[0])]
        return before, [self._quantize(ends[1], self._counterpart(result))]
