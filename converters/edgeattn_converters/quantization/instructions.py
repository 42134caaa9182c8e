"""An estimate of the ARM instructions of one inference of a ``.tflite`` file.

It is a sum over operators: so many instructions per operator, per input or output, per value and
per multiplication. They depend on the kernel that LiteRT selects: XNNPACK's for float32, for int8,
and for products of float32 inputs with int8 weights (``dynamic``: inputs are scaled at run time),
or a reference kernel, as for all int16 operators. ``python -m benchmarks.operator_costs`` counts
them under emulation. Instructions are not time: memory is not included.
"""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.instruction_costs import (
    COSTS,
    COUNTED_IN_MODELS,
    ENTRY,
    INDICES,
    ITERATION,
    OTHER,
)
from edgeattn_converters.quantization.layer_weights import key_of
from edgeattn_converters.quantization.loop_ranges import iterations
from edgeattn_converters.quantization.tflite_weights import FUSED, FUSED_WEIGHTS

# An operator's key in the costs, and its counts: 1, inputs or outputs, values, multiplications.
Features = tuple[str, tuple[int, int, int, int]]
PRODUCTS = {"FULLY_CONNECTED", "CONV_2D", "BATCH_MATMUL"}
# With one condition per row, such as whether a step is masked, they copy rows of their operands.
SELECTIONS = {"SELECT", "SELECT_V2"}
# Operators whose work is to read values, not to compute them.
REDUCTIONS = {"MEAN", "SUM", "REDUCE_MAX"}
# Iterations of a loop whose number depends on data.
UNKNOWN_ITERATIONS = 10


def estimate_instructions(content: bytes) -> dict[str, int]:
    """The estimated instructions of one inference by processor, without those around it."""
    file = TFLiteFile(content)
    return {cpu: round(_of_graph(file, file.main, cpu)) for cpu in COSTS}


def graph_features(file: TFLiteFile, graph: Any) -> Iterator[Features]:
    """The features of the operators of one graph that are computed in every inference."""
    for operator in graph.operators:
        if file.kind(operator) != "WHILE" and _activations(file, graph, operator):
            yield _features(file, graph, operator)


def float_products(file: TFLiteFile) -> set[bytes]:
    """The keys of the weights whose products take fewer instructions in float32 than with inputs
    that are scaled to int8 at run time."""
    saved: Counter[bytes] = Counter()
    for graph, operator, kind in file.operators():
        if kind != "FULLY_CONNECTED":
            continue
        weights = file.constant(graph.tensors[int(operator.inputs[1])])
        key, counts = _features(file, graph, operator)
        if weights is None or " float32 " not in key:
            continue
        for costs in COSTS.values():
            pairs = (costs[name] for name in (key, key.replace("float32", "dynamic")))
            floats, dynamic = (float(np.dot(item, counts)) for item in pairs)
            saved[key_of(weights)] += round(dynamic - floats)
    return {key for key, difference in saved.items() if difference > 0}


def _of_graph(file: TFLiteFile, graph: Any, cpu: str) -> float:
    total = 0.0
    for key, counts in graph_features(file, graph):
        kind, dtype = key.split()[:2]
        if dtype in INDICES:
            continue
        counted = COSTS[cpu].get(key) or COUNTED_IN_MODELS.get(key)
        costs = counted or COUNTED_IN_MODELS.get(kind, OTHER)
        total += sum(cost * count for cost, count in zip(costs, counts, strict=True))
    for operator in graph.operators:
        if file.kind(operator) == "WHILE":
            total += _of_loop(file, operator, cpu)
    return total


def _of_loop(file: TFLiteFile, operator: Any, cpu: str) -> float:
    """Every iteration copies the loop variables; every entry prepares the body again."""
    repeats = iterations(file, operator) or UNKNOWN_ITERATIONS
    body = file.model.subgraphs[operator.builtinOptions.bodySubgraphIndex]
    size = sum(4 * math.prod(map(int, body.tensors[int(i)].shape)) for i in body.inputs)
    fixed, per_byte = ITERATION
    once = ENTRY * len(body.operators)
    return once + repeats * (fixed + per_byte * size + _of_graph(file, body, cpu))


def _features(file: TFLiteFile, graph: Any, operator: Any) -> Features:
    kind = file.kind(operator)
    activations = _activations(file, graph, operator)
    read = [_size(graph, i) for i in activations]
    computed = [_size(graph, int(i)) for i in operator.outputs]
    values = max(read, default=0) if kind in REDUCTIONS else sum(computed)
    if kind in PRODUCTS:
        return _product(file, graph, operator, values)
    if kind == FUSED:
        return _fused_lstm(file, graph, operator, values)
    dtype = file.dtype(graph.tensors[activations[-1] if activations else int(operator.outputs[0])])
    if kind in SELECTIONS and read and read[0] < values:
        return f"SELECT_ROWS {dtype.lower()}", (1, len(read), values, read[0])
    return f"{kind} {dtype.lower()}", (1, max(len(read), len(computed)), values, 0)


def _product(file: TFLiteFile, graph: Any, operator: Any, values: int) -> Features:
    kind = file.kind(operator)
    x, weights = (graph.tensors[int(i)] for i in operator.inputs[:2])
    dtype = file.dtype(x).lower()
    has_integers = file.dtype(weights) in ("INT8", "INT4")
    if dtype == "float32" and has_integers:
        dtype = "dynamic"
    depth = int(x.shape[-1])
    if kind == "CONV_2D":
        depth = math.prod(map(int, weights.shape[1:]))
    width = max(1, int(graph.tensors[int(operator.outputs[0])].shape[-1]))
    if kind == "BATCH_MATMUL":
        is_constant = _is_loaded(file, graph, int(operator.inputs[1]))
        kind = "FULLY_CONNECTED" if is_constant and values != width else kind
        kind = "ROW_PRODUCT" if is_constant and values == width else kind
    rows = "row" if values == width else "rows"
    if kind == "BATCH_MATMUL" and width == 1:
        rows = "column"  # scores of one query
    kind = "FULLY_CONNECTED" if kind == "CONV_2D" else kind
    return f"{kind} {dtype} {rows}", (1, 1, values, values * depth)


def _is_loaded(file: TFLiteFile, graph: Any, index: int) -> bool:
    """Whether a tensor is a constant, or one that is dequantized when the file is loaded."""
    makers = (
        operator
        for operator in graph.operators
        if file.kind(operator) == "DEQUANTIZE" and int(operator.outputs[0]) == index
    )
    sources = [index, *(int(operator.inputs[0]) for operator in makers)]
    return any(file.constant(graph.tensors[item]) is not None for item in sources)


def _fused_lstm(file: TFLiteFile, graph: Any, operator: Any, values: int) -> Features:
    weights = [int(i) for i in operator.inputs[FUSED_WEIGHTS] if int(i) >= 0]
    steps = values // int(graph.tensors[int(operator.outputs[0])].shape[-1])
    is_dynamic = file.dtype(graph.tensors[weights[0]]) == "INT8"
    key = f"{FUSED} {'dynamic' if is_dynamic else 'float32'}"
    return key, (1, 1, values, steps * sum(_size(graph, i) for i in weights))


def _activations(file: TFLiteFile, graph: Any, operator: Any) -> list[int]:
    """The operator's inputs that are computed."""
    indices = [int(i) for i in operator.inputs if int(i) >= 0]
    return [i for i in indices if file.constant(graph.tensors[i]) is None]


def _size(graph: Any, index: int) -> int:
    shape = graph.tensors[index].shape
    return math.prod(map(int, shape)) if shape is not None else 1
