"""Attributes of layers, models and tensors that programs for Keras 2 use, with tf_keras' values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from long_parameters import only
from twin_programs import run_in_tf_keras

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

STEPS, FEATURES = 5, 3
X = np.random.default_rng(5).normal(size=(4, STEPS, FEATURES)).astype("float32")
PROGRAMS = {
    "input of an Input": """
        words = layers.Input((5, 3), name="words")
        whole = keras.Model(words, layers.Dense(2, name="answer")(layers.LSTM(4)(words)))
        model = keras.Model(whole.get_layer("words").input, whole.get_layer("answer").output)
    """,
    "tensors and shapes of calls": """
        x = layers.Input((5, 3))
        lstm = layers.LSTM(4, return_sequences=True)
        first, second = lstm(x), lstm(layers.Activation("tanh")(x))
        both = layers.Add()([lstm.get_output_at(0), lstm.get_output_at(node_index=1)])
        assert lstm.get_input_at(0) is x
        assert tuple(lstm.get_input_shape_at(1)) == (None, 5, 3)
        dense = layers.Dense(lstm.get_output_shape_at(0)[-1])
        y = dense(both)
        assert tuple(dense.input_shape) == tuple(dense.output_shape) == (None, 5, 4)
        y = layers.Reshape((y.get_shape().as_list()[1] * y.get_shape()[-1],))(y)
        model = keras.Model(x, y)
    """,
    "ends of a Sequential": """
        base = keras.Sequential()
        base.add(layers.LSTM(4, input_shape=(5, 3), return_sequences=True))
        base.add(layers.LSTM(4))
        base.add(layers.Dense(4))
        outputs = [base.output, base.layers[0].output, layers.Dense(4)(base.layers[-2].output)]
        model = keras.Model(inputs=base.input, outputs=outputs)
    """,
    "ends of a Sequential that is called": """
        inner = keras.Sequential([layers.Dense(3, input_shape=(5, 3)), layers.LSTM(3)])
        x = layers.Input((5, 3))
        called = inner(layers.Activation("tanh")(x))
        model = keras.Model(inner.input, layers.Dense(2)(layers.Dense(3)(inner.output)))
    """,
    "values of tensors": """
        x = layers.Input((5, 3))
        y = layers.LSTM(4, return_sequences=K.ndim(x) == 3)(x)
        assert K.ndim(y) == 3 == len(K.int_shape(y))
        assert K.dtype(y) == "float32" and K.is_keras_tensor(y) and not K.is_sparse(y)
        y = layers.Flatten()(y) if K.ndim(y) > 2 else y
        model = keras.Model(x, layers.Dense(2)(y))
    """,
    "shapes and dtypes": """
        x = layers.Input((5, 3))
        y = layers.LSTM(4, return_sequences=True)(x)
        s = y.shape
        assert s.as_list() == [None, 5, 4] == list(s) and s.rank == s.ndims == len(s) == 3
        assert [s[0], s[1], s[-1]] == [None, 5, 4] and [d.value for d in s.dims] == [None, 5, 4]
        assert s[1:].as_list() == [5, 4] and s[1:].num_elements() == 20 and s.num_elements() is None
        assert s[1:].is_fully_defined() and not s.is_fully_defined()
        assert s.concatenate([2]).as_list() == (s + [2]).as_list() == [None, 5, 4, 2]
        assert ([7] + s[1:]).as_list() == [7, 5, 4] and (s[:-1] + (1,)).rank == 3
        assert s.with_rank(3).as_list() == s.merge_with([None, 5, None]).as_list() == [None, 5, 4]
        assert s == [None, 5, 4] and s == (None, 5, 4) and s != [None, 4, 5] and s[1:] == [5, 4]
        assert s.is_compatible_with([9, 5, 4]) and not s.is_compatible_with([9, 4, 5])
        assert str(s) == "(None, 5, 4)" and y.get_shape().as_list() == s.as_list()
        assert y.dtype.name == "float32" and y.dtype.is_floating and y.dtype == "float32"
        assert y.dtype.min < -3e38 and x.ref() == x.ref() != y.ref() and y.ref().deref() is y
        call = y._keras_history.layer.inbound_nodes[0]
        assert y.node is call and call.inbound_layers.output is x and call.outbound_layer.units == 4
        y = K.reshape(y, [-1] + s.as_list()[1:])
        y.set_shape([None, 5, 4])
        i = layers.Input(y.shape[1:])
        y = keras.Model(i, layers.Dense(s[1:].num_elements())(i))(layers.Reshape(s[1:])(y))
        y = layers.Lambda(lambda z: z / z.shape.as_list()[-1])(y)
        model = keras.Model(x, layers.Dense(y.shape.rank)(y))
    """,
    "normalization of replicas": """
        x = layers.Input((5, 3))
        y = layers.experimental.SyncBatchNormalization()(layers.Conv1D(4, 3)(x))
        model = keras.Model(x, y)
    """,
    "losses": """
        x = layers.Input((5, 3))
        y = layers.Dense(2)(x)
        model = keras.Model(x, y)
        model.add_loss(K.mean(K.square(y)))
        model.add_metric(K.mean(y), name="mean", aggregation="mean")
    """,
    "one size as the shape": """
        x = layers.Input((5, 3))
        flat = layers.Input(15)
        inner = keras.Model(flat, layers.Dense(2)(flat))
        model = keras.Model(x, inner(layers.Flatten()(x)))
    """,
    "windows of two": """
        x = layers.Input((5, 3))
        y = layers.MaxPooling1D()(layers.AveragePooling1D()(x))
        y = layers.AvgPool2D(padding="same")(layers.Reshape((1, 3, 1))(y))
        y = layers.AveragePooling3D(padding="same")(layers.Reshape((1, 2, 1, 1))(y))
        model = keras.Model(x, layers.Dense(2)(layers.Flatten()(y)))
    """,
    "own methods": """
        class Block(layers.Layer):
            def __init__(self, units):
                super().__init__()
                self.units = units
                self.drop = layers.Dropout(0.5)

            def build(self, input_shape):
                size = input_shape.as_list()[-1]
                assert input_shape.ndims == 3
                self.kernel = self.add_weight(name="kernel", shape=(size, self.units))
                super().build(input_shape)

            def call(self, inputs, training):
                return self.drop(K.dot(inputs, self.kernel), training=training)

        x = layers.Input((5, 3))
        model = keras.Model(x, layers.LSTM(2)(Block(4)(x)))
    """,
    "values in place": """
        class Block(layers.Layer):
            def __init__(self):
                super().__init__()
                self.norm, self.drop = layers.BatchNormalization(), layers.Dropout(0.5)
                self.feed = keras.Sequential([layers.Dense(3), layers.Dropout(0.5)])

            def call(self, x, training, mask, scale):
                x = self.drop(self.norm(x, training), training)
                x = scale * x if mask is None else x * K.expand_dims(mask)
                return self.feed(x, training)

        class Blocks(layers.Layer):
            def __init__(self):
                super().__init__()
                self.blocks = [Block(), Block()]

            def call(self, x, training=None):
                weights = K.cast(K.sum(x, axis=-1) > 0, "float32")
                return self.blocks[1](self.blocks[0](x, training, None, 3.0), training, weights, 1)

        x = layers.Input((5, 3))
        model = keras.Model(x, layers.LSTM(2)(Blocks()(Blocks()(x), False)))
    """,
}


def program(kind: str) -> str:
    """The text of a function ``build`` that returns the model."""
    return f"def build():{PROGRAMS[kind].rstrip()}\n        return model\n"


@pytest.mark.parametrize(
    "kind",
    only(PROGRAMS, "own methods", "ends of a Sequential", "values of tensors", "shapes and dtypes"),
)
def test_programs_find_what_keras_2_has(kind: str, tmp_path: Path) -> None:
    names: dict[str, Any] = {
        "keras": tf_keras,
        "layers": tf_keras.layers,
        "K": tf_keras.backend,
        "__name__": "own",
    }
    exec(program(kind), names)
    model = names["build"]()
    generator = np.random.default_rng(17)
    model.set_weights(
        [generator.uniform(0.2, 1.5, size=value.shape) for value in model.get_weights()]
    )
    model.save_weights(tmp_path / "m.h5")
    imports = "from tensorflow import keras\nfrom tensorflow.keras import backend as K, layers\n"
    (tmp_path / "own.py").write_text(imports + program(kind))
    loaded = load_model(audit_file(tmp_path / "m.h5"), architecture=f"{tmp_path / 'own.py'}:build")
    outputs = map(tf.nest.flatten, (loaded.model(X), model(X)))
    for one, other in zip(*outputs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


SHAPES = """
from tensorflow import keras
from tensorflow.keras import layers

