"""What Keras' recurrent layers promise, written once over a recurrence that a target provides.

A recurrence runs a cell over a sequence and gives the outputs at their own times, whichever end it
started from; the layers differ in what they make of that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from edgeattn_converters.lowering.rnn.cells import Cell, cell_of, is_keras_class, is_recurrent


class Recurrence(Protocol):
    """``(outputs, final states)`` of ``cell`` over ``x``.

    ``x`` is (batch, time, features), ``states`` the initial ones, zero where ``None``, ``mask`` a
    boolean (batch, time). ``reverse`` starts at the end. At a masked step the state stays, and the
    output is that of the step before it, or zero with ``zero_masked``. Outputs are
    (batch, time, units) in the order of ``x``, or ``None`` where ``sequences`` is not asked for; of
    the final states only the first is needed where ``final`` is not.
    """

    def __call__(
        self,
        cell: Cell,
        x: Any,
        states: list[Any] | None,
        mask: Any,
        *,
        reverse: bool,
        zero_masked: bool,
        sequences: bool,
        final: bool,
    ) -> tuple[Any, list[Any]]: ...


@dataclass(frozen=True)
class Both:
    """What two cells make of one sequence, the second from its end: forward's, then backward's.

    ``joined`` are the outputs and the last ones of both side by side, where that was asked for.
    """

    outputs: tuple[Any, Any]
    states: tuple[list[Any], list[Any]]
    joined: tuple[Any, Any] | None = None


class Directions(Protocol):
    """A recurrence that can run two cells at once: its method ``both``.

    Arguments as of :class:`Recurrence`, ``states`` the forward cell's and then the backward's;
    None where these cells do not go together.
    """

    def __call__(
        self,
        cells: tuple[Cell, Cell],
        x: Any,
        states: list[Any] | None,
        mask: Any,
        *,
        zero_masked: bool,
        joined: bool,
    ) -> Both | None: ...


def lower_layer(layer: Any, recurrence: Recurrence) -> Callable[..., Any] | None:
    """What takes the place of ``layer.call``, or None where this is no recurrent layer of Keras."""
    if is_recurrent(layer):
        return _lower_rnn(layer, recurrence)
    if is_keras_class(layer, "Bidirectional"):
        inner = (layer.forward_layer, layer.backward_layer)
        if all(is_recurrent(item) for item in inner):
            return _lower_bidirectional(layer, recurrence)
    return None


def _lower_rnn(layer: Any, recurrence: Recurrence) -> Callable[..., Any]:
    cell = cell_of(layer)

    # The arguments of Keras 3 and of tf_keras: both pass all but the first by name.
    def call(
        sequences: Any, initial_state: Any = None, mask: Any = None, training: Any = None
    ) -> Any:
        return _run(layer, cell, recurrence, sequences, initial_state, mask)

    return call


def _run(
    layer: Any,
    cell: Cell,
    recurrence: Recurrence,
    sequences: Any,
    initial_state: Any,
    mask: Any,
    *,
    time_order: bool = False,
) -> Any:
    import tensorflow as tf

    x = tf.cast(sequences, tf.float32)
    mask = _as_mask(mask)
    outputs, states = recurrence(
        cell,
        x,
        _as_states(initial_state),
        mask,
        reverse=bool(layer.go_backwards),
        zero_masked=bool(getattr(layer, "zero_output_for_mask", False)),
        sequences=bool(layer.return_sequences),
        final=bool(layer.return_state),
    )
    if layer.return_sequences:
        # Keras hands the outputs over in the order in which they were computed.
        result = outputs[:, ::-1] if layer.go_backwards and not time_order else outputs
    else:
        # The output of LSTM, GRU and SimpleRNN is their first state.
        result = states[0]
    dtype = layer.compute_dtype
    result = tf.cast(result, dtype)
    return (result, *(tf.cast(item, dtype) for item in states)) if layer.return_state else result


def _as_mask(mask: Any) -> Any:
    import tensorflow as tf

    if isinstance(mask, list | tuple):
        mask = mask[0]
    return None if mask is None else tf.cast(mask, tf.bool)


def _as_states(initial_state: Any) -> list[Any] | None:
    import tensorflow as tf

    if initial_state is None:
        return None
    if not isinstance(initial_state, list | tuple):
        initial_state = [initial_state]
    return [tf.cast(state, tf.float32) for state in initial_state]


def _lower_bidirectional(layer: Any, recurrence: Recurrence) -> Callable[..., Any]:
    forward, backward = layer.forward_layer, layer.backward_layer
    cells = cell_of(forward), cell_of(backward)
    directions: Directions | None = getattr(recurrence, "both", None)
    if forward.go_backwards or not backward.go_backwards:
        directions = None

    def at_once(sequences: Any, initial_state: Any, mask: Any) -> Any:
        import tensorflow as tf

        assert directions is not None
        found = directions(
            cells,
            tf.cast(sequences, tf.float32),
            _as_states(initial_state),
            _as_mask(mask),
            zero_masked=bool(getattr(forward, "zero_output_for_mask", False)),
            joined=layer.merge_mode == "concat",
        )
        if found is None:
            return None
        last = (found.states[0][0], found.states[1][0])
        if found.joined is None:
            ends = found.outputs if forward.return_sequences else last
            merged = _merge(layer.merge_mode, *ends)
        else:
            merged = found.joined[0 if forward.return_sequences else 1]
        merged = tf.nest.map_structure(lambda x: tf.cast(x, layer.compute_dtype), merged)
        if not forward.return_state:
            return merged
        final = tuple(tf.cast(s, layer.compute_dtype) for side in found.states for s in side)
        return (*merged, *final) if isinstance(merged, tuple) else (merged, *final)

    def call(
        sequences: Any, initial_state: Any = None, mask: Any = None, training: Any = None
    ) -> Any:
        states: tuple[Any, Any] = (None, None)
        if initial_state is not None:
            half = len(initial_state) // 2
            states = initial_state[:half], initial_state[half:]
        made = None if directions is None else at_once(sequences, initial_state, mask)
        if made is not None:
            return made
        results = [
            _run(inner, cell, recurrence, sequences, state, mask, time_order=True)
            for inner, cell, state in zip((forward, backward), cells, states, strict=True)
        ]
        final: tuple[Any, ...] = ()
        if forward.return_state:
            final = (*results[0][1:], *results[1][1:])
            results = [result[0] for result in results]
        merged = _merge(layer.merge_mode, *results)
        if not final:
            return merged
        return (*merged, *final) if isinstance(merged, tuple) else (merged, *final)

    return call


def _merge(mode: str | None, forward: Any, backward: Any) -> Any:
    import tensorflow as tf

    match mode:
        case "concat":
            return tf.concat([forward, backward], axis=-1)
        case "sum":
            return forward + backward
        case "ave":
            return (forward + backward) / 2
        case "mul":
            return forward * backward
    return (forward, backward)
