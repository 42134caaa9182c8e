"""How much the ranges of an ONNX model's values differ between subsets of the samples."""

from typing import Any

import numpy as np

from edgeattn.tensors import Tensors
from edgeattn_converters.graphs.onnx_file import inferred_shapes
from edgeattn_converters.quantization.ranges import SUBSETS, Range, range_of, range_spread_notes

# Samples per subset: all inner values of each are in memory at once.
SUBSET_SAMPLES = 32


def range_spread(proto: Any, samples: Tensors) -> tuple[str, ...]:
    """Notes on the spread, as :func:`.tflite_ranges.measure_ranges` returns them for TFLite."""
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
    parts: list[dict[str, Range]] = []
    for k in range(SUBSETS):
        rows = np.arange(k, count, SUBSETS)[:SUBSET_SAMPLES]
        values = session.run(names, {name: array[rows] for name, array in samples.items()})
        ranges = {
            name: range_of(value)
            for name, value in zip(names, values, strict=True)
            if value.dtype.kind == "f"
        }
        parts.append({name: value for name, value in ranges.items() if value is not None})
    return range_spread_notes(parts)
