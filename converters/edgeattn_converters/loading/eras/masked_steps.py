"""Outputs of recurrent layers at masked steps, as in the Keras that saved the model.

Before Keras 2.2.5 and TensorFlow 1.13, ``K.rnn`` of TensorFlow returned the first state there,
unless it was unrolled (keras/backend/tensorflow_backend.py of Keras 2.2.4,
tensorflow/python/keras/backend.py of TensorFlow 1.12). Later ones return the output of the step
before, and zeros ahead of the first step that is not masked, as Theano did. The two differ in
layers that start with other states than zeros, and with cells whose output is not their first
state: ``StackedRNNCells`` of Keras 2.2.3 and 2.2.4 have the states of the first cell first.

``Bidirectional`` of tf.keras has zeros at all masked steps since TensorFlow 1.13
(``zero_output_for_mask``); Keras before 2.4, which is tf.keras, has no such argument. In 1.13, the
last outputs are zeros, too, and files contain that argument of the inner layer. Weights alone do
not: TensorFlow 1.13 to 2.1 call their Keras 2.2.4-tf.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

from edgeattn_converters.keras_classes import CELLS, is_keras_class, output_first_state
from edgeattn_converters.loading.config_inspection import objects_inside
from edgeattn_converters.loading.eras import original_keras, states_of_stacks
from edgeattn_converters.loading.eras.original_keras import OriginalKeras
from edgeattn_converters.loading.migrate.context import safe_name

_NOTE = (
    "outputs at masked steps are the first state, ahead of the first step that is not masked the "
    "initial state, as in Keras before 2.2.5."
)
_REPEATED = (
    "outputs of both directions at masked steps are those of the step before, not zeros, as in "
    "Keras before 2.4."
)
_ZEROS = (
    "the last output of a direction is zero if its last step is masked, as in TensorFlow 1.13, "
    "which saved the file."
)
_UNKNOWN = (
    "the last output of a direction whose last step is masked is that of the step before, as in "
    "TensorFlow 1.14 and later. In TensorFlow 1.13 it is zero, and weights alone do not show which "
    "one saved them. If it was 1.13, the outputs are wrong: save the whole model, "
    "model.save('model.h5')."
)
_OF_SEVERAL_TENSORFLOWS = (2, 2, 4)


def _are_former(original: OriginalKeras) -> bool:
    return original.backend != "theano" and original.is_before((2, 2, 5), (2, 2, 4))


def of_loaded_model(present: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``K.rnn`` of the loaded model; ``present`` is that of the current Keras."""
    # legacy_backend.provide() runs more than once.
    original: Callable[..., Any] = getattr(present, "_of_current_keras", present)
    former = _with_first_states(original)

    @functools.wraps(original)
    def rnn(*args: Any, **named: Any) -> Any:
        return (former if _are_former(original_keras.current()) else original)(*args, **named)

    rnn._of_current_keras = original  # type: ignore[attr-defined]
    return rnn


def _first(states: Any) -> Any:
    import keras

    return keras.tree.flatten(states)[0]


def _with_first_states(
    rnn: Callable[..., Any], first_of: Callable[[Any], Any] = _first
) -> Callable[..., Any]:
    """Return a function such as ``K.rnn`` with the outputs of Keras before 2.2.5.

    ``first_of`` returns the first one of the states.
    """

    @functools.wraps(rnn)
    def run(
        step_function: Callable[..., Any],
        inputs: Any,
        initial_states: Any,
        *args: Any,
        **named: Any,
    ) -> Any:
        import keras

        bound = inspect.signature(rnn).bind(step_function, inputs, initial_states, *args, **named)
        mask = bound.arguments.get("mask")
        if mask is None or bound.arguments.get("unroll"):
            return rnn(*bound.args, **bound.kwargs)

        def step(x: Any, states: Any) -> Any:
            output, new_states = step_function(x, states)
            first = first_of(new_states)
            # At a masked step, all three are those of the step before, or zeros.
            return (output, first, keras.ops.ones_like(first)), new_states

        bound.arguments["step_function"] = step
        _, sequences, states = rnn(*bound.args, **bound.kwargs)
        is_real = mask[:, ::-1] if bound.arguments.get("go_backwards") else mask
        outputs = _outputs(sequences, is_real, first_of(initial_states))
        return outputs[:, -1], outputs, states

    return run


def _outputs(sequences: Sequence[Any], mask: Any, initial: Any) -> Any:
    """Return the outputs (batch, time, ...) of a loop, or the last one as (batch, 1, ...).

    ``sequences`` are those of the later Keras, the first states, and ones since the first step that
    is not masked.
    """
    from keras import ops

    outputs, first, has_begun = sequences
    if outputs.shape[1] == 1:
        mask = mask[:, -1:]
    while len(mask.shape) < len(outputs.shape):
        mask = ops.expand_dims(mask, -1)
    masked = ops.where(has_begun > 0, first, initial[:, None])
    return ops.where(ops.cast(mask, "bool"), outputs, masked)


