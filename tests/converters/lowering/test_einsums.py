"""Einsum equations that TFLite's converter takes for products of matrices, compared with NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
SIZE = 3
EQUATIONS = (
    *("bii->b", "bii->bi", "biii->bi", "bii,bi->b", "bii,bij->bj", "bii,bjj->bij"),  # diagonals
    *(
        "bij,bij->b",
        "bij,bji->b",
        "bi,bi->b",
        "bijk,bijk->bi",
        "bij,bij->bi",
    ),  # products of vectors
    *("...ij,...ij->...", "bij,bkj,bik->bik", "bij,bij->bji", "b,bi->bi"),
    *("bij,bj->b", "bij,bi->b", "bij,bk->bk", "bij,bkl->bik", "bij->bj"),  # sums of one operand
    *("bij,bk->bijk", "bij,bik->bijk", "bi,bj->bij"),  # outer products
    *("bij,bjk->bki", "bij,bi->bj", "bijk,bilk->bijl"),  # products of matrices
    *("bij,bijk->bk", "bijk,bkj->bi", "bji,bikj->bk", "bijk,bjkil->bl"),  # several sums
)


@pytest.mark.parametrize("format", only(CONVERTERS, "tflite"))
def test_equations(format: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(6)
    inputs: list[Any] = []
    outputs: list[Any] = []
    values: dict[str, np.ndarray] = {}
    expected = []
    for equation in EQUATIONS:
        operands, own = [], []
        for term in equation.split("->")[0].replace("...", "b").split(","):
            name = f"x{len(inputs)}"
            inputs.append(keras.Input((SIZE,) * (len(term) - 1), name=name))
            values[name] = generator.normal(size=(2, *inputs[-1].shape[1:])).astype("float32")
            operands.append(inputs[-1])
            own.append(values[name])
        outputs.append(ops.einsum(equation, *operands))
        expected.append(np.einsum(equation, *own))
    model = keras.Model(inputs, outputs)
    interface = interface_of(model)
    path = tmp_path / "m"
    file = CONVERTERS[format].convert(model, interface, recipe_for("float32"), path)
    results = open_runner(path, format, file.inputs, file.outputs).run(values)
    for equation, spec, value in zip(EQUATIONS, interface.outputs, expected, strict=True):
        np.testing.assert_allclose(results[spec.name], value, atol=1e-5, err_msg=equation)
