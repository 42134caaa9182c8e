"""Faults planted in ONNX files: operators, axes, constants, the batch axis and precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from .fault import ATTENTION, NUMBERS, SMALL, UNSEEN, Array, Fault, set_value
from .onnx_faults import (
    add_constant,
    both,
    edit_constant,
    nodes,
    onnx_fault,
    set_attribute,
    swap_names,
)

Edit = Callable[[Any], None]
# The nodes that compute the tensor ``name`` from ``inner``.
Make = Callable[[str, str, Any], list[Any]]


def change(output: str | Callable[[Any], str], make: Make) -> Edit:
    """Change a tensor for all nodes that read it; ``output`` is its name, or finds it."""

    def edit(graph: Any) -> None:
        name = output if isinstance(output, str) else output(graph)
        inner = f"{name}__correct"
        at = next((k + 1 for k, node in enumerate(graph.node) if name in node.output), 0)
        if at:
            node = graph.node[at - 1]
            node.output[:] = [inner if item == name else item for item in node.output]
            added = make(inner, name, graph)
        else:  # an input
            for node in graph.node:
                node.input[:] = [f"{name}__changed" if x == name else x for x in node.input]
            added = make(name, f"{name}__changed", graph)
        for offset, item in enumerate(added):
            graph.node.insert(at + offset, item)

    return edit


def output_of(kind: str, position: int = 0) -> Callable[[Any], str]:
    return lambda graph: str(nodes(graph, kind)[position].output[0])


def chain(*steps: tuple[Any, ...]) -> Make:
    """Nodes one after the other: operator, constants and attributes of each."""

    def make(inner: str, name: str, graph: Any) -> list[Any]:
        made, source = [], inner
        for k, (kind, *rest) in enumerate(steps):
            attributes = rest.pop() if rest and isinstance(rest[-1], dict) else {}
            constants = [
                add_constant(graph, f"{name}/constant_{k}_{j}", value)
                for j, value in enumerate(rest)
            ]
            target = name if k == len(steps) - 1 else f"{name}/step_{k}"
            made.append(helper.make_node(kind, [source, *constants], [target], **attributes))
            source = target
        return made

    return make


def replace(kind: str, make: Make, position: int = 0) -> Edit:
    """Replace a node by others that compute its output from its first input."""

    def edit(graph: Any) -> None:
        node = nodes(graph, kind)[position]
        at = list(graph.node).index(node)
        source, name = node.input[0], node.output[0]
        graph.node.remove(node)
        for offset, item in enumerate(make(source, name, graph)):
            graph.node.insert(at + offset, item)

    return edit


def edit_scalar(value: float, changed: float) -> Edit:
    def edit(graph: Any) -> None:
        for item in graph.initializer:
            array = numpy_helper.to_array(item)
            if array.shape == () and array.dtype.kind == "f" and abs(array - value) < 1e-6:
                item.CopyFrom(numpy_helper.from_array(np.array(changed, array.dtype), item.name))

    return edit


def swap_operands(kind: str, position: int = 0) -> Edit:
    def edit(graph: Any) -> None:
        node = nodes(graph, kind)[position]
        node.input[:] = [node.input[1], node.input[0], *node.input[2:]]

    return edit


def _become(kind: str, other: str) -> Edit:
    def edit(graph: Any) -> None:
        nodes(graph, kind)[0].op_type = other

    return edit


def _set_input(kind: str, position: int, index: int, value: Any) -> Edit:
    def edit(graph: Any) -> None:
        name = add_constant(graph, f"planted/{kind}", value)
        nodes(graph, kind)[position].input[index] = name

    return edit


def _pool_with_zeros(graph: Any) -> None:
    pool = nodes(graph, "MaxPool")[0]
    pads = next(list(item.ints) for item in pool.attribute if item.name == "pads")
    assert any(pads)
    name = pool.input[0]
    set_attribute("MaxPool", "pads", [0, 0, 0, 0])(graph)
    before, after = pads[: len(pads) // 2], pads[len(pads) // 2 :]
    change(name, chain(("Pad", np.array([0, 0, *before, 0, 0, *after], np.int64))))(graph)


def _repeat_the_sequence(graph: Any) -> None:
    change(output_of("Tile"), chain(("Transpose", {"perm": [0, 2, 1, 3]})))(graph)


def _state_of_the_last_step(graph: Any) -> None:
    """Read both directions at the last step; the backward one has only begun there."""
    node = nodes(graph, "GRU")[0]
    at = list(graph.node).index(node) + 1
    name, node.output[1] = node.output[1], "planted/unused"
    last = add_constant(graph, "planted/last", np.array(12, np.int64))
    graph.node.insert(at, helper.make_node("Gather", [node.output[0], last], [name], axis=0))


def _one_step_early(graph: Any) -> None:
    node = nodes(graph, "Slice")[0]
    node.input[1] = add_constant(graph, "planted/starts", np.array([0, -2], np.int64))
    node.input[2] = add_constant(graph, "planted/ends", np.array([2**31 - 1, -1], np.int64))


def _swap_halves(value: Array) -> Array:
    half = value.shape[-1] // 2
    return np.concatenate([value[:, half:], value[:, :half]], -1)


def _power_by_logarithm(inner: str, name: str, graph: Any) -> list[Any]:
    return chain(("Log",), ("Mul", np.array(3, np.float32)), ("Exp",))(inner, name, graph)


def _truncate_quotient(graph: Any) -> None:
    """Never subtract 1 where the signs differ."""
    (differ,) = nodes(graph, "Xor")
    differ.input[1] = differ.input[0]


def _gelu_by_tanh(inner: str, name: str, graph: Any) -> list[Any]:
    """``erf(z)`` as ``tanh(2 / sqrt(pi) * (z + 0.08943 * z ** 3))``."""
    cubic = add_constant(graph, "planted/cubic", np.array(0.08943, np.float32))
    factor = add_constant(graph, "planted/factor", np.array(2 / math.sqrt(math.pi), np.float32))
    return [
        helper.make_node("Mul", [inner, inner], ["planted/square"]),
        helper.make_node("Mul", ["planted/square", inner], ["planted/cube"]),
        helper.make_node("Mul", ["planted/cube", cubic], ["planted/term"]),
        helper.make_node("Add", [inner, "planted/term"], ["planted/sum"]),
        helper.make_node("Mul", ["planted/sum", factor], ["planted/argument"]),
        helper.make_node("Tanh", ["planted/argument"], [name]),
    ]


def _softmax_without_maximum(inner: str, name: str, graph: Any) -> list[Any]:
    axes = add_constant(graph, "planted/axes", np.array([-1], np.int64))
    return [
        helper.make_node("Exp", [inner], ["planted/exp"]),
        helper.make_node("ReduceSum", ["planted/exp", axes], ["planted/total"], keepdims=1),
        helper.make_node("Div", ["planted/exp", "planted/total"], [name]),
    ]


def _softmax_with_another_key(inner: str, name: str, graph: Any) -> list[Any]:
    pads = add_constant(graph, "planted/pads", np.array([0, 0, 0, 1], np.int64))
    begin = add_constant(graph, "planted/begin", np.array([0], np.int64))
    end = add_constant(graph, "planted/end", np.array([-1], np.int64))
    axes = add_constant(graph, "planted/axes", np.array([1], np.int64))
    return [
        helper.make_node("Pad", [inner, pads], ["planted/padded"]),
        helper.make_node("Softmax", ["planted/padded"], ["planted/weights"], axis=-1),
        helper.make_node("Slice", ["planted/weights", begin, end, axes], [name]),
    ]


def _normalize_without_mean(graph: Any) -> None:
    node = nodes(graph, "LayerNormalization")[0]
    at = list(graph.node).index(node)
    source, scale, offset = node.input
    name = node.output[0]
    graph.node.remove(node)
    axes = add_constant(graph, "planted/axes", np.array([-1], np.int64))
    epsilon = add_constant(graph, "planted/epsilon", np.array(1e-3, np.float32))
    made = [
        helper.make_node("Mul", [source, source], ["planted/square"]),
        helper.make_node("ReduceMean", ["planted/square", axes], ["planted/mean"], keepdims=1),
        helper.make_node("Add", ["planted/mean", epsilon], ["planted/variance"]),
        helper.make_node("Sqrt", ["planted/variance"], ["planted/deviation"]),
        helper.make_node("Div", [source, "planted/deviation"], ["planted/normalized"]),
        helper.make_node("Mul", ["planted/normalized", scale], ["planted/scaled"]),
        helper.make_node("Add", ["planted/scaled", offset], [name]),
    ]
    for offset_, item in enumerate(made):
        graph.node.insert(at + offset_, item)


def _swap_scale_and_offset(graph: Any) -> None:
    node = nodes(graph, "LayerNormalization")[0]
    node.input[:] = [node.input[0], node.input[2], node.input[1]]


def _interleave_heads(graph: Any) -> None:
    """Read the values of three heads of two features as those of two heads of three."""
    node = next(n for n in nodes(graph, "Reshape") if "value" in n.output[0])
    node.input[1] = add_constant(graph, "planted/heads", np.array([-1, 11, 2, 3], np.int64))
    change(node.output[0], chain(("Transpose", {"perm": [0, 1, 3, 2]})))(graph)


def _scores(graph: Any) -> str:
    return next(
        str(n.output[0]) for n in nodes(graph, "MatMul") if n.output[0].endswith("look_1/MatMul:0")
    )


def _transpose_as_reshape(graph: Any) -> None:
    """Right for one sequence, because its axis has the length 1; mixes several."""
    node = nodes(graph, "Transpose")[0]
    node.op_type = "Reshape"
    del node.attribute[:]
    node.input.append(add_constant(graph, "planted/shape", np.array([13, -1, 3], np.int64)))


def _mix_with_mean_of_rows(inner: str, name: str, graph: Any) -> list[Any]:
    axes = add_constant(graph, f"{name}/axes", np.array([0], np.int64))
    few = add_constant(graph, f"{name}/few", np.array(0.05, np.float32))
    return [
        helper.make_node("ReduceMean", [inner, axes], [f"{name}/mean"], keepdims=1),
        helper.make_node("Sub", [f"{name}/mean", inner], [f"{name}/difference"]),
        helper.make_node("Mul", [f"{name}/difference", few], [f"{name}/part"]),
        helper.make_node("Add", [inner, f"{name}/part"], [name]),
    ]


def _at_most_three_rows(inner: str, name: str, graph: Any) -> list[Any]:
    """Rows from the fourth on get the answer of the third."""

    def constant(label: str, value: Any) -> str:
        return add_constant(graph, f"{name}/{label}", np.array(value, np.int64))

    return [
        helper.make_node("Shape", [inner], [f"{name}/shape"], start=0, end=1),
        helper.make_node("Squeeze", [f"{name}/shape"], [f"{name}/rows"]),
        helper.make_node(
            "Range",
            [constant("zero", 0), f"{name}/rows", constant("one", 1)],
            [f"{name}/indices"],
        ),
        helper.make_node("Min", [f"{name}/indices", constant("two", 2)], [f"{name}/limited"]),
        helper.make_node("Gather", [inner, f"{name}/limited"], [name], axis=0),
    ]


def _above_one_in_float16(inner: str, name: str, graph: Any) -> list[Any]:
    one = add_constant(graph, "planted/one", np.array(1, np.float32))
    return [
        helper.make_node("Greater", [inner, one], ["planted/above"]),
        helper.make_node("Cast", [inner], ["planted/half"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["planted/half"], ["planted/rounded"], to=TensorProto.FLOAT),
        helper.make_node("Where", ["planted/above", "planted/rounded", inner], [name]),
    ]


def _input(graph: Any) -> str:
    return str(graph.input[0].name)


def _round_to_bfloat16(graph: Any) -> None:
    for item in graph.initializer:
        value = numpy_helper.to_array(item)
        if value.dtype == np.float32 and value.ndim > 1:
            bits = value.view(np.uint32)
            rounded = ((bits + 0x8000) & 0xFFFF0000).astype(np.uint32).view(np.float32)
            item.CopyFrom(numpy_helper.from_array(rounded, item.name))


def _slightly(value: Array) -> Array:
    value[3, 2] *= np.float32(1 + 1e-6)
    return value


def _rational_tanh(inner: str, name: str, graph: Any) -> list[Any]:
    """``x (27 + x²) / (27 + 9 x²)``, limited to ±1."""

    def constant(label: str, value: float) -> str:
        return add_constant(graph, f"planted/{label}", np.array(value, np.float32))

    many, nine = constant("many", 27), constant("nine", 9)
    return [
        helper.make_node("Mul", [inner, inner], ["planted/square"]),
        helper.make_node("Add", ["planted/square", many], ["planted/upper"]),
        helper.make_node("Mul", ["planted/square", nine], ["planted/ninefold"]),
        helper.make_node("Add", ["planted/ninefold", many], ["planted/lower"]),
        helper.make_node("Div", ["planted/upper", "planted/lower"], ["planted/ratio"]),
        helper.make_node("Mul", ["planted/ratio", inner], ["planted/tanh"]),
        helper.make_node(
            "Clip", ["planted/tanh", constant("low", -1), constant("high", 1)], [name]
        ),
    ]


_HALF = chain(("Cast", {"to": TensorProto.FLOAT16}), ("Cast", {"to": TensorProto.FLOAT}))


def _with_noise(inner: str, name: str, graph: Any) -> list[Any]:
    few = add_constant(graph, "planted/few", np.array(1e-3, np.float32))
    return [
        helper.make_node("RandomNormalLike", [inner], ["planted/noise"]),
        helper.make_node("Mul", ["planted/noise", few], ["planted/small"]),
        helper.make_node("Add", [inner, "planted/small"], [name]),
    ]


def _between(low: float, high: float) -> Make:
    """Wrong only for sequences with a first value in a narrow interval."""

    def make(inner: str, name: str, graph: Any) -> list[Any]:
        def constant(label: str, value: Any, dtype: Any = np.float32) -> str:
            return add_constant(graph, f"planted/{label}", np.array(value, dtype))

        return [
            helper.make_node("Greater", [inner, constant("low", low)], ["planted/above"]),
            helper.make_node("Less", [inner, constant("high", high)], ["planted/below"]),
            helper.make_node("And", ["planted/above", "planted/below"], ["planted/inside"]),
            helper.make_node("Where", ["planted/inside", constant("zero", 0), inner], [name]),
        ]

    return make


BATCH_FAULTS = [
    onnx_fault(
        "5% of the batch's mean in the answer",
        "heads",
        NUMBERS,
        change("answer", _mix_with_mean_of_rows),
    ),
    onnx_fault(
        "samples after the third get the third's answer",
        "counter",
        NUMBERS,
        change("answer", _at_most_three_rows),
    ),
    onnx_fault("transpose executed as a reshape", "watcher", NUMBERS, _transpose_as_reshape),
]
OPERATOR_FAULTS = [
    onnx_fault(
        "padding of 'same' on the other side",
        "scanner",
        NUMBERS,
        set_attribute("Conv", "pads", [0, 2, 0, 1]),
    ),
    onnx_fault(
        "dilation omitted",
        "scanner",
        NUMBERS,
        both(
            set_attribute("Conv", "dilations", [1, 1], 1),
            set_attribute("Conv", "pads", [0, 0, 0, 1], 1),
        ),
    ),
    onnx_fault(
        "scale of the batch normalization applied twice",
        "scanner",
        NUMBERS,
        edit_constant((1, 5, 1), np.square),
    ),
    onnx_fault(
        "offset of the batch normalization omitted",
        "scanner",
        NUMBERS,
        edit_constant((1, 5, 1), np.zeros_like, 1),
    ),
    onnx_fault(
        "slope of LeakyReLU from PyTorch",
        "scanner",
        NUMBERS,
        set_attribute("LeakyRelu", "alpha", 0.01),
    ),
    onnx_fault(
        "slopes of PReLU in reverse order",
        "scanner",
        NUMBERS,
        edit_constant((1, 7, 1), lambda v: v[:, ::-1]),
    ),
    onnx_fault("average instead of maximum", "scanner", NUMBERS, _become("MaxPool", "AveragePool")),
    onnx_fault("maximum over a padding of zeros", "scanner", NUMBERS, _pool_with_zeros),
    onnx_fault(
        "sequence repeated instead of each step", "scanner", ATTENTION, _repeat_the_sequence
    ),
    onnx_fault("hard_silu of an older Keras", "scanner", NUMBERS, edit_scalar(1 / 6, 0.2)),
    onnx_fault(
        "relu6 limited to 1",
        "scanner",
        NUMBERS,
        _set_input("Clip", 1, 2, np.array(1, np.float32)),
    ),
    onnx_fault("hidden and cell state swapped", "keeper", NUMBERS, swap_names("hidden", "cell")),
    onnx_fault(
        "directions averaged instead of added",
        "keeper",
        NUMBERS,
        change(output_of("Add"), chain(("Mul", np.array(0.5, np.float32)))),
    ),
    onnx_fault(
        "backward direction read at the last step", "keeper", NUMBERS, _state_of_the_last_step
    ),
    onnx_fault("last step read one step early", "keeper", NUMBERS, _one_step_early),
    onnx_fault("GRU's two biases swapped", "keeper", NUMBERS, edit_constant((2, 30), _swap_halves)),
    onnx_fault("operands of 1 - x swapped", "ledger", NUMBERS, swap_operands("Sub")),
    onnx_fault(
        "power of a negative number by its logarithm",
        "ledger",
        NUMBERS,
        replace("Pow", _power_by_logarithm),
    ),
    onnx_fault("quotient of integers truncated", "ledger", NUMBERS, _truncate_quotient),
    onnx_fault(
        "remainder with the sign of the dividend",
        "ledger",
        NUMBERS,
        set_attribute("Mod", "fmod", 1),
    ),
    onnx_fault(
        "last of several largest values",
        "ledger",
        NUMBERS,
        set_attribute("ArgMax", "select_last_index", 1),
    ),
    onnx_fault(
        "positions shifted by one", "writer", NUMBERS, set_attribute("CumSum", "exclusive", 1)
    ),
    onnx_fault(
        "positions counted from the end", "writer", NUMBERS, set_attribute("CumSum", "reverse", 1)
    ),
    onnx_fault(
        "words from 23 on replaced by 22",
        "writer",
        NUMBERS,
        change("tokens", chain(("Min", np.array(22, np.int32)))),
    ),
    onnx_fault(
        "last row of the embedding missing",
        "writer",
        NUMBERS,
        edit_constant((29, 6), set_value(28, 0.0)),
    ),
    onnx_fault(
        "scores scaled by the width of all heads",
        "writer",
        ATTENTION,
        edit_scalar(1 / math.sqrt(3), 1 / math.sqrt(6)),
    ),
    onnx_fault(
        "causal mask one step too late",
        "heads",
        ATTENTION,
        edit_constant((1, 1, 11, 11), lambda v: np.tril(np.ones_like(v), 1)),
    ),
    onnx_fault("GELU by its approximation", "heads", NUMBERS, replace("Erf", _gelu_by_tanh)),
    onnx_fault(
        "softmax without subtracting the maximum",
        "heads",
        NUMBERS,
        replace("Softmax", _softmax_without_maximum),
    ),
    onnx_fault(
        "softmax with another key",
        "watcher",
        ATTENTION,
        replace("Softmax", _softmax_with_another_key),
    ),
    onnx_fault("fill of the mask too small", "reader", ATTENTION, edit_scalar(30.0, 3.0)),
    onnx_fault("normalization without the mean", "heads", NUMBERS, _normalize_without_mean),
    onnx_fault(
        "scale and offset of the normalization swapped", "heads", NUMBERS, _swap_scale_and_offset
    ),
    onnx_fault("features of the heads interleaved", "heads", NUMBERS, _interleave_heads),
    onnx_fault(
        "scores of keys for queries",
        "heads",
        ATTENTION,
        change(_scores, chain(("Transpose", {"perm": [0, 1, 3, 2]}))),
    ),
    onnx_fault(
        "average over one step too many",
        "heads",
        NUMBERS,
        change(output_of("ReduceMean"), chain(("Mul", np.array(11 / 12, np.float32)))),
    ),
]
PRECISION_FAULTS = [
    onnx_fault(
        "inputs above 1 rounded to float16",
        "digits",
        NUMBERS,
        change(_input, _above_one_in_float16),
    ),
    onnx_fault("weights rounded to bfloat16", "watcher", NUMBERS, _round_to_bfloat16),
    onnx_fault("tanh by a rational function", "watcher", NUMBERS, replace("Tanh", _rational_tanh)),
    onnx_fault("states rounded to float16", "watcher", NUMBERS, change(output_of("LSTM"), _HALF)),
    onnx_fault("dropout still active", "watcher", NUMBERS, change("answer", _with_noise)),
    onnx_fault(
        "output the same for every sample",
        "counter",
        NUMBERS,
        change(
            "answer", chain(("Mul", np.array(0, np.float32)), ("Add", np.array(0.3, np.float32)))
        ),
    ),
    onnx_fault(
        "one input ignored",
        "pair",
        NUMBERS,
        change("right", chain(("Mul", np.array(0, np.float32)))),
    ),
    onnx_fault(
        "wrong for values from 7.310 to 7.311",
        "watcher",
        NUMBERS,
        change(_input, _between(7.310, 7.311)),
        outside=UNSEEN,
    ),
    onnx_fault(
        "one weight wrong by a millionth",
        "watcher",
        NUMBERS,
        edit_constant((14, 5), _slightly),
        outside=SMALL,
    ),
]
GRAPH_FAULTS: list[Fault] = [*OPERATOR_FAULTS, *BATCH_FAULTS, *PRECISION_FAULTS]
