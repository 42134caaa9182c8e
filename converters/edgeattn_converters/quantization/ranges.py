"""Ranges of activations, measured on samples.

Those of ``.tflite`` files are measured in the runtime with all tensors preserved, because
TensorFlow's own calibrator crashes on any ``WHILE``.
"""

import functools
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from edgeattn.tensors import Array, Tensors
from edgeattn_converters.graphs.onnx_file import float_constants, inferred_shapes
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.arithmetic import INTEGER_RANGES
from edgeattn_converters.quantization.integer_lstm import lstm_weights
from edgeattn_converters.quantization.mask_fills import Extent, Range, has_fills
from edgeattn_converters.quantization.tflite_weights import FUSED

# By tensor index.
Ranges = dict[int, Range]
Key = TypeVar("Key", bound=Hashable)
# Called after an inference with a function that returns the value of a tensor.
Observer = Callable[[Callable[[int], Array]], None]
# Subsets of the samples whose ranges are compared; of an ONNX model, with so many samples each,
# because all their inner values are in memory at once.
SUBSETS, SUBSET_SAMPLES = 4, 32
MIN_WIDTH = 1e-6


class MeasuredRanges(Generic[Key]):
    """Ranges of the values that are passed to :meth:`add`.

    ``masked`` is whether the graph has a constant that may be the fill value of a mask; values at
    the keys ``inputs`` are never fill values.
    """

    def __init__(self, *, masked: bool, inputs: Collection[Key] = ()) -> None:
        self._masked, self._inputs = masked, inputs
        self._extents: dict[Key, Extent] = {}

    def add(self, key: Key, value: Array) -> None:
        extent = Extent.of(value)
        self._extents[key] = self._extents.get(key, Extent()).merged(extent)

    def merged(self, other: "MeasuredRanges[Key]") -> "MeasuredRanges[Key]":
        """Those of the values of both."""
        result = MeasuredRanges(masked=self._masked, inputs=self._inputs)
        result._extents = dict(self._extents)
        for key, extent in other._extents.items():
            result._extents[key] = result._extents.get(key, Extent()).merged(extent)
        return result

    def ranges(self) -> dict[Key, Range]:
        """By key, the minimum and maximum of the real values; none if there is no real value."""
        ranges = {}
        for key, extent in self._extents.items():
            is_input = key in self._inputs
            real = extent.whole if is_input else extent.range(masked=self._masked)
            if real is not None:
                ranges[key] = real
        return ranges


def merge_ranges(parts: Iterable[Mapping[Key, Range]]) -> dict[Key, Range]:
    """By key, the minimum and the maximum over all parts."""
    merged: dict[Key, Range] = {}
    for part in parts:
        for key, (low, high) in part.items():
            known = merged.get(key, (low, high))
            merged[key] = (min(low, known[0]), max(high, known[1]))
    return merged


def range_spread_notes(parts: Sequence[Mapping[Key, Range]]) -> tuple[str, ...]:
    """A note on how much the ranges of subsets of the samples differ; none without a difference
    to compare."""
    spreads = []
    for key, (low, high) in merge_ranges(parts).items():
        widths = [part[key][1] - part[key][0] for part in parts if key in part]
        if high > low and len(widths) > 1:
            spreads.append((max(widths) - min(widths)) / (high - low))
    if not spreads:
        return ()
    return (
        f"ranges differ by {float(np.median(spreads)):.0%} (median) between {len(parts)} subsets "
        "of the calibration samples",
    )


def unobserved(_value_of: Callable[[int], Array]) -> None:
    """Do nothing after an inference."""


