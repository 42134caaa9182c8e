"""The variables of a model by the attributes that lead to them, the same in Keras 2 and Keras 3.

A program creates the same layers in both, in the same attributes, whatever order of the weights
they have. Several attributes may lead to one variable, and to other ones in one framework only: a
layer of Keras 2 to whose kernel a tensor was assigned does not have its variable any more.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeattn_converters.loading.migrate.context import safe_name

# What objects lead to, by labels: an object by its number, or a variable as -1 - its number.
Edges = Mapping[str, int]

# Beginnings of attributes of Keras with lists of what other attributes contain.
_LISTS = (
    *("_self_", "_layers", "_tracked", "_tracker", "_metrics", "_losses", "_loss_ids", "_updates"),
    *("_trainable_", "_non_trainable_", "_seed_generators", "_obj_reference_counts"),
    *(
        "_inbound_nodes",
        "_outbound_nodes",
        "_nodes",
        "_network_nodes",
        "_operations",
        "_functional",
    ),
    *(
        "_input_layers",
        "_output_layers",
        "_input_coord",
        "_output_coord",
        "_layer_call_argspecs",
        "_edgeattn",
    ),
)
_PLACE, _NAME = "layers#", "layers:"


@dataclass(frozen=True)
class Framework:
    """The classes of layers and variables of a Keras, and the layer that a file stores for one."""

    layer: type
    variable: type
    stored_layer: Callable[[Any], Any] = lambda layer: layer


@dataclass
class AttributeGraph:
    """What the objects of a model lead to, the model first, and its variables."""

    edges: list[Edges] = field(default_factory=list)
    variables: list[Any] = field(default_factory=list)


def graph_of(model: Any, framework: Framework) -> AttributeGraph:
    """Return the graph of a built model, from which all layers in attributes can be reached."""
    graph = AttributeGraph()
    objects, variables = {id(model): 0}, dict[int, int]()
    waiting = deque([model])
    while waiting:
        layer = waiting.popleft()
        edges: dict[str, int] = {}
        for label, value in _labelled(layer):
            if isinstance(value, framework.variable):
                if id(value) not in variables:
                    variables[id(value)] = len(graph.variables)
                    graph.variables.append(value)
                edges[label] = -1 - variables[id(value)]
            elif isinstance(value, framework.layer):
                value = framework.stored_layer(value)
                if id(value) not in objects:
                    objects[id(value)] = len(objects)
                    waiting.append(value)
                edges[label] = objects[id(value)]
        graph.edges.append(_with_other_names(edges))
    return graph


def _labelled(layer: Any) -> Iterator[tuple[str, Any]]:
    """Yield what the attributes of a layer contain, and the layers of a model, with labels."""
    for name, value in vars(layer).items():
        if not name.startswith(_LISTS):
            yield from _in_attribute(name, value)
    kinds = {cls.__name__ for cls in type(layer).__mro__}
    if kinds & {"Functional", "Sequential"}:
        for number, inner in enumerate(layer.layers):
            # A model without a name is "model" in Keras 2 and "functional" in Keras 3.
            name = re.sub(r"^functional(?=_\d+$|$)", "model", safe_name(inner.name))
            yield f"{_NAME}{name}", inner
            if "Sequential" in kinds:
                yield f"{_PLACE}{number}", inner


def _in_attribute(label: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _in_attribute(f"{label}[{number}]", item)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _in_attribute(f"{label}[{key!r}]", item)
    else:
        yield label, value


def _with_other_names(edges: Edges) -> Edges:
    """Return edges with further labels for attributes that have other names in the other Keras.

    ``kernel`` of Dense is ``_kernel`` in Keras 3, that of DepthwiseConv2D ``depthwise_kernel`` in
    Keras 2.
    """
    others = {label.lstrip("_"): target for label, target in edges.items()}
    if "pointwise_kernel" not in edges and "depthwise_kernel" in edges:
        others["kernel"] = edges["depthwise_kernel"]
    return {**others, **edges}


def counterparts(ours: Sequence[Edges], theirs: Sequence[Edges]) -> dict[int, set[int]]:
    """Return, for each variable of the first graph, those of the second one at its places.

    Variables are given by their numbers.
    """
    found: dict[int, set[int]] = {}
    pairs = {(0, 0): None}
    waiting = deque(pairs)
    while waiting:
        one, other = waiting.popleft()
        for label in _common(ours[one], theirs[other]):
            pair = ours[one][label], theirs[other][label]
            if pair[0] < 0 and pair[1] < 0:
                found.setdefault(-1 - pair[0], set()).add(-1 - pair[1])
            elif min(pair) >= 0 and pair not in pairs:
                pairs[pair] = None
                waiting.append(pair)
    return found


def _common(one: Edges, other: Edges) -> list[str]:
    """Return the labels of both; names of layers, which Keras generates, if no places are."""
    labels = [label for label in one if label in other]
    if any(label.startswith(_PLACE) for label in labels):
        labels = [label for label in labels if not label.startswith(_NAME)]
    return labels
