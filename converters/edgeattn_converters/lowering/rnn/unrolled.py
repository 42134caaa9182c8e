"""A recurrence for TFLite: every step its own operators.

The fastest for short sequences. TFLite keeps nothing between invokes of such a graph, and needs no
operator beyond the builtin ones.
"""

from __future__ import annotations

from typing import Any

from edgeattn_converters.lowering.rnn.cells import Cell
from edgeattn_converters.lowering.rnn.steps import Steps


def unrolled(
    cell: Cell,
    x: Any,
    states: list[Any] | None,
    mask: Any,
    *,
    reverse: bool,
    zero_masked: bool,
    sequences: bool,
    final: bool,
) -> tuple[Any, list[Any]]:
    """See :class:`edgeattn_converters.lowering.rnn.layers.Recurrence`; time is static."""
    steps = Steps(
        cell, reverse=reverse, zero_masked=zero_masked, has_initial_states=states is not None
    )
    products, mask = steps.prepare(x, mask)
    outputs, carried = steps.run(products, mask, steps.start(products, states, mask))
    return (steps.finish(outputs) if sequences else None), steps.states(carried)
