"""Operators that Lite Micro lacks, or lacks for a dtype, in terms of others.

The results are the same, except that GELU is computed by its approximation with tanh, whose error
is at most 5e-4 (Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, section 2).
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization import counts
from edgeattn_converters.quantization.dilations import join_dilations


def rewrite(content: bytes, *, only_int8: bool = False) -> bytes:
    """The float32 file with the same results in operators of Lite Micro.

    With ``only_int8``, in those that TensorFlow's quantizer has in int8.
    """
    file = TFLiteFile(content)
    join_dilations(file)
    graph = file.main
    rewrites = {**_REWRITES, **(_IN_INT8 if only_int8 else {})}
    operators: list[Any] = []
    for operator in graph.operators:
        kind = file.kind(operator)
        if kind == "GATHER" and (index := _constant_index(file, operator)) is not None:
            operators.append(_slice(file, operator, operator.outputs[0], index))
        elif kind == "UNPACK" and file.dtype(graph.tensors[int(operator.inputs[0])]) == "BOOL":
            operators += [
                _slice(file, operator, output, index)
                for index, output in enumerate(operator.outputs)
            ]
        elif kind in rewrites and rewrites[kind][0](file, operator):
            operators += rewrites[kind][1](file, operator)
        else:
            operators.append(operator)
    graph.operators = _without_negated_masks(file, operators)
    return file.to_bytes()


def _without_negated_masks(file: TFLiteFile, operators: list[Any]) -> list[Any]:
    """``select(not mask, yes, no)`` as ``select(mask, no, yes)``.

    TensorFlow's quantizer does so too, but gives the result another name, by which it has no range.
    """
    negated = {
        int(item.outputs[0]): int(item.inputs[0])
        for item in operators
        if file.kind(item) == "LOGICAL_NOT"
    }
    for item in operators:
        if file.kind(item) != "SELECT_V2":
            continue
        mask, yes, no = map(int, item.inputs)
        while mask in negated:
            mask, yes, no = negated[mask], no, yes
        item.inputs = [mask, yes, no]
    used = {int(i) for item in operators for i in item.inputs} | set(map(int, file.main.outputs))
    return [
        item
        for item in operators
        if file.kind(item) != "LOGICAL_NOT" or int(item.outputs[0]) in used
    ]


def _constant_index(file: TFLiteFile, operator: Any) -> int | None:
    """The position that a lookup in a computed tensor reads, if it is a single one."""
    tensors = file.main.tensors
    index = file.constant(tensors[int(operator.inputs[1])])
    is_computed = file.constant(tensors[int(operator.inputs[0])]) is None
    # Batch axes have an index for each of their elements.
    single = index is not None and index.ndim == 0 and not operator.builtinOptions.batchDims
    return int(index) if is_computed and single and index is not None else None


def _slice(file: TFLiteFile, moving: Any, output: Any, index: int) -> Any:
    """An operator that reads one position of the axis of ``moving``, and removes the axis."""
    source = int(moving.inputs[0])
    shape = file.main.tensors[source].shape
    axis = moving.builtinOptions.axis % len(shape)
    begin = np.zeros(len(shape), np.int32)
    end = np.array(shape, np.int32)
    begin[axis] = index % int(shape[axis])
    end[axis] = begin[axis] + 1
    constants = [file.add_constant(file.main, value) for value in (begin, end, np.ones_like(begin))]
    operator = file.new_operator("STRIDED_SLICE", [source, *constants], [int(output)])
    options = file.schema.StridedSliceOptionsT()
    options.shrinkAxisMask = 1 << axis
    operator.builtinOptionsType = file.schema.BuiltinOptions.StridedSliceOptions
    operator.builtinOptions = options
    return operator


def _any(file: TFLiteFile, operator: Any) -> list[Any]:
    """``any(x)`` as ``not all(not x)``."""
    graph = file.main
    source, output = int(operator.inputs[0]), int(operator.outputs[0])
    negated, every = (
        file.add_tensor(graph, "", "BOOL", graph.tensors[index].shape) for index in (source, output)
    )
    reduce = file.new_operator("REDUCE_ALL", [negated, int(operator.inputs[1])], [every])
    reduce.builtinOptionsType = operator.builtinOptionsType
    reduce.builtinOptions = operator.builtinOptions
    return [
        file.new_operator("LOGICAL_NOT", [source], [negated]),
        reduce,
        file.new_operator("LOGICAL_NOT", [every], [output]),
    ]


def _select_integers(file: TFLiteFile, operator: Any) -> list[Any]:
    """``yes * mask + no * (1 - mask)`` for integers, which are indices."""
    graph = file.main
    mask, yes, no = map(int, operator.inputs)
    output = int(operator.outputs[0])
    negated = file.add_tensor(graph, "", "BOOL", graph.tensors[mask].shape)
    operators = [file.new_operator("LOGICAL_NOT", [mask], [negated])]
    terms = []
    for condition, value in ((mask, yes), (negated, no)):
        shape = graph.tensors[condition].shape
        factor = file.add_tensor(graph, "", "INT32", shape)
        term = file.add_tensor(graph, "", "INT32", graph.tensors[output].shape)
        operators += [
            file.new_operator("CAST", [condition], [factor]),
            _binary(file, "MUL", [value, factor], term),
        ]
        terms.append(term)
    return [*operators, _binary(file, "ADD", terms, output)]


def _select(file: TFLiteFile, operator: Any) -> list[Any]:
    inputs, outputs = list(map(int, operator.inputs)), list(map(int, operator.outputs))
    return [file.new_operator("SELECT_V2", inputs, outputs)]


def _gelu(file: TFLiteFile, operator: Any) -> list[Any]:
    """``x * (1/2 + tanh(x * (a + b x^2)) / 2)``."""
    graph = file.main
    x, output = int(operator.inputs[0]), int(operator.outputs[0])
    name, shape = file.name(graph.tensors[output]).split(";")[0], graph.tensors[output].shape
    a = math.sqrt(2 / math.pi)
    operators: list[Any] = []

    def add(kind: str, left: int, right: int | float, target: int | None = None) -> int:
        if isinstance(right, float):
            value = np.array(right, np.float32)
            right = file.add_tensor(graph, "", "FLOAT32", [], value=value)
        if target is None:
            target = file.add_tensor(graph, f"{name}/{len(operators)}", "FLOAT32", shape)
        operators.append(_binary(file, kind, [left, right], target))
        return target

    slope = add("ADD", add("MUL", add("MUL", x, x), 0.044715 * a), a)
    bent = file.add_tensor(graph, f"{name}/tanh", "FLOAT32", shape)
    operators.append(file.new_operator("TANH", [add("MUL", x, slope)], [bent]))
    add("MUL", x, add("ADD", add("MUL", bent, 0.5), 0.5), output)
    return operators


def _square(file: TFLiteFile, operator: Any) -> list[Any]:
    """``x * x``: SQUARE has kernels for float32 only."""
    x, output = int(operator.inputs[0]), int(operator.outputs[0])
    return [_binary(file, "MUL", [x, x], output)]


def _negative(file: TFLiteFile, operator: Any) -> list[Any]:
    """``x * -1``: NEG has kernels for float32 only."""
    minus = file.add_constant(file.main, np.array(-1, np.float32))
    return [_binary(file, "MUL", [int(operator.inputs[0]), minus], int(operator.outputs[0]))]


def _is_real(file: TFLiteFile, operator: Any) -> bool:
    return file.dtype(file.main.tensors[int(operator.outputs[0])]) == "FLOAT32"


def _tile(file: TFLiteFile, operator: Any, *, broadcasts: bool = True) -> list[Any]:
    """Copies along an axis of one element as ``BROADCAST_TO``, others as ``CONCATENATION``.

    Unless it ``broadcasts``, all of them: TensorFlow's quantizer has no other in int8.
    """
    graph = file.main
    index, output = int(operator.inputs[0]), int(operator.outputs[0])
    name, dtype = file.name(graph.tensors[output]).split(";")[0], file.dtype(graph.tensors[output])
    shape = list(map(int, graph.tensors[index].shape))
    counts_by_axis = file.constant(graph.tensors[int(operator.inputs[1])])
    assert counts_by_axis is not None
    copies = {axis: int(count) for axis, count in enumerate(counts_by_axis.flat) if count != 1}
    operators: list[Any] = []

    def add(kind: str, inputs: list[int], axes: dict[int, int], version: int = 1) -> Any:
        nonlocal index
        for axis, count in axes.items():
            shape[axis] *= count
            del copies[axis]
        is_last = not copies
        target = (
            output
            if is_last
            else file.add_tensor(graph, f"{name}/{len(operators)}", dtype, list(shape))
        )
        operators.append(file.new_operator(kind, inputs, [target], version))
        index = target
        return operators[-1]

    single = {axis: n for axis, n in copies.items() if shape[axis] == 1 and broadcasts}
    if single or not copies:
        sizes = [count * single.get(axis, 1) for axis, count in enumerate(shape)]
        add("BROADCAST_TO", [index, file.add_constant(graph, np.array(sizes, np.int32))], single, 2)
    for axis, count in list(copies.items()):
        join = add("CONCATENATION", [index] * count, {axis: count})
        join.builtinOptions = file.schema.ConcatenationOptionsT()
        join.builtinOptions.axis = axis
        join.builtinOptionsType = file.schema.BuiltinOptions.ConcatenationOptions
    return operators


def _quotient(file: TFLiteFile, operator: Any) -> list[Any]:
    """``x / n`` as ``x * rsqrt(n) * rsqrt(n)`` for the number ``n`` of valid positions."""
    graph = file.main
    (x, count), output = map(int, operator.inputs), int(operator.outputs[0])
    name, shape = file.name(graph.tensors[output]).split(";")[0], graph.tensors[output].shape
    one = file.add_constant(graph, np.array(1, np.float32))
    kinds = [graph.tensors[count].shape, graph.tensors[count].shape, shape]
    positive, root, part = (
        file.add_tensor(graph, name + end, "FLOAT32", size)
        for end, size in zip(counts.PARTS, kinds, strict=True)
    )
    return [
        file.new_operator("MAXIMUM", [count, one], [positive]),
        file.new_operator("RSQRT", [positive], [root]),
        _binary(file, "MUL", [x, root], part),
        _binary(file, "MUL", [part, root], output),
    ]


def _binary(file: TFLiteFile, kind: str, inputs: list[int], output: int) -> Any:
    operator = file.new_operator(kind, inputs, [output])
    options = {"ADD": file.schema.AddOptionsT, "MUL": file.schema.MulOptionsT}[kind]()
    operator.builtinOptions = options
    operator.builtinOptionsType = getattr(file.schema.BuiltinOptions, type(options).__name__[:-1])
    return operator


def _is_index(file: TFLiteFile, operator: Any) -> bool:
    return file.dtype(file.main.tensors[int(operator.outputs[0])]) == "INT32"


def _has_one_shape(file: TFLiteFile, operator: Any) -> bool:
    """Whether mask and values have one shape: otherwise SELECT is unlike SELECT_V2."""
    shapes = {tuple(file.main.tensors[int(i)].shape) for i in operator.inputs}
    return len(shapes) == 1


def _truth(file: TFLiteFile, operator: Any) -> list[Any]:
    """Truth values as real numbers: a selection, unlike a conversion, has a kernel for int8."""
    graph = file.main
    one, zero = (file.add_constant(graph, np.array(value, np.float32)) for value in (1, 0))
    inputs = [int(operator.inputs[0]), one, zero]
    return [file.new_operator("SELECT_V2", inputs, [int(operator.outputs[0])])]


def _converts_truth(file: TFLiteFile, operator: Any) -> bool:
    tensors = file.main.tensors
    source, result = tensors[int(operator.inputs[0])], tensors[int(operator.outputs[0])]
    return (file.dtype(source), file.dtype(result)) == ("BOOL", "FLOAT32")


def _has_known_counts(file: TFLiteFile, operator: Any) -> bool:
    return file.constant(file.main.tensors[int(operator.inputs[1])]) is not None


def _always(file: TFLiteFile, operator: Any) -> bool:
    return True


def _is_single_select(file: TFLiteFile, operator: Any) -> bool:
    return _is_index(file, operator) or _has_one_shape(file, operator)


def _any_select(file: TFLiteFile, operator: Any) -> list[Any]:
    return (_select_integers if _is_index(file, operator) else _select)(file, operator)


Test = Callable[[TFLiteFile, Any], bool]
Replacement = Callable[[TFLiteFile, Any], list[Any]]
# By operator type: whether it is replaced, and by what.
_REWRITES: dict[str, tuple[Test, Replacement]] = {
    "REDUCE_ANY": (_always, _any),
    "GELU": (_always, _gelu),
    "SQUARE": (_always, _square),
    "NEG": (_is_real, _negative),
    "TILE": (_has_known_counts, _tile),
    "DIV": (counts.divides_by_count, _quotient),
    "SELECT": (_is_single_select, _any_select),
    "SELECT_V2": (_is_index, _select_integers),
}
# The differences if there are no operators in int16.
_IN_INT8: dict[str, tuple[Test, Replacement]] = {
    "CAST": (_converts_truth, _truth),
    "TILE": (_has_known_counts, functools.partial(_tile, broadcasts=False)),
}
