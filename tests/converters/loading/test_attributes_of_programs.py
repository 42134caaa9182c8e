"""Attributes of layers, models and tensors that programs for Keras 2 use, with tf_keras' values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from long_parameters import only

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
    "kind", only(PROGRAMS, "own methods", "ends of a Sequential", "values of tensors")
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
