"""Wrong artifacts made out of right ones: each fault, what it is, and the stage that must see it.

Constants are found by their shapes, of which every axis is another prime: that outlives the names
that a converter gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeattn.bundle.manifest import Artifact
from edgeattn.runners import Runner

Array = np.ndarray
LOADING, STRUCTURE, NUMBERS, ATTENTION, TASK = (
    *("loading", "structure", "numbers"),
    *("attention", "task"),
)


@dataclass(frozen=True)
class Fault:
    """A fault in the artifact of a model; ``plant`` edits its bytes, ``wrap`` what it answers.

    ``stage`` is the one that must fail. ``entry`` changes what the manifest says of the artifact.
    """

    name: str
    model: str
    stage: str
    plant: Callable[[bytes], bytes] | None = None
    wrap: Callable[[Runner], Runner] | None = None
    format: str = "onnx"
    scheme: str = "float32"
    entry: Callable[[Artifact, bytes], Artifact] | None = None
    only: bool = False  # whether no other stage may fail


# ONNX


def onnx_fault(
    name: str, model: str, stage: str, edit: Callable[[Any], None], **more: Any
) -> Fault:
    def plant(content: bytes) -> bytes:
        proto = onnx.load_from_string(content)
        before = proto.SerializeToString()
        edit(proto.graph)
        after: bytes = proto.SerializeToString()
        assert after != before, "nothing was planted"
        return after

    return Fault(name, model, stage, plant, **more)


def constant(graph: Any, shape: tuple[int, ...], position: int = 0) -> Any:
    found = [item for item in graph.initializer if tuple(item.dims) == shape]
    return found[position]


def change(
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


def attribute(kind: str, name: str, value: Any, position: int = 0) -> Callable[[Any], None]:
    def edit(graph: Any) -> None:
        node = nodes(graph, kind)[position]
        kept = [item for item in node.attribute if item.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return edit


def without(kind: str, position: int) -> Callable[[Any], None]:
    """The operator replaced by one that does nothing."""

    def edit(graph: Any) -> None:
        node = nodes(graph, kind)[position]
        node.op_type = "Identity"
        del node.attribute[:]
        del node.input[1:]

    return edit


def told(name: str, make: Callable[[str, str, Any], list[Any]]) -> Callable[[Any], None]:
    """Another value for an output alone: the graph inside goes on with the right one."""

    def edit(graph: Any) -> None:
        inner = f"{name}__right"
        for node in graph.node:
            node.input[:] = [inner if item == name else item for item in node.input]
            node.output[:] = [inner if item == name else item for item in node.output]
        graph.node.extend(make(inner, name, graph))

    return edit


def given(graph: Any, name: str, value: Any) -> str:
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def swap_names(one: str, other: str) -> Callable[[Any], None]:
    def edit(graph: Any) -> None:
        names = {one: other, other: one}
        for node in graph.node:
            node.input[:] = [names.get(item, item) for item in node.input]
            node.output[:] = [names.get(item, item) for item in node.output]

    return edit


def gates(array: Array, order: tuple[int, ...]) -> Array:
    """The blocks of ``(1, gates * units, ...)`` in another order; biases hold two such lists."""
    count = len(order)
    if array.ndim == 2:
        halves = array.reshape(2, count, -1)[:, list(order)]
        return halves.reshape(array.shape)
    return array.reshape(1, count, -1, array.shape[-1])[:, list(order)].reshape(array.shape)


def permuted(shapes: list[tuple[int, ...]], order: tuple[int, ...]) -> Callable[[Any], None]:
    return both(*(change(shape, lambda value: gates(value, order)) for shape in shapes))


LSTM = [(1, 28, 3), (1, 28, 7), (1, 56)]
GRU = [(1, 15, 3), (1, 15, 5), (1, 30)]


def _first_gate_transposed(value: Array) -> Array:
    value[0, :7] = value[0, :7].T.copy()
    return value


def _rows_rolled(value: Array) -> Array:
    return np.roll(value, 1, axis=0)


def _swap_columns(value: Array) -> Array:
    return value[..., [1, 0, *range(2, value.shape[-1])]]


def _put(index: Any, number: float) -> Callable[[Array], Array]:
    def function(value: Array) -> Array:
        value[index] = number
        return value

    return function


def _add(index: Any, number: float) -> Callable[[Array], Array]:
    def function(value: Array) -> Array:
        value[index] += number
        return value

    return function


def _other_query(graph: Any) -> None:
    gather = next(n for n in nodes(graph, "Gather") if any("indices" in i for i in n.input))
    gather.input[1] = given(graph, "one_off", np.array(-2, np.int32))


def _no_mask(graph: Any) -> None:
    equal = nodes(graph, "Equal")[0]
    equal.input[1] = given(graph, "no_such_word", np.array(-7.0, np.float32))


def _look_at_future(graph: Any) -> None:
    for item in graph.initializer:
        if tuple(item.dims) == (1, 1, 11, 11):
            value = np.ones_like(numpy_helper.to_array(item))
            item.CopyFrom(numpy_helper.from_array(value, item.name))


def _wrong_scale(graph: Any) -> None:
    known = {item.name for item in graph.initializer}
    scale = next(
        n
        for n in nodes(graph, "Mul")
        if any("look" in i and "Add" in i for i in n.input) and known.intersection(n.input)
    )
    position = next(k for k, name in enumerate(scale.input) if name in known)
    scale.input[position] = given(graph, "no_scale", np.array(1.0, np.float32))


def _equal_context(graph: Any) -> None:
    """The context is made with equal weights, the map that is told is right."""
    node = next(n for n in graph.node if "attention/look" in n.input)
    graph.node.remove(node)
    zero = given(graph, "nothing", np.array(0.0, np.float32))
    share = given(graph, "a_share", np.array(1 / 13, np.float32))
    made = [
        helper.make_node("Mul", ["attention/look", zero], ["wiped"]),
        helper.make_node("Add", ["wiped", share], ["equal"]),
    ]
    node.input[:] = ["equal" if item == "attention/look" else item for item in node.input]
    position = next(k for k, n in enumerate(graph.node) if "attention/look" in n.output)
    for offset, item in enumerate([*made, node]):
        graph.node.insert(position + 1 + offset, item)


def _both_ways(graph: Any) -> Any:
    """The node that reads from both ends: ``(steps, 2, batch, units)``."""
    return next(
        node
        for node in nodes(graph, "GRU")
        if any(item.name == "direction" and item.s == b"bidirectional" for item in node.attribute)
    )


def _swapped_ends(graph: Any) -> None:
    node = _both_ways(graph)
    order = given(graph, "swapped", np.array([1, 0], np.int64))
    told, node.output[0] = node.output[0], "both_ways"
    at = list(graph.node).index(node) + 1
    graph.node.insert(at, helper.make_node("Gather", ["both_ways", order], [told], axis=1))


def _both_forwards(graph: Any) -> None:
    node = _both_ways(graph)
    at = list(graph.node).index(node)
    weights = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    made = []
    for k in range(2):
        names = [
            given(graph, f"{name}/{k}", weights[name][k : k + 1].copy()) for name in node.input[1:4]
        ]
        one = helper.make_node("GRU", [node.input[0], *names], [f"forwards_{k}"])
        one.attribute.extend(item for item in node.attribute if item.name != "direction")
        # Both have activations of their own; one direction takes the first two.
        for item in one.attribute:
            if item.name == "activations":
                del item.strings[2:]
        made.append(one)
    made.append(helper.make_node("Concat", ["forwards_0", "forwards_1"], [node.output[0]], axis=1))
    graph.node.remove(node)
    for offset, item in enumerate(made):
        graph.node.insert(at + offset, item)


def _gelu_by_tanh(graph: Any) -> None:
    nodes(graph, "Erf")[0].op_type = "Tanh"


def _uniform(inner: str, name: str, graph: Any) -> list[Any]:
    zero = given(graph, "zero", np.array(0.0, np.float32))
    share = given(graph, "share", np.array(1 / 13, np.float32))
    return [
        helper.make_node("Mul", [inner, zero], ["flat"]),
        helper.make_node("Add", ["flat", share], [name]),
    ]


def _picked(axis: int, order: list[int]) -> Callable[[str, str, Any], list[Any]]:
    def make(inner: str, name: str, graph: Any) -> list[Any]:
        picks = given(graph, "picks", np.array(order, np.int64))
        return [helper.make_node("Gather", [inner, picks], [name], axis=axis)]

    return make


def _by_operator(kind: str, **attributes: Any) -> Callable[[str, str, Any], list[Any]]:
    return lambda inner, name, graph: [helper.make_node(kind, [inner], [name], **attributes)]


def _scores(graph: Any) -> None:
    """The scores in place of the weights, to those who read the map only."""
    softmax = next(n for n in nodes(graph, "Softmax") if "attention/look" in n.output)
    source = softmax.input[0]
    told("attention/look", lambda _, name, __: [helper.make_node("Identity", [source], [name])])(
        graph
    )


def _rounded(graph: Any) -> None:
    for item in graph.initializer:
        value = numpy_helper.to_array(item)
        if value.dtype == np.float32 and value.ndim > 1:
            short = value.astype(np.float16).astype(np.float32)
            item.CopyFrom(numpy_helper.from_array(short, item.name))


IN_ONNX = [
    onnx_fault("input and output gate swapped", "watcher", NUMBERS, permuted(LSTM, (1, 0, 2, 3))),
    onnx_fault(
        "gates in Keras' order, not ONNX's", "watcher", NUMBERS, permuted(LSTM, (0, 2, 3, 1))
    ),
    onnx_fault("GRU's update and reset gate swapped", "counter", NUMBERS, permuted(GRU, (1, 0, 2))),
    onnx_fault(
        "one gate's recurrent kernel transposed",
        "watcher",
        NUMBERS,
        change((1, 28, 7), _first_gate_transposed),
    ),
    onnx_fault(
        "recurrent kernel of zeros: every step by itself",
        "watcher",
        NUMBERS,
        change((1, 28, 7), np.zeros_like),
    ),
    onnx_fault(
        "forget gate's bias one too large",
        "watcher",
        NUMBERS,
        change((1, 56), _add((0, slice(14, 21)), 1.0)),
    ),
    onnx_fault(
        "hard_sigmoid of Keras 2 in the gates",
        "watcher",
        NUMBERS,
        both(
            attribute("LSTM", "activations", ["HardSigmoid", "Tanh", "Tanh"]),
            attribute("LSTM", "activation_alpha", [0.2]),
            attribute("LSTM", "activation_beta", [0.5]),
        ),
    ),
    onnx_fault("relu in place of tanh", "pair", NUMBERS, attribute("RNN", "activations", ["Relu"])),
    onnx_fault(
        "sequence read backwards", "watcher", NUMBERS, attribute("LSTM", "direction", "reverse")
    ),
    onnx_fault(
        "both directions read forwards",
        "counter",
        NUMBERS,
        _both_forwards,
    ),
    onnx_fault("halves of both directions swapped", "counter", NUMBERS, _swapped_ends),
    onnx_fault(
        "reset_after taken for reset_before",
        "counter",
        NUMBERS,
        attribute("GRU", "linear_before_reset", 0),
    ),
    onnx_fault("gate activations cut at 1", "watcher", NUMBERS, attribute("LSTM", "clip", 1.0)),
    onnx_fault("query one step off", "watcher", ATTENTION, _other_query),
    onnx_fault("score kernel transposed", "watcher", ATTENTION, change((7, 7), np.transpose)),
    onnx_fault(
        "softmax over the wrong axis", "watcher", ATTENTION, attribute("Softmax", "axis", 0)
    ),
    onnx_fault("softmax over the queries", "heads", ATTENTION, attribute("Softmax", "axis", 2)),
    onnx_fault("softmax left out of the answer", "watcher", NUMBERS, without("Softmax", 1)),
    onnx_fault("scores not scaled", "heads", ATTENTION, _wrong_scale),
    onnx_fault("causal mask ignored", "heads", ATTENTION, _look_at_future),
    onnx_fault("padding not masked", "reader", ATTENTION, _no_mask),
    onnx_fault("stale row of the embedding", "reader", NUMBERS, change((29, 5), _add(23, 0.1))),
    onnx_fault("embedding one row off", "reader", NUMBERS, change((29, 5), _rows_rolled)),
    onnx_fault(
        "NaN in one word's embedding", "reader", NUMBERS, change((29, 5), _put((17, 2), np.nan))
    ),
    onnx_fault("one class's bias moved by 0.01", "reader", NUMBERS, change((3,), _add(1, 0.01))),
    onnx_fault(
        "two classes swapped",
        "watcher",
        NUMBERS,
        both(change((5, 4), _swap_columns), change((4,), _swap_columns)),
    ),
    onnx_fault(
        "answer's kernel without its last row", "watcher", NUMBERS, change((5, 4), _put(4, 0.0))
    ),
    onnx_fault("one weight off by 0.01", "watcher", NUMBERS, change((14, 5), _add((3, 2), 0.01))),
    onnx_fault("weights rounded to float16, and called float32", "watcher", NUMBERS, _rounded),
    onnx_fault("outputs swapped", "pair", NUMBERS, swap_names("yes", "no")),
    onnx_fault("inputs swapped", "pair", NUMBERS, swap_names("left", "right")),
    onnx_fault("tanh of the attentional vector left out", "watcher", NUMBERS, without("Tanh", 1)),
    onnx_fault(
        "context of equal weights behind a right map", "watcher", NUMBERS, _equal_context, only=True
    ),
    onnx_fault(
        "normalization's epsilon a hundred times too small",
        "heads",
        NUMBERS,
        attribute("LayerNormalization", "epsilon", 1e-5),
    ),
    onnx_fault("GELU by another formula", "heads", NUMBERS, _gelu_by_tanh, only=True),
    onnx_fault("bias behind the heads dropped", "heads", NUMBERS, change((6,), np.zeros_like, 2)),
    onnx_fault(
        "map of equal weights", "watcher", ATTENTION, told("attention/look", _uniform), only=True
    ),
    onnx_fault(
        "map one key off",
        "watcher",
        ATTENTION,
        told("attention/look", _picked(1, [12, *range(12)])),
        only=True,
    ),
    onnx_fault(
        "map of another head",
        "heads",
        ATTENTION,
        told("attention/look", _picked(1, [0, 2, 1])),
        only=True,
    ),
    onnx_fault(
        "map with queries and keys swapped",
        "heads",
        ATTENTION,
        told("attention/look", _by_operator("Transpose", perm=[0, 1, 3, 2])),
        only=True,
    ),
    onnx_fault("scores told in place of weights", "watcher", ATTENTION, _scores, only=True),
]


# TFLite


def tflite_fault(
    name: str, model: str, stage: str, edit: Callable[[Any], None], **more: Any
) -> Fault:
    def plant(content: bytes) -> bytes:
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema

        read = schema.ModelT.InitFromPackedBuf(content, 0)
        edit(read)
        builder = flatbuffers.Builder(len(content) + 4096)
        builder.Finish(read.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    return Fault(name, model, stage, plant, **{"format": "tflite", **more})


def kinds(model: Any) -> list[str]:
    from ai_edge_litert import schema_py_generated as schema

    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    return [names[max(c.builtinCode, c.deprecatedBuiltinCode)] for c in model.operatorCodes]


def operators(model: Any, kind: str) -> list[Any]:
    names = kinds(model)
    return [o for g in model.subgraphs for o in g.operators if names[o.opcodeIndex] == kind]


def tensors(model: Any, shape: tuple[int, ...]) -> list[Any]:
    """The constants of a shape."""
    return [
        tensor
        for graph in model.subgraphs
        for tensor in graph.tensors
        if tensor.shape is not None
        and tuple(map(int, tensor.shape)) == shape
        and model.buffers[tensor.buffer].data is not None
        and len(model.buffers[tensor.buffer].data)
    ]


def rewrite(
    shape: tuple[int, ...], function: Callable[[Array], Array], dtype: str = "float32"
) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        buffer = model.buffers[tensors(model, shape)[0].buffer]
        value = np.frombuffer(bytes(buffer.data), dtype).reshape(shape).copy()
        buffer.data = np.frombuffer(np.ascontiguousarray(function(value)).tobytes(), np.uint8)

    return edit


def _names_swapped(model: Any) -> None:
    graph = model.subgraphs[0]
    one, other = (graph.tensors[int(i)] for i in list(graph.outputs)[:2])
    one.name, other.name = other.name, one.name
    for signature in model.signatureDefs or []:
        for entry in signature.outputs:
            swapped = {b"yes": b"no", b"no": b"yes"}
            entry.name = swapped.get(entry.name, entry.name)


def _sharper(model: Any) -> None:
    operators(model, "SOFTMAX")[0].builtinOptions.beta = 1.5


def _no_flag(model: Any) -> None:
    """A fused LSTM clears its state on a step that a flag marks, in a column of its own."""
    fused = operators(model, "UNIDIRECTIONAL_SEQUENCE_LSTM")[0]
    graph = model.subgraphs[0]
    for index in list(fused.inputs)[1:5]:
        tensor = graph.tensors[int(index)]
        shape = tuple(map(int, tensor.shape))
        buffer = model.buffers[tensor.buffer]
        value = np.frombuffer(bytes(buffer.data), np.float32).reshape(shape).copy()
        value[np.abs(value) >= np.abs(value).max() - 1e-6] *= 1e-6
        value[:, -1] = 0.0
        buffer.data = np.frombuffer(value.tobytes(), np.uint8)


def _clipped(model: Any) -> None:
    operators(model, "UNIDIRECTIONAL_SEQUENCE_LSTM")[0].builtinOptions.cellClip = 10.0


def _reaudited(artifact: Artifact, content: bytes) -> Artifact:
    """What the converter would have written in the manifest of this file."""
    from edgeattn_converters.formats.tflite import audit

    return replace(artifact, achieved={**artifact.achieved, **audit(content)})


def _scale(shape: tuple[int, ...], function: Callable[[Array], Array]) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        for tensor in tensors(model, shape)[:1]:
            tensor.quantization.scale = function(np.array(tensor.quantization.scale))

    return edit


def _zero_point(model: Any) -> None:
    graph = model.subgraphs[0]
    tensor = graph.tensors[int(graph.outputs[0])]
    tensor.quantization.zeroPoint = [int(tensor.quantization.zeroPoint[0]) + 1]


def _zero_point_told(artifact: Artifact, _: bytes) -> Artifact:
    (spec,) = artifact.outputs
    return replace(artifact, outputs=(replace(spec, zero_point=(spec.zero_point or 0) + 1),))


def _flipped(value: Array) -> Array:
    return (value.astype(np.int16) + 128).astype(np.uint8).view(np.int8)


def _shorten(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _as_int8(artifact: Artifact, _: bytes) -> Artifact:
    return replace(artifact, scheme="int8")


IN_TFLITE = [
    tflite_fault("state left over by a fused LSTM", "fused", NUMBERS, _no_flag),
    tflite_fault("fused LSTM clips its cell at 10", "fused", STRUCTURE, _clipped, entry=_reaudited),
    tflite_fault(
        "one gate's recurrent kernel transposed",
        "watcher",
        NUMBERS,
        rewrite((28, 7), lambda v: np.concatenate([v[:7].T, v[7:]])),
    ),
    tflite_fault(
        "recurrent gates rolled", "watcher", NUMBERS, rewrite((28, 7), lambda v: np.roll(v, 7, 0))
    ),
    tflite_fault("outputs swapped", "pair", NUMBERS, _names_swapped),
    tflite_fault("attention's softmax half as warm", "watcher", ATTENTION, _sharper),
    tflite_fault(
        "one class's bias moved by 0.01", "watcher", NUMBERS, rewrite((4,), _add(2, 0.01))
    ),
    tflite_fault("stale row of the embedding", "reader", NUMBERS, rewrite((29, 5), _add(23, 0.1))),
    tflite_fault(
        "NaN in one word's embedding", "reader", NUMBERS, rewrite((29, 5), _put((17, 2), np.nan))
    ),
    tflite_fault(
        "a weight that overflowed float16",
        "digits",
        NUMBERS,
        rewrite((32, 128), _put((3, 3), np.inf), "float16"),
        scheme="float16",
    ),
    tflite_fault(
        "int8 scales of the recurrence one row off",
        "digits",
        NUMBERS,
        _scale((256, 64), lambda s: np.roll(s, 1)),
        scheme="dynamic_int8",
    ),
    tflite_fault(
        "int8 scales of the recurrence doubled",
        "digits",
        NUMBERS,
        _scale((256, 64), lambda s: 2 * s),
        scheme="dynamic_int8",
    ),
    tflite_fault(
        "int8 weights read as uint8",
        "digits",
        NUMBERS,
        rewrite((256, 64), _flipped, "int8"),
        scheme="dynamic_int8",
    ),
    tflite_fault(
        "int8 scales of the recurrence halved",
        "digits",
        NUMBERS,
        _scale((256, 64), lambda s: s / 2),
        scheme="int8",
    ),
    tflite_fault(
        "a zero point off by one",
        "integers",
        NUMBERS,
        _zero_point,
        scheme="int8",
        entry=_zero_point_told,
    ),
    Fault(
        "a float32 file called int8",
        "digits",
        STRUCTURE,
        lambda c: c,
        format="tflite",
        entry=_as_int8,
    ),
    Fault("half a file", "watcher", LOADING, _shorten, format="tflite"),
    Fault("half a file", "watcher", LOADING, _shorten),
]


# What no file can express, or what a runtime does


class Wrapped:
    """A runner whose answers, or questions, are tampered with."""

    def __init__(self, inner: Runner, tamper: Callable[[Runner, Mapping[str, Array]], Any]) -> None:
        self._inner, self._tamper = inner, tamper
        self.inputs, self.outputs, self.runtime = inner.inputs, inner.outputs, inner.runtime

    def run(self, tensors: Mapping[str, Array]) -> Mapping[str, Array]:
        result: Mapping[str, Array] = self._tamper(self._inner, tensors)
        return result

    def close(self) -> None:
        self._inner.close()


def _wrapping(make: Callable[[], Callable[[Runner, Mapping[str, Array]], Any]]) -> Any:
    return lambda inner: Wrapped(inner, make())


def _answers(function: Callable[[dict[str, Array], Mapping[str, Array]], Any]) -> Any:
    def tamper(inner: Runner, given: Mapping[str, Array]) -> dict[str, Array]:
        outputs = {name: array.copy() for name, array in inner.run(given).items()}
        function(outputs, given)
        return outputs

    return _wrapping(lambda: tamper)


def _leaking() -> Any:
    kept: dict[str, Array] = {}

    def tamper(inner: Runner, given: Mapping[str, Array]) -> dict[str, Array]:
        outputs = {name: array.copy() for name, array in inner.run(given).items()}
        for name, array in outputs.items():
            before = np.concatenate([kept.get(name, 0 * array[:1]), array[:-1]])
            kept[name] = array[-1:].copy()
            array += (1e-3 * before).astype(array.dtype)
        return outputs

    return tamper


def _late() -> Any:
    kept: dict[str, Array] = {}

    def tamper(inner: Runner, given: Mapping[str, Array]) -> dict[str, Array]:
        outputs = dict(inner.run(given))
        for name in ("attention/look",):
            right = outputs[name]
            outputs[name] = np.concatenate([kept.get(name, right[:1]), right[:-1]])
            kept[name] = right[-1:]
        return outputs

    return tamper


def _tired() -> Any:
    calls = [0]

    def tamper(inner: Runner, given: Mapping[str, Array]) -> dict[str, Array]:
        calls[0] += 1
        outputs = {name: array.copy() for name, array in inner.run(given).items()}
        for array in outputs.values():
            array *= 1 - 1e-6 * (calls[0] - 1)
        return outputs

    return tamper


def _saturating(inner: Runner, given: Mapping[str, Array]) -> Any:
    return inner.run({name: np.clip(array, -4, 4) for name, array in given.items()})


def _padded_in_front(inner: Runner, given: Mapping[str, Array]) -> Any:
    words = given["tokens"].copy()
    for row in words:
        row[:] = np.concatenate([row[row == 0], row[row != 0]])
    return inner.run({"tokens": words})


def _coarse_mask(outputs: dict[str, Array], _: Mapping[str, Array]) -> None:
    """Scores with a fill of -1e9 in one int8 tensor: all that is not masked becomes equal."""
    weights = outputs["attention/look"]
    with np.errstate(divide="ignore"):
        scores = np.where(weights > 0, np.log(np.maximum(weights, 1e-30)), -1e9)
    masked = (weights == 0).any(-1)
    step = 1e9 / 255
    coarse = np.exp(np.rint(scores / step) * step)
    weights[masked] = (coarse / np.maximum(coarse.sum(-1, keepdims=True), 1e-9))[masked]


def _vanishing(outputs: dict[str, Array], _: Mapping[str, Array]) -> None:
    """Weights in steps of 1/16, rounded down: what is small is lost, and rows lose their sums."""
    outputs["attention/look"][:] = np.floor(outputs["attention/look"] * 16) / 16


def _nan_on_one(outputs: dict[str, Array], _: Mapping[str, Array]) -> None:
    if len(outputs["answer"]) > 5:
        outputs["answer"][5, 0] = np.nan


def _infinite_map(outputs: dict[str, Array], _: Mapping[str, Array]) -> None:
    if len(outputs["attention/look"]) > 3:
        outputs["attention/look"][3, 0] = np.inf


def _unlike_the_reference(outputs: dict[str, Array], given: Mapping[str, Array]) -> None:
    """Right on what the bundle holds and wrong on a tenth of the rest."""
    if len(outputs["dense"]) > 200:
        outputs["dense"][150::10] = np.roll(outputs["dense"][150::10], 1, -1)


def _drifting(outputs: dict[str, Array], _: Mapping[str, Array]) -> None:
    """Worse with every sequence: the bundle's are too few to show it."""
    count = len(outputs["dense"])
    outputs["dense"][:, 0] += np.maximum(0, np.arange(count) - 100).astype(np.float32) * 0.01


