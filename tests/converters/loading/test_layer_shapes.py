"""Shapes that layers of Keras take and return in code for Keras 2, with tf_keras' values.

The same assertions run in tf_keras.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from long_parameters import only
from twin_programs import run_in_tf_keras

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.legacy import layer_shapes
from edgeattn_converters.loading.load import load_model

X = np.random.default_rng(5).normal(size=(4, 5, 3)).astype("float32")
HEAD = """
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import backend as K, layers

"""
PROGRAMS = {
    "layers": """
        x = layers.Input((5, 3))
        shape = layers.Conv1D(4, 3).compute_output_shape((None, 5, 3))
        assert shape.as_list() == [None, 3, 4] and shape.rank == 3
        shape = layers.Conv2DTranspose(2, 3).compute_output_shape([None, 6, 6, 1])
        assert shape.as_list() == [None, 8, 8, 2] and shape[1:3].num_elements() == 64
        shape = layers.UpSampling1D(2).compute_output_shape(tf.TensorShape([None, 5, 3]))
        assert shape.concatenate([7]).as_list() == [None, 10, 3, 7]
        two = [tf.TensorShape([None, 5, 3]), [None, 5, 4]]
        assert layers.Concatenate().compute_output_shape(two).as_list() == [None, 5, 7]
        states = layers.LSTM(4, return_state=True).compute_output_shape((None, 5, 3))
        assert [state.as_list() for state in states] == 3 * [[None, 4]]
        units = layers.Flatten().compute_output_shape(x.shape).as_list()[-1]
        model = keras.Model(x, layers.Dense(units)(x))
    """,
    "models": """
        x, y = layers.Input((5, 3)), layers.Input((5, 3))
        inner = keras.Sequential([layers.Dense(4), layers.LSTM(2, return_sequences=True)])
        assert inner.compute_output_shape((None, 5, 3)).as_list() == [None, 5, 2]
        both = keras.Model([x, y], [layers.Dense(3)(x), layers.Dense(6)(y)])
        shapes = both.compute_output_shape([tf.TensorShape([None, 5, 3]), (None, 5, 3)])
        assert [shape.as_list() for shape in shapes] == [[None, 5, 3], [None, 5, 6]]
        model = keras.Model(x, layers.Dense(shapes[1].as_list()[-1])(inner(x)))
    """,
    "layers around others": """
        x = layers.Input((5, 3))
        both = layers.Bidirectional(layers.LSTM(4, return_sequences=True))
        assert both.compute_output_shape((None, 5, 3)).as_list() == [None, 5, 8]
        each = layers.TimeDistributed(layers.Dense(2))
        assert each.compute_output_shape(tf.TensorShape([None, 5, 3])).as_list() == [None, 5, 2]
        each.build(tf.TensorShape([None, 5, 8]))
        model = keras.Model(x, each(both(x)))
    """,
    "signatures": """
        x = layers.Input((5, 3))
        found = layers.Dense(4).compute_output_signature(tf.TensorSpec((None, 5, 3), "float32"))
        assert found == tf.TensorSpec((None, 5, 4), "float32")
        found = layers.Dense(4, dtype="float16").compute_output_signature(tf.TensorSpec((2, 3)))
        assert found == tf.TensorSpec((2, 4), "float16")
        states = layers.GRU(4, return_state=True).compute_output_signature(tf.TensorSpec((2, 5, 3)))
        assert states == 2 * [tf.TensorSpec((2, 4), "float32")]
        model = keras.Model(x, layers.Dense(found.shape[-1])(x))
    """,
    "shapes of calls": """
        x = layers.Input((5, 3), name="x")
        inner = keras.Sequential([layers.Input((5, 3)), layers.Dense(4)])
        lstm = layers.LSTM(2, return_state=True)
        y, *_ = lstm(inner(x))
        model = keras.Model(x, layers.Dense(3)(y))
        assert model.layers[0].input_shape == model.layers[0].output_shape == [(None, 5, 3)]
        assert lstm.input_shape == lstm.get_input_shape_at(0) == (None, 5, 4)
        assert lstm.output_shape == lstm.get_output_shape_at(0) == 3 * [(None, 2)]
        assert inner.input_shape == (None, 5, 3) and inner.output_shape == (None, 5, 4)
        assert K.int_shape(y) == (None, 2) and isinstance(K.int_shape(y), tuple)
        assert isinstance(inner.output_shape, tuple) and isinstance(lstm.input_shape, tuple)
    """,
}


@pytest.mark.parametrize("kind", only(PROGRAMS, "layers", "layers around others"))
def test_programs_get_what_keras_2_returns(kind: str, tmp_path: Path) -> None:
    text = f"{HEAD}def build():{PROGRAMS[kind].rstrip()}\n        return model\n"
    model = run_in_tf_keras(text)["build"]()
    generator = np.random.default_rng(17)
    model.set_weights([generator.normal(size=value.shape) for value in model.get_weights()])
    model.save_weights(tmp_path / "m.h5")
    (tmp_path / "own.py").write_text(text)
    loaded = load_model(audit_file(tmp_path / "m.h5"), architecture=f"{tmp_path / 'own.py'}:build")
    assert not loaded.is_graph
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-4, atol=1e-5)


# Its methods call those of the layer inside: when it is created, built and called.
CLASSES = """
class Around(layers.Wrapper):
    def build(self, input_shape=None):
        size = self.layer.compute_output_shape(input_shape).as_list()[-1]
        if not self.layer.built:
            self.layer.build(tf.TensorShape(input_shape))
        self.scale = self.add_weight(name=f"scale_of_{self.layer.name}", shape=(size,))
        super().build(input_shape)

    def call(self, inputs):
        rank = self.layer.compute_output_shape(inputs.shape).rank
        return rank * self.layer(inputs) * self.scale

    def compute_output_shape(self, input_shape):
        return tf.TensorShape(self.layer.compute_output_shape(input_shape).as_list())

