"""Ranges of the float tensors of a ``.tflite`` file.

They are measured in the runtime with all tensors preserved, because TensorFlow's own calibrator
crashes on any ``WHILE``.
"""

from typing import Any

import numpy as np

from edgeattn.errors import ConversionError
from edgeattn.tensors import Tensors
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.ranges import (
    SUBSETS,
    Range,
    merge_ranges,
    range_of,
    range_spread_notes,
)

Ranges = dict[int, Range]
MIN_WIDTH = 1e-6


def measure_ranges(
    file: TFLiteFile, content: bytes, samples: Tensors, names: list[str]
) -> tuple[Ranges, tuple[str, ...]]:
    """The range of each computed float tensor of the main graph, by tensor index.

    The second result are notes on how much the ranges of subsets of the samples differ. Raises
    :class:`ConversionError` if a tensor is NaN.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(
        model_content=content, experimental_preserve_all_tensors=True, num_threads=1
    )
    interpreter.allocate_tensors()
    details = interpreter.get_input_details()
    indices = {item["name"]: item["index"] for item in details}
    batch = int(details[0]["shape"][0])
    floats = [
        index
        for index, tensor in enumerate(file.main.tensors)
        if file.dtype(tensor) == "FLOAT32" and file.constant(tensor) is None
    ]
    rows = len(samples[names[0]])
    count = SUBSETS if rows >= 2 * SUBSETS * batch else 1
    parts: list[Ranges] = [{} for _ in range(count)]
    for number, start in enumerate(range(0, rows, batch)):
        for name in names:
            part = samples[name][start : start + batch]
            if len(part) < batch:
                part = np.concatenate([part, part[-1:].repeat(batch - len(part), axis=0)])
            interpreter.set_tensor(indices[name], part)
        interpreter.invoke()
        subset = number % count
        current = {index: _current_range(index, interpreter, file) for index in floats}
        known = {index: value for index, value in current.items() if value is not None}
        parts[subset] = merge_ranges([parts[subset], known])
    return merge_ranges(parts), range_spread_notes(parts)


def _current_range(index: int, interpreter: Any, file: TFLiteFile) -> Range | None:
    try:
        value = interpreter.get_tensor(index)
    except ValueError:
        return None  # scratch memory of an operator, never computed
    if np.isnan(value).any():
        name = file.name(file.main.tensors[index])
        raise ConversionError(
            f"Tensor {name} is NaN on a calibration sample.",
            hint="Remove that sample, or check the model with: edgeattn inspect MODEL",
        )
    return range_of(value)


def annotate(file: TFLiteFile, ranges: Ranges) -> None:
    """Write the ranges to where TensorFlow's quantizer reads them, in place."""
    for index, (low, high) in ranges.items():
        low, high = min(low, 0.0), max(high, 0.0)
        if high - low < MIN_WIDTH:
            high = low + MIN_WIDTH
        parameters = file.schema.QuantizationParametersT()
        parameters.min, parameters.max = [low], [high]
        file.main.tensors[index].quantization = parameters
