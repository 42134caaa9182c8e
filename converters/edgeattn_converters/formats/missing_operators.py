"""Names of operations that a format lacks, with the layers that need them."""

import re
from collections.abc import Collection, Iterator
from typing import Any

from edgeattn_converters.lowering.call_replacement import all_layers
from edgeattn_converters.lowering.composed_operations import FIXED_BINS

# TensorFlow numbers scopes of the same name.
_NUMBER = re.compile(r"_\d+$")


def advice(kinds: Collection[str]) -> str:
    """What to do about operations of these kinds."""
    return FIXED_BINS if set(kinds) == {"DenseBincount"} else "Express them with other operations."


def with_layers(kinds: Collection[str], graph: Any, model: Any) -> str:
    """The operations of these kinds, each with the names of the layers of ``model`` that call it.

    ``graph`` is the traced one, whose operations are named after their layers. Operations outside
    of layers, such as those of a ``call`` of the model, have no layer.
    """
    known = {layer.name for layer in all_layers(model)}
    layers: dict[str, dict[str, None]] = {kind: {} for kind in sorted(kinds)}
    for kind, name in _operations(graph):
        layer = _layer(name, known) if kind in layers else None
        if layer is not None:
            layers[kind][layer] = None
    return ", ".join(f"{kind}{_parenthesis(list(names))}" for kind, names in layers.items())


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


def _parenthesis(names: list[str]) -> str:
    if not names:
        return ""
    return f" ({'layer' if len(names) == 1 else 'layers'} {', '.join(map(repr, names))})"
