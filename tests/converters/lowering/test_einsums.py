"""Einsum equations that TFLite's converter takes for products of matrices, compared with NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
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
# tf2onnx makes letters lower case. Half of these would be other equations, without an error, and
# the others have no meaning then, except for the one with B.
UPPER_CASE = (
    *("bij,biJ->bjJ", "bnd,bNd->bnN", "bthd,bThd->bhtT", "bhwc, bHWc->bhwHW"),
    *("bhwHW,bHWc->bhwc", "baA->bAa", "biI->bi", "bIi,bi->bI", "biI,bIj->bij", "Bij,Bjk->Bki"),
    *("...iI,...jI->...ij", "Zzi,Zyi->Zzy", "bij,bJ->bijJ", "bi,bI->bi", "bi,bI->b"),
    *("bij,bIJ->b", "biI,bIi->b", "bij,bjJ,bJk->bik", "bij,bIj,biJ->bIJ"),
)


class Einsum(keras.layers.Layer):
    """An equation of TensorFlow: ``keras.ops.einsum`` replaces the letters in most of them."""

    def __init__(self, equation: str) -> None:
        super().__init__()
        self.equation = equation

    def call(self, operands: list[Any]) -> Any:
        import tensorflow as tf

        return tf.einsum(self.equation, *operands)


@pytest.mark.parametrize("format", only(CONVERTERS, "tflite"))
def test_equations(format: str, tmp_path: Path) -> None:
    _compare(EQUATIONS, ops.einsum, format, tmp_path)


@pytest.mark.parametrize("format", only(CONVERTERS, "onnx"))
def test_letters_of_upper_case(format: str, tmp_path: Path) -> None:
    _compare(UPPER_CASE, lambda text, *x: Einsum(text)(x), format, tmp_path)


def _compare(
    equations: Sequence[str], einsum: Callable[..., Any], format: str, tmp_path: Path
) -> None:
    """Compare the equations' results with those of NumPy."""
    generator = np.random.default_rng(6)
    inputs: list[Any] = []
    outputs: list[Any] = []
    values: dict[str, np.ndarray] = {}
    expected = []
    for equation in equations:
        operands, own = [], []
        terms = equation.split("->")[0].replace(" ", "").replace("...", "b").split(",")
        for term in terms:
            name = f"x{len(inputs)}"
            inputs.append(keras.Input((SIZE,) * (len(term) - 1), name=name))
            values[name] = generator.normal(size=(2, *inputs[-1].shape[1:])).astype("float32")
            operands.append(inputs[-1])
            own.append(values[name])
        outputs.append(einsum(equation, *operands))
        expected.append(np.einsum(equation, *own))
    model = keras.Model(inputs, outputs)
    interface = interface_of(model)
    path = tmp_path / "m"
    file = CONVERTERS[format].convert(model, interface, recipe_for("float32"), path)
    results = open_runner(path, format, file.inputs, file.outputs).run(values)
    for equation, spec, value in zip(equations, interface.outputs, expected, strict=True):
        np.testing.assert_allclose(results[spec.name], value, atol=1e-5, err_msg=equation)


class OfTensorFlow(keras.layers.Layer):
    """The attention of images in keras.io's example of a diffusion model, without sums to 1."""

    def call(self, x: Any) -> Any:
        import tensorflow as tf

        scores = tf.einsum("bhwc, bHWc->bhwHW", x, x)
        return tf.einsum("bhwHW,bHWc->bhwc", scores, x)


@pytest.mark.parametrize("format", only(CONVERTERS, "onnx"))
def test_layers_with_letters_of_upper_case(format: str, tmp_path: Path) -> None:
    x = keras.Input((2, SIZE, 4), name="x")
    outputs = {
        "attention": OfTensorFlow()(x),
        "dense": keras.layers.EinsumDense("abcd,dD->abcD", (2, SIZE, 5), bias_axes="D")(x),
        "heads": keras.layers.EinsumDense("abcd,dDC->abCD", (2, 5, 6))(x),
        "summed": keras.layers.EinsumDense("abcd,cdD->abD", (2, 5))(x),
    }
    model = keras.Model(x, outputs)
    values = np.random.default_rng(3).normal(size=(2, 2, SIZE, 4)).astype("float32")
    path = tmp_path / "m"
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    results = open_runner(path, format, file.inputs, file.outputs).run({"x": values})
    for name, expected in model.predict(values, verbose=0).items():
        np.testing.assert_allclose(results[name], expected, rtol=1e-5, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("format", only(CONVERTERS, "onnx"))
def test_saved_model_with_letters_of_upper_case(format: str, tmp_path: Path) -> None:
    x = keras.Input((2, SIZE, 4), name="x")
    model = keras.Model(x, OfTensorFlow()(x))
    model.export(tmp_path / "exported", verbose=False)
    loaded = load_model(audit_file(tmp_path / "exported")).model
    values = np.random.default_rng(3).normal(size=(2, 2, SIZE, 4)).astype("float32")
    path, interface = tmp_path / "m", interface_of(loaded)
    file = CONVERTERS[format].convert(loaded, interface, recipe_for("float32"), path)
    runner = open_runner(path, format, file.inputs, file.outputs)
    # TFLite files have one sample.
    actual = np.concatenate([runner.run({"x": value[None]})["output_0"] for value in values])
    expected = model.predict(values, verbose=0)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)
