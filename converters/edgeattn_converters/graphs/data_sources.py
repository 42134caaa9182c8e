"""Which operations and inputs of the model a tensor is computed from."""

from collections.abc import Iterator, Sequence
from typing import Any


def is_data(tensor: Any) -> bool:
    """Whether a tensor depends on the model's inputs, and not on weights alone."""
    import tensorflow as tf

    if tf.executing_eagerly() or not hasattr(tensor, "op"):
        return False
    return next(placeholders(tensor), None) is not None


def placeholders(tensor: Any, ignored: Sequence[str] = ()) -> Iterator[str]:
    """The names of the placeholders of data behind ``tensor``, without ``ignored`` operations."""
    import tensorflow as tf

    for operation in operations_behind(tensor, ignored):
        # Weights enter a function as placeholders too, of type resource.
        if operation.type == "Placeholder" and operation.outputs[0].dtype != tf.resource:
            yield str(operation.name)


def operations_behind(
    tensor: Any, ignored: Sequence[str] = (), last: Sequence[str] = ()
) -> Iterator[Any]:
    """Yield the operations that compute ``tensor``, except ``ignored`` ones and those ahead.

    Of the kinds ``last``, operations are yielded, and those ahead of them are not.
    """
    waiting, visited = [tensor.op], set()
    while waiting:
        operation = waiting.pop()
        if operation.name in visited or operation.type in ignored:
            continue
        visited.add(operation.name)
        yield operation
        if operation.type not in last:
            waiting.extend(source.op for source in operation.inputs)
