"""Keras' recurrent layers on top of a target's lowering of a recurrence.

A lowering returns the outputs in the order of the steps, whichever end it started from. This module
adds what the layers promise: their results, states, order and merge modes.
"""

from collections.abc import Callable, Sequence
from typing import Any

from edgeattn_converters.keras_classes import is_keras_class, outputs_first_state
from edgeattn_converters.lowering.rnn.recurrence import (
    BidirectionalResult,
    Cell,
    Recurrence,
    RecurrenceLowering,
    cell_of,
    is_recurrent,
)


def lower_layer(layer: Any, lowering: RecurrenceLowering) -> Callable[..., Any] | None:
    """The replacement of ``layer.call``, or None if this is no recurrent layer of Keras."""
    if is_recurrent(layer):
        return _unless_replaced([layer.cell], layer.call, _lower_rnn(layer, lowering))
    if not is_keras_class(layer, "Bidirectional"):
        return None
    inner = [layer.forward_layer, layer.backward_layer]
    if not all(map(is_recurrent, inner)):
        return None
    cells = [part.cell for part in inner]
    return _unless_replaced(cells, layer.call, _lower_bidirectional(layer, lowering))


def _unless_replaced(
    cells: Sequence[Any], original: Callable[..., Any], lowered: Callable[..., Any]
) -> Callable[..., Any]:
    """The call of a lowered layer; the original one if a class assigns tensors to its weights.

    Weight normalization does so in ``call`` of a layer around it. A lowering has the values of the
    variables only.
    """
    weights = _weights(cells)

    def call(
        sequences: Any, initial_state: Any = None, mask: Any = None, training: Any = None
    ) -> Any:
        unchanged = all(a is b for a, b in zip(weights, _weights(cells), strict=True))
        run = lowered if unchanged else original
        return run(sequences, initial_state=initial_state, mask=mask, training=training)

    return call


def _weights(cells: Sequence[Any]) -> list[Any]:
    names = ("kernel", "recurrent_kernel", "bias")
    return [getattr(cell, name, None) for cell in cells for name in names]


def _lower_rnn(layer: Any, lowering: RecurrenceLowering) -> Callable[..., Any]:
    cell = cell_of(layer)

    # The arguments of Keras 3 and of tf_keras: both pass all but the first by name.
    def call(
        sequences: Any, initial_state: Any = None, mask: Any = None, training: Any = None
    ) -> Any:
        result, states = _run(layer, cell, lowering, sequences, initial_state, mask)
        if layer.return_sequences and layer.go_backwards:
            # Keras returns the outputs in the order in which they were computed.
            result = result[:, ::-1]
        return (result, *states) if layer.return_state else result

    return call


def _run(
    layer: Any,
    cell: Cell,
    lowering: RecurrenceLowering,
    sequences: Any,
    initial_state: Any,
    mask: Any,
) -> tuple[Any, list[Any]]:
    """The layer's outputs in the order of the steps, or its last output; and its final states."""
    import tensorflow as tf

    recurrence = Recurrence(
        cell,
        reverse=bool(layer.go_backwards),
        zero_masked=bool(getattr(layer, "zero_output_for_mask", False)),
        sequences=bool(layer.return_sequences),
        final=bool(layer.return_state),
    )
    x = tf.cast(sequences, tf.float32)
    initial, mask = _as_states(initial_state), _as_mask(mask)
    outputs, states = lowering(recurrence, x, initial, mask)
    is_former = outputs_first_state(layer)
    if not layer.return_sequences:
        has_states = initial is not None and not is_former
        outputs = _last_output(recurrence, states[0], mask, has_states=has_states)
    elif is_former and initial is not None and mask is not None:
        begun = tf.cumsum(tf.cast(mask, tf.int32), axis=1, reverse=recurrence.reverse) > 0
        outputs = tf.where(begun[..., None], outputs, initial[0][:, None])
    result = tf.cast(outputs, layer.compute_dtype)
    if not layer.return_state:
        return result, []
    return result, [tf.cast(state, layer.compute_dtype) for state in states]


