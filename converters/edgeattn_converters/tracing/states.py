"""States of recurrent layers as inputs and outputs, for sequences that are processed in parts.

A layer's state is the input ``LAYER_initial_h`` (and ``_c`` for an LSTM) and the output
``LAYER_final_h``. Passed to the next call, it continues the sequence, as Keras does in ``stateful``
layers; zeros start a new sequence.

The result is an ordinary Keras model, so the reference, the converters and the quantizers need no
special cases.
"""

import contextlib
import functools
import inspect
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn.samples.states import with_initial_states
from edgeattn.tensors import Tensors
from edgeattn_converters.keras_classes import derives_from, is_keras_class
from edgeattn_converters.lowering.call_replacement import (
    all_layers,
    replaced_calls,
    with_attributes,
)
from edgeattn_converters.tracing.attention_outputs import unique
from edgeattn_converters.tracing.keras_call import named_outputs, pack
from edgeattn_converters.tracing.trace import Interface

# Keras' names of the states of these layers; states of other layers are numbered.
_STATE_NAMES: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(("LSTM", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), "hc"),
    **dict.fromkeys(("GRU", "SimpleRNN"), "h"),
}
# The number of preceding sequences after which states resemble those within a stream.
PRECEDING = 3

Shape = tuple[int, ...]


@dataclass(frozen=True)
class _Recurrent:
    """The recurrent layers of a model by unique names.

    With ``separate``, each call of a layer has states of its own.
    """

    layers: Mapping[str, Any]
    separate: bool

    def names(self, layer: Any) -> Iterator[str]:
        """The names of the states in the calls of a layer, in their order."""
        name = next((key for key, item in self.layers.items() if item is layer), None)
        if name is None:
            return
        yield name
        for call in itertools.count(2):
            yield self._of_call(name, call) if self.separate else name

    def layer(self, name: str) -> Any:
        """The layer whose states have this name."""
        if name in self.layers:
            return self.layers[name]
        calls = (
            (self._of_call(key, call), item)
            for call in itertools.count(2)
            for key, item in self.layers.items()
        )
        return next(item for key, item in calls if key == name)

    def _of_call(self, name: str, call: int) -> str:
        result = f"{name}_call_{call}"
        while result in self.layers:
            result += "_"
        return result


def with_states(model: Any, stateful: Collection[str] = ()) -> tuple[Any, dict[str, str]]:
    """``model`` with the states of its recurrent layers as further inputs and outputs.

    ``stateful`` names the layers whose states are exported; if it is empty, all are. Layers that
    receive initial states within the model are excluded. If a layer is called twice, its state
    passes from the first call to the second if it is in ``stateful``, as in Keras. Otherwise each
    call is a sequence of its own, with states of its own, whose names have the number of the call.

    Returns the model and, for each input of a state, the name of the output with its final value.
    Raises :class:`UnsupportedModelError` if there is no state to export.
    """
    import keras

    own = [tensor.name for tensor in model.inputs]
    recurrent = _Recurrent(_recurrent_layers(model, stateful), separate=not stateful)
    shapes = _state_shapes(model, recurrent)
    if not shapes:
        raise UnsupportedModelError(
            "No recurrent layer of this model has a state that can be an input.",
            hint="Omit --states.",
        )
    suffixes = {
        name: _state_names(recurrent.layer(name), len(states)) for name, states in shapes.items()
    }
    initial = [f"{name}_initial_{suffix}" for name in shapes for suffix in suffixes[name]]
    final = [f"{name}_final_{suffix}" for name in shapes for suffix in suffixes[name]]
    initial = unique(initial, own)
    state_shapes = [shape for states in shapes.values() for shape in states]
    state_inputs = [
        keras.Input(shape, name=name) for name, shape in zip(initial, state_shapes, strict=True)
    ]
    counts = {name: len(states) for name, states in shapes.items()}
    inputs = [*model.inputs, *state_inputs]
    layer = _layer_class()(model, recurrent, counts, final)
    outputs = layer(inputs)
    return keras.Model(inputs, outputs, name=model.name), dict(
        zip(initial, layer.final, strict=True)
    )


def mark_states(interface: Interface, pairs: Mapping[str, str]) -> Interface:
    """``interface`` with the inputs of states marked, because samples do not contain them."""
    inputs = tuple(replace(spec, state=pairs.get(spec.name)) for spec in interface.inputs)
    return replace(interface, inputs=inputs)


def with_running_states(
    predict: Callable[[Tensors], Tensors], interface: Interface, inputs: Tensors
) -> dict[str, Any]:
    """``inputs`` with states as they are if each row continues the row before it.

    The state of a row is what the :data:`PRECEDING` rows before it leave.
    """
    states = {spec.name: spec.state for spec in interface.inputs if spec.state is not None}
    result = dict(with_initial_states(inputs, interface.inputs))
    for _ in range(PRECEDING if states and len(next(iter(result.values()))) else 0):
        outputs = predict(result)
        for name, final in states.items():
            result[name] = np.roll(np.asarray(outputs[final]), 1, axis=0)
    return result


