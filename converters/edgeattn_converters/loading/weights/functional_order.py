"""The order of the layers of a functional model in Keras 2, which that of stored weights is.

It is that of the longest path to an output, then that of the calls. In Keras 3, the operations that
compute masks are part of the path, so that layers with masks have other places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from edgeattn_converters.keras_classes import derives_from
from edgeattn_converters.loading.config_inspection import (
    Config,
    is_model,
    layer_name,
    stored_layers,
    wrapped_model,
)
from edgeattn_converters.loading.migrate.context import safe_name
from edgeattn_converters.loading.weights.assignment import find_layer

_GIVEN = "_edgeattn_given"


def record(layer: Any, tensors: Sequence[Any]) -> None:
    """Record with which symbolic tensors the last call of a layer was written.

    The call may have got masks and copies of tensors since.
    """
    nodes = getattr(layer, "_inbound_nodes", None)
    if nodes and tensors:
        setattr(nodes[-1], _GIVEN, list(tensors))


def is_functional(model: Any) -> bool:
    """Whether a model has inputs, outputs and the calls between them."""
    return derives_from(model, "Functional")


def operations(model: Any) -> list[Any]:
    """Return layers and operations of a functional model in the order of Keras 2.

    The rule is that of ``_map_graph_network`` in tf_keras. Those that Keras 3 has added, of masks,
    are left out.
    """
    nodes, places = _visited(model.outputs)
    depths: dict[Any, int] = {}
    node_depths: dict[Any, int] = {}
    for node in reversed(nodes):
        depth = max(node_depths.get(node, 0), depths.get(node.operation, 0))
        depths[node.operation] = node_depths[node] = depth
        for tensor in _inputs(node):
            earlier = _node(tensor)
            node_depths[earlier] = max(depth + 1, node_depths.get(earlier, 0))
    return sorted(depths, key=lambda operation: (-depths[operation], places[operation]))


def _visited(outputs: Sequence[Any]) -> tuple[list[Any], dict[Any, int]]:
    """Return the nodes from inputs to outputs, and the places of their layers."""
    nodes: dict[Any, None] = {}
    places: dict[Any, int] = {}
    started: set[int] = set()

    def visit(tensor: Any) -> None:
        node = _node(tensor)
        if id(node) in started:
            return
        started.add(id(node))
        places.setdefault(node.operation, len(places))
        for earlier in _inputs(node):
            visit(earlier)
        nodes[node] = None

    for tensor in outputs:
        visit(tensor)
    return list(nodes), places


def _node(tensor: Any) -> Any:
    operation, index, _ = tensor._keras_history
    return operation._inbound_nodes[index]


def _inputs(node: Any) -> Sequence[Any]:
    if node.is_input:
        return ()
    given: Sequence[Any] = getattr(node, _GIVEN, None) or node.input_tensors
    return given


def stored_in_order(model: Any, stored: Config) -> Config:
    """Return the config of a model with its layers, also those of nested ones, in this order.

    An operation that Keras 3 has added is before the first layer that it is an input of.
    """
    if (wrapped := wrapped_model(stored)) is not None:
        inner = stored_in_order(model.layer, wrapped)
        return {**stored, "config": {**stored["config"], "layer": inner}}
    if not is_model(stored) or isinstance(stored["config"], list):
        return stored
    items = {
        safe_name(layer_name(item)): item
        if (layer := find_layer(model, item)) is None
        else stored_in_order(layer, item)
        for item in stored_layers(stored)
    }
    names = list(items)
    if is_functional(model):
        listed = [name for name in _with_added(operations(model)) if name in items]
        names = list(dict.fromkeys((*listed, *names)))
    config = {**stored["config"], "layers": [items[name] for name in names]}
    return {**stored, "config": config}


def _with_added(in_order: Sequence[Any]) -> Iterator[str]:
    """Yield the names of operations, each behind the added ones that it depends on."""
    known, done = set(in_order), set()

    def emitted(operation: Any) -> Iterator[str]:
        if operation in done:
            return
        done.add(operation)
        for node in operation._inbound_nodes:
            for tensor in () if node.is_input else node.input_tensors:
                earlier = tensor._keras_history.operation
                if earlier not in known:
                    yield from emitted(earlier)
        yield operation.name

    for operation in in_order:
        yield from emitted(operation)
