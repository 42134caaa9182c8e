"""Wider ranges for the int8 outputs of a model.

An inner activation has hundreds of values in every sample, so calibration sees its extremes; an
output often has only a few. Larger outputs of other samples would be clipped, and that error goes
directly to the user: a forecast could never exceed the largest one of the calibration samples.
Twice the range costs one bit of the output's own rounding, which no later operator amplifies.

Shares, probabilities and attention maps have bounds that do not depend on the samples: a sequence
of one step has the weight 1, also if calibration has none that short.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.arithmetic import INTEGER_RANGES, affine_parameters
from edgeattn_converters.quantization.integer_forms import JOINING, MOVING, positions
from edgeattn_converters.quantization.mask_fills import Range
from edgeattn_converters.quantization.quantized_model import ModelIO
from edgeattn_converters.quantization.ranges import Ranges
from edgeattn_converters.quantization.tflite_int16 import FIXED_SCALE, HEADROOM

# Operators of ONNX that only move values, and those whose results have bounds of their own.
ONNX_MOVING = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Tile", "Concat"}
ONNX_BOUNDED = {"Sigmoid": (0.0, 1.0), "Tanh": (-1.0, 1.0), "Softmax": (0.0, 1.0)}
TFLITE_BOUNDED = {"LOGISTIC": (0.0, 1.0), "TANH": (-1.0, 1.0), "SOFTMAX": (0.0, 1.0)}
# Operators that shift or scale, if an operand is constant: what they read needs room, too. Such is
# the bias of a Dense layer in ONNX, and a rescaling to the unit of the target.
ONNX_AFFINE = {"Add", "Sub", "Mul", "Div"}
TFLITE_AFFINE = {kind.upper() for kind in ONNX_AFFINE}


# The bounds of attention maps whose rows sum to 1, and the rounding in measured ranges.
SHARES = (0.0, 1.0)
ROUNDING = 1e-3


def map_bounds(measured: Range) -> Range:
    """The bounds of an attention map: those of shares, or room if a model changes its weights.

    The weights of mixed heads, or the difference of two softmaxes, may have any value.
    """
    low, high = measured
    if SHARES[0] - ROUNDING <= low and high <= SHARES[1] + ROUNDING:
        return SHARES
    return min(SHARES[0], HEADROOM * low), max(SHARES[1], HEADROOM * high)


def wide_outputs(io: ModelIO) -> set[str]:
    """The names of the outputs that need room: no attention maps, see :func:`map_bounds`, and no
    states, whose rounding the next call would amplify."""
    states = {spec.state for spec in io.inputs}
    return {spec.name for spec in io.main} - states


def widen_tflite_outputs(file: TFLiteFile, ranges: Ranges, io: ModelIO) -> Ranges:
    """``ranges`` of a float file with those of its outputs, and of what is only moved, shifted or
    scaled to them, doubled."""
    graph = file.main
    makers = {int(i): operator for operator in graph.operators for i in operator.outputs}
    uses = Counter(int(i) for operator in graph.operators for i in operator.inputs)
    uses.update(map(int, graph.outputs))

    def moved(index: int) -> set[int] | None:
        """``index`` and what is moved to it; None if one of these has another use or bounds."""
        operator = makers.get(index)
        if operator is None or index not in ranges or uses[index] > 1:
            return None
        kind = file.kind(operator)
        if kind in FIXED_SCALE or len(operator.outputs) > 1:
            return None
        if kind in TFLITE_AFFINE:
            variable = [i for i in operator.inputs if file.constant(graph.tensors[i]) is None]
            source = moved(int(variable[0])) if len(variable) == 1 else None
            return {index} | (source or set())
        if kind not in MOVING and kind not in JOINING:
            return {index}
        sources = {int(operator.inputs[k]) for k in positions(file, operator)}
        variable = [i for i in sources if file.constant(graph.tensors[i]) is None]
        return _union({index}, [moved(i) for i in variable])

    widened = dict(ranges)
    names = wide_outputs(io)
    for spec, output in zip(io.outputs, map(int, graph.outputs), strict=True):
        for index in (moved(output) if spec.name in names else None) or ():
            low, high = ranges[index]
            widened[index] = (HEADROOM * low, HEADROOM * high)
    return widened


def with_map_bounds(file: TFLiteFile, ranges: Ranges, io: ModelIO) -> Ranges:
    """``ranges`` of a float file with those of its attention maps, and of what is moved to them, by
    :func:`map_bounds`.

    A mask of multiplications behind a softmax has no scale of its kernel: its range is measured.
    """
    makers = {int(i): operator for operator in file.main.operators for i in operator.outputs}
    widened = dict(ranges)
    found = [
        int(index)
        for spec, index in zip(io.outputs, file.main.outputs, strict=True)
        if spec.name in io.maps
    ]
    for index in found:  # grows by what is moved
        operator = makers.get(index)
        if operator is None or index not in ranges or file.kind(operator) in FIXED_SCALE:
            continue
        widened[index] = map_bounds(ranges[index])
        if file.kind(operator) in MOVING:
            found += [int(operator.inputs[k]) for k in positions(file, operator)]
    return widened


def ranges_at_ends(file: TFLiteFile, ranges: Ranges, quantized: Any, io: ModelIO) -> Ranges:
    """The ranges of the inputs and outputs of a quantized graph, except tokens, by its tensors.

    They are the ``ranges`` of the inputs and outputs of the float ``file`` at the same positions,
    or their bounds.
    """
    graph = file.main
    makers = {int(i): operator for operator in graph.operators for i in operator.outputs}

    def bounds(index: int) -> Range | None:
        operator = makers.get(index)
        if operator is None:
            return None
        kind = file.kind(operator)
        if kind not in MOVING and kind not in JOINING:
            return TFLITE_BOUNDED.get(kind)
        return _union_of_ranges(bounds(int(operator.inputs[k])) for k in positions(file, operator))

    known: Ranges = {}
    for specs, side in ((io.inputs, "inputs"), (io.outputs, "outputs")):
        indices = getattr(quantized, side), getattr(graph, side)
        for spec, new, old in zip(specs, *indices, strict=True):
            is_token = side == "inputs" and spec.name in io.tokens
            if int(old) in ranges and not is_token:
                measured = ranges[int(old)]
                is_map = side == "outputs" and spec.name in io.maps
                own = map_bounds(measured) if is_map else bounds(int(old))
                known[int(new)] = own or measured
    return known


class _Origins:
    """Where the outputs of an ONNX model come from."""

    def __init__(self, graph: Any) -> None:
        self.constants = {item.name: item for item in graph.initializer}
        self._makers = {name: node for node in graph.node for name in node.output}
        self._uses = Counter(name for node in graph.node for name in node.input)
        self._uses.update(value.name for value in graph.output)

    def scales(self, name: str) -> set[tuple[str, str]] | None:
        """The names of scale and zero point of a value and of what is moved, shifted or scaled to
        it; None if the value, or what is moved to it, has another use or bounds."""
        node = self._makers.get(name)
        if node is None or self._uses[name] > 1 or node.op_type in ONNX_BOUNDED:
            return None
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            return _union({(node.input[1], node.input[2])}, [self.scales(node.input[0])])
        if node.op_type in ONNX_AFFINE or node.op_type == "Relu":
            read = [item for item in node.input if not self._is_constant(item)]
            return (self.scales(read[0]) if len(read) == 1 else None) or set()
        if node.op_type not in ONNX_MOVING:
            return set()
        sources = node.input if node.op_type == "Concat" else node.input[:1]
        variable = [item for item in sources if item not in self.constants]
        return _union(set(), [self.scales(item) for item in variable])

    def bounds(self, name: str) -> Range | None:
        """The bounds of a value that do not depend on the inputs."""
        node = self._makers.get(name)
        if node is None:
            return None
        if node.op_type not in ONNX_MOVING:
            return ONNX_BOUNDED.get(node.op_type)
        sources = node.input if node.op_type == "Concat" else node.input[:1]
        return _union_of_ranges(map(self.bounds, sources))

    def _is_constant(self, name: str) -> bool:
        """Whether a value is constant, also if it is stored in integers."""
        while (node := self._makers.get(name)) is not None:
            if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
                return False
            name = node.input[0]
        return name in self.constants


def wide_onnx_ranges(proto: Any, ranges: Mapping[str, Range], io: ModelIO) -> dict[str, Range]:
    """``ranges`` by name, with those of a float model's outputs doubled, or their bounds."""
    origins = _Origins(proto.graph)
    names = {name for name in wide_outputs(io) if origins.scales(name) is not None}
    bounds = {spec.name: origins.bounds(spec.name) for spec in io.outputs}
    bounds.update({name: map_bounds(ranges[name]) for name in io.maps if name in ranges})
    return {
        name: bounds.get(name)
        or ((HEADROOM * low, HEADROOM * high) if name in names else (low, high))
        for name, (low, high) in ranges.items()
    }


