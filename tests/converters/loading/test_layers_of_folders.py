"""SavedModel folders of Keras 2 whose layers contain others, such as the cell of an LSTM.

The checkpoint stores the weights of these by their place in a list.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from long_parameters import only

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.formats import saved_model
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.weights import from_saved_model
from edgeattn_converters.tracing.trace import interface_of

layers = tf_keras.layers
STEPS, FEATURES = 5, 4


def attention() -> Any:
    """Two outputs, two directions, and moving averages, which are stored by name."""
    x = tf_keras.Input((STEPS, FEATURES), name="x")
    states = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(x)
    attended = layers.MultiHeadAttention(2, 3, name="heads")(states, states)
    normed = layers.BatchNormalization()(layers.Add()([states, attended]))
    pooled = layers.GlobalAveragePooling1D()(normed)
    return tf_keras.Model(x, [layers.Dense(2, name="b")(pooled), layers.Dense(1, name="a")(pooled)])


def stateful() -> Any:
    recurrent = layers.LSTM(3, return_sequences=True, stateful=True)
    shape = {"batch_input_shape": (1, STEPS, FEATURES)}
    return tf_keras.Sequential(
        [layers.InputLayer(**shape), recurrent, layers.TimeDistributed(layers.Dense(2))]
    )


def nested() -> Any:
    """A nested model, and one that a layer applies to every step."""
    inner = tf_keras.Sequential(
        [tf_keras.Input((FEATURES,)), layers.Dense(3), layers.BatchNormalization()]
    )
    x = tf_keras.Input((STEPS, FEATURES), name="x")
    steps = layers.TimeDistributed(inner)(x)
    head = tf_keras.Sequential([tf_keras.Input((2,)), layers.BatchNormalization(), layers.Dense(1)])
    return tf_keras.Model(x, head(layers.GRU(2)(steps)))


def frozen() -> Any:
    parts = [layers.Dense(4, trainable=False), layers.LSTM(4), layers.BatchNormalization()]
    inner = tf_keras.Sequential([tf_keras.Input((STEPS, FEATURES)), *parts])
    x = tf_keras.Input((STEPS, FEATURES), name="x")
    model = tf_keras.Model(x, layers.Dense(2)(inner(x)))
    inner.trainable = False
    return model


def words() -> Any:
    x = tf_keras.Input((None,), name="x")
    states = layers.GRU(3, return_sequences=True)(layers.Embedding(9, 4, mask_zero=True)(x))
    attended = layers.Attention(use_scale=True, name="look")([states, states])
    return tf_keras.Model(x, layers.Dense(2)(layers.GlobalMaxPooling1D()(attended)))


def adapted() -> Any:
    """Mean and variance are variables that are named otherwise in Keras 3."""
    norm = layers.Normalization(axis=-1)
    norm.adapt(np.random.default_rng(2).normal(3, 2, size=(50, STEPS, FEATURES)))
    x = tf_keras.Input((STEPS, FEATURES), name="x")
    return tf_keras.Model(x, layers.GRU(2)(norm(x)))


def expression() -> Any:
    x = tf_keras.Input((STEPS, FEATURES), name="x")
    return tf_keras.Model(x, layers.Lambda(lambda t: t[:, -1] * 2.0)(layers.Dense(3)(x)))


def augmented() -> Any:
    """The checkpoint stores the states of random numbers, some of them in a numbered layer."""
    norm = layers.Normalization(mean=1.0, variance=4.0)
    inner = tf_keras.Sequential(
        [tf_keras.Input((6, 6, 1)), layers.BatchNormalization(), layers.RandomFlip()]
    )
    x = tf_keras.Input((6, 6, 1), name="x")
    images = layers.RandomRotation(0.1)(inner(norm(x)))
    return tf_keras.Model(x, layers.LSTM(2)(layers.Reshape((6, 6))(images)))


def tuples() -> Any:
    """Folders store tuples and lists, other files lists only."""
    x = tf_keras.Input((STEPS, FEATURES), name="x")
    first, last = layers.Dense(3)(x)[:, 0], layers.Dense(3)(x)[..., -1, :]
    both = layers.Concatenate()((layers.MultiHeadAttention(2, 3, name="heads")(x, x), x))
    turned = tf.transpose(tf.pad(both, paddings=((0, 0), (1, 0), (0, 0))), perm=(0, 2, 1))
    pairs = tf.stack(values=(first, tf.concat((first, last), -1)[:, 1:4]), axis=1)
    flat = tf.reshape(turned, (tf.shape(x)[0], 2 * FEATURES * (STEPS + 1)))
    return tf_keras.Model(x, (layers.Dense(2)(flat), pairs[:, ::-1, tf.newaxis]))


def depthwise() -> Any:
    """Keras 3 has another name for the kernels of DepthwiseConv1D and DepthwiseConv2D."""
    x = tf_keras.Input((STEPS, FEATURES), name="x")
    rows = layers.DepthwiseConv1D(2, depth_multiplier=2)(layers.SeparableConv1D(3, 2)(x))
    images = layers.DepthwiseConv2D(2, use_bias=False)(layers.Reshape((3, 3, 2))(rows))
    flat = layers.Flatten()(layers.SeparableConv2D(3, 2)(images))
    return tf_keras.Model(x, layers.Dense(2)(flat))


def decoder() -> Any:
    """One layer has three outputs."""
    x = tf_keras.Input((STEPS, FEATURES), name="x")
    y, *states = layers.LSTM(3, return_sequences=True, return_state=True, name="decoder")(x)
    return tf_keras.Model(x, [layers.Dense(2)(y), *states])


def directions() -> Any:
    x = tf_keras.Input((STEPS, FEATURES), name="x")
    y, *states = layers.Bidirectional(layers.LSTM(3, return_state=True), name="both")(x)
    return tf_keras.Model(x, [*states[::-1], y])


def numbered() -> Any:
    """The second output of one layer has the name of another layer."""
    x = tf_keras.Input((STEPS, FEATURES), name="x")
    first = layers.GRU(3, return_state=True, name="gru")(x)
    second = layers.GRU(3, return_state=True, return_sequences=True, name="gru_1")(x)
    return tf_keras.Model(x, [*first, second[1], 2.0 * second[1]])


def saved(build: Callable[[], Any], path: Path) -> Any:
    generator, model = np.random.default_rng(9), build()
    if build is not adapted:
        model.set_weights([generator.uniform(0.1, 0.8, w.shape) for w in model.get_weights()])
    model.save(path, save_format="tf")
    return model


def values(model: Any) -> Any:
    generator = np.random.default_rng(3)
    if len(model.inputs[0].shape) == 2:
        return generator.integers(1, 9, (1, STEPS))
    shape = [1, *(size or STEPS for size in model.inputs[0].shape[1:])]
    return generator.normal(size=shape).astype("float32")


@pytest.mark.parametrize(
    "build",
    [
        tuples,
        depthwise,
        *(
            pytest.param(build, marks=pytest.mark.long)
            for build in (
                *(attention, nested, frozen, words, stateful, expression, augmented),
                *(decoder, directions, numbered, adapted),
            )
        ),
    ],
)
def test_layers_that_contain_others(build: Callable[[], Any], tmp_path: Path) -> None:
    model = saved(build, tmp_path / "m")
    loaded = load_model(audit_file(tmp_path / "m"), time_steps=STEPS)
    assert not any("is the graph of the signature" in note for note in loaded.notes), loaded.notes
    unverified = [note for note in loaded.notes if "could not be compared with the graph" in note]
    # The graph of one keeps a state.
    assert len(unverified) == (build is stateful)
    x = values(model)
    expected, actual = (each(x, training=False) for each in (model, loaded.model))
    for value, result in zip(*map(_listed, (expected, actual)), strict=True):
        np.testing.assert_allclose(result, value, rtol=1e-4, atol=1e-5)
    if build in (attention, tuples):
        [spec] = interface_of(loaded.model).attention
        assert spec.name == "attention/heads"


def _listed(outputs: Any) -> list[Any]:
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def test_the_graph_decides_about_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another Keras listed the variables in another order, the graph is the model."""
    model = saved(stateless, tmp_path / "m")
    in_order = from_saved_model._in_order

    def exchanged(*arguments: Any) -> list[Any]:
        """The kernels of two dense layers of one shape change places."""
        items = list(in_order(*arguments))
        places = [k for k, (_, variable) in enumerate(items) if variable.shape == (3, 3)]
        items[places[-1]], items[places[-2]] = items[places[-2]], items[places[-1]]
        return items

    monkeypatch.setattr(from_saved_model, "_in_order", exchanged)
    loaded = load_model(audit_file(tmp_path / "m"))
    [note] = loaded.notes
    assert "compute other outputs than its graph" in note
    assert "is the graph of the signature" in note
    x = values(model)
    [actual] = loaded.model({"x": x}).values()
    np.testing.assert_allclose(actual, model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("has_frozen", only([False, True], False))
def test_lists_of_trainable_variables(
    has_frozen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keras 2.6 has these lists ahead of that of all variables, whose places tf_keras stores."""
    build = with_statistics if has_frozen else stateless
    model = saved(build, tmp_path / "m")
    read = saved_model.read_variables

    def as_of_keras_2_6(path: Path) -> dict[str, Any]:
        arrays = {}
        for name, array in read(path).items():
            if match := re.fullmatch(r"variables/(\d+)", name):
                variable = model.variables[int(match[1])]
                kind = "trainable_" if variable.trainable else "non_trainable_"
                places = [id(other) for other in getattr(model, f"{kind}variables")]
                name = f"{kind}variables/{places.index(id(variable))}"
            arrays[name] = array
        assert any(name.startswith("trainable_variables/") for name in arrays)
        assert any(name.startswith("non_trainable_variables/") for name in arrays) == has_frozen
        return arrays

    monkeypatch.setattr(saved_model, "read_variables", as_of_keras_2_6)
    loaded = load_model(audit_file(tmp_path / "m"))
    assert not any("is the graph of the signature" in note for note in loaded.notes), loaded.notes
    x = values(model)
    np.testing.assert_allclose(loaded.model(x), model(x), rtol=1e-4, atol=1e-5)


def with_statistics() -> Any:
    x = tf_keras.Input((STEPS, FEATURES), name="x")
    steps = layers.TimeDistributed(layers.Dense(3))(x)
    steps = layers.TimeDistributed(layers.BatchNormalization())(steps)
    steps = layers.TimeDistributed(layers.Dense(3, activation="tanh"))(steps)
    return tf_keras.Model(x, layers.Bidirectional(layers.LSTM(3))(steps))


def stateless() -> Any:
    x = tf_keras.Input((STEPS, FEATURES), name="x")
    steps = layers.TimeDistributed(layers.Dense(3))(x)
    for _ in range(2):
        steps = layers.TimeDistributed(layers.Dense(3, activation="tanh"))(steps)
    return tf_keras.Model(x, steps)
