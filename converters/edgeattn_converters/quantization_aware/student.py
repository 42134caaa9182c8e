"""A Keras model that computes in int8 arithmetic, as functions of TensorFlow."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from edgeattn.tensors import Array, Tensors
from edgeattn_converters.keras_classes import is_keras_class
from edgeattn_converters.lowering.call_replacement import all_layers
from edgeattn_converters.quantization_aware.activations import Activations
from edgeattn_converters.quantization_aware.layers import simulated
from edgeattn_converters.quantization_aware.options import FineTuningOptions
from edgeattn_converters.quantization_aware.weights import Kernel
from edgeattn_converters.tracing.attention_outputs import maps_of
from edgeattn_converters.tracing.keras_call import named_outputs, pack
from edgeattn_converters.tracing.tokens import sequence_lengths
from edgeattn_converters.tracing.trace import Interface

EPSILON = 1e-7


class Student:
    """``model`` with weights of its own, which are trained while the model stays as it is."""

    def __init__(
        self,
        model: Any,
        interface: Interface,
        kernels: Sequence[Kernel],
        options: FineTuningOptions,
    ) -> None:
        import keras

        self._model, self._interface, self._options = model, interface, options
        self._kernels = {id(kernel.variable): kernel for kernel in kernels}
        # A rounded value of a padded step would not be equal to that of its Masking layer.
        mask_values = {
            float(layer.mask_value)
            for layer in all_layers(model)
            if is_keras_class(layer, "Masking")
        }
        self._activations = Activations(static=options.static, mask_values=mask_values)
        # Files keep the inputs of a Normalization in float32.
        self._scales_inputs = any(
            is_keras_class(layer, "Normalization") for layer in all_layers(model)
        )
        self.trained = [
            keras.Variable(variable.numpy(), name=f"weight_{number}")
            for number, variable in enumerate(model.trainable_variables)
        ]

    def values(self) -> list[Array]:
        """The current weights, in the order of the model's trainable variables."""
        return [variable.numpy() for variable in self.trained]

    def assign(self, values: Sequence[Array]) -> None:
        """Set the weights."""
        for variable, value in zip(self.trained, values, strict=True):
            variable.assign(value)

    def call(self, tensors: Sequence[Any], *, rounded: bool = True) -> dict[str, Any]:
        """Outputs and maps by name, while a function is traced.

        Weights are rounded, activations if ``rounded``.
        """
        import keras

        specs, maps = self._interface.inputs, [spec.name for spec in self._interface.attention]
        inputs = [
            self._activations.value(f"input/{spec.name}", tensor)
            if rounded and not self._scales_inputs
            else tensor
            for spec, tensor in zip(specs, tensors, strict=True)
        ]
        layers = [kernel.layer for kernel in self._kernels.values()]
        with (
            simulated(self._model, self._activations, layers, self._options)
            if rounded
            else contextlib.nullcontext(),
            keras.StatelessScope(state_mapping=self._mapping()),
            maps_of(self._model) as collect_maps,
        ):
            result = self._model(pack(self._model, tuple(inputs)), training=False)
            outputs = dict(named_outputs(self._model, result, [spec.name for spec in specs]))
            lengths = sequence_lengths(specs, tensors)
            collected = collect_maps(lengths, list(outputs.values()))
            found = {item.name: item.weights for item in collected}
        return outputs | {name: found[name] for name in maps if name in found}

    def _mapping(self) -> list[tuple[Any, Any]]:
        """The model's variables with the values that they have in this student."""
        import tensorflow as tf

        values = {
            id(variable): tf.convert_to_tensor(trained.value)
            for variable, trained in zip(self._model.trainable_variables, self.trained, strict=True)
        }
        for key, kernel in self._kernels.items():
            # Frozen weights are not trained, but files round them too.
            frozen = tf.convert_to_tensor(kernel.variable.value)
            values[key] = kernel.simulated(values.get(key, frozen))
        return [(v, values[id(v)]) for v in self._model.variables if id(v) in values]

    def measure_ranges(self, batches: Iterable[Tensors]) -> None:
        """Measure the ranges of activations on these inputs, with the current weights."""
        if not self._options.static:
            return
        self._activations.observing = True
        try:
            self._activations.reset()
            for batch in batches:
                self._observe(*batch.values())
        finally:
            self._activations.observing = False

    def run(self, batch: Tensors) -> dict[str, Any]:
        """Outputs and maps by name."""
        outputs: dict[str, Any] = self._run(*batch.values())
        return outputs

    @functools.cached_property
    def with_float_activations(self) -> Any:
        """A function to outputs and maps of the model that is returned, as Keras computes them.

        A call of it leaves no softmax in the graph of its caller, in which maps are searched for.
        """
        return self._function(lambda *tensors: self.call(tensors, rounded=False))

    @functools.cached_property
    def _run(self) -> Any:
        return self._function(lambda *tensors: self.call(tensors))

    @functools.cached_property
    def _observe(self) -> Any:
        # A function of its own, because rounding is decided while a function is traced.
        return self._function(lambda *tensors: self.call(tensors))

    def _function(self, function: Callable[..., Any]) -> Any:
        import tensorflow as tf

        signature = [
            tf.TensorSpec((None, *spec.shape[1:]), spec.dtype) for spec in self._interface.inputs
        ]
        return tf.function(function, input_signature=signature, autograph=False)


def training_step(
    student: Student,
    loss: Callable[[Tensors, Mapping[str, Any], Any], Any],
    optimizer: Any,
    example: tuple[Tensors, Any],
) -> Callable[[Tensors, Any], Any]:
    """A function that trains on a batch of inputs and targets, and returns the loss.

    ``example`` is such a batch; others may have another number of samples.
    """
    import tensorflow as tf

    optimizer.build(student.trained)

    def step(inputs: Any, targets: Any) -> Any:
        with tf.GradientTape() as tape:
            value = loss(inputs, student.call(list(inputs.values())), targets)
        gradients = tape.gradient(value, [item.value for item in student.trained])
        optimizer.apply(gradients, student.trained)
        return value

    def spec(array: Any) -> Any:
        return tf.TensorSpec((None, *array.shape[1:]), array.dtype)

    signature = tf.nest.map_structure(spec, example)
    return tf.function(step, input_signature=signature, autograph=False)


def difference(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> Any:
    """The distillation loss: how far outputs and attention maps are from those of the given model.

    For each of them, the energy of the difference relative to that of the expected values: the
    reciprocal of the signal-to-noise ratio. Unlike a divergence, it has small gradients at weights
    that rounding makes zero.
    """
    import tensorflow as tf

    total = tf.constant(0.0)
    for name, want in expected.items():
        if want.dtype.is_floating:
            noise = tf.reduce_sum(tf.square(want - actual[name]))
            total += noise / (tf.reduce_sum(tf.square(want)) + EPSILON)
    return total