def widen_onnx_outputs(proto: Any, io: ModelIO) -> None:
    """Double the ranges of a model's int8 outputs, and of what is only moved, shifted or scaled to
    them, in place."""
    from onnx import TensorProto, numpy_helper

    origins = _Origins(proto.graph)
    constants = origins.constants
    pairs = {pair for name in wide_outputs(io) for pair in origins.scales(name) or ()}
    for scale, zero_point in sorted(pairs):
        integer = constants[zero_point]
        if integer.data_type != TensorProto.INT8:
            continue
        step, zero = numpy_helper.to_array(constants[scale]), numpy_helper.to_array(integer)
        low, high = (HEADROOM * (end - int(zero)) * float(step) for end in INTEGER_RANGES["int8"])
        wide_step, wide_zero = affine_parameters(low, high, "int8")
        for name, value, old in ((scale, wide_step, step), (zero_point, wide_zero, zero)):
            array = (0 * old + value).astype(old.dtype)
            constants[name].CopyFrom(numpy_helper.from_array(array, name))


def _union_of_ranges(parts: Iterable[Range | None]) -> Range | None:
    """The range of all parts; None if one of them is unknown."""
    known = list(parts)
    if None in known or not known:
        return None
    return min(part[0] for part in known if part), max(part[1] for part in known if part)


def _union(own: set[Any], others: list[set[Any] | None]) -> set[Any] | None:
    if any(other is None for other in others):
        return None
    return own.union(*(other for other in others if other is not None))
