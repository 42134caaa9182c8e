"""Outputs without a batch axis of models that --architecture describes: what to change there."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras
from long_parameters import only

CLASSES = """
import KERAS as keras
import tensorflow as tf


class Cost(keras.layers.Layer):
    def call(self, x):
        return tf.reduce_mean(x)


class Learned(keras.layers.Layer):
    def build(self, shape):
        self.vector = self.add_weight(shape=(3,), initializer="ones", name="vector")

    def call(self, x):
        return 2 * self.vector


class Own(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense = keras.layers.Dense(3)

    def call(self, x):
        y = self.dense(x)
        return {"y": y, "cost": tf.reduce_mean(y)}


def build(kind="Cost"):
    if kind == "Own":
        model = Own()
        model(tf.zeros((1, 6)))
        return model
    x = keras.Input((6,), name="x")
    y = keras.layers.Dense(4, name="hidden")(x)
    z = keras.layers.Dense(3, name="z")(y)
    outputs = [z, {"Cost": Cost, "Learned": Learned}[kind](name="cost")(y), y]
    return keras.Model(x, outputs)


def learned():
    return build("Learned")


def own():
    return build("Own")
"""
X = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
SAVING = "keras.Model(model.inputs, [model.outputs[0], model.outputs[2]]).save('model2.keras')"


def _saved(folder: Path, K: Any, kind: str = "Cost") -> Any:
    code = CLASSES.replace("KERAS", K.__name__)
    (folder / "program.py").write_text(code)
    namespace: dict[str, Any] = {"__name__": "program"}
    exec(code, namespace)
    model = namespace["build"](kind)
    generator = np.random.default_rng(1)
    model.set_weights([generator.normal(size=weight.shape) for weight in model.get_weights()])
    model.save_weights(folder / ("model.h5" if K is tf_keras else "model.weights.h5"))
    if kind != "Own":
        (folder / "model.json").write_text(model.to_json())
    return model


def _result(edgeattn: Callable[..., Any], name: str, *options: str) -> Any:
    return edgeattn("convert", name, "-o", "out.edge", "--scheme", "float32", *options)


@pytest.mark.parametrize("K", only([tf_keras, keras], tf_keras))
def test_json(K: Any, edgeattn: Callable[..., Any], tmp_path: Path) -> None:
    _saved(tmp_path, K)
    name = "model.h5" if K is tf_keras else "model.weights.h5"
    options = ("--architecture", "model.json", "--custom-objects", "program.py")
    result = _result(edgeattn, name, *options)
    assert result.code == 3
    assert "Output 'cost' has no batch axis" in result.err
    step = re.search(r'Remove (\[.*?\]) from "output_layers" in model.json. Or', result.err)
    assert step, result.err
    assert "keras.Model(" not in result.err
    config = json.loads((tmp_path / "model.json").read_text())
    config["config"]["output_layers"].remove(json.loads(step[1]))
    (tmp_path / "model.json").write_text(json.dumps(config))
    assert "no batch axis" not in _result(edgeattn, name, *options).err
    assert (tmp_path / "out.edge").exists()


@pytest.mark.parametrize("K", only([keras, tf_keras], keras))
def test_program(K: Any, edgeattn: Callable[..., Any], tmp_path: Path) -> None:
    _saved(tmp_path, K)
    name = "model.h5" if K is tf_keras else "model.weights.h5"
    result = _result(edgeattn, name, "--architecture", "program.py:build")
    assert result.code == 3
    returned = SAVING.removesuffix(".save('model2.keras')")
    assert f"Let build() in program.py return {returned}, where model is" in result.err
    code = (tmp_path / "program.py").read_text()
    changed = f"model = keras.Model(x, outputs)\n    return {returned}"
    (tmp_path / "program.py").write_text(code.replace("return keras.Model(x, outputs)", changed))
    result = _result(edgeattn, name, "--architecture", "program.py:build")
    assert "no batch axis" not in result.err
    assert (tmp_path / "out.edge").exists()


def test_class_of_a_program(edgeattn: Callable[..., Any], tmp_path: Path) -> None:
    _saved(tmp_path, keras, "Own")
    np.savez(tmp_path / "x.npz", x=X)
    options = ("--architecture", "program.py:own", "--samples", "x.npz")
    result = _result(edgeattn, "model.weights.h5", *options)
    assert "Output 'cost' has no batch axis" in result.err
    assert "Change call of Own so that it does not return it. Or compute it for" in result.err


@pytest.mark.parametrize("architecture", only(["program.py:learned", "model.json"], "model.json"))
def test_an_output_with_weights(
    architecture: str, edgeattn: Callable[..., Any], tmp_path: Path
) -> None:
    """Without it, the file would have weights that the architecture lacks."""
    _saved(tmp_path, tf_keras, "Learned")
    options = ("--architecture", architecture)
    if architecture == "model.json":
        options += ("--custom-objects", "program.py")
    result = _result(edgeattn, "model.h5", *options)
    assert f"Load the weights in Keras, and save the model without it: {SAVING}" in result.err
