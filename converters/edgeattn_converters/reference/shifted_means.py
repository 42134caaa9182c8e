"""Averages changed by their rounding, to find rows on which it decides the outputs.

Equal numbers, such as ``log(x + 1e-7)`` of zeros or pixels that are clipped to 1, differ from their
average by rounding alone, which a normalization divides by the root of a small epsilon. A relative
change of zeros does not show it, nor does one of the weights that they are multiplied by.
"""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Protocol

from edgeattn.tensors import Tensors
from edgeattn_converters.graphs.operation_creation import (
    Creation,
    LaterChanges,
    created_by,
    is_copy,
)
from edgeattn_converters.reference.equal_numbers import changed_average, is_average
from edgeattn_converters.reference.traced_values import changed_function
from edgeattn_converters.tracing.trace import Interface


class Averaged(Protocol):
    """Outputs and maps from inputs, if averages and sums change.

    Those of numbers that differ are larger by ``share`` of themselves. Those of equal numbers are
    exact if ``direction`` is 0, and larger or smaller by their rounding error if it is 1 or -1.
    """

    def __call__(self, inputs: Tensors, share: float, direction: int = 0) -> Tensors: ...


def shifted_means(
    model: Any, interface: Interface, *, attention: bool, alone: bool = False
) -> Averaged:
    """What a model computes if averages and sums change.

    If ``alone``, no sample is in a batch with others.
    """
    import tensorflow as tf

    change = tf.Variable([0.0, 0.0], trainable=False)  # the share and the direction
    changed = changed_function(
        model,
        interface,
        change,
        partial(_changed_averages, interface.half),
        attention=attention,
        alone=alone,
    )

    def averaged(inputs: Tensors, share: float, direction: int = 0) -> Tensors:
        return changed(inputs, (share, direction))

    return averaged


@contextlib.contextmanager
def _changed_averages(half: Sequence[str], change: Any, later: LaterChanges) -> Iterator[None]:
    """``half`` are dtypes that are traced as they are, and computed in float32."""
    dtypes = (change.dtype.name, *half)
    inside = False

    def changed(operation: Any) -> Any:
        nonlocal inside
        import tensorflow as tf

        inside = True
        try:
            return changed_average(operation, *tf.unstack(change.read_value()))
        finally:
            inside = False

    def creation(create: Creation, graph: Any, kind: str, *args: Any, **kwargs: Any) -> Any:
        operation = create(graph, kind, *args, **kwargs)
        if inside or is_copy(kwargs) or not is_average(operation):
            return operation
        if operation.outputs[0].dtype.name not in dtypes:
            return operation
        return later.add(operation, lambda: changed(operation))

    with created_by(creation):
        yield
