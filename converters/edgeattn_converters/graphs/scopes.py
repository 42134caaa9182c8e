"""The scopes that the operations of a replayed graph had in the original graph.

Replayed operations have names of their own. Those of the original graph contain the layers and
modules that created it: ``StatefulPartitionedCall/model/gat/Softmax``.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

# Scopes of calls, loops and conditions, which name no part of the model.
_OF_CONTROL = re.compile(r"((Stateful)?PartitionedCall|(Stateless)?[Ww]hile|cond|_)(_?\d+)?")
_SOFTMAX = re.compile(r"softmax(_\d+)?", re.IGNORECASE)
# Operations that may be outside the scope of a model that computes everything.
_IGNORED = ("Const", "Placeholder", "Identity", "NoOp", "ReadVariableOp")
# About the longest names of layers.
_MAX_LENGTH = 60


class Scopes:
    """The scopes of operations, by the names of their graphs and their own."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}

    def add(self, operations: Iterable[Any], scope: str) -> None:
        """Record the scope of those operations that have none yet."""
        for operation in operations:
            self._known.setdefault(_key(operation), scope)

    def of(self, operation: Any) -> str | None:
        """The scope of an operation, "" if it had none, None if it was not replayed."""
        return self._known.get(_key(operation))


def _key(operation: Any) -> tuple[str, str]:
    # The body of a loop is a function with the name of the graph that was traced for it.
    return str(operation.graph.name), str(operation.name)


_recorded: ContextVar[Scopes | None] = ContextVar("_recorded", default=None)


@contextlib.contextmanager
def recorded_scopes() -> Iterator[Scopes]:
    """A context in which the scopes of replayed operations are recorded."""
    scopes = Scopes()
    token = _recorded.set(scopes)
    try:
        yield scopes
    finally:
        _recorded.reset(token)


def in_scope(scope: str, add: Callable[[], Sequence[Any]]) -> Sequence[Any]:
    """The results of ``add``; records ``scope`` for what it adds to the current graph."""
    import tensorflow as tf

    scopes = _recorded.get()
    if scopes is None:
        return add()
    graph = tf.compat.v1.get_default_graph()
    start = graph.version  # the number of operations
    results = add()
    added = graph.version - start
    if added == 1 and results and results[0].graph is graph:
        scopes.add([results[0].op], scope)
    elif added:
        scopes.add(graph.get_operations()[start:], scope)
    return results


def inner_scope(name: str, outer: str) -> str:
    """The scope of the operation ``name`` of a function that is called in the scope ``outer``.

    TensorFlow usually begins the names in the body of a loop with the scope of the loop.
    """
    own = "/".join(_parts(name))
    return own if not outer or f"{own}/".startswith(f"{outer}/") else f"{outer}/{own}".rstrip("/")


def model_scope(graph: Any) -> str:
    """The outermost scope, such as the name of the model, if all operations with a scope have it,
    else ""."""
    scopes = [_parts(item.name) for item in graph.get_operations() if item.type not in _IGNORED]
    outermost = {parts[0] for parts in scopes if parts}
    return outermost.pop() if len(outermost) == 1 else ""


def map_name(scope: str, model: str) -> str:
    """The name of a softmax in ``scope`` of a graph whose model has the scope ``model``.

    It is ``scope`` without that of the model and without a last one called softmax, and "" if there
    is no scope. A long one is shortened to its end.
    """
    parts = scope.split("/") if scope else []
    if len(parts) > 1 and parts[0] == model:
        del parts[0]
    if len(parts) > 1 and _SOFTMAX.fullmatch(parts[-1]):
        del parts[-1]
    while len(parts) > 1 and len("/".join(parts)) > _MAX_LENGTH:
        del parts[0]
    return re.sub(r"[^\w./-]", "_", "/".join(parts), flags=re.ASCII)[-_MAX_LENGTH:]


def _parts(name: str) -> list[str]:
    """The scopes of an operation, without those of control flow."""
    return [part for part in name.split("/")[:-1] if part and not _OF_CONTROL.fullmatch(part)]
