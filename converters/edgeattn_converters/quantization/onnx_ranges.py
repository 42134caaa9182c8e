"""How far the ranges of an ONNX model's values lie apart in subsets of the samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeattn.tensors import Tensors
from edgeattn_converters.quantization.tflite_ranges import FILL, SUBSETS, range_spread_notes

# Of a subset, so many samples are looked at: every value inside is kept of each.
LOOKED_AT = 32


def spread(proto: Any, samples: Tensors) -> tuple[str, ...]:
    """Notes for people, as :func:`.tflite_ranges.measure` gives them for TFLite."""
    import onnx
    import onnxruntime

    count = len(next(iter(samples.values())))
    if count < 2 * SUBSETS:
        return ()
    shown = onnx.ModelProto()
    shown.CopyFrom(onnx.shape_inference.infer_shapes(proto))
    there = {value.name for value in shown.graph.output}
    inside = [
        value
        for value in shown.graph.value_info
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and value.name not in there
    ]
    shown.graph.output.extend(inside)
    options = onnxruntime.SessionOptions()
    # Every value as it stands: a fused one would be missing.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        shown.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_outputs()]
    parts: list[dict[str, tuple[float, float]]] = []
    for k in range(SUBSETS):
        rows = np.arange(k, count, SUBSETS)[:LOOKED_AT]
        values = session.run(names, {name: array[rows] for name, array in samples.items()})
        part = {}
        for name, value in zip(names, values, strict=True):
            real = value[np.abs(value) < FILL] if value.dtype.kind == "f" else value[:0]
            if real.size:
                part[name] = (float(real.min()), float(real.max()))
        parts.append(part)
    return range_spread_notes(parts)