def measure_ranges(
    file: TFLiteFile,
    content: bytes,
    samples: Tensors,
    names: list[str],
    observe: Observer = unobserved,
) -> tuple[Ranges, tuple[str, ...]]:
    """The range of each computed float tensor of the main graph, by tensor index.

    The second result are notes on how much the ranges of subsets of the samples differ. After each
    inference, ``observe`` is called with a function that returns the value of a tensor. Values that
    are not finite, such as quotients that a selection leaves out, do not count.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(
        model_content=content, experimental_preserve_all_tensors=True, num_threads=1
    )
    interpreter.allocate_tensors()
    details = interpreter.get_input_details()
    indices = {item["name"]: item["index"] for item in details}
    batch = int(details[0]["shape"][0])
    unread = _unread_outputs(file)
    floats = [
        index
        for index, tensor in enumerate(file.main.tensors)
        if index not in unread and file.dtype(tensor) == "FLOAT32" and file.constant(tensor) is None
    ]
    rows = len(samples[names[0]])
    count = SUBSETS if rows >= 2 * SUBSETS * batch else 1
    inputs = set(indices.values())
    masked = has_fills(constants_of(file))
    parts = [MeasuredRanges(masked=masked, inputs=inputs) for _ in range(count)]
    for number, start in enumerate(range(0, rows, batch)):
        for name in names:
            interpreter.set_tensor(indices[name], _batch(samples[name], start, batch))
        interpreter.reset_all_variables()
        interpreter.invoke()
        for index in floats:
            value = _current_value(index, interpreter)
            if value is not None:
                parts[number % count].add(index, value)
        observe(interpreter.get_tensor)
    ranges = functools.reduce(MeasuredRanges.merged, parts).ranges()
    _add_unread(ranges, file, unread)
    return ranges, range_spread_notes([part.ranges() for part in parts])


def constants_of(file: TFLiteFile) -> Iterator[Array]:
    """The constants of all graphs of a file."""
    for graph in file.model.subgraphs:
        for tensor in graph.tensors:
            value = file.constant(tensor)
            if value is not None:
                yield value


def _unread_outputs(file: TFLiteFile) -> set[int]:
    """Outputs of operators that nothing reads.

    The runtime may leave them unwritten, so that they contain whatever was in memory.
    """
    read = {*file.main.outputs, *(index for item in file.main.operators for index in item.inputs)}
    return {index for item in file.main.operators for index in item.outputs} - read


def _add_unread(ranges: Ranges, file: TFLiteFile, unread: set[int]) -> None:
    """Give them the range of the other values of their operator, in place.

    The quantizer of TensorFlow leaves an operator in float32 if one of its outputs has no range.
    """
    for operator in file.main.operators:
        missing = unread.intersection(operator.outputs)
        known = [ranges[k] for k in (*operator.inputs, *operator.outputs) if k in ranges]
        if missing and known and file.kind(operator) not in ("WHILE", "IF"):
            whole = (min(low for low, _ in known), max(high for _, high in known))
            ranges.update(dict.fromkeys(map(int, missing), whole))


def measure_cells(
    file: TFLiteFile, content: bytes, samples: Tensors, names: list[str]
) -> dict[str, float]:
    """The largest magnitude of the cell of each fused LSTM, by the name of its output."""
    from ai_edge_litert.interpreter import Interpreter

    operators = [item for item in file.main.operators if file.kind(item) == FUSED]
    if not operators:
        return {}
    interpreter = Interpreter(
        model_content=content, experimental_preserve_all_tensors=True, num_threads=1
    )
    interpreter.allocate_tensors()
    indices = {item["name"]: item["index"] for item in interpreter.get_input_details()}
    inputs: dict[str, list[Array]] = {}
    batch = int(interpreter.get_input_details()[0]["shape"][0])
    for start in range(0, len(samples[names[0]]), batch):
        for name in names:
            interpreter.set_tensor(indices[name], _batch(samples[name], start, batch))
        interpreter.reset_all_variables()
        interpreter.invoke()
        for operator in operators:
            output = file.name(file.main.tensors[int(operator.outputs[0])])
            inputs.setdefault(output, []).append(interpreter.get_tensor(int(operator.inputs[0])))
    return {
        output: lstm_weights(file, operator).largest_cell(np.concatenate(inputs[output]))
        for operator in operators
        for output in [file.name(file.main.tensors[int(operator.outputs[0])])]
        if output in inputs
    }


def _batch(rows: Array, start: int, size: int) -> Array:
    """``size`` rows from ``start``; the last one is repeated if there are fewer."""
    part = rows[start : start + size]
    return np.concatenate([part, part[-1:].repeat(size - len(part), axis=0)])


def _current_value(index: int, interpreter: Any) -> Array | None:
    try:
        value: Array = interpreter.get_tensor(index)
    except ValueError:
        return None  # scratch memory of an operator, never computed
    return value


def ranges_by_name(original: TFLiteFile, ranges: Ranges, file: TFLiteFile) -> Ranges:
    """``ranges`` of the file ``original`` by the tensors of a ``file`` with the same names."""
    by_name = {
        original.name(original.main.tensors[index]): limits for index, limits in ranges.items()
    }
    names = [file.name(tensor) for tensor in file.main.tensors]
    return {index: by_name[name] for index, name in enumerate(names) if name in by_name}


def with_dequantized(file: TFLiteFile, ranges: Ranges) -> Ranges:
    """``ranges`` with those of the results of ``DEQUANTIZE`` and of what ``QUANTIZE`` reads, which
    TensorFlow's quantizer names itself: they are the ranges of the integers.

    It also renames integers whose operators it joins. Their ranges are those of their scales.
    """
    integers: dict[int, int] = {}
    for operator in file.main.operators:
        source, result = int(operator.inputs[0]), int(operator.outputs[0])
        if file.kind(operator) == "DEQUANTIZE":
            integers[result] = source
        elif file.kind(operator) == "QUANTIZE":
            integers.setdefault(source, result)
    known: dict[int, Range] = {}
    for index, source in integers.items():
        limits = ranges[source] if source in ranges else _range_of_scale(file, source)
        if limits is not None:
            known[index] = limits
    return {**known, **ranges}


def _range_of_scale(file: TFLiteFile, index: int) -> Range | None:
    """The values between the smallest and the largest integer of a tensor with one scale."""
    tensor = file.main.tensors[index]
    parameters, limits = tensor.quantization, INTEGER_RANGES.get(file.dtype(tensor).lower())
    if limits is None or parameters is None or parameters.scale is None:
        return None
    if len(parameters.scale) != 1:
        return None
    scale, zero_point = float(parameters.scale[0]), int(parameters.zeroPoint[0])
    return scale * (limits[0] - zero_point), scale * (limits[1] - zero_point)


def annotate(file: TFLiteFile, ranges: Ranges) -> None:
    """Write the ranges to where TensorFlow's quantizer reads them, in place."""
    for index, (low, high) in ranges.items():
        low, high = min(low, 0.0), max(high, 0.0)
        if high - low < MIN_WIDTH:
            high = low + MIN_WIDTH
        parameters = file.schema.QuantizationParametersT()
        parameters.min, parameters.max = [low], [high]
        file.main.tensors[index].quantization = parameters


