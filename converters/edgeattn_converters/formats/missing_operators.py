"""Names of operations that a format lacks, with the layers that need them."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgeattn.printable import enumerated
from edgeattn_converters.lowering.call_replacement import all_layers
from edgeattn_converters.lowering.composed_operations import fixed_bins

# TensorFlow numbers scopes of the same name.
_NUMBER = re.compile(r"_\d+$")


@dataclass(frozen=True)
class Missing:
    """Operations that a format lacks.

    Attributes:
        places: what calls each of them, such as ``"layer 'dense'"`` or ``"operation 'svd'"``, by
            the name of the operation in TensorFlow; empty if it is unknown.
        is_last: whether only layers without weights are behind these places, and layers with
            weights before them.
        bins: what to do if only bincount is missing, else empty.
    """

    places: Mapping[str, tuple[str, ...]]
    is_last: bool = False
    bins: str = ""

    def __str__(self) -> str:
        return ", ".join(f"{kind}{_parenthesis(names)}" for kind, names in self.places.items())

    @property
    def advice(self) -> str:
        """What to do about them."""
        if self.bins:
            return self.bins
        if not self.is_last:
            return f"Express {enumerated(list(self.places))} with other operations."
        names = list(dict.fromkeys(name for names in self.places.values() for name in names))
        return (
            f"Convert the model that ends before the {enumerated(names)}, and compute the rest "
            f"from its outputs. Or express {enumerated(list(self.places))} with other operations."
        )


def found_in(kinds: Collection[str], graph: Any, model: Any) -> Missing:
    """The operations of these kinds, with the layers and operations of ``model`` that call them.

    ``graph`` is the traced one, whose operations are named after their layers. Operations of
    functions of Keras, ``keras.ops.svd(x)``, are traced once more. Those of a ``call`` of the model
    have neither.
    """
    layers = {layer.name: layer for layer in all_layers(model)}
    callers: dict[str, dict[int, Any]] = {kind: {} for kind in sorted(kinds)}
    for kind, name in _operations(graph):
        layer = _layer(name, layers) if kind in callers else None
        if layer is not None:
            callers[kind][id(layers[layer])] = layers[layer]
    for operation in _functions_of_keras(model):
        for kind in _kinds_of(operation) & callers.keys():
            callers[kind][id(operation)] = operation
    places = {
        kind: tuple(_described(caller, layers) for caller in found.values())
        for kind, found in callers.items()
    }
    every = [caller for found in callers.values() for caller in found.values()]
    bins = fixed_bins(model) if set(places) == {"DenseBincount"} else ""
    return Missing(places, all(callers.values()) and _are_last(every, model), bins)


def _described(caller: Any, layers: Mapping[str, Any]) -> str:
    return f"{'layer' if layers.get(caller.name) is caller else 'operation'} {caller.name!r}"


def _operations(graph: Any) -> Iterator[tuple[str, str]]:
    definition = graph.as_graph_def()
    for nodes in (definition.node, *(item.node_def for item in definition.library.function)):
        for node in nodes:
            yield node.op, node.name


def _layer(name: str, known: Collection[str]) -> str | None:
    """The innermost layer among the scopes of an operation."""
    for scope in reversed(name.split("/")[:-1]):
        for candidate in (scope, _NUMBER.sub("", scope)):
            if candidate in known:
                return candidate
    return None


def _functions_of_keras(model: Any) -> Iterator[Any]:
    """The functions of Keras in functional models, which have no scope in a graph."""
    import keras

    for part in (model, *all_layers(model)):
        for operation in getattr(part, "operations", ()):
            if not isinstance(operation, keras.Layer):
                yield operation


def _kinds_of(operation: Any) -> set[str]:
    """The operations of TensorFlow that the first call of a function of Keras computes."""
    import keras
    import tensorflow as tf
    from tensorflow.python.framework.func_graph import FuncGraph

    arguments = operation._inbound_nodes[0].arguments
    with FuncGraph("call").as_default() as graph:
        tensors = {
            id(tensor): tf.compat.v1.placeholder(
                keras.backend.standardize_dtype(tensor.dtype), [1, *tensor.shape[1:]]
            )
            for tensor in arguments.keras_tensors
        }
        args, kwargs = arguments.fill_in(tensors)
        try:
            operation(*args, **kwargs)
        except Exception:  # such as a shape that another batch size gives; then it has no name
            return set()
    return {kind for kind, _ in _operations(graph)}


def _are_last(callers: Collection[Any], model: Any) -> bool:
    """Whether callers of the model itself have no weights behind them, and some before them."""
    behind: set[int] = {id(caller) for caller in callers}
    outer: Any = getattr(model, "operations", None) or getattr(model, "layers", ())
    if not behind or not behind <= {id(operation) for operation in outer}:
        return False
    waiting = list(callers)
    while waiting:
        for node in waiting.pop()._outbound_nodes:
            following = node.operation
            if getattr(following, "weights", None):
                return False
            if id(following) not in behind:
                behind.add(id(following))
                waiting.append(following)
    return any(getattr(item, "weights", None) for item in outer if id(item) not in behind)


def _parenthesis(names: Collection[str]) -> str:
    if not names:
        return ""
    layers = [name.removeprefix("layer ") for name in names if name.startswith("layer ")]
    others = [name.removeprefix("operation ") for name in names if name.startswith("operation ")]
    groups = [
        f"{word if len(group) == 1 else f'{word}s'} {', '.join(group)}"
        for word, group in (("layer", layers), ("operation", others))
        if group
    ]
    return f" ({', '.join(groups)})"
