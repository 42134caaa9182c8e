"""Recurrent layers of Keras 2 with constants: tensors that their cell gets at every step.

Recurrent layers of Keras 3 have none.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras.src import backend

from edgeattn_converters.loading.migrate.functional_nodes import constants_error

# The attribute of a layer with the constants of the Bidirectional around it.
_OF_WRAPPER = "_constants_of_wrapper"


class RNN(keras.layers.RNN):
    """Calls its cell with ``constants=[...]``. The arguments of its call have the order of Keras 2.

    Its name is that of Keras, which is part of the paths in a ``.weights.h5`` file.
    """

    def call(
        self,
        sequences: Any,
        initial_state: Any = None,
        constants: Any = None,
        mask: Any = None,
        training: Any = False,
    ) -> Any:
        """Return what RNN of Keras returns."""
        # Not as an attribute whose values Keras tracks.
        self.__dict__["_constants"] = _as_list(constants) or vars(self).get(_OF_WRAPPER)
        return super().call(sequences, initial_state, mask=mask, training=training)

    def inner_loop(
        self, sequences: Any, initial_state: Any, mask: Any, training: Any = False
    ) -> Any:
        """Run the loop of Keras, with constants."""
        named: dict[str, Any] = {"constants": self._constants} if self._constants else {}
        if getattr(self.cell, "_call_has_training_arg", False):
            named["training"] = training

        def step(inputs: Any, states: Any) -> Any:
            output, new_states = self.cell(inputs, states, **named)
            return output, new_states if keras.tree.is_nested(new_states) else [new_states]

        return backend.rnn(
            step,
            sequences,
            initial_state,
            go_backwards=self.go_backwards,
            mask=mask,
            unroll=self.unroll,
            input_length=sequences.shape[1],
            zero_output_for_mask=self.zero_output_for_mask,
            return_all_outputs=self.return_sequences,
        )


class Bidirectional(keras.layers.Bidirectional):
    """Calls the cells of both layers with ``constants=[...]``, in the order of Keras 2, too."""

    def call(
        self,
        sequences: Any,
        initial_state: Any = None,
        constants: Any = None,
        mask: Any = None,
        training: Any = None,
    ) -> Any:
        """Return what Bidirectional of Keras returns."""
        for layer in (self.forward_layer, self.backward_layer):
            layer.__dict__[_OF_WRAPPER] = _as_list(constants)
        return super().call(sequences, initial_state, mask=mask, training=training)


def _as_list(constants: Any) -> list[Any] | None:
    if constants is None:
        return None
    return list(constants) if isinstance(constants, list | tuple) else [constants]


def accept(layer: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Let an RNN of Keras, or a Bidirectional of them, take constants in all calls if one has them.

    Raises :class:`UnsupportedModelError` for other recurrent layers, and for several cells.
    """
    if not isinstance(layer, keras.layers.RNN | keras.layers.Bidirectional):
        return
    constants = kwargs.get("constants", args[2] if len(args) > 2 else None)
    if constants is None or isinstance(layer, RNN | Bidirectional):
        return
    shapes = [tuple(constant.shape) for constant in keras.tree.flatten(constants)]
    parts = [layer]
    if type(layer) is keras.layers.Bidirectional:
        parts = [layer.forward_layer, layer.backward_layer]
    for part in parts:
        has_several = isinstance(getattr(part, "cell", None), keras.layers.StackedRNNCells)
        if type(part) not in (keras.layers.RNN, RNN) or has_several:
            raise constants_error(layer.name)
    for part in parts:
        if not getattr(part.cell, "built", True):
            part.cell.build = _building(part.cell, part.cell.build, shapes)
        _change_class(part, RNN)
    if layer not in parts:
        _change_class(layer, Bidirectional)


def _change_class(layer: Any, cls: type) -> None:
    layer.__class__ = cls
    # Keras reads the arguments of a call when it creates a layer.
    layer._call_signature = inspect.signature(layer.call)
    layer.call_signature_parameters = list(layer._call_signature.parameters)


def _building(cell: Any, build: Callable[[Any], Any], shapes: Sequence[Any]) -> Callable[..., Any]:
    """How a cell is built with the shape of a step, or, if it fails, as before TensorFlow 2.

    Cells then got a list of that shape and those of the constants. No version tells the two apart.
    """

    @functools.wraps(build)
    def built(input_shape: Any) -> None:
        try:
            build(input_shape)
        except Exception:
            if cell._layers:
                raise
            for weight in list(cell.weights):
                cell._untrack_variable(weight)
            build([input_shape, *shapes])

    return built
