"""The layer that calls the signature of a SavedModel."""

from typing import Any

from edgeattn_converters.graphs.static_shapes import keywords_of, replay


def signature_layer(loaded: Any, function: Any, batch: int | None) -> Any:
    """Return a layer that calls a signature of ``loaded``.

    ``batch`` is the number of samples that the signature computes, ``None`` for any number.
    """
    import keras
    import tensorflow as tf

    keywords = keywords_of(function)

    class Signature(keras.layers.Layer):
        """Calls the signature; the loaded object owns its variables."""

        def __init__(self) -> None:
            super().__init__(name="signature", trainable=False)
            self._loaded = loaded
            self.signature_function = function
            self.batch = batch
            for variable in self.signature_function.variables:
                self._track_variable(_existing(variable))

        def call(self, inputs: Any) -> Any:
            """Return the outputs by name."""
            sizes = {value.shape[0] for value in inputs.values()}
            if self.batch is not None and sizes != {self.batch}:
                return self._sample_by_sample(inputs)
            return self.signature_function(
                **{keywords[name]: value for name, value in inputs.items()}
            )

        def _sample_by_sample(self, inputs: Any) -> Any:
            outputs = self.signature_function.structured_outputs
            return tf.map_fn(
                lambda row: {
                    name: value[0]
                    for name, value in self.call(
                        {name: tensor[None] for name, tensor in row.items()}
                    ).items()
                },
                inputs,
                {name: tf.TensorSpec(spec.shape[1:], spec.dtype) for name, spec in outputs.items()},
            )

        def compute_output_spec(self, inputs: Any) -> Any:
            """Return the shapes for these inputs, which the graph may have lost in its loops."""
            specs = super().compute_output_spec(inputs)
            if all(None not in spec.shape[1:] for spec in specs.values()):
                return specs
            feeds = {
                name: tf.TensorSpec([self.batch, *spec.shape[1:]], spec.dtype, name)
                for name, spec in inputs.items()
            }
            function = tf.function(
                lambda feeds: replay(self.signature_function, feeds), autograph=False
            )
            results = function.get_concrete_function(feeds).structured_outputs
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
