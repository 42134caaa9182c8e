"""Weights of which an ONNX file reads the shape, too."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx as onnx_package
import pytest
from keras import layers, ops
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.free_time import free_model
from edgeattn_converters.tracing.trace import interface_of

# Products of capsules, heads and bilinear scores: the equation and the shape of the weight.
PRODUCTS = {
    "capsules": ("btd,tdnk->bntk", (6, 8, 4, 5)),
    "heads": ("btd,dnk->bntk", (8, 4, 5)),
    "steps": ("btd,tdk->btk", (6, 8, 4)),
    "bilinear": ("btd,de->bte", (8, 12)),
}


class Product(layers.Layer):
    """Multiplies by a weight of its own."""

    def __init__(self, equation: str, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.equation, self.shape = equation, shape

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=self.shape, name="kernel")

    def call(self, x: Any) -> Any:
        return ops.einsum(self.equation, x, self.kernel)


def _converted(model: keras.Model, scheme: str, path: Path, **options: Any) -> Any:
    return onnx.convert(model, interface_of(model), recipe_for(scheme), path, **options)


def _values(path: Path, least: int = 20) -> int:
    """The number of weights in a file that are no scales of other weights."""
    constants = onnx_package.load(path).graph.initializer
    sizes = [int(np.prod(item.dims)) for item in constants]
    return sum(size for size in sizes if size >= least)


@pytest.mark.parametrize("scheme", only(["float32", "dynamic_int8"], "dynamic_int8"))
@pytest.mark.parametrize("name", only(PRODUCTS, "capsules"))
def test_files_contain_weights_once(name: str, scheme: str, tmp_path: Path) -> None:
    inputs = keras.Input((6, 8), name="x")
    model = keras.Model(inputs, layers.Flatten(name="y")(Product(*PRODUCTS[name])(inputs)))
    path = tmp_path / "model.onnx"
    file = _converted(model, scheme, path)
    assert _values(path) == model.count_params()
    x = np.random.default_rng(0).normal(size=(1, 6, 8)).astype("float32")
    actual = np.asarray(open_runner(path, "onnx", file.inputs, file.outputs).run({"x": x})["y"])
    tolerance = 1e-5 if scheme == "float32" else 0.1
    np.testing.assert_allclose(actual, np.asarray(model(x)), atol=tolerance)


def _attention(steps: int | None, uses: int) -> keras.Model:
    inputs = keras.Input((steps, 24), name="x")
    attention, hidden = layers.MultiHeadAttention(2, 12, use_bias=False, name="heads"), inputs
    for _ in range(uses):
        hidden = attention(hidden, hidden)
    hidden = layers.GlobalAveragePooling1D()(hidden)
    return keras.Model(inputs, layers.Dense(2, use_bias=False, name="y")(hidden))


@pytest.mark.parametrize("scheme", only(["float32", "dynamic_int8"], "dynamic_int8"))
@pytest.mark.parametrize("uses", only((1, 2), 1))
def test_attention_of_any_length_contains_weights_once(
    uses: int, scheme: str, tmp_path: Path
) -> None:
    fixed, of_any_length = _attention(6, uses), _attention(None, uses)
    of_any_length.set_weights(fixed.get_weights())
    free = free_model(of_any_length, interface_of(fixed))
    assert free is not None
    free = replace(free, axes=(("x", (1,)), ("attention/heads", (2, 3))))
    path = tmp_path / "model.onnx"
    file = _converted(fixed, scheme, path, free=free)
    assert _values(path, least=48) == fixed.count_params()
    runner = open_runner(path, "onnx", file.inputs, file.outputs)
    for length in (3, 9):
        x = np.random.default_rng(0).normal(size=(1, length, 24)).astype("float32")
        tolerance = 1e-5 if scheme == "float32" else 0.05
        actual, expected = runner.run({"x": x})["y"], of_any_length(x)
        np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), atol=tolerance)
