"""Traces of models without the assignments of weights that keep their values."""

import contextlib
from collections.abc import Iterator
from typing import Any

from edgeattn_converters.graphs.operation_creation import created_by


@contextlib.contextmanager
def without_assignments(variables: list[Any]) -> Iterator[None]:
    """Within the context, what is traced does not assign these variables of Keras."""
    import tensorflow as tf

    handles = {id(variable.value.handle) for variable in variables}

    def creation(create: Any, graph: Any, kind: str, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if kind == "AssignVariableOp" and id(_outermost(graph, inputs[0])) in handles:
            with graph.as_default():
                return tf.no_op()
        return create(graph, kind, inputs, *args, **kwargs)

    with created_by(creation) if handles else contextlib.nullcontext():
        yield


def _outermost(graph: Any, tensor: Any) -> Any:
    """The tensor outside of all functions that a placeholder for it has in a graph."""
    while hasattr(graph, "captures"):
        found = [outer for outer, inner in graph.captures if inner is tensor]
        if not found:
            break
        tensor, graph = found[0], graph.outer_graph
    return tensor
