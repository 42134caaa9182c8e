"""Averages changed in their last digits, to find zeros on which rounding decides the outputs.

Equal numbers, such as ``log(x + 1e-7)`` of zeros, differ from their average by rounding alone,
which a normalization divides by the root of a small epsilon. A relative change of zeros does not
show it, nor does one of the weights that they are multiplied by.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from edgeattn.tensors import Tensors
from edgeattn_converters.graphs.operation_creation import (
    Creation,
    LaterChanges,
    created_by,
    is_copy,
)
from edgeattn_converters.reference.traced_values import changed_function
from edgeattn_converters.tracing.trace import Interface

_AVERAGES = frozenset({"Mean", "Sum"})


def shifted_means(
    model: Any, interface: Interface, *, attention: bool, alone: bool = False
) -> Callable[[Tensors, float], Tensors]:
    """Outputs and maps from inputs, if averages and sums are larger by a share of themselves.

    If ``alone``, no sample is in a batch with others.
    """
    import tensorflow as tf

    share = tf.Variable(0.0, trainable=False)
    return changed_function(
        model,
        interface,
        share,
        partial(_changed_averages, interface.half),
        attention=attention,
        alone=alone,
    )


@contextlib.contextmanager
def _changed_averages(half: Sequence[str], share: Any, later: LaterChanges) -> Iterator[None]:
    """``half`` are dtypes that are traced as they are, and computed in float32."""
    dtypes = (share.dtype.name, *half)

    def creation(create: Creation, graph: Any, kind: str, *args: Any, **kwargs: Any) -> Any:
        import tensorflow as tf

        operation = create(graph, kind, *args, **kwargs)
        if kind not in _AVERAGES or is_copy(kwargs):
            return operation
        [average] = operation.outputs
        if average.dtype.name not in dtypes:
            return operation
        return later.add(
            operation, lambda: average * tf.cast(1 + share.read_value(), average.dtype)
        )

    with created_by(creation):
        yield