def range_spread(proto: Any, samples: Tensors) -> tuple[str, ...]:
    """The notes of :func:`measure_ranges`, for an ONNX model."""
    import onnx
    import onnxruntime

    count = len(next(iter(samples.values())))
    if count < 2 * SUBSETS:
        return ()
    model = inferred_shapes(proto)
    outputs = {value.name for value in model.graph.output}
    model.graph.output.extend(
        value
        for value in model.graph.value_info
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and value.name not in outputs
    )
    options = onnxruntime.SessionOptions()
    # An optimized graph would lack the values inside fused nodes.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_outputs()]
    masked = has_fills(float_constants(proto, 1).values())
    # 0 if the file accepts any batch.
    size = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    parts: list[dict[str, Range]] = []
    for k in range(SUBSETS):
        rows = np.arange(k, count, SUBSETS)[:SUBSET_SAMPLES]
        measured: MeasuredRanges[str] = MeasuredRanges(masked=masked)
        for start in range(0, len(rows), size or len(rows)):
            batch = rows[start : start + (size or len(rows))]
            values = session.run(names, {name: array[batch] for name, array in samples.items()})
            for name, value in zip(names, values, strict=True):
                if value.dtype.kind == "f":
                    measured.add(name, value)
        parts.append(measured.ranges())
    return range_spread_notes(parts)