def _recurrent_layers(model: Any, stateful: Collection[str]) -> dict[str, Any]:
    """The layers that may have a state, by unique names."""
    import keras

    inside: set[int] = set()
    for layer in all_layers(model):
        if isinstance(layer, keras.layers.Bidirectional):
            # Bidirectional has the states of both.
            inside |= {id(layer.forward_layer), id(layer.backward_layer)}
        elif isinstance(layer, keras.layers.TimeDistributed):
            # Every step is a sequence of its own for the inner layers.
            inside |= {id(item) for item in layer._flatten_layers(include_self=False)}
    recurrent = [
        layer
        for layer in all_layers(model)
        if isinstance(layer, keras.layers.RNN | keras.layers.Bidirectional)
        and id(layer) not in inside
        and "initial_state" in inspect.signature(layer.call).parameters
        and (not stateful or any(item.name in stateful for item in _with_directions(layer)))
    ]
    return dict(zip(unique([layer.name for layer in recurrent]), recurrent, strict=True))


def _with_directions(layer: Any) -> list[Any]:
    """The layer and, of Bidirectional, the layers of both directions."""
    if derives_from(layer, "Bidirectional"):
        return [layer, layer.forward_layer, layer.backward_layer]
    return [layer]


def _state_names(layer: Any, count: int) -> Sequence[str]:
    import keras

    if isinstance(layer, keras.layers.Bidirectional):
        directions = (("forward", layer.forward_layer), ("backward", layer.backward_layer))
        return [
            f"{direction}_{name}"
            for direction, item in directions
            for name in _state_names(item, count // 2)
        ]
    known = next((names for key, names in _STATE_NAMES.items() if is_keras_class(layer, key)), ())
    return known if len(known) == count else [str(index) for index in range(count)]


def _state_shapes(model: Any, recurrent: _Recurrent) -> dict[str, list[Shape]]:
    """The shapes of the states by their name, without the batch axis."""
    import tensorflow as tf

    shapes: dict[str, list[Shape]] = {}

    def function(*tensors: Any) -> Any:
        states: dict[str, list[Any]] = {}
        with _exposed_states(recurrent, states, model):
            model(pack(model, tensors), training=False)
        for name, values in states.items():
            shapes[name] = [tuple(value.shape.as_list()[1:]) for value in values]
        return tf.constant(0)

    signature = [tf.TensorSpec((None, *t.shape[1:]), t.dtype) for t in model.inputs]
    tf.function(function, input_signature=signature, autograph=False).get_concrete_function()
    return shapes


@contextlib.contextmanager
def _exposed_states(
    recurrent: _Recurrent, states: dict[str, list[Any]], model: Any
) -> Iterator[None]:
    """A context in which each recurrent layer starts from its entry in ``states``, if there is
    one, and replaces it by its final states."""

    def exposing(layer: Any) -> Callable[..., Any] | None:
        names = recurrent.names(layer)
        first = next(names, None)
        if first is None:
            return None
        following = itertools.chain([first], names)
        original = layer.call

        def call(sequences: Any, initial_state: Any = None, **options: Any) -> Any:
            if initial_state is not None:
                return original(sequences, initial_state=initial_state, **options)
            name = next(following)
            if name in states:
                initial_state = _packed(layer, states[name])
            with contextlib.ExitStack() as stack:
                for item in _with_directions(layer):
                    stack.enter_context(with_attributes(item, {"return_state": True}))
                result = original(sequences, initial_state=initial_state, **options)
            two = derives_from(layer, "Bidirectional") and layer.merge_mode is None
            outputs = 2 if two else 1
            states[name] = _flat(result[outputs:])
            if layer.return_state:
                return result
            return result[:outputs] if outputs > 1 else result[0]

        return call

    with replaced_calls(model, exposing):
        yield


def _flat(states: Any) -> list[Any]:
    import keras

    return list(keras.tree.flatten(states))


def _packed(layer: Any, states: list[Any]) -> Any:
    """States in the structure that the layer takes: nested lists for stacked cells."""
    import keras

    if derives_from(layer, "Bidirectional"):
        half = len(states) // 2
        return [
            *_packed(layer.forward_layer, states[:half]),
            *_packed(layer.backward_layer, states[half:]),
        ]
    sizes = layer.state_size
    if len(_flat(sizes)) != len(states):  # of a convolution: sizes are channels
        return list(states)
    return keras.tree.pack_sequence_as(list(sizes), list(states))


@functools.cache
def _layer_class() -> Any:
    import keras

    class WithStates(keras.layers.Layer):
        """A model as a layer, with states among its inputs and outputs."""

        def __init__(
            self, model: Any, recurrent: _Recurrent, counts: Mapping[str, int], final: list[str]
        ) -> None:
            super().__init__(name="with_states")
            self.model = model
            self.built = True
            # Bypasses Keras' tracking, because these layers belong to the model.
            object.__setattr__(self, "_recurrent", recurrent)
            self._counts = dict(counts)
            self._final_names = final
            self.final: list[str] = []

        def call(self, inputs: list[Any]) -> dict[str, Any]:
            own = len(self.model.inputs)
            remaining = list(inputs[own:])
            states = {}
            for name, count in self._counts.items():
                states[name], remaining = remaining[:count], remaining[count:]
            with _exposed_states(self._recurrent, states, self.model):
                result = self.model(pack(self.model, tuple(inputs[:own])), training=False)
            names = [tensor.name for tensor in self.model.inputs]
            outputs = dict(named_outputs(self.model, result, names))
            self.final = unique(self._final_names, [*outputs, *names])
            values = [value for group in states.values() for value in group]
            return outputs | dict(zip(self.final, values, strict=True))

    return WithStates
