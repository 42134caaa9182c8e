"""Extremes on which a comparison decides on the rounding of a saturated activation.

``where(sigmoid(x) > 0, a, b)`` is ``a`` in Keras for x = -50, whose sigmoid is 2e-22, and ``b`` in
onnxruntime, whose sigmoid is 0 from -18 on. Such rows say nothing about a file. They are found by
two changes of what Keras computes: activations that are almost at an end of their range are moved
to it, and those at an end are moved away from it if a runtime may compute them so. Both leave the
others as they are, also those exactly at an end on which all runtimes agree, so a file that
computes ``>=`` in place of ``>`` is still found.

Measured with LiteRT 2.3 and onnxruntime 1.32: their sigmoids are 0 and 1 beyond -20 and 20, their
hyperbolic tangents -1 and 1 beyond -10 and 10, and a softmax is 0 if a score is 104 below the
largest. Errors near the ends are at most two roundings of 1.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from edgeattn.tensors import Tensors
from edgeattn_converters.graphs.operation_creation import Creation, created_by
from edgeattn_converters.lowering.call_replacement import replaced_calls
from edgeattn_converters.lowering.plain_layers import lower_signature
from edgeattn_converters.reference.keras_outputs import KerasOutputs, by_row_on_failure
from edgeattn_converters.reference.saturation import (
    BOUNDED,
    KEEPING,
    ROUNDING,
    leads_back,
)
from edgeattn_converters.reference.traced_values import traced_values
from edgeattn_converters.tracing.trace import Interface, trace

# Operations whose result changes abruptly, and casts, which do if they are to integers.
_STEPS = frozenset(
    {"Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "NotEqual", "Sign", "Ceil", "Floor"}
    | {"Round", "Rint"}
)
# What a loop returns is a list of its steps.
_OF_LISTS = ("TensorListStack", "TensorListGetItem")
_CALLED = ("f", "body", "cond", "then_branch", "else_branch", "branches")
_ALMOST = 2 * ROUNDING
_SMALLEST = 2.0**-126  # of the numbers that no runtime replaces by 0
_SIGMOID_END, _TANH_END, _SOFTMAX_END = 20.0, 10.0, 104.0


def compares_bounded(function: Any) -> bool:
    """Whether a concrete function compares bounded activations, or rounds them to integers.

    These may be multiplied, joined and moved before, and computed in a loop or another function.
    """
    definition = function.graph.as_graph_def()
    functions = {item.signature.name: item.node_def for item in definition.library.function}
    parts = (definition.node, *functions.values())
    return any(_compares_bounded(nodes, functions) for nodes in parts)


def _compares_bounded(nodes: Iterable[Any], functions: Mapping[str, Iterable[Any]]) -> bool:
    return leads_back(
        nodes,
        _is_step,
        lambda node: node.op in BOUNDED or _calls_bounded(node, functions, set()),
        lambda node: node.op in KEEPING or node.op in _OF_LISTS,
    )


def _is_step(node: Any) -> bool:
    import tensorflow as tf

    if node.op != "Cast":
        return node.op in _STEPS
    source, result = (tf.as_dtype(node.attr[name].type) for name in ("SrcT", "DstT"))
    return bool(source.is_floating and not result.is_floating)


def _calls_bounded(node: Any, functions: Mapping[str, Iterable[Any]], seen: set[str]) -> bool:
    """Whether a node calls a function that contains a bounded activation, such as a loop."""
    attributes = [node.attr[key] for key in _CALLED if key in node.attr]
    for name in (f.name for item in attributes for f in (item.func, *item.list.func) if f.name):
        if name in seen:
            continue
        seen.add(name)
        for inner in functions.get(name, ()):
            if inner.op in BOUNDED or _calls_bounded(inner, functions, seen):
                return True
    return False


def changed_ends(
    model: Any, interface: Interface, *, outwards: bool, alone: bool = False
) -> Callable[[Tensors], KerasOutputs]:
    """What Keras computes if saturated activations are moved to the ends of their ranges.

    They are moved away from the ends unless ``outwards``. If ``alone``, no sample is in a batch
    with others.
    """
    change = _to_end if outwards else _from_end

    def creation(create: Creation, graph: Any, kind: str, *args: Any, **kwargs: Any) -> Any:
        operation = create(graph, kind, *args, **kwargs)
        if kind not in BOUNDED:
            return operation
        return change(kind, operation.inputs[0], operation.outputs[0]).op

    @contextlib.contextmanager
    def changed() -> Iterator[None]:
        # The operations of a SavedModel are otherwise in a function, and not created again.
        with replaced_calls(model, lower_signature), created_by(creation):
            yield

    traced = trace(model, interface, batch=None, attention=False, freeze=False, lowering=changed)

    def run(inputs: Tensors) -> KerasOutputs:
        values = traced_values(traced, inputs, 1 if alone else None)
        return KerasOutputs(dict(values), {}, {})

    return by_row_on_failure(run)


def _to_end(kind: str, _: Any, y: Any) -> Any:
    """Activations, at the end of the range of which they are as close as rounding errors."""
    import tensorflow as tf

    if kind == "Tanh":
        return tf.where(tf.abs(y) > 1 - _ALMOST, tf.sign(y), y)
    lowest = _ALMOST if kind == "Sigmoid" else _SMALLEST  # of which a softmax has all digits
    y = tf.where(y < tf.cast(lowest, y.dtype), tf.zeros_like(y), y)
    return tf.where(y > 1 - _ALMOST, tf.ones_like(y), y)


def _from_end(kind: str, x: Any, y: Any) -> Any:
    """Activations, moved from an end of the range if they are not so far beyond it."""
    import tensorflow as tf

    is_high = tf.abs(y) > 1 - _ALMOST
    if kind == "Tanh":
        return tf.where(is_high & (tf.abs(x) < _TANH_END), y * (1 - _ALMOST), y)
    if kind == "Sigmoid":
        y = tf.where((y < _ALMOST) & (x > -_SIGMOID_END), y + ROUNDING, y)
        return tf.where(is_high & (x < _SIGMOID_END), y - ROUNDING, y)
    below = x - tf.reduce_max(x, axis=-1, keepdims=True)
    is_low = (y < tf.cast(_SMALLEST, y.dtype)) & (below > -_SOFTMAX_END)
    others = tf.reduce_sum(tf.where(below < 0, tf.exp(below), tf.zeros_like(x)), -1, keepdims=True)
    y = tf.where(is_low, tf.cast(_SMALLEST, y.dtype), y)
    return tf.where(is_high & (others > ROUNDING / 16), y - ROUNDING, y)