def let_be_former(layers: Iterable[Any], original: OriginalKeras) -> list[str]:
    """Let built recurrent layers have outputs, and states of several cells, as in ``original``.

    Returns notes on those whose results may differ. Raises :class:`UnsupportedModelError` as
    :func:`.states_of_stacks.let_be_former`.
    """
    import keras

    layers = list(layers)
    notes = states_of_stacks.let_be_former(layers, original)
    notes.extend(_let_directions_repeat(layers, original))
    for layer in layers if _are_former(original) else ():
        is_recurrent = isinstance(layer, keras.layers.RNN)
        is_last_first = states_of_stacks.is_stack(layer) and states_of_stacks.are_last_first(
            original
        )
        if is_recurrent and not layer.unroll:
            output_first_state(layer)
            layer.call = _call_of(layer, _of_last if is_last_first else _first)
        is_called = is_recurrent or isinstance(layer, keras.layers.Bidirectional)
        has_others = states_of_stacks.is_stack(layer) and not is_last_first
        if is_called and any(_may_differ(layer, node, has_others) for node in layer._inbound_nodes):
            notes.append(f"{layer.name}: {_NOTE}")
    return notes


def _let_directions_repeat(layers: Iterable[Any], original: OriginalKeras) -> list[str]:
    """Let Bidirectional layers have zeros at masked steps if, and only if, ``original`` does."""
    import keras

    repeat = original.is_before((2, 4), (2, 2, 4))
    names = set(_with_zeros(original.stored)) if original.of_tensorflow and not repeat else set()
    is_unknown = (
        original.of_tensorflow
        and original.version == _OF_SEVERAL_TENSORFLOWS
        and not original.stored
    )
    notes = []
    for layer in layers:
        if not isinstance(layer, keras.layers.Bidirectional):
            continue
        is_other = repeat or layer.name in names
        for part in (layer.forward_layer, layer.backward_layer) if is_other else ():
            if hasattr(part, "zero_output_for_mask"):
                part.zero_output_for_mask = not repeat
        returns_all = layer.forward_layer.return_sequences
        note = _ZEROS if layer.name in names else ""
        if repeat and returns_all:
            note = _REPEATED
        elif is_unknown and not returns_all:
            note = _UNKNOWN
        if note and any(map(_has_mask, layer._inbound_nodes)):
            notes.append(f"{layer.name}: {note}")
    return notes


def _with_zeros(stored: Any) -> Iterator[str]:
    """Yield the names of stored Bidirectional layers whose last outputs may be zeros."""
    for item in objects_inside(stored):
        inner = item["config"].get("layer") if item["class_name"] == "Bidirectional" else None
        inner = inner.get("config") if isinstance(inner, Mapping) else None
        inner = inner if isinstance(inner, Mapping) else {}
        if inner.get("zero_output_for_mask") and not inner.get("return_sequences"):
            yield safe_name(str(item["config"].get("name")))


def _has_mask(node: Any) -> bool:
    from keras.src.backend import get_keras_mask

    tensors = node.input_tensors
    named = node.arguments.kwargs.get("mask")
    return bool(tensors) and (named is not None or get_keras_mask(tensors[0]) is not None)


def _of_last(states: Any) -> Any:
    return _first(states[-1])


def _may_differ(layer: Any, node: Any, has_others: bool) -> bool:
    """Whether a call of a layer of a model has a mask, and states or ``has_others`` as outputs."""
    is_unrolled = getattr(getattr(layer, "forward_layer", layer), "unroll", False)
    return not is_unrolled and _has_mask(node) and (has_others or states_of_stacks.has_states(node))


def _call_of(layer: Any, first_of: Callable[[Any], Any]) -> Callable[..., Any]:
    from keras.src import backend

    original = layer.call
    signature = inspect.signature(original)

    @functools.wraps(original)
    def call(*args: Any, **named: Any) -> Any:
        given = signature.bind(*args, **named).arguments
        starts_with_zeros = given.get("initial_state") is None and not layer.stateful
        is_first_state = is_keras_class(layer.cell, *CELLS)
        if given.get("mask") is None or (starts_with_zeros and is_first_state):
            return original(*args, **named)
        with (
            mock.patch.object(backend, "rnn", _with_first_states(backend.rnn, first_of)),
            mock.patch.object(backend, "lstm", _not_implemented),
            mock.patch.object(backend, "gru", _not_implemented),
        ):
            return original(*args, **named)

    return call


def _not_implemented(*_args: Any, **_named: Any) -> None:
    """Let a layer call ``backend.rnn``."""
    raise NotImplementedError