class Scores(layers.Layer):
    def build(self, input_shape):
        size = input_shape.as_list()[-1]
        assert input_shape.rank == 3 and input_shape[1:].num_elements() == 15
        self.kernel = self.add_weight("kernel", shape=(size, input_shape.dims[1].value))
        super().build(input_shape)

    def call(self, inputs):
        assert inputs.shape.rank == 3
        return inputs @ self.kernel

    def compute_output_shape(self, input_shape):
        return input_shape[:-1].concatenate(input_shape[1])

    def get_config(self):
        return super().get_config()

def build():
    x = keras.Input((5, 3))
    return keras.Model(x, Scores()(x))
"""


@pytest.mark.parametrize("name", only(["m.h5", "m.keras", "w.h5", "w.weights.h5"], "m.h5"))
def test_methods_of_classes_get_shapes_of_tensorflow(name: str, tmp_path: Path) -> None:
    model = run_in_tf_keras(SHAPES)["build"]()
    model.set_weights([np.random.default_rng(1).normal(size=(3, 5))])
    (tmp_path / "own.py").write_text(SHAPES)
    file = tmp_path / name
    if name.startswith("m"):
        model.save(file)
        loaded = load_model(audit_file(file), custom_objects=tmp_path / "own.py")
    else:
        model.save_weights(file)
        loaded = load_model(audit_file(file), architecture=f"{tmp_path / 'own.py'}:build")
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-5, atol=1e-6)


OF_TENSORFLOW_1 = """
from tensorflow.keras import Model, layers

class Scaled(layers.Layer):
    def build(self, input_shape):
        self.kernel = self.add_weight("kernel", (input_shape[-1].value, 2))

    def call(self, inputs):
        return inputs @ self.kernel

def build():
    x = layers.Input((5, 3))
    y = layers.Reshape((x.shape[1].value * int(x.get_shape()[2].value),))(x)
    return Model(x, Scaled()(y))
"""


def test_sizes_of_tensorflow_1_have_a_value(tmp_path: Path) -> None:
    kernel = np.random.default_rng(3).normal(size=(15, 2)).astype("float32")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs.update(keras_version=b"2.2.4-tf", backend=b"tensorflow")
        file.attrs["layer_names"] = [b"scaled"]
        file.create_group("scaled").attrs["weight_names"] = [b"scaled/kernel:0"]
        file["scaled/scaled/kernel:0"] = kernel
    (tmp_path / "own.py").write_text(OF_TENSORFLOW_1)
    loaded = load_model(audit_file(tmp_path / "m.h5"), architecture=f"{tmp_path / 'own.py'}:build")
    np.testing.assert_allclose(loaded.model(X), X.reshape(4, 15) @ kernel, rtol=1e-5, atol=1e-6)
