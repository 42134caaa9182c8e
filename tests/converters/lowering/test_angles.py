"""Angles for every combination of signs, zeros and infinities, compared with NumPy."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.lowering import fourier
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
VALUES = np.array([0.0, -0.0, 1, -1, 0.3, -0.3, 1e-30, 1e30, -1e30, np.inf, -np.inf], "float32")
Y, X = (pair.reshape(1, -1) for pair in np.meshgrid(VALUES, VALUES))
# Of y and x: a function of TensorFlow or Keras, and the operands of np.arctan2.
ANGLES: dict[str, tuple[Any, Any]] = {
    "arctan2": (ops.arctan2, (Y, X)),
    "of_complex": (lambda y, x: tf.math.angle(tf.complex(x, y)), (Y, X)),
    "of_conjugate": (lambda y, x: tf.math.angle(tf.math.conj(tf.complex(x, y))), (-Y, X)),
    "of_negated": (lambda y, x: tf.atan2(-y, -x), (-Y, -X)),
    # TensorFlow ignores the sign of a zero that is real.
    "of_real": (lambda y, x: ops.angle(x), (np.zeros_like(X), X + 0.0)),
    "of_zero": (lambda y, x: tf.atan2(0.0, x), (np.zeros_like(X), X)),
    "of_negative_zero": (lambda y, x: tf.atan2(-0.0, x), (-np.zeros_like(X), X)),
    "by_negative_zero": (lambda y, x: tf.atan2(y, -0.0), (Y, -np.zeros_like(Y))),
    "by_one_of_several": (lambda y, x: tf.atan2(y, x[:, :1]), (Y, X[:, :1])),
}


class Angles(keras.layers.Layer):
    """All angles of two inputs."""

    def call(self, y: Any, x: Any) -> Any:
        return {name: function(y, x) for name, (function, _) in ANGLES.items()}


@pytest.mark.parametrize("format", CONVERTERS)
def test_angles_are_those_of_numpy(format: str, tmp_path: Path) -> None:
    inputs = [keras.Input(Y.shape[1:], name=name) for name in ("y", "x")]
    model, path = keras.Model(inputs, Angles()(*inputs)), tmp_path / "model"
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    actual = open_runner(path, format, file.inputs, file.outputs).run({"y": Y, "x": X})
    for name, (_, operands) in ANGLES.items():
        expected = np.arctan2(*operands)
        np.testing.assert_allclose(actual[name], expected, rtol=1e-6, atol=0, err_msg=name)
        signs = [np.signbit(values).tolist() for values in (actual[name], expected)]
        assert signs[0] == signs[1], name


@pytest.mark.parametrize("length", [2, 7, 8, 64, 128, 148, 150, 200, 272, 2048])
def test_the_ends_of_spectra_of_real_values_are_real(length: int) -> None:
    """Their angles are 0 or pi, although a cosine of pi / 2 is not 0 in floating point."""
    x = np.random.default_rng(length).normal(size=(8, length)).astype("float32")
    real, imaginary = map(np.asarray, fourier.transform_of_real(tf.constant(x)))
    ends = [0, length // 2] if length % 2 == 0 else [0]
    angles = np.arctan2(imaginary, real)[:, ends]
    np.testing.assert_array_equal(angles, np.where(real[:, ends] < 0, np.float32(np.pi), 0))


def test_the_spectrum_of_an_impulse_has_exact_zeros() -> None:
    """At a quarter of the length, the coefficients are powers of -i."""
    real, imaginary = fourier.transform((tf.one_hot([2], 8), None))
    np.testing.assert_array_equal(real, [[1, 0, -1, 0, 1, 0, -1, 0]])
    np.testing.assert_array_equal(imaginary, [[0, -1, 0, 1, 0, -1, 0, 1]])
