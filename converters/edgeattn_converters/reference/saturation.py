"""Extremes on which the result of a model depends on how large numbers are rounded.

Runtimes compute a sigmoid with an absolute error of about the rounding of 1, so that a saturated
one is 1e-8 in one and 0 in another. A model that divides by it, takes its logarithm, or returns
the position of the largest of several saturated ones, has no defined result there. Neither has the
hue of a color whose parts differ by a few such roundings, nor attention without a key that is not
masked: Keras subtracts 1e9 from all scores, which rounds them to multiples of 64.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from edgeattn.tensors import Tensors
from edgeattn_converters.graphs.operation_creation import Creation, created_by, is_copy
from edgeattn_converters.keras_classes import is_keras_class, operations_of
from edgeattn_converters.loading.own_code.own_classes import is_own_class
from edgeattn_converters.lowering.call_replacement import (
    all_layers,
    replaced_calls,
    with_attributes,
)
from edgeattn_converters.lowering.plain_layers import lower_signature
from edgeattn_converters.reference.keras_outputs import KerasOutputs, by_row_on_failure
from edgeattn_converters.reference.traced_values import traced_values
from edgeattn_converters.tracing.trace import Interface, trace

BOUNDED = ("Sigmoid", "Tanh", "Softmax")
_STEEP = frozenset({"Divide", "TrueDivide", "Reciprocal", "Power", "Log", "Rsqrt"})
# Their results are positions, which change if several values are rounded to the same one.
_ORDERED = frozenset({"Argmax", "Argmin", "Argsort", "TopK"})
_ORDERED_IN_GRAPH = frozenset({"ArgMax", "ArgMin", "TopKV2"})
# Operations behind which bounded activations still are what they were, or parts of a share.
KEEPING = (
    *("Identity", "StopGradient", "Cast", "Reshape", "Transpose", "Squeeze", "ExpandDims", "Neg"),
    *("StridedSlice", "Slice", "GatherV2", "Pack", "Unpack", "Split", "SplitV", "ConcatV2", "Abs"),
    *("Select", "SelectV2", "Maximum", "Minimum", "Max", "AddV2", "Add", "Sub", "Mul", "RealDiv"),
    *("Sum", "Mean"),
)
ROUNDING = 2.0**-23
_HUE = "RGBToHSV"  # of TensorFlow


def computes_hues(function: Any) -> bool:
    """Whether a concrete function computes the hue of colors."""
    definition = function.graph.as_graph_def()
    parts = (definition.node, *(item.node_def for item in definition.library.function))
    return any(node.op == _HUE for nodes in parts for node in nodes)


def orders_bounded(function: Any) -> bool:
    """Whether a concrete function looks for the largest of bounded activations.

    These may be divided, joined, masked and moved before. It also finds them in the layers of a
    user, of which no Keras operation is known.
    """
    definition = function.graph.as_graph_def()
    parts = (definition.node, *(item.node_def for item in definition.library.function))
    return any(map(_orders_bounded, parts))


def _orders_bounded(nodes: Iterable[Any]) -> bool:
    return leads_back(
        nodes,
        lambda node: node.op in _ORDERED_IN_GRAPH,
        lambda node: node.op in BOUNDED,
        lambda node: node.op in KEEPING,
    )


def leads_back(
    nodes: Iterable[Any],
    starts: Callable[[Any], bool],
    ends: Callable[[Any], bool],
    passes: Callable[[Any], bool],
) -> bool:
    """Whether an input of a node that ``starts`` comes from one that ``ends``.

    Between them are only nodes that ``passes`` accepts.
    """
    by_name = {node.name: node for node in nodes}
    waiting = list(filter(starts, by_name.values()))
    visited: set[str] = set()
    while waiting:
        for name in waiting.pop().input:
            # Inputs are ``name``, ``name:0`` or, in functions, ``name:output:0``.
            source = by_name.get(name.split(":")[0])
            if source is None or source.name in visited:
                continue
            visited.add(source.name)
            if ends(source):
                return True
            if passes(source):
                waiting.append(source)
    return False


def shifted_function(
    model: Any,
    interface: Interface,
    *,
    alone: bool = False,
    hues: bool = False,
    ordered: bool = False,
    last: bool = False,
) -> Callable[[Tensors], KerasOutputs] | None:
    """What Keras computes if bounded activations are larger by the rounding of 1, and if scores of
    which all are masked are equal. If the model returns positions, activations are rounded to
    multiples of that instead, as are colors if it computes ``hues``. ``ordered`` says that the
    graph looks for the largest of activations, also within a layer. Of equal ones, the first is the
    largest, or with ``last`` the last; of equal ones, the first is the smallest.

    None for models without hues, an operation that is steep near zero, positions or masks of
    scores. If ``alone``, no sample is in a batch with others.
    """
    kinds = {
        type(operation).__name__
        for item in model._flatten_layers()
        for operation in operations_of(item)
        if not is_own_class(type(operation))
    }
    change: Callable[[Any], Any] | None = None
    if ordered or kinds & _ORDERED:
        change = _rounded_rising if last else _rounded
    elif kinds & _STEEP:
        change = _shifted
    masked: list[Any] = []

    @contextlib.contextmanager
    def changed() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            # The operations of a SavedModel are otherwise in a function, and not created again.
            stack.enter_context(replaced_calls(model, lower_signature))
            if change is not None:
                stack.enter_context(_changed_activations(change))
            if hues:
                stack.enter_context(_rounded_colors())
            for layer in all_layers(model):
                if is_keras_class(layer, "Attention", "AdditiveAttention"):
                    stack.enter_context(_equal_scores(layer, masked))
            yield

    if (
        change is None
        and not hues
        and not any(
            is_keras_class(layer, "Attention", "AdditiveAttention") for layer in all_layers(model)
        )
    ):
        return None
    traced = trace(model, interface, batch=None, attention=False, freeze=False, lowering=changed)
    if change is None and not hues and not masked:
        return None

    def run(inputs: Tensors) -> KerasOutputs:
        values = traced_values(traced, inputs, 1 if alone else None)
        return KerasOutputs(dict(values), {}, {})

    return by_row_on_failure(run)


@contextlib.contextmanager
def _equal_scores(layer: Any, masked: list[Any]) -> Iterator[None]:
    """Within the context, ``layer`` computes scores of 0 for queries all of whose keys are masked.

    Layers with a mask are added to ``masked``.
    """
    import tensorflow as tf

    original = layer._apply_scores

    def apply_scores(scores: Any, value: Any, scores_mask: Any = None, training: Any = None) -> Any:
        if scores_mask is not None:
            masked.append(layer)
            mask = scores_mask[:, None] if len(scores_mask.shape) == 2 else scores_mask
            has_key = tf.reduce_any(tf.cast(mask, tf.bool), axis=-1, keepdims=True)
            scores = tf.where(has_key, scores, tf.zeros_like(scores))
        return original(scores, value, scores_mask=scores_mask, training=bool(training))

    with with_attributes(layer, {"_apply_scores": apply_scores}):
        yield


def _shifted(activation: Any) -> Any:
    return activation + ROUNDING


def _rounded(activation: Any) -> Any:
    import tensorflow as tf

    return tf.round(activation / (2 * ROUNDING)) * (2 * ROUNDING)


def _rounded_rising(activation: Any) -> Any:
    """Rounded activations that then rise by less than the rounding of 1 along the last axis."""
    import tensorflow as tf

    rounded = _rounded(activation)
    if rounded.shape.rank == 0:
        return rounded
    count = tf.shape(rounded)[-1]
    behind = tf.cast(count - 1 - tf.range(count), rounded.dtype)
    return rounded - ROUNDING * behind / tf.cast(count, rounded.dtype)


@contextlib.contextmanager
def _changed_activations(change: Callable[[Any], Any]) -> Iterator[None]:
    def creation(create: Creation, graph: Any, kind: str, *args: Any, **kwargs: Any) -> Any:
        operation = create(graph, kind, *args, **kwargs)
        return change(operation.outputs[0]).op if kind in BOUNDED else operation

    with created_by(creation):
        yield


@contextlib.contextmanager
def _rounded_colors() -> Iterator[None]:
    import tensorflow as tf

    def creation(
        create: Creation, graph: Any, kind: str, inputs: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if kind == _HUE and not is_copy(kwargs) and inputs[0].dtype == tf.float32:
            inputs = [_rounded(inputs[0])]
        return create(graph, kind, inputs, *args, **kwargs)

    with created_by(creation):
        yield