def _last_output(recurrence: Recurrence, state: Any, mask: Any, *, has_states: bool) -> Any:
    """The output of the last step, from the first final state (batch, units).

    The output of LSTM, GRU and SimpleRNN is their first state. At masked steps, that state is the
    one before, and the output zero: with ``zero_masked``, or before the first real step, whatever
    the initial state.
    """
    import tensorflow as tf

    if not _differs_from_state(recurrence.zero_masked, mask, has_states=has_states):
        return state
    if recurrence.zero_masked:
        computed = mask[:, :1] if recurrence.reverse else mask[:, -1:]
    else:
        computed = tf.reduce_any(mask, axis=1, keepdims=True)
    return tf.where(computed, state, tf.zeros_like(state))


def _differs_from_state(zero_masked: bool, mask: Any, *, has_states: bool) -> bool:
    """Whether the last output may be another value than the first final state."""
    return mask is not None and (zero_masked or has_states)


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


def _lower_bidirectional(layer: Any, lowering: RecurrenceLowering) -> Callable[..., Any]:
    forward, backward = layer.forward_layer, layer.backward_layer
    cells = cell_of(forward), cell_of(backward)
    # The method of a lowering that can run two cells at once.
    combined: Callable[..., BidirectionalResult | None] | None
    combined = getattr(lowering, "bidirectional", None)
    zero_masked, other = (
        bool(getattr(inner, "zero_output_for_mask", False)) for inner in (forward, backward)
    )
    if forward.go_backwards or not backward.go_backwards or zero_masked != other:
        combined = None
    is_former = outputs_first_state(forward)

    def run_combined(sequences: Any, initial_state: Any, mask: Any) -> tuple[Any, list[Any]] | None:
        import tensorflow as tf

        assert combined is not None
        initial, mask = _as_states(initial_state), _as_mask(mask)
        has_states = initial is not None
        last_differs = _differs_from_state(zero_masked, mask, has_states=has_states)
        result = combined(
            cells,
            tf.cast(sequences, tf.float32),
            initial,
            mask,
            zero_masked=zero_masked,
            concatenate=layer.merge_mode == "concat"
            and (forward.return_sequences or not last_differs),
        )
        if result is None:
            return None
        if result.concatenated is not None:
            merged = result.concatenated[0 if forward.return_sequences else 1]
        elif forward.return_sequences:
            merged = _merge(layer.merge_mode, *result.outputs)
        else:
            last = []
            for cell, reverse, states in zip(cells, (False, True), result.states, strict=True):
                recurrence = Recurrence(cell, reverse=reverse, zero_masked=zero_masked)
                last.append(_last_output(recurrence, states[0], mask, has_states=has_states))
            merged = _merge(layer.merge_mode, *last)
        merged = tf.nest.map_structure(lambda x: tf.cast(x, layer.compute_dtype), merged)
        return merged, [tf.cast(s, layer.compute_dtype) for side in result.states for s in side]

    def run_separately(sequences: Any, initial_state: Any, mask: Any) -> tuple[Any, list[Any]]:
        import tensorflow as tf

        states: tuple[Any, Any] = (None, None)
        if initial_state is not None:
            half = len(initial_state) // 2
            states = initial_state[:half], initial_state[half:]
        results = []
        for inner, cell, state in zip((forward, backward), cells, states, strict=True):
            # The quantizer finds the steps of a layer by its name.
            with tf.name_scope(inner.name):
                results.append(_run(inner, cell, lowering, sequences, state, mask))
        outputs = [result for result, _ in results]
        if forward.return_sequences and forward.go_backwards:
            # Keras returns the outputs of the forward layer in the order in which they were
            # computed, and reverses those of the backward layer, which runs forward then.
            outputs = [result[:, ::-1] for result in outputs]
        merged = _merge(layer.merge_mode, *outputs)
        return merged, [state for _, final in results for state in final]

    def call(
        sequences: Any, initial_state: Any = None, mask: Any = None, training: Any = None
    ) -> Any:
        has_former = is_former and initial_state is not None and mask is not None
        is_separate = combined is None or has_former
        result = None if is_separate else run_combined(sequences, initial_state, mask)
        merged, final = result or run_separately(sequences, initial_state, mask)
        if not forward.return_state:
            return merged
        return (*merged, *final) if isinstance(merged, tuple) else (merged, *final)

    return call


def _merge(mode: str | None, forward: Any, backward: Any) -> Any:
    match mode:
        case "concat":
            import tensorflow as tf

            return tf.concat([forward, backward], axis=-1)
        case "sum":
            return forward + backward
        case "ave":
            return (forward + backward) / 2
        case "mul":
            return forward * backward
    return (forward, backward)