class Wide(layers.Dense):
    def compute_output_shape(self, input_shape):
        return tf.TensorShape(super().compute_output_shape(input_shape).as_list())

def build():
    x = keras.Input((5, 3))
    y = layers.Bidirectional(layers.LSTM(2, return_sequences=True))
    y = Around(layers.TimeDistributed(Around(Wide(4))))(Around(y)(x))
    return keras.Model(x, y)
"""


@pytest.mark.parametrize("name", only(["m.h5", "m.keras", "w.h5", "w.weights.h5"], "m.h5"))
def test_classes_around_layers(name: str, tmp_path: Path) -> None:
    model = run_in_tf_keras(HEAD + CLASSES)["build"]()
    generator = np.random.default_rng(17)
    model.set_weights([generator.normal(size=value.shape) for value in model.get_weights()])
    own, file = tmp_path / "own.py", tmp_path / name
    own.write_text(HEAD + CLASSES)
    if name.startswith("m"):
        model.save(file)
        loaded = load_model(audit_file(file), custom_objects=own)
    else:
        model.save_weights(file)
        loaded = load_model(audit_file(file), architecture=f"{own}:build")
    assert not loaded.is_graph
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-4, atol=1e-5)


def layers_of(module: Any) -> dict[str, tuple[Any, Any]]:
    """Layers by their class, and the shape of their input."""
    found = module.layers
    steps, image = (None, 6, 4), (None, 8, 8, 4)
    return {
        "Dense": (found.Dense(3), steps),
        "Conv1D": (found.Conv1D(3, 3), steps),
        "Conv1DTranspose": (found.Conv1DTranspose(3, 3), steps),
        "SeparableConv2D": (found.SeparableConv2D(3, 3), image),
        "DepthwiseConv2D": (found.DepthwiseConv2D(3), image),
        "Embedding": (found.Embedding(5, 3), (None, 7)),
        "GRU": (found.GRU(3, return_sequences=True), steps),
        "RNN": (found.RNN(found.LSTMCell(3)), steps),
        "ConvLSTM2D": (found.ConvLSTM2D(3, 3), (None, 5, 8, 8, 4)),
        "Reshape": (found.Reshape((-1, 12)), steps),
        "Permute": (found.Permute((2, 1)), steps),
        "RepeatVector": (found.RepeatVector(3), (None, 8)),
        "MaxPooling1D": (found.MaxPooling1D(), steps),
        "GlobalAveragePooling2D": (found.GlobalAveragePooling2D(keepdims=True), image),
        "ZeroPadding2D": (found.ZeroPadding2D(2), image),
        "Cropping1D": (found.Cropping1D(2), steps),
        "PReLU": (found.PReLU(), steps),
        "Softmax": (found.Softmax(), steps),
        "Lambda": (found.Lambda(lambda x: x[:, 0]), steps),
        "Dot": (found.Dot(2), [steps, steps]),
        "Attention": (found.Attention(), [steps, steps]),
        "Resizing": (found.Resizing(4, 4), image),
    }


@pytest.mark.long
def test_every_kind_of_layer_returns_the_shape_of_keras_2() -> None:
    """Shapes of inputs are tuples, lists and those of TensorFlow."""
    ours, theirs = layers_of(keras), layers_of(tf_keras)
    with layer_shapes.of_tensorflow():
        for name, (layer, shape) in ours.items():
            expected = theirs[name][0].compute_output_shape(shape).as_list()
            for kind in (tuple, list, tf.TensorShape):
                given = list(map(kind, shape)) if isinstance(shape, list) else kind(shape)
                assert layer.compute_output_shape(given).as_list() == expected, (name, kind)
    assert type(keras.layers.Dense(3).compute_output_shape((None, 4))) is tuple
    assert not hasattr(keras.layers.Layer, "compute_output_signature")
