"""Operators that Lite Micro lacks, or lacks for a dtype, in terms of others.

The results are the same, except that GELU is computed by its approximation with tanh, whose error
is at most 5e-4 (Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, section 2), and a
softplus by a polynomial, whose error is at most 2e-6.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization import activation_rewrites as activations
from edgeattn_converters.quantization import counts
from edgeattn_converters.quantization.activation_rewrites import operator_of
from edgeattn_converters.quantization.dilations import join_dilations

# The most inputs of a ``CONCATENATION`` in Lite Micro.
MOST_JOINED = 10


def rewrite(content: bytes, *, only_int8: bool = False) -> bytes:
    """The float32 file with the same results in operators of Lite Micro.

    With ``only_int8``, in those that TensorFlow's quantizer has in int8.
    """
    file = TFLiteFile(content)
    join_dilations(file)
    activations.limit_unselected(file)
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
    operators = activations.drop_unread(file, operators, ("ADD", "EXP", "NEG"))
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
            operator_of(file, "MUL", [value, factor], term),
        ]
        terms.append(term)
    return [*operators, operator_of(file, "ADD", terms, output)]


def _select(file: TFLiteFile, operator: Any) -> list[Any]:
    inputs, outputs = list(map(int, operator.inputs)), list(map(int, operator.outputs))
    return [file.new_operator("SELECT_V2", inputs, outputs)]


def _square(file: TFLiteFile, operator: Any) -> list[Any]:
    """``x * x``: SQUARE has kernels for float32 only."""
    x, output = int(operator.inputs[0]), int(operator.outputs[0])
    return [operator_of(file, "MUL", [x, x], output)]


def _negative(file: TFLiteFile, operator: Any) -> list[Any]:
    """``x * -1``: NEG has kernels for float32 only."""
    minus = file.add_constant(file.main, np.array(-1, np.float32))
    return [operator_of(file, "MUL", [int(operator.inputs[0]), minus], int(operator.outputs[0]))]


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
    """``x / n`` as ``x * rsqrt(n) * rsqrt(n)`` for ``n`` of at least 1, or of 0 if ``x`` is 0."""
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
        operator_of(file, "MUL", [x, root], part),
        operator_of(file, "MUL", [part, root], output),
    ]


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


def _has_positive_divisor(file: TFLiteFile, operator: Any) -> bool:
    """Whether a quotient is by a number of truth values, or by at least 1 as in a softsign."""
    return counts.divides_by_count(file, operator) or activations.divides_by_sum(file, operator)


def _has_many_inputs(file: TFLiteFile, operator: Any) -> bool:
    return len(operator.inputs) > MOST_JOINED


def _joined_by_parts(file: TFLiteFile, operator: Any) -> list[Any]:
    """A ``CONCATENATION`` of the results of others, each of a part of the inputs."""
    graph, output = file.main, int(operator.outputs[0])
    name, rank = file.name(graph.tensors[output]).split(";")[0], len(graph.tensors[output].shape)
    axis = operator.builtinOptions.axis % rank
    inputs = list(map(int, operator.inputs))
    operators: list[Any] = []
    while len(inputs) > MOST_JOINED:
        parts = [inputs[k : k + MOST_JOINED] for k in range(0, len(inputs), MOST_JOINED)]
        inputs = []
        for part in parts:
            shape = list(map(int, graph.tensors[part[0]].shape))
            shape[axis] = sum(int(graph.tensors[index].shape[axis]) for index in part)
            dtype = file.dtype(graph.tensors[output])
            inputs.append(file.add_tensor(graph, f"{name}/{len(operators)}", dtype, shape))
            join = file.new_operator("CONCATENATION", part, [inputs[-1]])
            join.builtinOptions = file.schema.ConcatenationOptionsT()
            join.builtinOptions.axis = axis
            join.builtinOptionsType = file.schema.BuiltinOptions.ConcatenationOptions
            operators.append(join)
    operator.inputs = inputs
    return [*operators, operator]


def _has_constant_slope(file: TFLiteFile, operator: Any) -> bool:
    return file.constant(file.main.tensors[int(operator.inputs[1])]) is not None


def _is_softplus(file: TFLiteFile, operator: Any) -> bool:
    return activations.softplus_source(file, operator) is not None


def _never(file: TFLiteFile, operator: Any) -> bool:
    return False


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
    "GELU": (_always, activations.gelu),
    "PRELU": (_has_constant_slope, activations.prelu),
    "HARD_SWISH": (_always, activations.hard_swish),
    "ELU": (_always, activations.elu),
    "EXP": (_always, activations.exponential),
    "LOG": (_is_softplus, activations.softplus),
    "SQUARE": (_always, _square),
    "NEG": (_is_real, _negative),
    "TILE": (_has_known_counts, _tile),
    "DIV": (_has_positive_divisor, _quotient),
    "CONCATENATION": (_has_many_inputs, _joined_by_parts),
    "SELECT": (_is_single_select, _any_select),
    "SELECT_V2": (_is_index, _select_integers),
}
# The differences if there are no operators in int16.
_IN_INT8: dict[str, tuple[Test, Replacement]] = {
    "CAST": (_converts_truth, _truth),
    "TILE": (_has_known_counts, functools.partial(_tile, broadcasts=False)),
    "ELU": (_always, functools.partial(activations.elu, has_exp=True)),
    **dict.fromkeys(("PRELU", "HARD_SWISH", "EXP", "LOG"), (_never, activations.exponential)),
}
