"""Keras objects of edgeattn that a migrated configuration refers to by registered name."""

import contextlib
import functools
import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras import ops

from edgeattn_converters.loading.lambdas.keras_operations import evaluate
from edgeattn_converters.loading.lambdas.output_shapes import with_inferred_shapes
from edgeattn_converters.loading.own_code.classes_of_keras_2 import weight_by_name
from edgeattn_converters.loading.weights.declared_weights import DeclaredWeight, MoreWeightsError

# Additional values, for counters and similar variables that are not stored.
SPARE = 1_000_000


@contextlib.contextmanager
def allocating_at_most(values: int | None) -> Iterator[None]:
    """Limit the weights that models built in the context may allocate; None for no limit.

    Layers of the user may call ``add_weight`` with the arguments of Keras 2.

    A file that declares more weights than it stores is refused before they are allocated, whatever
    initializes them. Raises :class:`MoreWeightsError`.
    """
    add_weight = keras.layers.Layer.add_weight
    remaining = math.inf if values is None else values + SPARE
    declared: list[DeclaredWeight] = []

    def count_and_add(layer: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal remaining
        args, kwargs = weight_by_name(args, kwargs)
        shape = args[0] if args else kwargs.get("shape")
        with contextlib.suppress(TypeError):  # Keras raises an error for other shapes
            axes = tuple(map(operator.index, shape or ()))
            remaining -= math.prod(axes)
            declared.append(DeclaredWeight(layer.name, str(kwargs.get("name")), axes))
        if remaining < 0:
            raise MoreWeightsError(declared)
        return add_weight(layer, *args, **kwargs)

    keras.layers.Layer.add_weight = count_and_add
    try:
        yield
    finally:
        keras.layers.Layer.add_weight = add_weight


@keras.saving.register_keras_serializable(package="edgeattn")
class StoredWeights(keras.initializers.Initializer):
    """Zeros, in place of weights that are assigned from the file later."""

    def __call__(self, shape: Sequence[int], dtype: Any = None, **_kwargs: Any) -> Any:
        """Return zeros."""
        return ops.zeros(shape, dtype=dtype or "float32")

    def get_config(self) -> dict[str, Any]:
        """Return an empty config."""
        return {}


def hard_sigmoid_keras2(x: Any) -> Any:
    """Compute ``hard_sigmoid`` as in Keras 1 and 2: clip(0.2x + 0.5, 0, 1)."""
    return ops.clip(x * 0.2 + 0.5, 0.0, 1.0)


keras.saving.register_keras_serializable("edgeattn", "hard_sigmoid_keras2")(hard_sigmoid_keras2)


@keras.saving.register_keras_serializable(package="edgeattn")
class ThresholdedReLU(keras.layers.Layer):
    """x if x > theta, else 0; a layer that Keras 3 removed."""

    def __init__(self, theta: Any = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.theta = float(theta[0] if isinstance(theta, list) else theta)
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """Return a tensor of the same shape."""
        return ops.where(inputs > self.theta, inputs, ops.zeros_like(inputs))

    def get_config(self) -> dict[str, Any]:
        """Return the config with ``theta``."""
        return {**super().get_config(), "theta": self.theta}

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the input shape."""
        return input_shape


@keras.saving.register_keras_serializable(package="edgeattn")
class Expression(keras.layers.Layer):
    """Computes an expression of :mod:`..lambdas.expressions`, in place of a Lambda layer."""

    def __init__(self, expression: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.expression = expression
        self.supports_masking = True  # accepts a mask and passes none on, see compute_mask

    def call(self, inputs: Any) -> Any:
        """Return the value of the expression."""
        return with_inferred_shapes(functools.partial(evaluate, self.expression), inputs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Trace the call: the outputs may have other types than the layer, or be several."""
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of an output, which TimeDistributed needs."""
        return self.compute_output_spec(keras.KerasTensor(input_shape, self.compute_dtype)).shape

    def compute_mask(self, _inputs: Any, _previous: Any = None) -> None:
        """Return None, like a Lambda layer without a mask function."""

    def get_config(self) -> dict[str, Any]:
        """Return the config with ``expression``."""
        return {**super().get_config(), "expression": self.expression}


@keras.saving.register_keras_serializable(package="edgeattn")
class RandomFourierFeatures(keras.layers.Layer):
    """cos(xW / s + b) with random W and b, an approximation of a kernel; removed by Keras 3.

    Rahimi and Recht, "Random features for large-scale kernel machines", 2007.
    """

    def __init__(self, output_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.output_dim = output_dim

    def build(self, input_shape: Any) -> None:
        """Create the weights in the order of Keras 2: s, W, b."""
        self.scale = self.add_weight(shape=(1,), name="kernel_scale", initializer="ones")
        shape = (input_shape[-1], self.output_dim)
        self.kernel = self.add_weight(
            shape=shape, name="unscaled_kernel", initializer="zeros", trainable=False
        )
        self.bias = self.add_weight(
            shape=shape[1:], name="bias", initializer="zeros", trainable=False
        )

    def call(self, inputs: Any) -> Any:
        """Return the features of each sample."""
        return ops.cos(ops.matmul(inputs, self.kernel / self.scale) + self.bias)

    def get_config(self) -> dict[str, Any]:
        """Return the config with ``output_dim``."""
        return {**super().get_config(), "output_dim": self.output_dim}


@keras.saving.register_keras_serializable(package="edgeattn")
class Highway(keras.layers.Layer):
    """Highway layer of Keras 1: t * f(xW + b) + (1 - t) * x with t = sigmoid(xV + c).

    Srivastava et al., arXiv 1505.00387.
    """

    def __init__(self, activation: Any = None, use_bias: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias

    def build(self, input_shape: Any) -> None:
        """Create the weights in the order of Keras 1: W, V, b, c."""
        size = input_shape[-1]
        self.kernel = self.add_weight(shape=(size, size), name="kernel", initializer="zeros")
        self.carry = self.add_weight(shape=(size, size), name="carry", initializer="zeros")
        if self.use_bias:
            self.bias = self.add_weight(shape=(size,), name="bias", initializer="zeros")
            self.carry_bias = self.add_weight(shape=(size,), name="carry_bias", initializer="zeros")

    def call(self, inputs: Any) -> Any:
        """Return a tensor of the same shape, (batch, features)."""
        transformed, gate = ops.matmul(inputs, self.kernel), ops.matmul(inputs, self.carry)
        if self.use_bias:
            transformed, gate = transformed + self.bias, gate + self.carry_bias
        gate = ops.sigmoid(gate)
        return gate * self.activation(transformed) + (1 - gate) * inputs

    def get_config(self) -> dict[str, Any]:
        """Return the config with ``activation`` and ``use_bias``."""
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), "activation": activation, "use_bias": self.use_bias}


@keras.saving.register_keras_serializable(package="edgeattn")
class MaxoutDense(keras.layers.Layer):
    """Largest of ``nb_feature`` linear functions of the inputs, a layer of Keras 1.

    Goodfellow et al., arXiv 1302.4389.
    """

    def __init__(
        self, output_dim: int, nb_feature: int = 4, use_bias: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.output_dim, self.nb_feature, self.use_bias = output_dim, nb_feature, use_bias

    def build(self, input_shape: Any) -> None:
        """Create the weights (functions, inputs, outputs) and (functions, outputs)."""
        shape = (self.nb_feature, input_shape[-1], self.output_dim)
        self.kernel = self.add_weight(shape=shape, name="kernel", initializer="zeros")
        if self.use_bias:
            self.bias = self.add_weight(shape=shape[::2], name="bias", initializer="zeros")

    def call(self, inputs: Any) -> Any:
        """Return (batch, outputs) for (batch, inputs)."""
        sums = ops.einsum("bi,fio->bfo", inputs, self.kernel)
        return ops.max(sums + self.bias if self.use_bias else sums, axis=1)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        arguments = {name: getattr(self, name) for name in ("output_dim", "nb_feature", "use_bias")}
        return {**super().get_config(), **arguments}
