"""A recurrent Keras layer as plain values, and what its lowering receives and returns."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn.tensors import Array
from edgeattn_converters.keras_classes import is_keras_class

KINDS = {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "simple_rnn"}
CELLS = {f"{layer}Cell": kind for layer, kind in KINDS.items()}
# Number of gates, which lie side by side in the last axis of a kernel.
GATES = {"lstm": 4, "gru": 3, "simple_rnn": 1}


@dataclass(frozen=True)
class Cell:
    """One step of a recurrence.

    ``kernel`` is (features, gates * units) and ``recurrent_kernel`` (units, gates * units), with
    the gates in Keras' order: i, f, c, o for LSTM, z, r, h for GRU. ``bias`` is (gates * units,);
    for a GRU with ``reset_after`` it is (2, gates * units), of the input and of the state.
    """

    kind: str
    units: int
    kernel: Array
    recurrent_kernel: Array
    bias: Array
    activation: Callable[[Any], Any]
    recurrent_activation: Callable[[Any], Any] | None = None
    reset_after: bool = False

    @property
    def states(self) -> int:
        """Number of states: h and c for LSTM, otherwise h."""
        return 2 if self.kind == "lstm" else 1


def is_recurrent(layer: Any) -> bool:
    """Whether ``layer`` is an LSTM, GRU or SimpleRNN, or an RNN of one of their cells.

    One that no call has built has no weights, and is not part of what a model computes.
    """
    known = is_keras_class(layer, *KINDS, "RNN") and is_keras_class(layer.cell, *CELLS)
    return known and hasattr(layer.cell, "kernel")


def cell_of(layer: Any) -> Cell:
    """The cell of a recurrent layer, with its weights as float32.

    Raises :class:`UnsupportedModelError` if the layer is time-major or stateful.
    """
    cell = layer.cell
    kind = CELLS[type(cell).__name__]
    reset_after = bool(getattr(cell, "reset_after", False))
    if cell.use_bias:
        bias = as_float32(cell.bias)
    else:
        width = GATES[kind] * cell.units
        bias = np.zeros((2, width) if reset_after else (width,), np.float32)
    if getattr(layer, "time_major", False):
        raise UnsupportedModelError(
            f"Layer {layer.name!r} is time-major, which is not supported.",
            hint="Rebuild it with the batch axis first.",
        )
    if layer.stateful:
        raise UnsupportedModelError(
            f"Layer {layer.name!r} is stateful: its outputs depend on the previous calls.",
            hint="Rebuild the model with stateful=False and load the weights into it.",
        )
    return Cell(
        kind,
        int(cell.units),
        as_float32(cell.kernel),
        as_float32(cell.recurrent_kernel),
        bias,
        cell.activation,
        getattr(cell, "recurrent_activation", None),
        reset_after,
    )


def as_float32(variable: Any) -> Array:
    """The value of a Keras 3 or tf_keras variable. Not available while a function is traced."""
    value = variable.numpy() if hasattr(variable, "numpy") else variable
    return np.asarray(value, np.float32)


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
