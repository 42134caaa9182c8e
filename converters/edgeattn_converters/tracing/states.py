"""The states of recurrent layers as named inputs and outputs, for sequences that come in parts.

A layer's state goes in as ``LAYER_initial_h`` (and ``_c`` of an LSTM) and comes out as
``LAYER_final_h``: given to the next call, the sequence goes on where this call ended, as it does of
itself in Keras' ``stateful`` layers. Given zeros, a sequence starts clean.

What is made is a Keras model like any other, so that the reference, the converters and the
quantizers need not know of it.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn.samples.states import with_initial_states
from edgeattn.tensors import Tensors
from edgeattn_converters.lowering.replacement import all_layers, replaced_calls
from edgeattn_converters.tracing.trace import Interface, named_outputs, pack, unique

# What Keras calls the states of these layers; those of others are numbered.
_LETTERS: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(("LSTM", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), "hc"),
    **dict.fromkeys(("GRU", "SimpleRNN"), "h"),
}
# Sequences in a row until a state is like one in the middle of a stream.
ROUNDS = 3

Shape = tuple[int, ...]


def with_states(model: Any, stateful: Collection[str] = ()) -> tuple[Any, dict[str, str]]:
    """``model`` with the states of its recurrent layers beside its own inputs and outputs.

    ``stateful`` are the names of the layers that keep theirs; where there is none, all do. The
    mapping says for the input of each state which output holds it in the end. A layer that is given
    initial states within the model keeps none; the state of one that is called twice goes from the
    first call to the second, as in Keras.

    Raises :class:`UnsupportedModelError` where there is no state to give.
    """
    import keras

    own = [tensor.name for tensor in model.inputs]
    layers = _recurrent(model, stateful)
    shapes = _shapes(model, layers)
    if not shapes:
        raise UnsupportedModelError(
            "No layer of this model has a state that could be an input.",
            hint="Leave --states out.",
        )
    letters = {name: _letters(layers[name], len(found)) for name, found in shapes.items()}
    initial = [f"{name}_initial_{letter}" for name in shapes for letter in letters[name]]
    final = [f"{name}_final_{letter}" for name in shapes for letter in letters[name]]
    initial = unique(initial, own)
    sizes = [shape for found in shapes.values() for shape in found]
    given = [keras.Input(size, name=name) for name, size in zip(initial, sizes, strict=True)]
    kept = {name: layers[name] for name in shapes}
    counts = [len(found) for found in shapes.values()]
    inputs = [*model.inputs, *given]
    layer = _layer_class()(model, kept, counts, final)
    outputs = layer(inputs)
    made = keras.Model(inputs, outputs, name=model.name)
    return made, dict(zip(initial, layer.final, strict=True))


def marked(interface: Interface, pairs: Mapping[str, str]) -> Interface:
    """``interface`` with the inputs of states told apart from what a sample must bring."""
    inputs = tuple(replace(spec, state=pairs.get(spec.name)) for spec in interface.inputs)
    return replace(interface, inputs=inputs)


def in_a_row(
    predict: Callable[[Tensors], Tensors], interface: Interface, inputs: Tensors
) -> dict[str, Any]:
    """``inputs`` with states as they are when each sequence goes on where the one before it ended.

    The state that a row starts from is what :data:`ROUNDS` rows before it have left.
    """
    states = {spec.name: spec.state for spec in interface.inputs if spec.state is not None}
    told = dict(with_initial_states(inputs, interface.inputs))
    for _ in range(ROUNDS if states and len(next(iter(told.values()))) else 0):
        answers = predict(told)
        for name, final in states.items():
            told[name] = np.roll(np.asarray(answers[final]), 1, axis=0)
    return told


def _recurrent(model: Any, stateful: Collection[str]) -> dict[str, Any]:
    """The layers that may keep a state, by names that are theirs alone."""
    import keras

    inside: set[int] = set()
    for layer in all_layers(model):
        if isinstance(layer, keras.layers.Bidirectional):
            # They are asked for by the layer around them.
            inside |= {id(layer.forward_layer), id(layer.backward_layer)}
        elif isinstance(layer, keras.layers.TimeDistributed):
            # Every step is a sequence of its own to what is inside: nothing goes on there.
            inside |= {id(item) for item in layer._flatten_layers(include_self=False)}
    found = [
        layer
        for layer in all_layers(model)
        if isinstance(layer, keras.layers.RNN | keras.layers.Bidirectional)
        and id(layer) not in inside
        and "initial_state" in inspect.signature(layer.call).parameters
        and (not stateful or not {*_names(layer)}.isdisjoint(stateful))
    ]
    return dict(zip(unique([layer.name for layer in found]), found, strict=True))


def _names(layer: Any) -> list[str]:
    halves = [getattr(layer, name, None) for name in ("forward_layer", "backward_layer")]
    return [item.name for item in (layer, *halves) if item is not None]


def _letters(layer: Any, count: int) -> Sequence[str]:
    import keras

    if isinstance(layer, keras.layers.Bidirectional):
        halves = (layer.forward_layer, layer.backward_layer)
        return [
            f"{side}_{letter}"
            for side, half in zip(("forward", "backward"), halves, strict=True)
            for letter in _letters(half, count // 2)
        ]
    known = _LETTERS.get(type(layer).__name__, ())
    return known if len(known) == count else [str(index) for index in range(count)]


def _shapes(model: Any, layers: Mapping[str, Any]) -> dict[str, list[Shape]]:
    """The shapes of the states that each layer ends with, without the batch axis."""
    import tensorflow as tf

    found: dict[str, list[Shape]] = {}

    def function(*tensors: Any) -> Any:
        states: dict[str, list[Any]] = {}
        with _carrying(layers, states, model):
            model(pack(model, tensors), training=False)
        for name, values in states.items():
            found[name] = [tuple(value.shape.as_list()[1:]) for value in values]
        return tf.constant(0)

    signature = [tf.TensorSpec((None, *t.shape[1:]), t.dtype) for t in model.inputs]
    tf.function(function, input_signature=signature, autograph=False).get_concrete_function()
    return found


@contextlib.contextmanager
def _carrying(
    layers: Mapping[str, Any], states: dict[str, list[Any]], model: Any
) -> Iterator[None]:
    """Within it, each of ``layers`` starts from its ``states``, if there are, and puts the final
    ones in their place."""
    names = {id(layer): name for name, layer in layers.items()}

    def carrying(layer: Any) -> Callable[..., Any] | None:
        name = names.get(id(layer))
        if name is None:
            return None
        original = layer.call

        def call(sequences: Any, initial_state: Any = None, **options: Any) -> Any:
            if initial_state is not None:
                return original(sequences, initial_state=initial_state, **options)
            if name in states:
                initial_state = _packed(layer, states[name])
            with _returning_states(layer):
                told = original(sequences, initial_state=initial_state, **options)
            answers = 2 if getattr(layer, "merge_mode", "") is None else 1
            states[name] = _flat(told[answers:])
            if layer.return_state:
                return told
            return told[:answers] if answers > 1 else told[0]

        return call

    with replaced_calls(model, carrying):
        yield


@contextlib.contextmanager
def _returning_states(layer: Any) -> Iterator[None]:
    halves = [getattr(layer, name, None) for name in ("forward_layer", "backward_layer")]
    asked = [item for item in (layer, *halves) if item is not None]
    before = [item.return_state for item in asked]
    try:
        for item in asked:
            item.return_state = True
        yield
    finally:
        for item, value in zip(asked, before, strict=True):
            item.return_state = value


def _flat(states: Any) -> list[Any]:
    import keras

    return list(keras.tree.flatten(states))


def _packed(layer: Any, states: list[Any]) -> Any:
    """States in the structure that the layer takes them in: stacked cells have lists of lists."""
    import keras

    if hasattr(layer, "forward_layer"):
        half = len(states) // 2
        return [
            *_packed(layer.forward_layer, states[:half]),
            *_packed(layer.backward_layer, states[half:]),
        ]
    sizes = layer.state_size
    if len(_flat(sizes)) != len(states):  # a convolution's sizes are those of channels
        return list(states)
    return keras.tree.pack_sequence_as(list(sizes), list(states))


@functools.cache
def _layer_class() -> Any:
    import keras

    class WithStates(keras.layers.Layer):
        """A model as a layer whose states are inputs and outputs among the others."""

        def __init__(
            self, model: Any, layers: Mapping[str, Any], counts: list[int], final: list[str]
        ) -> None:
            super().__init__(name="with_states")
            self.model = model
            self.built = True
            # Past Keras' tracking: these layers are the model's.
            object.__setattr__(self, "_carriers", dict(layers))
            self._counts = counts
            self._wanted = final
            self.final: list[str] = []

        def call(self, inputs: list[Any]) -> dict[str, Any]:
            own = len(self.model.inputs)
            waiting = list(inputs[own:])
            states = {}
            for name, count in zip(self._carriers, self._counts, strict=True):
                states[name], waiting = waiting[:count], waiting[count:]
            with _carrying(self._carriers, states, self.model):
                answer = self.model(pack(self.model, tuple(inputs[:own])), training=False)
            names = [tensor.name for tensor in self.model.inputs]
            outputs = dict(named_outputs(self.model, answer, names))
            self.final = unique(self._wanted, [*outputs, *names])
            values = [value for found in states.values() for value in found]
            return outputs | dict(zip(self.final, values, strict=True))

    return WithStates
