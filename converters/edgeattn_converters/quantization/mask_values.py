"""Values of padded steps, which a ``Masking`` layer compares inputs with.

An integer input has no number for most of them: a value between two integers is never found, and
with one far beyond the real values, such as -999, all real values share a few integers. Ranges
therefore make such a value a multiple of the scale, or leave it out if it is far away: it saturates
then, and the comparison is with the last integer. Comparisons of real numbers are with what that
integer stands for.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from edgeattn.tensors import Array, Specs, TensorSpec, dequantize, quantize
from edgeattn_converters.graphs.onnx_file import add_constant, float_constants
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.arithmetic import INTEGER_RANGES, affine_parameters
from edgeattn_converters.quantization.mask_fills import Range

COMPARING = frozenset({"EQUAL", "NOT_EQUAL", "Equal"})
_MOVING = frozenset(
    {"RESHAPE", "EXPAND_DIMS", "SQUEEZE", "TRANSPOSE", "STRIDED_SLICE", "SLICE"}
    | {"Reshape", "Unsqueeze", "Squeeze", "Transpose", "Slice", "Identity"}
    | {"QUANTIZE", "DEQUANTIZE", "QuantizeLinear", "DequantizeLinear"}
)
_CHOOSING = frozenset({"SELECT_V2", "SELECT", "MUL", "Where", "Mul"})
# A value is far away if it makes the range so many times as wide.
FAR = 3.0
# The room between the real values and the integer of a value far away, as a share of their range: a
# step counts as padded if all of its features are beyond.
ROOM = 0.25


@dataclass(frozen=True)
class Node:
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class MaskValue:
    """``is_left_out`` is whether steps with the value have no other effect than to be masked."""

    value: float
    is_left_out: bool


Constant = Callable[[str], Array | None]
Key = TypeVar("Key")


def mask_values(
    nodes: Iterable[Node], inputs: Collection[str], outputs: Collection[str], constant: Constant
) -> dict[str, MaskValue]:
    """By input, and by what is only moved from it, the value that the input is compared with.

    There is none for an input that is compared with several values.
    """
    origins = {name: name for name in inputs}
    compared: dict[str, set[float]] = {}
    masks: dict[str, str] = {}  # what depends on comparisons of one input alone, and the input
    masked = set[str]()
    others = {origins[name] for name in outputs if name in origins}
    for node in nodes:
        variable = [name for name in node.inputs if name and constant(name) is None]
        read = {origins[name] for name in variable if name in origins}
        values = _compared(node, constant) if read else None
        if values is not None:
            for origin in read:
                compared.setdefault(origin, set()).add(values)
                masks.update(dict.fromkeys(node.outputs, origin))
        elif len(variable) == 1 and read and node.kind in _MOVING:
            origins.update(dict.fromkeys(node.outputs, *read))
        elif read and node.kind in _CHOOSING:
            is_masked = {masks.get(name) for name in variable if name not in origins} == read
            masked |= read if is_masked else set()
            others |= set() if is_masked else read
        elif read:
            others |= read
        elif masks.keys() >= set(variable) and len({masks[name] for name in variable}) == 1:
            masks.update(dict.fromkeys(node.outputs, masks[variable[0]]))
    return {
        name: MaskValue(min(compared[origin]), origin in masked - others)
        for name, origin in origins.items()
        if len(compared.get(origin, ())) == 1
    }


def _compared(node: Node, constant: Constant) -> float | None:
    if node.kind not in COMPARING:
        return None
    values = [constant(name) for name in node.inputs]
    numbers = [float(value.item()) for value in values if value is not None and value.size == 1]
    return numbers[0] if len(numbers) == 1 else None


def range_beside(mask: MaskValue, samples: Array, dtype: str | None) -> Range | None:
    """The range of an input whose ``samples`` (sample, ..., feature) contain padded steps.

    ``dtype`` is that of the integers that are compared; None if real numbers are. None without a
    real value.
    """
    real = samples
    if mask.is_left_out:
        real = real[(samples != np.float32(mask.value)).any(axis=-1)]
    if not real.size:
        return None
    low, high = min(float(real.min()), 0.0), max(float(real.max()), 0.0)
    if dtype is None:
        return low, high
    whole = min(low, mask.value), max(high, mask.value)
    if not mask.is_left_out or whole[1] - whole[0] <= FAR * (high - low):
        return _with_step_at(mask.value, *whole, dtype)
    room = ROOM * (high - low)
    return (low - room, high) if mask.value < low else (low, high + room)


def with_masked_inputs(
    ranges: Mapping[Key, Range],
    masks: Mapping[Key, MaskValue],
    samples: Mapping[Key, Array],
    dtype: str | None,
) -> dict[Key, Range]:
    """``ranges`` with those of :func:`range_beside` for the inputs that have a mask value."""
    beside = {
        key: range_beside(mask, samples[key], dtype)
        for key, mask in masks.items()
        if key in ranges and key in samples and samples[key].ndim > 2
    }
    return {**ranges, **{key: limits for key, limits in beside.items() if limits is not None}}


def saturated(mask: MaskValue | None, integers: Array, dtype: str) -> Array:
    """``integers`` that an input is compared with; that of a value far away is the last one."""
    if mask is None or not mask.is_left_out:
        return integers
    return np.clip(integers, *INTEGER_RANGES[dtype])


def _with_step_at(value: float, low: float, high: float, dtype: str) -> Range:
    """A range at least as wide, of whose scale ``value`` is a multiple.

    Between two multiples, it would depend on the last digit of a quotient to which of them a
    program rounds the value.
    """
    scale, _ = affine_parameters(low, high, dtype)
    steps = np.floor(abs(value) / scale * (1 + 1e-6))
    ratio = abs(value) / (steps * scale) if steps else 1.0
    return low * ratio, high * ratio


def tflite_mask_values(file: TFLiteFile) -> dict[int, MaskValue]:
    """:func:`mask_values` of the main graph by tensor index."""
    graph = file.main
    values = mask_values(
        tflite_nodes(file),
        [str(int(i)) for i in graph.inputs],
        [str(int(i)) for i in graph.outputs],
        lambda name: file.constant(graph.tensors[int(name)]),
    )
    return {int(name): value for name, value in values.items()}


def onnx_mask_values(proto: Any) -> dict[str, MaskValue]:
    """:func:`mask_values` of a model by name."""
    constants = float_constants(proto, 1)
    others = {item.name: np.empty(0) for item in proto.graph.initializer}
    return mask_values(
        onnx_nodes(proto),
        [value.name for value in proto.graph.input],
        [value.name for value in proto.graph.output],
        {**others, **constants}.get,
    )


def tflite_nodes(file: TFLiteFile) -> Iterator[Node]:
    for operator in file.main.operators:
        inputs = (str(int(i)) for i in operator.inputs if int(i) >= 0)
        yield Node(file.kind(operator), tuple(inputs), tuple(str(int(i)) for i in operator.outputs))


def onnx_nodes(proto: Any) -> Iterator[Node]:
    for node in proto.graph.node:
        yield Node(node.op_type, tuple(node.input), tuple(node.output))


def compare_tflite_integers(file: TFLiteFile, inputs: Specs) -> None:
    """Let comparisons of real numbers from integer ``inputs`` be with what the integer of the value
    stands for, in place."""
    graph = file.main
    by_name = {str(int(i)): spec for i, spec in zip(graph.inputs, inputs, strict=True)}

    def parameters(node: Node) -> TensorSpec:
        tensor = graph.tensors[int(node.outputs[0])]
        quantization = tensor.quantization
        scale, zero_point = float(quantization.scale[0]), int(quantization.zeroPoint[0])
        return TensorSpec("", (1,), file.dtype(tensor).lower(), scale, zero_point)

    def constant(name: str) -> Array | None:
        return file.constant(graph.tensors[int(name)])

    replaced = _images(list(tflite_nodes(file)), by_name, constant, parameters)
    for position, operand, value in replaced:
        operator = graph.operators[position]
        names = [int(i) for i in operator.inputs]
        names[operand] = file.add_constant(graph, value, "")
        operator.inputs = names


def compare_onnx_integers(proto: Any, inputs: Specs) -> None:
    """As :func:`compare_tflite_integers`, for an ONNX model."""
    from onnx import numpy_helper

    constants = {item.name: item for item in proto.graph.initializer}

    def constant(name: str) -> Array | None:
        return numpy_helper.to_array(constants[name]) if name in constants else None

    def parameters(node: Node) -> TensorSpec:
        scale, zero_point = (numpy_helper.to_array(constants[k]) for k in node.inputs[1:3])
        return TensorSpec("", (1,), str(zero_point.dtype), scale.item(), zero_point.item())

    by_name = {spec.name: spec for spec in inputs}
    replaced = list(_images(list(onnx_nodes(proto)), by_name, constant, parameters))
    for position, operand, value in replaced:
        node = proto.graph.node[position]
        name = f"{node.output[0]}/value"
        add_constant(proto, name, value)
        node.input[operand] = name


def _images(
    nodes: list[Node],
    inputs: Mapping[str, TensorSpec],
    constant: Constant,
    parameters: Callable[[Node], TensorSpec],
) -> Iterator[tuple[int, int, Array]]:
    """The positions of comparisons of real numbers from integer inputs and of their constants, with
    new constants.

    ``parameters`` are those of what a node that quantizes returns.
    """
    makers = {name: node for node in nodes for name in node.outputs}
    for position, node in enumerate(nodes):
        if _compared(node, constant) is None:
            continue
        operand = next(k for k, name in enumerate(node.inputs) if constant(name) is not None)
        value = constant(node.inputs[operand])
        path, source = _path(node.inputs[1 - operand], makers)
        spec = inputs.get(source)
        if value is None or value.dtype != np.float32 or spec is None or not spec.quantized:
            continue
        image = dequantize(quantize(value, spec), spec)
        for step in path:
            if step.kind in ("QUANTIZE", "QuantizeLinear"):
                image = dequantize(quantize(image, parameters(step)), parameters(step))
        yield position, operand, image.astype(np.float32)


def _path(name: str, makers: Mapping[str, Node]) -> tuple[list[Node], str]:
    """The nodes that move a value from where it comes from, in order, and the name there."""
    path: list[Node] = []
    while name in makers and makers[name].kind in _MOVING:
        path.insert(0, makers[name])
        name = makers[name].inputs[0]
    return path, name