def _called_int8(artifact: Artifact, _: bytes) -> Artifact:
    return replace(artifact, scheme="int8", achieved={})


WRAPPED = [
    Fault(
        "a thousandth of the last answer left over", "watcher", NUMBERS, wrap=_wrapping(_leaking)
    ),
    Fault("map of the sequence before", "watcher", ATTENTION, wrap=_wrapping(_late), only=True),
    Fault(
        "another answer when asked again",
        "watcher",
        NUMBERS,
        wrap=_wrapping(_tired),
        format="tflite",
    ),
    Fault("inputs cut at 4", "watcher", NUMBERS, wrap=_wrapping(lambda: _saturating)),
    Fault(
        "padding in front of the words",
        "reader",
        ATTENTION,
        wrap=_wrapping(lambda: _padded_in_front),
        only=True,
    ),
    Fault(
        "mask's fill of -1e9 in an int8 tensor",
        "reader",
        ATTENTION,
        wrap=_answers(_coarse_mask),
        entry=_called_int8,
        only=True,
    ),
    Fault(
        "small weights lost in steps of 1/16",
        "watcher",
        ATTENTION,
        wrap=_answers(_vanishing),
        entry=_called_int8,
        only=True,
    ),
    Fault(
        "NaN on one input", "watcher", NUMBERS, wrap=_answers(_nan_on_one), scheme="dynamic_int8"
    ),
    Fault(
        "infinity in one row of the map",
        "watcher",
        ATTENTION,
        wrap=_answers(_infinite_map),
        scheme="float16",
        only=True,
    ),
    Fault(
        "wrong on a tenth of what the reference lacks",
        "digits",
        TASK,
        wrap=_answers(_unlike_the_reference),
        only=True,
    ),
    Fault(
        "drifts after a hundred sequences",
        "digits",
        TASK,
        wrap=_answers(_drifting),
        scheme="dynamic_int8",
        format="tflite",
        only=True,
    ),
]

FAULTS = [*IN_ONNX, *IN_TFLITE, *WRAPPED]
