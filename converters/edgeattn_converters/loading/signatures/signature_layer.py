"""The layer that calls the signature of a SavedModel."""

from collections.abc import Sequence
from typing import Any

from edgeattn_converters.graphs.static_shapes import replay
from edgeattn_converters.loading.signatures.signature_batch import call_signature


def signature_layer(
    loaded: Any, variables: Sequence[Any], function: Any, single: Any = None, count: int = 1
) -> Any:
    """Return a layer that calls a signature of ``loaded``.

    ``variables`` are those of the signature, also if ``function`` has their values as constants.
    A signature of a fixed number of samples, ``count``, comes with ``single``, the function that
    computes one of them, which is the signature itself if it is for one.
    """
    import keras
    import tensorflow as tf

    class Signature(keras.layers.Layer):
        """Calls the signature; the loaded object owns its variables."""

        def __init__(self) -> None:
            # The graph takes its inputs in their own types, such as float64.
            super().__init__(name="signature", trainable=False, autocast=False)
            self._loaded = loaded
            self.signature_function = function if single is None else single
            self.batch = None if single is None else 1
            self.count = count
            for variable in variables:
                self._track_variable(_existing(variable))

        def call(self, inputs: Any) -> Any:
            """Return the outputs by name."""
            sizes = {value.shape[0] for value in inputs.values()}
            if self.batch is not None and sizes != {self.batch}:
                return self._by_count(inputs)
            return call_signature(self.signature_function, inputs)

        def _by_count(self, inputs: Any) -> Any:
            """The outputs of ``count`` samples at a time, as the signature computes them."""
            outputs = function.structured_outputs
            rows = tf.shape(next(iter(inputs.values())))[0]
            positions = tf.range(-(-rows // count) * count)
            # Copies of the last sample follow it.
            positions = tf.reshape(tf.minimum(positions, rows - 1), [-1, count])
            results = tf.map_fn(
                lambda batch: call_signature(function, batch),
                {name: tf.gather(value, positions) for name, value in inputs.items()},
                {name: tf.TensorSpec(spec.shape, spec.dtype) for name, spec in outputs.items()},
            )
            return {
                name: tf.reshape(value, tf.concat([[-1], tf.shape(value)[2:]], 0))[:rows]
                for name, value in results.items()
            }

        def compute_output_spec(self, inputs: Any) -> Any:
            """Return the shapes for these inputs, which the graph may have lost in its loops."""
            specs = super().compute_output_spec(inputs)
            if all(None not in spec.shape[1:] for spec in specs.values()):
                return specs
            feeds = {
                name: tf.TensorSpec([self.batch, *spec.shape[1:]], spec.dtype, name)
                for name, spec in inputs.items()
            }
            replayed = tf.function(
                lambda feeds: replay(self.signature_function, feeds), autograph=False
            )
            results = replayed.get_concrete_function(feeds).structured_outputs
            return {
                name: keras.KerasTensor((None, *value.shape.as_list()[1:]), value.dtype.name)
                for name, value in results.items()
            }

    return Signature()


def _existing(variable: Any) -> Any:
    """Return a Keras variable with the value of a variable of the graph, to count it."""
    import keras

    return keras.Variable(
        variable.numpy(), trainable=False, dtype=variable.dtype.name, name="weights"
    )
