"""The range of every float tensor of a ``.tflite`` file, measured on samples.

Measured in the runtime, with every tensor kept, and not with TensorFlow's own calibrator, which
dies of a segmentation fault on any ``WHILE``.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from edgeattn.errors import ConversionError
from edgeattn.tensors import Tensors
from edgeattn_converters.graphs.tflite_file import TFLiteFile

Range = tuple[float, float]
Ranges = dict[int, Range]
Key = TypeVar("Key", bound=Hashable)
# Masks are filled with -1e9 or float32's lowest: as a range that would leave one step for all that
# is real. exp(-FILL) is nothing in any precision.
FILL = 1e4
NARROWEST = 1e-6
SUBSETS = 4


def measure(
    file: TFLiteFile, content: bytes, samples: Tensors, names: list[str]
) -> tuple[Ranges, tuple[str, ...]]:
    """By index, the lowest and highest value of each computed float tensor of the main graph.

    And how far they lie apart in subsets of the samples, for people.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(
        model_content=content, experimental_preserve_all_tensors=True, num_threads=1
    )
    interpreter.allocate_tensors()
    feeds = {item["name"]: item["index"] for item in interpreter.get_input_details()}
    batch = int(interpreter.get_input_details()[0]["shape"][0])
    floats = [
        index
        for index, tensor in enumerate(file.main.tensors)
        if file.dtype(tensor) == "FLOAT32" and file.constant(tensor) is None
    ]
    rows = len(samples[names[0]])
    count = SUBSETS if rows >= 2 * SUBSETS * batch else 1
    parts: list[Ranges] = [{} for _ in range(count)]
    for turn, start in enumerate(range(0, rows, batch)):
        for name in names:
            part = samples[name][start : start + batch]
            if len(part) < batch:
                part = np.concatenate([part, part[-1:].repeat(batch - len(part), axis=0)])
            interpreter.set_tensor(feeds[name], part)
        interpreter.invoke()
        for index in floats:
            _note(parts[turn % count], index, interpreter, file)
    return _joined(parts), range_spread_notes(parts)


def _joined(parts: Iterable[Mapping[Key, Range]]) -> dict[Key, Range]:
    """By key, from the lowest of all parts to the highest."""
    found: dict[Key, Range] = {}
    for part in parts:
        for key, (low, high) in part.items():
            before = found.get(key, (low, high))
            found[key] = (min(low, before[0]), max(high, before[1]))
    return found


def range_spread_notes(parts: Sequence[Mapping[Key, Range]]) -> tuple[str, ...]:
    """How far ranges lie apart that were measured on subsets, for people."""
    shares = []
    for key, (low, high) in _joined(parts).items():
        widths = [part[key][1] - part[key][0] for part in parts if key in part]
        if high > low and len(widths) > 1:
            shares.append((max(widths) - min(widths)) / (high - low))
    if not shares:
        return ()
    return (
        f"ranges differ by {float(np.median(shares)):.0%} (median) between {len(parts)} subsets "
        "of the calibration samples",
    )


def _note(found: Ranges, index: int, interpreter: object, file: TFLiteFile) -> None:
    try:
        value = interpreter.get_tensor(index)  # type: ignore[attr-defined]
    except ValueError:
        return  # never computed: an operator's own scratch
    if not value.size:
        return
    if np.isnan(value).any():
        name = file.name(file.main.tensors[index])
        raise ConversionError(f"{name} is NaN on a calibration sample.")
    real = value[np.abs(value) < FILL] if np.abs(value).max() >= FILL else value
    if not real.size:
        return
    low, high = float(real.min()), float(real.max())
    before = found.get(index, (low, high))
    found[index] = (min(low, before[0]), max(high, before[1]))


def annotate(file: TFLiteFile, ranges: Ranges) -> None:
    """Write the ranges where the quantizer reads them, in place."""
    for index, (low, high) in ranges.items():
        low, high = min(low, 0.0), max(high, 0.0)
        if high - low < NARROWEST:
            high = low + NARROWEST
        parameters = file.schema.QuantizationParametersT()
        parameters.min, parameters.max = [low], [high]
        file.main.tensors[index].quantization = parameters
