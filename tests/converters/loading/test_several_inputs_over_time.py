"""TimeDistributed of Keras 2 around layers and models with several inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras
from long_parameters import only
from tf_keras import layers
from twin_programs import run_in_tf_keras

from edgeattn.errors import UnsupportedModelError
from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
STEPS, QUERIES, KEYS, FEATURES = 3, 4, 5, 7


def inner(as_dict: bool = False) -> Any:
    """Attention of queries over keys, with weights named ``look``."""
    q, k = tf_keras.Input((QUERIES, FEATURES)), tf_keras.Input((KEYS, FEATURES))
    scores = layers.Dot(axes=(2, 2))([layers.Dense(FEATURES)(q), k])
    context = layers.Dot(axes=(2, 1))([layers.Softmax(name="look")(scores), k])
    return tf_keras.Model({"q": q, "k": k} if as_dict else [q, k], context)


def of_words() -> Any:
    """The same of words; padding has no weight, and the result has the mask of the queries."""
    q, k = tf_keras.Input((QUERIES,)), tf_keras.Input((KEYS,))
    embed = layers.Embedding(6, FEATURES, mask_zero=True)
    return tf_keras.Model([q, k], layers.Attention(name="look")([embed(q), embed(k)]))


# Of two inputs.
MODELS: Mapping[str, Callable[[Any, Any], Any]] = {
    "list": lambda q, k: layers.TimeDistributed(inner())([q, k]),
    "dict": lambda q, k: layers.TimeDistributed(inner(as_dict=True))({"q": q, "k": k}),
    "words": lambda q, k: layers.TimeDistributed(layers.GlobalAveragePooling1D())(
        layers.TimeDistributed(of_words())([q, k])
    ),
    "layer": lambda q, k: layers.TimeDistributed(layers.Dot(axes=(2, 2)))((q, k)),
    "free": lambda q, k: layers.TimeDistributed(inner())([q, k]),
}


def model_of(kind: str) -> Any:
    steps = None if kind == "free" else STEPS
    features = () if kind == "words" else (FEATURES,)
    q = tf_keras.Input((steps, QUERIES, *features), name="q")
    k = tf_keras.Input((steps, KEYS, *features), name="k")
    model = tf_keras.Model([q, k], MODELS[kind](q, k))
    generator = np.random.default_rng(3)
    model.set_weights([generator.normal(size=array.shape) for array in model.get_weights()])
    return model


def inputs_of(model: Any) -> list[Any]:
    generator = np.random.default_rng(5)
    arrays = []
    for tensor in model.inputs:
        shape = (2, STEPS, *tensor.shape[2:])
        words = generator.integers(1, 6, shape).astype("float32")
        words[0, :, -2:] = 0
        arrays.append(words if len(shape) == 3 else generator.normal(size=shape).astype("float32"))
    return arrays


@pytest.mark.parametrize("kind", only(MODELS, "list"))
def test_each_step_gets_that_of_every_input(kind: str, tmp_path: Path) -> None:
    model = model_of(kind)
    model.save(tmp_path / "m.h5")
    loaded = load_model(audit_file(tmp_path / "m.h5"), time_steps=STEPS if kind == "free" else None)
    arrays = inputs_of(model)
    expected = model(arrays)
    np.testing.assert_allclose(loaded.model(arrays), expected, rtol=1e-5, atol=1e-6)
    maps = [spec.shape for spec in interface_of(loaded.model).attention]
    assert maps == ([] if kind == "layer" else STEPS * [(None, QUERIES, KEYS)])


@pytest.mark.parametrize("kind", only(MODELS))
@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_it_converts(kind: str, format: str, tmp_path: Path) -> None:
    model = model_of(kind)
    model.save(tmp_path / "m.h5")
    loaded = load_model(audit_file(tmp_path / "m.h5"), time_steps=STEPS if kind == "free" else None)
    interface = interface_of(loaded.model)
    path = tmp_path / "m"
    file = CONVERTERS[format].convert(loaded.model, interface, recipe_for("float32"), path)
    arrays = inputs_of(model)
    feeds = dict(zip("qk", arrays, strict=True))
    actual = open_runner(path, format, file.inputs, file.outputs).run(feeds)
    output = next(value for name, value in actual.items() if not name.startswith("attention/"))
    np.testing.assert_allclose(output, model(arrays), rtol=1e-4, atol=1e-5)


PROGRAM = """
import tensorflow as tf
from tensorflow.keras import Input, Model, layers

class Scores(layers.Layer):
    def build(self, shapes):
        self.kernel = self.add_weight(shape=(shapes[0][-1], shapes[1][-1]), name="kernel")
        self.built = True

    def call(self, pair):
        return tf.einsum("bqi,ij,bkj->bqk", pair[0], self.kernel, pair[1])

def build():
    q, k = Input((3, 4, 7), name="q"), Input((3, 5, 7), name="k")
    scores = layers.TimeDistributed(Scores(), name="scores")([q, k])
    inner_q, inner_k = Input((4, 7)), Input((5, 7))
    inner = Model([inner_q, inner_k], layers.Dot(axes=(2, 2))([layers.Dense(7)(inner_q), inner_k]))
    return Model([q, k], [scores, layers.TimeDistributed(inner)([q, k])])
"""


@pytest.mark.parametrize("suffix", only([".h5", ".weights.h5"], ".weights.h5"))
def test_programs(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    of_keras2 = run_in_tf_keras(PROGRAM)
    model = of_keras2["build"]()
    model.save_weights(tmp_path / f"m{suffix}")
    file = audit_file(tmp_path / f"m{suffix}")
    loaded = load_model(file, architecture=f"{tmp_path / 'program.py'}:build")
    arrays = inputs_of(model)
    for actual, expected in zip(loaded.model(arrays), model(arrays), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_masks_of_calls_are_refused(tmp_path: Path) -> None:
    q, k = tf_keras.Input((STEPS, QUERIES, 2)), tf_keras.Input((STEPS, KEYS, 2))
    mask = tf_keras.Input((STEPS,), dtype="bool")
    over_time = layers.TimeDistributed(layers.Dot(axes=(2, 2)), name="scores")
    tf_keras.Model([q, k, mask], over_time([q, k], mask=mask)).save(tmp_path / "m.h5")
    with pytest.raises(UnsupportedModelError, match=r"'scores'.*several inputs and a mask"):
        load_model(audit_file(tmp_path / "m.h5"))
