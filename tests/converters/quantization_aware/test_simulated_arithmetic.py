"""Rounded weights and activations: formulas, and Keras where nothing is rounded."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from edgeattn_converters.quantization.arithmetic import quantize_symmetric
from edgeattn_converters.quantization_aware.activations import Activations
from edgeattn_converters.quantization_aware.layers import simulated
from edgeattn_converters.quantization_aware.options import FineTuningOptions
from edgeattn_converters.quantization_aware.student import Student
from edgeattn_converters.quantization_aware.weights import Kernel, float_layers, kernels
from edgeattn_converters.tracing.trace import interface_of

GENERATOR = np.random.default_rng(3)


def _kernel(shape: tuple[int, ...], shared: tuple[int, ...]) -> Kernel:
    return Kernel(None, keras.Variable(np.zeros(shape, "float32")), shared)


@pytest.mark.parametrize(
    ("shape", "shared"),
    [
        ((5, 7), (0,)),  # Dense, and a recurrent kernel
        ((3, 5, 7), (0, 1)),  # Conv1D
        ((5, 2, 7), (0,)),  # a projection of MultiHeadAttention
        ((2, 3, 5), (1,)),  # channels that are not the last axes
        ((11, 5), (0, 1)),  # an embedding
    ],
)
def test_weights_are_rounded_by_channel(shape: tuple[int, ...], shared: tuple[int, ...]) -> None:
    value = GENERATOR.normal(size=shape).astype("float32")
    value[..., 0] *= 40  # an outlier channel
    expected = np.empty_like(value, dtype=np.float64)
    channels = [k for k in range(value.ndim) if k not in shared]
    for index in np.ndindex(*(shape[k] for k in channels)):
        where: list[Any] = [slice(None)] * value.ndim
        for axis, position in zip(channels, index, strict=True):
            where[axis] = position
        part = value[tuple(where)].astype(np.float64)
        scale = np.abs(part).max() / 127
        expected[tuple(where)] = np.rint(part / scale) * scale
    kernel = _kernel(shape, shared)
    rounded = kernel.rounded(value)
    np.testing.assert_allclose(rounded, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(kernel.simulated(tf.constant(value)), expected, rtol=1e-5, atol=1e-7)
    # Rounded again, the weights stay the same: a file computes with exactly these.
    np.testing.assert_allclose(kernel.rounded(rounded), rounded, rtol=1e-6)


def test_rounded_weights_survive_the_quantizer_of_files() -> None:
    value = GENERATOR.normal(size=(37, 5)).astype("float32")
    rounded = _kernel((37, 5), (0,)).rounded(value)
    integers, scale = quantize_symmetric(rounded.T.copy(), 0)  # (units, features), as in a file
    np.testing.assert_allclose(integers.T * scale, rounded, rtol=1e-6)


def test_gradients_pass_through_the_rounding() -> None:
    value = tf.constant(GENERATOR.normal(size=(5, 7)).astype("float32"))
    with tf.GradientTape() as tape:
        tape.watch(value)
        total = tf.reduce_sum(3 * _kernel((5, 7), (0,)).simulated(value))
    np.testing.assert_array_equal(tape.gradient(total, value), np.full((5, 7), 3.0))


def _all_kinds() -> Any:
    tokens = keras.Input((9,), name="tokens")
    x = layers.Embedding(67, 8, mask_zero=True, name="words")(tokens)
    x = layers.Bidirectional(layers.GRU(16, return_sequences=True), name="both")(x)
    x = layers.LSTM(16, return_sequences=True, name="steps")(x)
    x = layers.MultiHeadAttention(2, 16, name="heads")(x, x)
    x = layers.Conv1D(12, 3, name="conv")(x)
    x = layers.SeparableConv1D(8, 3, name="separable")(x)
    x = layers.Conv1DTranspose(8, 9, name="unsupported")(x)
    x = layers.SimpleRNN(16, name="last")(x)
    return keras.Model(tokens, layers.Dense(2, name="answer")(x))


def test_which_weights_are_rounded() -> None:
    model = _all_kinds()
    found = kernels(model, static=True)
    shapes = {(tuple(item.variable.shape), item.shared) for item in found}
    assert shapes == {
        *(((67, 8), (0, 1)), ((8, 48), (0,)), ((16, 48), (0,)), ((32, 64), (0,))),
        *(((16, 64), (0,)), ((16, 2, 16), (0,)), ((2, 16, 16), (0, 1)), ((3, 16, 12), (0, 1))),
        *(((3, 12, 1), (0,)), ((1, 12, 8), (0, 1)), ((8, 16), (0,)), ((16, 16), (0,))),
        ((16, 2), (0,)),
    }
    # Biases of a GRU are matrices too.
    assert not any("bias" in item.variable.path for item in found)
    large = kernels(model, static=False)
    assert {tuple(item.variable.shape) for item in large} == {
        *((67, 8), (16, 48), (32, 64), (16, 64), (16, 2, 16), (2, 16, 16), (3, 16, 12)),
    }
    assert float_layers(model, found) == ["unsupported (Conv1DTranspose)"]


CELLS = {
    "lstm": lambda: layers.LSTM(6, return_sequences=True),
    "lstm_relu": lambda: layers.LSTM(6, activation="relu", use_bias=False, go_backwards=True),
    "gru": lambda: layers.GRU(6, return_sequences=True),
    "gru_reset_before": lambda: layers.GRU(6, reset_after=False, recurrent_activation="relu"),
    "both_ways": lambda: layers.Bidirectional(layers.SimpleRNN(6, return_sequences=True)),
}


@pytest.mark.long
def test_without_rounding_the_layers_compute_what_keras_computes() -> None:
    """While ranges are measured nothing is rounded, also behind a mask."""
    inputs = keras.Input((7, 5))
    masked = layers.Masking()(inputs)
    model = keras.Model(inputs, {name: build()(masked) for name, build in CELLS.items()})
    for variable in model.trainable_variables:
        variable.assign(GENERATOR.normal(0, 0.5, variable.shape))
    x = GENERATOR.normal(size=(4, 7, 5)).astype("float32")
    x[1, 4:] = 0.0
    activations = Activations(static=True)
    activations.observing = True
    found = [kernel.layer for kernel in kernels(model, static=True)]
    options = FineTuningOptions(attention_precision="int8", recurrence_precision="int8")
    with simulated(model, activations, found, options):
        actual = tf.function(lambda x: model(x, training=False), autograph=False)(tf.constant(x))
    for name, expected in model(x).items():
        np.testing.assert_allclose(actual[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)
    assert not any("call" in vars(layer) for layer in model._flatten_layers())


def test_rows_have_scales_of_their_own() -> None:
    x = GENERATOR.normal(size=(3, 50)).astype("float32") * [[0.01], [1], [100]]
    expected = np.empty_like(x)
    for row, values in enumerate(x):
        low, high = min(values.min(), 0), max(values.max(), 0)
        scale = (high - low) / 255
        zero = np.rint(-low / scale)
        expected[row] = (np.rint(values / scale + -low / scale) - zero) * scale
    actual = Activations(static=False).product_input("x", tf.constant(x.astype("float32")))
    # A value in the middle of two integers may be rounded to either.
    scale = np.ptp(x, axis=1, keepdims=True) / 255
    assert (np.abs(actual - expected) < 1e-3 * scale).mean() > 0.99
    assert (np.abs(actual - x) <= 1.01 * scale).all()


def test_ranges_are_those_of_the_samples_without_fill_values() -> None:
    activations = Activations(static=True)
    activations.observing = True
    activations.value("x", tf.constant([0.5, -1.0, -1e9]))
    activations.value("x", tf.constant([1.55]))
    activations.observing = False
    # 255 steps of 0.01 from -1 to 1.55, outside of which values saturate.
    actual = activations.value("x", tf.constant([0.123, 1.0, 5.0, -7.0]))
    np.testing.assert_allclose(actual, [0.12, 1.0, 1.55, -1.0], atol=1e-6)
    scores = activations.scores("x", tf.constant([0.123, -1e9]))
    np.testing.assert_allclose(scores, [0.12, -1e9], atol=1e-6)
    other = activations.value("tokens", tf.constant([3, 7]))
    np.testing.assert_array_equal(other, [3, 7])


def test_large_values_are_no_fill_values() -> None:
    activations = Activations(static=True)
    activations.observing = True
    pressures = tf.constant([0.0, 98e3, 102e3])
    activations.value("x", pressures)
    activations.observing = False
    # 255 steps of 400.
    np.testing.assert_allclose(activations.value("x", pressures), [0, 98e3, 102e3], atol=1)


def test_padded_steps_stay_padded() -> None:
    """Rounded to the nearest step, -1 would not be the value that the mask compares with."""
    inputs = keras.Input((6, 2), name="x")
    states = layers.Masking(-1.0)(layers.Reshape((6, 2))(inputs))
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(layers.Dense(3)(states)))
    x = GENERATOR.uniform(0.5, 1.3, (50, 6, 2)).astype("float32")
    x[:, 2:] = -1
    student = Student(
        model, interface_of(model), kernels(model, static=True), FineTuningOptions(scheme="int8")
    )
    student.measure_ranges([{"x": x}])
    (actual,) = student.run({"x": x}).values()
    expected = model.predict(x, verbose=0)
    # Two of 255 steps of the inputs and weights.
    np.testing.assert_allclose(actual, expected, atol=0.03)


def test_features_of_a_normalization_are_not_rounded_before_it() -> None:
    """With one scale for a temperature and a pressure in Pa, all temperatures would be equal."""
    inputs = keras.Input((2,), name="x")
    scaled = layers.Normalization(mean=[20.0, 101325.0], variance=[25.0, 4e5])(inputs)
    model = keras.Model(inputs, layers.Dense(3)(scaled))
    x = (GENERATOR.normal(size=(50, 2)) * [5, 632] + [20, 101325]).astype("float32")
    found = kernels(model, static=True)
    student = Student(model, interface_of(model), found, FineTuningOptions(scheme="int8"))
    student.measure_ranges([{"x": x}])
    (actual,) = student.run({"x": x}).values()
    expected = model.predict(x, verbose=0)
    assert np.abs(actual - expected).max() < 0.05 * np.abs(expected).max()
