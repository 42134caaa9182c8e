"""A recurrence for TFLite with operators of its own for every step.

It is the fastest for short sequences. It needs builtin operators only, and TFLite stores no state
between two invocations of such a graph.
"""

from typing import Any

from edgeattn_converters.lowering.rnn.recurrence import Recurrence
from edgeattn_converters.lowering.rnn.steps import Steps


def unrolled(
    recurrence: Recurrence, x: Any, states: list[Any] | None, mask: Any
) -> tuple[Any, list[Any]]:
    """See :class:`~edgeattn_converters.lowering.rnn.recurrence.RecurrenceLowering`.

    The number of steps is fixed; the batch may be free.
    """
    steps = Steps(recurrence, has_initial_states=states is not None)
    products, mask = steps.prepare(x, mask)
    outputs, carried = steps.run(products, mask, steps.start(products, states, mask))
    return (steps.finish(outputs) if recurrence.sequences else None), steps.states(carried)
