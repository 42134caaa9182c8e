"""Models in which several softmaxes, or one in several iterations, have a map each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from edgeattn.runners import open_runner
from edgeattn.tensors import Array, Tensors
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

STEPS, FEATURES, SLOTS = 7, 5, 3


def softmax(scores: Array, axis: int = -1) -> Array:
    powers = np.exp(scores)
    return powers / powers.sum(axis, keepdims=True)


def maps_of(model: Any, x: Tensors, folder: Path) -> list[Array]:
    interface = interface_of(model)
    assert interface.doubtful == ()
    inputs, outputs, maps, _ = onnx.convert(
        model, interface, recipe_for("float32"), folder / "m.onnx"
    )
    actual = open_runner(folder / "m.onnx", "onnx", inputs, outputs).run(x)
    return [actual[name] for name in sorted(maps)]


def samples(*names: str, steps: int = STEPS) -> Tensors:
    generator = np.random.default_rng(5)
    return {name: generator.normal(0, 1, (4, steps, FEATURES)).astype("float32") for name in names}


@pytest.mark.parametrize("transposed", [False, pytest.param(True, marks=pytest.mark.long)])
def test_both_directions_of_one_matrix_of_equal_lengths(transposed: bool, tmp_path: Path) -> None:
    """ESIM: each sequence attends to the other."""
    first, second = (keras.Input((STEPS, FEATURES), name=name) for name in ("a", "b"))
    scores = layers.Dot((2, 2))([first, second])
    forward = layers.Softmax(axis=2, name="at_b")(scores)
    if transposed:
        backward = layers.Softmax(name="at_a")(layers.Permute((2, 1))(scores))
    else:
        backward = layers.Permute((2, 1))(layers.Softmax(axis=1, name="at_a")(scores))
    contexts = [layers.Dot((2, 1))([forward, second]), layers.Dot((2, 1))([backward, first])]
    model = keras.Model([first, second], layers.Concatenate(name="y")(contexts))
    x = samples("a", "b")
    at_a, at_b = maps_of(model, x, tmp_path)
    matrix = x["a"] @ x["b"].swapaxes(1, 2)
    np.testing.assert_allclose(at_b, softmax(matrix), atol=1e-5)
    np.testing.assert_allclose(at_a, softmax(matrix, 1).swapaxes(1, 2), atol=1e-5)


class Slots(layers.Layer):  # type: ignore[misc]
    """Slot attention (Locatello et al. 2020) without its recurrent cell; two iterations."""

    def call(self, x: Any) -> Any:
        slots = 0.1 * x[:, :SLOTS]
        for _ in range(2):
            scores = ops.matmul(x, ops.transpose(slots, (0, 2, 1)))
            weights = ops.softmax(scores, -1) + 1e-8
            weights = weights / ops.sum(weights, axis=1, keepdims=True)
            slots = ops.matmul(ops.transpose(weights, (0, 2, 1)), x)
        return slots


def test_each_iteration_of_slot_attention_has_a_map(tmp_path: Path) -> None:
    inputs = keras.Input((STEPS, FEATURES), name="x")
    model = keras.Model(inputs, layers.Flatten(name="y")(Slots(name="slots")(inputs)))
    x = samples("x")
    maps = maps_of(model, x, tmp_path)
    assert len(maps) == 2
    slots = 0.1 * x["x"][:, :SLOTS]
    for actual in maps:
        weights = softmax(x["x"] @ slots.swapaxes(1, 2)) + 1e-8
        weights = (weights / weights.sum(1, keepdims=True)).swapaxes(1, 2)
        np.testing.assert_allclose(actual, weights, atol=1e-5)
        slots = weights @ x["x"]


class Routing(layers.Layer):
    """Two rounds of routing by agreement; the weights of the first are 1 / 3."""

    def call(self, u: Any) -> Any:
        """Combine the steps of ``u``, of the shape (samples, capsules, steps, features)."""
        b = ops.zeros_like(u[..., 0])
        for number in range(2):
            c = ops.exp(b) / ops.sum(ops.exp(b), axis=1, keepdims=True)
            o = ops.sum(ops.expand_dims(c, -1) * u, axis=2)
            if not number:
                b = b + ops.sum(ops.expand_dims(o, 2) * u, axis=-1)
        return o


@pytest.mark.parametrize("format", [tflite, onnx], ids=["tflite", "onnx"])
def test_each_round_of_routing_has_a_map(format: Any, tmp_path: Path) -> None:
    x = keras.Input((3, STEPS, FEATURES), name="x")
    model = keras.Model(x, Routing(name="routing")(x))
    interface = interface_of(model)
    inputs, outputs, maps, _ = format.convert(
        model, interface, recipe_for("float32"), tmp_path / "m"
    )
    assert list(maps) == [spec.name for spec in interface.attention]
    u = np.random.default_rng(4).normal(size=(4, 3, STEPS, FEATURES)).astype("float32")
    kind = format.__name__.rsplit(".", 1)[-1]
    actual = open_runner(tmp_path / "m", kind, inputs, outputs).run({"x": u})
    agreement = (u.sum(2, keepdims=True) / 3 * u).sum(-1)
    first, second = (np.moveaxis(actual[name], -1, 1) for name in sorted(maps))
    np.testing.assert_allclose(first, np.full_like(first, 1 / 3), atol=1e-6)
    np.testing.assert_allclose(second, softmax(agreement, 1), atol=1e-5)
