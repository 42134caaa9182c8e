"""How the operations of a TensorFlow graph are created while a function is traced."""

import contextlib
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# ``(create, graph, kind, inputs, *args, **kwargs) -> operation``. ``create`` has the same arguments
# without itself, and creates the operation as without the context.
Creation = Callable[..., Any]


@contextlib.contextmanager
def created_by(creation: Creation) -> Iterator[None]:
    """Within the context, ``creation`` creates the operations that are traced.

    Contexts may be nested: ``create`` of the inner one is the creation of the outer one.
    """
    from tensorflow.python.framework.func_graph import FuncGraph

    create = FuncGraph._create_op_internal

    def replaced(graph: Any, kind: str, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return creation(create, graph, kind, inputs, *args, **kwargs)

    FuncGraph._create_op_internal = replaced
    try:
        yield
    finally:
        FuncGraph._create_op_internal = create


def is_copy(arguments: Mapping[str, Any]) -> bool:
    """Whether an operation that is created with these keywords belongs to a copy of a function.

    TensorFlow copies a function to freeze its variables, with attributes by position. The
    operations of the copy are created again when it is traced.
    """
    return "attrs" not in arguments


@dataclass(frozen=True)
class LaterChanges:
    """Changes of the results of operations that take effect after the model was traced.

    Until then, the graph has the forms in which attention maps are found.
    """

    _changes: list[tuple[Any, Callable[[], Any]]] = field(default_factory=list)

    def add(self, operation: Any, changed: Callable[[], Any]) -> Any:
        """The operation in place of ``operation``, whose first result ``changed`` computes."""
        import tensorflow as tf
        from tensorflow.python.framework.func_graph import FuncGraph

        first, *others = operation.outputs
        if isinstance(operation.graph.outer_graph, FuncGraph):
            # The function of a loop or condition is complete before.
            return tf.identity_n([changed(), *others])[0].op if others else changed().op
        same = tf.identity_n([first, *others])[0].op if others else tf.identity(first).op
        self._changes.append((same, changed))
        return same

    def apply(self) -> None:
        """Change the results in the graph that is being traced."""
        for same, changed in self._changes:
            same._update_input(0, changed())


@contextlib.contextmanager
def replaced_by(
    replacements: Mapping[str, Callable[..., Any]], with_attributes: Container[str]
) -> Iterator[None]:
    """Within the context, operations of these kinds are replaced as they are traced.

    A replacement is called with the operands, and with ``attributes`` if its kind is one of
    ``with_attributes``. It returns None if the operation remains.
    """

    def creation(
        create: Creation, graph: Any, kind: str, inputs: Any, *args: Any, **kwargs: Any
    ) -> Any:
        replacement = replacements.get(kind)
        if replacement is None or is_copy(kwargs):
            return create(graph, kind, inputs, *args, **kwargs)
        options = {"attributes": kwargs["attrs"]} if kind in with_attributes else {}
        result = replacement(*inputs, **options)
        return create(graph, kind, inputs, *args, **kwargs) if result is None else result.op

    with created_by(creation):
        yield
