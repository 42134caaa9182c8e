"""Operators that bring the values of an input to one scale.

Before a ``Normalization``, a temperature and a pressure in Pa share one scale, in which integers do
not distinguish temperatures. A logarithm or a root amplifies the rounding of small values, a
comparison that of values near its threshold, and a wave that of large ones. Between the input and
the last of these, values therefore stay float32. Features that are cut out of an input get scales
of their own.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.graphs.onnx_file import float_constants
from edgeattn_converters.graphs.tflite_file import TFLiteFile

_WITH_CONSTANT = frozenset({"ADD", "SUB", "MUL", "DIV", "Add", "Sub", "Mul", "Div"})
_SENSITIVE = frozenset(
    {"LOG", "SQRT", "RSQRT", "POW", "SIN", "COS", "Log", "Sqrt", "Pow"}
    | {"LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL", "EQUAL", "NOT_EQUAL"}
    | {"Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal"}
)
# What may precede them: operators on single values, and those that only move values.
_PRECEDING = frozenset(
    {"ABS", "NEG", "MAXIMUM", "MINIMUM", "RELU", "CAST", "RESHAPE", "EXPAND_DIMS", "SQUEEZE"}
    | {"TRANSPOSE", "CONCATENATION", "PACK", "Abs", "Neg", "Max", "Min", "Relu", "Clip", "Cast"}
    | {"STRIDED_SLICE", "SLICE", "SPLIT", "SPLIT_V", "UNPACK", "Reshape", "Unsqueeze", "Squeeze"}
    | {"Transpose", "Concat", "Slice", "Split"}
)


@dataclass(frozen=True)
class _Step:
    """An operator on values that come from the inputs alone."""

    position: int
    variables: set[str]
    outputs: set[str]
    is_scaling: bool


def scaling_operators(file: TFLiteFile) -> set[str]:
    """The names of the results of such operators in the main graph."""
    graph = file.main
    inputs = {str(int(i)) for i in graph.inputs}
    nodes = [
        (
            file.kind(operator),
            [str(int(i)) for i in operator.inputs if int(i) >= 0],
            [str(int(i)) for i in operator.outputs],
        )
        for operator in graph.operators
    ]
    cuts = {k for k, operator in enumerate(graph.operators) if _cuts_features(file, operator)}
    positions = _scaling(nodes, inputs, lambda name: file.constant(graph.tensors[int(name)]), cuts)
    operators = [graph.operators[k] for k in positions]
    return {file.name(graph.tensors[int(i)]) for item in operators for i in item.outputs}


def scaling_nodes(proto: Any) -> set[int]:
    """The positions of such nodes."""
    constants = float_constants(proto, 1)
    others = {item.name: np.empty(0) for item in proto.graph.initializer}
    inputs = {value.name for value in proto.graph.input}
    nodes = [(node.op_type, list(node.input), list(node.output)) for node in proto.graph.node]
    return _scaling(nodes, inputs, {**others, **constants}.get)


def _scaling(
    nodes: Iterable[tuple[str, list[str], list[str]]],
    inputs: set[str],
    constant: Callable[[str], Array | None],
    cuts: Collection[int] = (),
) -> set[int]:
    """The positions of nodes (type, inputs, outputs) that scale features or lead to such a node.

    ``cuts`` are the positions of those that select features; onnxruntime's quantizer has no
    integers for them.
    """
    nodes = list(nodes)
    read = {name for _, names, _ in nodes for name in names}
    known = set(inputs)
    steps: list[_Step] = []
    for position, (kind, names, outputs) in enumerate(nodes):
        if kind not in _WITH_CONSTANT | _SENSITIVE | _PRECEDING:
            continue
        values = {name: constant(name) for name in names}
        variables = {name for name, value in values.items() if value is None}
        # The last result of a model without a product is what the scheme is requested for.
        if not variables or not variables <= known or not read.intersection(outputs):
            continue
        by_feature = any(value is not None and _differ(value) for value in values.values())
        is_scaling = kind in _SENSITIVE or (kind in _WITH_CONSTANT and by_feature)
        is_scaling = is_scaling or position in cuts
        steps.append(_Step(position, variables, set(outputs), is_scaling))
        known.update(outputs)
    positions: set[int] = set()
    before: set[str] = set()  # values that scaling nodes are computed from
    for step in reversed(steps):
        if step.is_scaling or before & step.outputs:
            positions.add(step.position)
            before |= step.variables
    return positions


def _cuts_features(file: TFLiteFile, operator: Any) -> bool:
    """Whether an operator selects a part of the last axis."""
    if file.kind(operator) not in ("STRIDED_SLICE", "SLICE"):
        return False
    tensors = file.main.tensors
    source, result = (tensors[int(i)].shape for i in (operator.inputs[0], operator.outputs[0]))
    return len(source) > 1 and len(result) > 0 and int(result[-1]) != int(source[-1])


def _differ(value: Array) -> bool:
    return value.size > 1 and bool(np.ptp(value) > 0)
