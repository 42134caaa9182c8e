"""What a lowering of recurrent layers receives and returns."""

from dataclasses import dataclass
from typing import Any, Protocol

from edgeattn_converters.lowering.rnn.cells import Cell


@dataclass(frozen=True)
class Recurrence:
    """A cell and how a layer runs it over a sequence.

    ``reverse`` starts at the last step. At a masked step the state does not change; the output
    repeats that of the step before it, or is zero with ``zero_masked``. ``sequences`` and ``final``
    say what the layer uses: the outputs of all steps, and all final states. Without ``final`` it
    uses the first final state only.
    """

    cell: Cell
    reverse: bool = False
    zero_masked: bool = False
    sequences: bool = True
    final: bool = True


class RecurrenceLowering(Protocol):
    """Run a recurrence over ``x``: ``(outputs, final states)``.

    ``x`` is (batch, time, features), ``mask`` boolean (batch, time) or None, ``states`` the initial
    states of (batch, units), zero if None. Outputs are (batch, time, units) in the order of ``x``,
    also with ``reverse``, or None if the recurrence does not use ``sequences``.
    """

    def __call__(
        self, recurrence: Recurrence, x: Any, states: list[Any] | None, mask: Any
    ) -> tuple[Any, list[Any]]: ...


@dataclass(frozen=True)
class BidirectionalResult:
    """Outputs and final states of a forward and a backward cell over one sequence.

    ``concatenated`` are the outputs (batch, time, 2 * units) and the last outputs
    (batch, 2 * units) of both, if requested.
    """

    outputs: tuple[Any, Any]
    states: tuple[list[Any], list[Any]]
    concatenated: tuple[Any, Any] | None = None


class BidirectionalLowering(Protocol):
    """Run two cells at once: the method ``bidirectional`` of a lowering that can.

    ``states`` are those of the forward cell, then those of the backward cell. Returns None if the
    two cells cannot be combined.
    """

    def __call__(
        self,
        cells: tuple[Cell, Cell],
        x: Any,
        states: list[Any] | None,
        mask: Any,
        *,
        zero_masked: bool,
        concatenate: bool,
    ) -> BidirectionalResult | None: ...
