"""``Recurrent`` of Keras 1 to 2.1, from which own recurrent layers with a ``step`` derive.

Attention decoders that were published before Keras 2.2 are such classes. They define the weights,
``step(x, states)`` and what differs of the methods below (keras/layers/recurrent.py of Keras 2.0,
keras/legacy/layers.py of Keras 2.1).
"""

import functools
from typing import Any

from edgeattn.errors import UnsupportedModelError


@functools.cache
def recurrent() -> type:
    """Return the class, which Keras 3 does not have."""
    import keras

    class Recurrent(keras.layers.Layer):
        """A layer that computes ``step`` at every step of its inputs (batch, time, features)."""

        def __init__(
            self,
            return_sequences: bool = False,
            return_state: bool = False,
            go_backwards: bool = False,
            stateful: bool = False,
            unroll: bool = False,
            implementation: int = 0,
            **named: Any,
        ) -> None:
            for name in ("consume_less", "input_length"):
                named.pop(name, None)
            super().__init__(**named)
            self.return_sequences, self.return_state = return_sequences, return_state
            self.go_backwards, self.stateful, self.unroll = go_backwards, stateful, unroll
            self.implementation = implementation
            self.supports_masking = True

        def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
            """Return the mask of the inputs, if there are outputs for all steps."""
            mask = mask[0] if isinstance(mask, list) else mask
            output = mask if self.return_sequences else None
            return [output, *(None for _ in self.states)] if self.return_state else output

        def get_initial_state(self, inputs: Any) -> list[Any]:
            """Return zeros (batch, units) for every state."""
            units = getattr(self, "units", None) or self.output_dim
            zeros = keras.ops.zeros_like(inputs[:, 0, :1])
            return [keras.ops.repeat(zeros, units, axis=-1) for _ in self.states]

        def get_initial_states(self, inputs: Any) -> list[Any]:
            """As :meth:`get_initial_state`: the name until Keras 2.0.5."""
            return self.get_initial_state(inputs)

        def get_constants(self, inputs: Any, training: Any = None) -> list[Any]:
            """Return tensors that ``step`` gets behind the states, none by default."""
            return []

        def preprocess_input(self, inputs: Any, training: Any = None) -> Any:
            """Return what is computed for all steps at once, by default the inputs."""
            return inputs

        def call(
            self,
            inputs: Any,
            mask: Any = None,
            training: Any = None,
            initial_state: Any = None,
        ) -> Any:
            """Return the outputs, and the last states with ``return_state``."""
            if initial_state is None:
                initial_state = self.get_initial_states(inputs)
            last, outputs, states = keras.backend.rnn(
                self.step,
                self.preprocess_input(inputs),
                list(initial_state),
                go_backwards=self.go_backwards,
                mask=mask[0] if isinstance(mask, list) else mask,
                constants=self.get_constants(inputs),
                unroll=self.unroll,
                input_length=inputs.shape[1],
            )
            result = outputs if self.return_sequences else last
            return [result, *states] if self.return_state else result

        def reset_states(self, states: Any = None) -> None:
            """Do nothing: programs call it, and models with stateful layers are refused later."""

        def get_config(self) -> dict[str, Any]:
            """Return the arguments of the constructor."""
            names = ("return_sequences", "return_state", "go_backwards", "stateful", "unroll")
            return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    return Recurrent


def require_stateless(model: Any) -> None:
    """Raise :class:`UnsupportedModelError` if a layer that derives from the class is stateful."""
    base: Any = recurrent()
    for layer in model._flatten_layers():
        if isinstance(layer, base) and layer.stateful:
            raise UnsupportedModelError(
                f"Layer {layer.name!r} of your class {type(layer).__name__}, which derives from "
                "Recurrent, is stateful: it keeps its state from one batch to the next. Stateful "
                "layers of this kind are not supported.",
                hint="If each sample is a sequence of its own, create it with stateful=False, "
                "which changes no weights. In a whole file: load the model in the Keras that saved "
                f"it, set the attribute stateful of {layer.name!r} to False, and save it again.",
            )


def time_distributed_dense(
    x: Any,
    w: Any,
    b: Any = None,
    dropout: Any = None,
    input_dim: int | None = None,
    output_dim: int | None = None,
    timesteps: int | None = None,
    training: Any = None,
) -> Any:
    """Return the product of every step of ``x`` (batch, time, features) with ``w``, plus ``b``."""
    import keras

    product = keras.ops.matmul(x, w)
    return product if b is None else product + b
