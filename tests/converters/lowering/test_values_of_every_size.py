"""Operations of values from 1e-6 to 1e4, of both signs: nothing overflows that Keras computes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
SIZES = (1e-6, 1e-3, 0.05, 0.3, 0.9, 1.5, 4, 9, 20, 60, 120, 1e3, 1e4)
VALUES = np.array([[*SIZES, *(-size for size in SIZES)]], "float32")[None]
# Composed of exponentials and logarithms by TensorFlow's converter, or by Keras.
EXPONENTIALS: Mapping[str, Callable[[Any], Any]] = {
    "softplus": ops.softplus,
    "log_sigmoid": ops.log_sigmoid,
    "mish": keras.layers.Activation("mish"),
    "logaddexp": lambda x: ops.logaddexp(x, x * 0.5),
    "logsumexp": lambda x: ops.logsumexp(x, axis=-1, keepdims=True),
}
OTHERS = (
    *("abs", "arccosh", "arcsinh", "arctan", "cbrt", "celu", "cos", "cosh", "elu", "erf", "erfc"),
    *("exp", "exp2", "expm1", "gelu", "hard_sigmoid", "hard_silu", "log", "log10", "log1p"),
    *("log2", "log_softmax", "reciprocal", "round", "rsqrt", "selu", "sigmoid", "silu", "sin"),
    *("sinc", "sinh", "softmax", "softsign", "sparse_plus", "sparsemax", "sqrt", "square"),
    *("tan", "tanh", "tanh_shrink"),
)


@pytest.mark.parametrize(
    ("functions", "format"),
    [
        pytest.param(EXPONENTIALS, "tflite", id="exponentials-tflite"),
        pytest.param(EXPONENTIALS, "onnx", id="exponentials-onnx", marks=pytest.mark.long),
        *(
            pytest.param(
                {name: getattr(ops, name) for name in OTHERS},
                format,
                id=f"others-{format}",
                marks=pytest.mark.long,
            )
            for format in CONVERTERS
        ),
    ],
)
def test_results_as_in_keras(
    functions: Mapping[str, Callable[[Any], Any]], format: str, tmp_path: Path
) -> None:
    x = keras.Input(VALUES.shape[1:], name="x")
    model = keras.Model(x, {name: function(x) for name, function in functions.items()})
    path = tmp_path / f"model.{format}"
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    actual = open_runner(path, format, file.inputs, file.outputs).run({"x": VALUES})
    expected = model(VALUES)
    for name in functions:
        np.testing.assert_allclose(
            actual[name], np.asarray(expected[name]), rtol=1e-4, atol=1e-5, err_msg=name
        )
