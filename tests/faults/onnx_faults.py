"""Faults planted in ONNX files.

Constants are identified by their shapes. Every axis has another prime as its length, so that this
does not depend on the names that a converter gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .fault import ATTENTION, NUMBERS, Array, Fault, add_value, set_value


def onnx_fault(
    name: str, model: str, stage: str, edit: Callable[[Any], None], **more: Any
) -> Fault:
    def plant(content: bytes) -> bytes:
        proto = onnx.load_from_string(content)
        before = proto.SerializeToString()
        edit(proto.graph)
        after: bytes = proto.SerializeToString()
        assert after != before, "the edit changed nothing"
        return after

    return Fault(name, model, stage, plant, **more)


def constant(graph: Any, shape: tuple[int, ...], position: int = 0) -> Any:
    return [item for item in graph.initializer if tuple(item.dims) == shape][position]


def edit_constant(
    shape: tuple[int, ...], function: Callable[[Array], Array], position: int = 0
) -> Callable[[Any], None]:
    def edit(graph: Any) -> None:
        item = constant(graph, shape, position)
        value = function(numpy_helper.to_array(item).copy())
        item.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), item.name))

    return edit


def both(*edits: Callable[[Any], None]) -> Callable[[Any], None]:
    def edit(graph: Any) -> None:
        for one in edits:
            one(graph)

    return edit


def nodes(graph: Any, kind: str) -> list[Any]:
    return [node for node in graph.node if node.op_type == kind]


def set_attribute(kind: str, name: str, value: Any, position: int = 0) -> Callable[[Any], None]:
    def edit(graph: Any) -> None:
        node = nodes(graph, kind)[position]
        others = [item for item in node.attribute if item.name != name]
        del node.attribute[:]
        node.attribute.extend([*others, helper.make_attribute(name, value)])

    return edit


def remove_operator(kind: str, position: int) -> Callable[[Any], None]:
    """Replace an operator by Identity."""

    def edit(graph: Any) -> None:
        node = nodes(graph, kind)[position]
        node.op_type = "Identity"
        del node.attribute[:]
        del node.input[1:]

    return edit


def replace_output(name: str, make: Callable[[str, str, Any], list[Any]]) -> Callable[[Any], None]:
    """Replace an output of the model; operators that read the same tensor are not affected."""

    def edit(graph: Any) -> None:
        inner = f"{name}__correct"
        for node in graph.node:
            node.input[:] = [inner if item == name else item for item in node.input]
            node.output[:] = [inner if item == name else item for item in node.output]
        graph.node.extend(make(inner, name, graph))

    return edit


def add_constant(graph: Any, name: str, value: Any) -> str:
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def swap_names(one: str, other: str) -> Callable[[Any], None]:
    def edit(graph: Any) -> None:
        names = {one: other, other: one}
        for node in graph.node:
            node.input[:] = [names.get(item, item) for item in node.input]
            node.output[:] = [names.get(item, item) for item in node.output]

    return edit


def reordered_gates(array: Array, order: tuple[int, ...]) -> Array:
    """The blocks of ``(1, gates * units, ...)`` in another order; biases have two lists."""
    count = len(order)
    if array.ndim == 2:
        halves = array.reshape(2, count, -1)[:, list(order)]
        return halves.reshape(array.shape)
    return array.reshape(1, count, -1, array.shape[-1])[:, list(order)].reshape(array.shape)


def permute_gates(shapes: list[tuple[int, ...]], order: tuple[int, ...]) -> Callable[[Any], None]:
    return both(
        *(edit_constant(shape, lambda value: reordered_gates(value, order)) for shape in shapes)
    )


LSTM = [(1, 28, 3), (1, 28, 7), (1, 56)]
GRU = [(1, 15, 3), (1, 15, 5), (1, 30)]


def _transpose_first_gate(value: Array) -> Array:
    value[0, :7] = value[0, :7].T.copy()
    return value


def _roll_rows(value: Array) -> Array:
    return np.roll(value, 1, axis=0)


def _swap_columns(value: Array) -> Array:
    return value[..., [1, 0, *range(2, value.shape[-1])]]


def _shift_query(graph: Any) -> None:
    gather = next(n for n in nodes(graph, "Gather") if any("indices" in i for i in n.input))
    gather.input[1] = add_constant(graph, "previous", np.array(-2, np.int32))


def _disable_mask(graph: Any) -> None:
    equal = nodes(graph, "Equal")[0]
    equal.input[1] = add_constant(graph, "unused_token", np.array(-7.0, np.float32))


def _disable_causal_mask(graph: Any) -> None:
    for item in graph.initializer:
        if tuple(item.dims) == (1, 1, 11, 11):
            value = np.ones_like(numpy_helper.to_array(item))
            item.CopyFrom(numpy_helper.from_array(value, item.name))


def _remove_scale(graph: Any) -> None:
    known = {item.name for item in graph.initializer}
    scale = next(
        n
        for n in nodes(graph, "Mul")
        if any("look" in i and "Add" in i for i in n.input) and known.intersection(n.input)
    )
    position = next(k for k, name in enumerate(scale.input) if name in known)
    scale.input[position] = add_constant(graph, "no_scale", np.array(1.0, np.float32))


def _average_context(graph: Any) -> None:
    """Compute the context with equal weights, but output the correct map."""
    node = next(n for n in graph.node if "attention/look" in n.input)
    graph.node.remove(node)
    zero = add_constant(graph, "no_weight", np.array(0.0, np.float32))
    share = add_constant(graph, "equal_weight", np.array(1 / 13, np.float32))
    average = [
        helper.make_node("Mul", ["attention/look", zero], ["zeros"]),
        helper.make_node("Add", ["zeros", share], ["equal"]),
    ]
    node.input[:] = ["equal" if item == "attention/look" else item for item in node.input]
    position = next(k for k, n in enumerate(graph.node) if "attention/look" in n.output)
    for offset, item in enumerate([*average, node]):
        graph.node.insert(position + 1 + offset, item)


def _bidirectional_node(graph: Any) -> Any:
    """The bidirectional node, with the output ``(steps, 2, batch, units)``."""
    return next(
        node
        for node in nodes(graph, "GRU")
        if any(item.name == "direction" and item.s == b"bidirectional" for item in node.attribute)
    )


def _swap_directions(graph: Any) -> None:
    node = _bidirectional_node(graph)
    order = add_constant(graph, "swapped", np.array([1, 0], np.int64))
    name, node.output[0] = node.output[0], "both_directions"
    at = list(graph.node).index(node) + 1
    graph.node.insert(at, helper.make_node("Gather", ["both_directions", order], [name], axis=1))


def _make_both_forward(graph: Any) -> None:
    node = _bidirectional_node(graph)
    at = list(graph.node).index(node)
    weights = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    replacement = []
    for k in range(2):
        names = [
            add_constant(graph, f"{name}/{k}", weights[name][k : k + 1].copy())
            for name in node.input[1:4]
        ]
        forward = helper.make_node("GRU", [node.input[0], *names], [f"forward_{k}"])
        forward.attribute.extend(item for item in node.attribute if item.name != "direction")
        # Each direction has two activations; a single direction uses the first two.
        for item in forward.attribute:
            if item.name == "activations":
                del item.strings[2:]
        replacement.append(forward)
    replacement.append(
        helper.make_node("Concat", ["forward_0", "forward_1"], [node.output[0]], axis=1)
    )
    graph.node.remove(node)
    for offset, item in enumerate(replacement):
        graph.node.insert(at + offset, item)


def _use_tanh_in_gelu(graph: Any) -> None:
    nodes(graph, "Erf")[0].op_type = "Tanh"


def _uniform(inner: str, name: str, graph: Any) -> list[Any]:
    zero = add_constant(graph, "zero", np.array(0.0, np.float32))
    share = add_constant(graph, "share", np.array(1 / 13, np.float32))
    return [
        helper.make_node("Mul", [inner, zero], ["flat"]),
        helper.make_node("Add", ["flat", share], [name]),
    ]


def _gathered(axis: int, order: list[int]) -> Callable[[str, str, Any], list[Any]]:
    def make(inner: str, name: str, graph: Any) -> list[Any]:
        indices = add_constant(graph, "indices", np.array(order, np.int64))
        return [helper.make_node("Gather", [inner, indices], [name], axis=axis)]

    return make


def _operator(kind: str, **attributes: Any) -> Callable[[str, str, Any], list[Any]]:
    return lambda inner, name, graph: [helper.make_node(kind, [inner], [name], **attributes)]


def _output_scores(graph: Any) -> None:
    """Output the scores as the attention map."""
    softmax = next(n for n in nodes(graph, "Softmax") if "attention/look" in n.output)
    source = softmax.input[0]
    replace_output(
        "attention/look", lambda _, name, __: [helper.make_node("Identity", [source], [name])]
    )(graph)


def _round_to_float16(graph: Any) -> None:
    for item in graph.initializer:
        value = numpy_helper.to_array(item)
        if value.dtype == np.float32 and value.ndim > 1:
            short = value.astype(np.float16).astype(np.float32)
            item.CopyFrom(numpy_helper.from_array(short, item.name))


ONNX_FAULTS = [
    onnx_fault(
        "input and output gate swapped", "watcher", NUMBERS, permute_gates(LSTM, (1, 0, 2, 3))
    ),
    onnx_fault(
        "gates in Keras' order, not ONNX's", "watcher", NUMBERS, permute_gates(LSTM, (0, 2, 3, 1))
    ),
    onnx_fault(
        "GRU's update and reset gate swapped", "counter", NUMBERS, permute_gates(GRU, (1, 0, 2))
    ),
    onnx_fault(
        "one gate's recurrent kernel transposed",
        "watcher",
        NUMBERS,
        edit_constant((1, 28, 7), _transpose_first_gate),
    ),
    onnx_fault(
        "recurrent kernel of zeros",
        "watcher",
        NUMBERS,
        edit_constant((1, 28, 7), np.zeros_like),
    ),
    onnx_fault(
        "forget gate's bias increased by 1",
        "watcher",
        NUMBERS,
        edit_constant((1, 56), add_value((0, slice(14, 21)), 1.0)),
    ),
    onnx_fault(
        "hard_sigmoid of Keras 2 in the gates",
        "watcher",
        NUMBERS,
        both(
            set_attribute("LSTM", "activations", ["HardSigmoid", "Tanh", "Tanh"]),
            set_attribute("LSTM", "activation_alpha", [0.2]),
            set_attribute("LSTM", "activation_beta", [0.5]),
        ),
    ),
    onnx_fault(
        "relu instead of tanh", "pair", NUMBERS, set_attribute("RNN", "activations", ["Relu"])
    ),
    onnx_fault(
        "sequence read backwards", "watcher", NUMBERS, set_attribute("LSTM", "direction", "reverse")
    ),
    onnx_fault(
        "both directions read forwards",
        "counter",
        NUMBERS,
        _make_both_forward,
    ),
    onnx_fault("halves of both directions swapped", "counter", NUMBERS, _swap_directions),
    onnx_fault(
        "reset_after treated as reset_before",
        "counter",
        NUMBERS,
        set_attribute("GRU", "linear_before_reset", 0),
    ),
    onnx_fault(
        "gate activations clipped at 1", "watcher", NUMBERS, set_attribute("LSTM", "clip", 1.0)
    ),
    onnx_fault("query shifted by one step", "watcher", ATTENTION, _shift_query),
    onnx_fault(
        "score kernel transposed", "watcher", ATTENTION, edit_constant((7, 7), np.transpose)
    ),
    onnx_fault(
        "softmax over the wrong axis", "watcher", ATTENTION, set_attribute("Softmax", "axis", 0)
    ),
    onnx_fault("softmax over the queries", "heads", ATTENTION, set_attribute("Softmax", "axis", 2)),
    onnx_fault("softmax of the output omitted", "watcher", NUMBERS, remove_operator("Softmax", 1)),
    onnx_fault("scores not scaled", "heads", ATTENTION, _remove_scale),
    onnx_fault("causal mask ignored", "heads", ATTENTION, _disable_causal_mask),
    onnx_fault("padding not masked", "reader", ATTENTION, _disable_mask),
    onnx_fault(
        "outdated row of the embedding",
        "reader",
        NUMBERS,
        edit_constant((29, 5), add_value(23, 0.1)),
    ),
    onnx_fault(
        "embedding shifted by one row", "reader", NUMBERS, edit_constant((29, 5), _roll_rows)
    ),
    onnx_fault(
        "NaN in one word's embedding",
        "reader",
        NUMBERS,
        edit_constant((29, 5), set_value((17, 2), np.nan)),
    ),
    onnx_fault(
        "one class's bias increased by 0.01",
        "reader",
        NUMBERS,
        edit_constant((3,), add_value(1, 0.01)),
    ),
    onnx_fault(
        "two classes swapped",
        "watcher",
        NUMBERS,
        both(edit_constant((5, 4), _swap_columns), edit_constant((4,), _swap_columns)),
    ),
    onnx_fault(
        "last row of the output kernel zeroed",
        "watcher",
        NUMBERS,
        edit_constant((5, 4), set_value(4, 0.0)),
    ),
    onnx_fault(
        "one weight increased by 0.01",
        "watcher",
        NUMBERS,
        edit_constant((14, 5), add_value((3, 2), 0.01)),
    ),
    onnx_fault("float32 weights rounded to float16", "watcher", NUMBERS, _round_to_float16),
    onnx_fault("outputs swapped", "pair", NUMBERS, swap_names("yes", "no")),
    onnx_fault("inputs swapped", "pair", NUMBERS, swap_names("left", "right")),
    onnx_fault(
        "tanh of the attentional vector omitted", "watcher", NUMBERS, remove_operator("Tanh", 1)
    ),
    onnx_fault(
        "context of equal weights, correct map", "watcher", NUMBERS, _average_context, only=True
    ),
    onnx_fault(
        "epsilon of the normalization 100 times too small",
        "heads",
        NUMBERS,
        set_attribute("LayerNormalization", "epsilon", 1e-5),
    ),
    onnx_fault("another formula for GELU", "heads", NUMBERS, _use_tanh_in_gelu, only=True),
    onnx_fault(
        "bias after the heads omitted", "heads", NUMBERS, edit_constant((6,), np.zeros_like, 2)
    ),
    onnx_fault(
        "map of equal weights",
        "watcher",
        ATTENTION,
        replace_output("attention/look", _uniform),
        only=True,
    ),
    onnx_fault(
        "map shifted by one key",
        "watcher",
        ATTENTION,
        replace_output("attention/look", _gathered(1, [12, *range(12)])),
        only=True,
    ),
    onnx_fault(
        "map of another head",
        "heads",
        ATTENTION,
        replace_output("attention/look", _gathered(1, [0, 2, 1])),
        only=True,
    ),
    onnx_fault(
        "map with queries and keys swapped",
        "heads",
        ATTENTION,
        replace_output("attention/look", _operator("Transpose", perm=[0, 1, 3, 2])),
        only=True,
    ),
    onnx_fault("map of scores instead of weights", "watcher", ATTENTION, _output_scores, only=True),
]
