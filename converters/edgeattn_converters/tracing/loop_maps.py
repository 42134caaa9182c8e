"""Attention weights of the steps of a loop, which the loop returns in a list.

A step function of ``keras.backend.rnn``, for example, computes the weights of one decoder step. The
list of all steps, stacked behind the loop, is the whole map.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from edgeattn_converters.tracing.axes import Axes
from edgeattn_converters.tracing.weight_changes import Tracked, without_product

_MAX_VISITED = 100


class StackedWeights(NamedTuple):
    """The weights of all steps: ``stack`` (steps, batch, ..., keys) and ``map`` (batch, steps, ...,
    keys), normalized over ``axes``. ``unchanged`` says that they are the softmax itself."""

    stack: Any
    map: Any
    axes: Axes
    unchanged: bool


def stacked_weights(loop: Any, body: Any, weights: Any, axes: Axes) -> Iterator[StackedWeights]:
    """What ``loop`` returns of ``weights``, a tensor of ``body``, adding the maps to its graph."""
    import tensorflow as tf

    for tracked, written in _written(Tracked(weights, weights, ((axes, axes),))):
        for stack in _stacks(loop, body, written):
            rank = tracked.tensor.shape.rank
            if stack.shape.rank != rank + 1:
                continue
            with loop.graph.as_default():
                by_sample = tf.transpose(stack, [1, 0, *range(2, rank + 1)])
            own = tuple(axis + 1 for axis in tracked.axes[0][0])
            yield StackedWeights(stack, by_sample, own, tracked.weights is weights)


def _written(start: Tracked) -> Iterator[tuple[Tracked, Any]]:
    """The lists to which the body of a loop writes weights, and the form in which it does."""
    waiting, visited = [start], {start.tensor.name}
    while waiting and len(visited) < _MAX_VISITED:
        tracked = waiting.pop()
        for operation in dict.fromkeys(tracked.tensor.consumers()):
            if operation.type == "TensorListSetItem":
                yield tracked, operation.outputs[0]
                continue
            for moved in without_product(operation, tracked):
                if moved.tensor.name not in visited:
                    visited.add(moved.tensor.name)
                    waiting.append(moved)


def _stacks(loop: Any, body: Any, written: Any) -> Iterator[Any]:
    """The tensors that the list ``written`` becomes behind the loop."""
    for position, result in enumerate(body.outputs):
        if _source(result) is not written:
            continue
        for consumer in loop.outputs[position].consumers():
            if consumer.type == "TensorListStack":
                yield consumer.outputs[0]


def _source(tensor: Any) -> Any:
    while tensor.op.type == "Identity":
        tensor = tensor.op.inputs[0]
    return tensor
