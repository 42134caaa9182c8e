"""What a repaired config may point at: our own small Keras objects, registered by name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
from keras import ops

from edgeattn.errors import UnsafeModelError
from edgeattn_converters.loading.lambdas.keras_operations import evaluate

# How many numbers the model may still allocate; None for no limit.
_BUDGET: ContextVar[list[int] | None] = ContextVar("budget", default=None)
# Counters and the like that a layer makes for itself without storing them.
SPARE = 1_000_000


@contextmanager
def allocating_at_most(numbers: int | None) -> Iterator[None]:
    """Within it, weights that a file declares beyond what it stores are refused, not allocated."""
    token = _BUDGET.set(None if numbers is None else [numbers + SPARE])
    try:
        yield
    finally:
        _BUDGET.reset(token)


@keras.saving.register_keras_serializable(package="edgeattn")
class StoredWeights(keras.initializers.Initializer):
    """Room for weights that come from the file: zeros, within what the file holds."""

    def __call__(self, shape: Sequence[int], dtype: Any = None, **_kwargs: Any) -> Any:
        """Zeros of that shape; :class:`UnsafeModelError` past the budget."""
        left = _BUDGET.get()
        if left is not None:
            left[0] -= math.prod(shape)
            if left[0] < 0:
                raise UnsafeModelError(
                    f"refused: the model declares weights of shape {tuple(shape)}, more than the "
                    "file holds",
                    hint="The file is damaged or made to exhaust memory; do not use it.",
                )
        return ops.zeros(shape, dtype=dtype or "float32")

    def get_config(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}


def hard_sigmoid_keras2(x: Any) -> Any:
    """The ``hard_sigmoid`` of Keras 1 and 2: 0.2x+0.5 between 0 and 1. Keras 3 has another."""
    return ops.clip(x * 0.2 + 0.5, 0.0, 1.0)


keras.saving.register_keras_serializable("edgeattn", "hard_sigmoid_keras2")(hard_sigmoid_keras2)


@keras.saving.register_keras_serializable(package="edgeattn")
class ThresholdedReLU(keras.layers.Layer):
    """x where x > theta, else 0: a layer that Keras 3 dropped."""

    def __init__(self, theta: Any = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.theta = float(theta[0] if isinstance(theta, list) else theta)
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """The same shape."""
        return ops.where(inputs > self.theta, inputs, ops.zeros_like(inputs))

    def get_config(self) -> dict[str, Any]:
        """``theta``."""
        return {**super().get_config(), "theta": self.theta}

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The same."""
        return input_shape


@keras.saving.register_keras_serializable(package="edgeattn")
class Expression(keras.layers.Layer):
    """A layer that computes an expression of ``expressions``: what became of a Lambda."""

    def __init__(self, expression: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.expression = expression
        self.supports_masking = True  # takes a mask without complaint, passes none on

    def call(self, inputs: Any) -> Any:
        """Whatever the expression gives."""
        return evaluate(self.expression, inputs)

    def compute_mask(self, _inputs: Any, _previous: Any = None) -> None:
        """None, as of a Lambda without a mask function."""

    def get_config(self) -> dict[str, Any]:
        """``expression``."""
        return {**super().get_config(), "expression": self.expression}


@keras.saving.register_keras_serializable(package="edgeattn")
class Highway(keras.layers.Layer):
    """t * f(xW + b) + (1 - t) * x with t = sigmoid(xV + c), arXiv 1505.00387: of Keras 1."""

    def __init__(self, activation: Any = None, use_bias: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias

    def build(self, input_shape: Any) -> None:
        """Weights in the order of Keras 1: W, V, b, c."""
        size = input_shape[-1]
        self.kernel = self.add_weight(shape=(size, size), name="kernel", initializer="zeros")
        self.carry = self.add_weight(shape=(size, size), name="carry", initializer="zeros")
        if self.use_bias:
            self.bias = self.add_weight(shape=(size,), name="bias", initializer="zeros")
            self.carry_bias = self.add_weight(shape=(size,), name="carry_bias", initializer="zeros")

    def call(self, inputs: Any) -> Any:
        """The same shape, (batch, features)."""
        new, gate = ops.matmul(inputs, self.kernel), ops.matmul(inputs, self.carry)
        if self.use_bias:
            new, gate = new + self.bias, gate + self.carry_bias
        gate = ops.sigmoid(gate)
        return gate * self.activation(new) + (1 - gate) * inputs

    def get_config(self) -> dict[str, Any]:
        """``activation`` and ``use_bias``."""
        own = {"activation": keras.activations.serialize(self.activation)}
        return {**super().get_config(), **own, "use_bias": self.use_bias}
