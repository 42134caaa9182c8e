"""ONNX files keep the casts that change numbers, beside others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of


class Casts(keras.layers.Layer):  # type: ignore[misc]
    """Values of the last dtype, cast to each of them."""

    def __init__(self, *dtypes: str) -> None:
        super().__init__()
        self.dtypes = dtypes

    def call(self, x: Any) -> Any:
        for dtype in self.dtypes:
            x = tf.cast(x, dtype)
        return x


FLOATS = np.array([[0.5, -0.3, 1.0006, 7e4, 0.0]], "float32")
INTEGERS = np.array([[2**24 + 1, 2**24 + 3, -(2**24) - 1, 0, 3]], "int32")


def test_casts_that_round(tmp_path: Path) -> None:
    floats = keras.Input((5,), name="floats")
    integers = keras.Input((5,), name="integers", dtype="int32")
    model = keras.Model(
        [floats, integers],
        {
            "half": Casts("float16", "float32")(floats),
            "bfloat16": Casts("bfloat16", "float32")(floats),
            "truncated": Casts("int32", "bool")(floats),
            "rounded": Casts("float32", "int32")(integers),
        },
    )
    given = {"floats": FLOATS, "integers": INTEGERS}
    interface = interface_of(model)
    onnx.convert(model, interface, recipe_for("float32"), tmp_path / "m.onnx")
    runner = open_runner(tmp_path / "m.onnx", "onnx", interface.inputs, interface.outputs)
    outputs, expected = runner.run(given), model(given)
    assert expected["rounded"].numpy()[0, 0] == 2**24
    for name, value in expected.items():
        np.testing.assert_array_equal(outputs[name], value, err_msg=name)
