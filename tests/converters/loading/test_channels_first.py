"""Convolutions with the channels first, for which TensorFlow has no kernels on a CPU.

Expected values are those of the same model with the channels last.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras
from keras import ops
from long_parameters import only

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

ROWS, COLUMNS, CHANNELS, STEPS = 7, 4, 3, 2
GENERATOR = np.random.default_rng(6)
KERNEL = GENERATOR.normal(size=(2, 3, CHANNELS, 4)).astype("float32")
DEPTHWISE = GENERATOR.normal(size=(3, 2, CHANNELS, 2)).astype("float32")
POINTWISE = GENERATOR.normal(size=(1, 1, 6, 5)).astype("float32")
# With a bias of four values, and four columns.
OPERATIONS: dict[str, Callable[[Any, str], Any]] = {
    "convolution": lambda x, o: ops.conv(x, KERNEL, padding="same", data_format=o),
    "depthwise": lambda x, o: ops.depthwise_conv(x, DEPTHWISE, data_format=o),
    "separable": lambda x, o: ops.separable_conv(x, DEPTHWISE, POINTWISE, 1, "same", o),
    "maximum": lambda x, o: ops.max_pool(x, 2, padding="same", data_format=o),
    "average": lambda x, o: ops.average_pool(x, (3, 2), 1, data_format=o),
}


def images(order: str) -> Any:
    shape = (ROWS, COLUMNS, CHANNELS)
    return keras.Input((shape[-1], *shape[:-1]) if order == "channels_first" else shape, name="x")


def assert_same(first: Any, last: Any, axis: int = 1, steps: tuple[int, ...] = ()) -> None:
    """The outputs of ``first`` are those of ``last``, whose channels are the last axis."""
    x = GENERATOR.normal(size=(3, *steps, ROWS, COLUMNS, CHANNELS)).astype("float32")
    actual = first(np.moveaxis(x, -1, axis))
    expected = last(x)
    for one, other in zip(
        *(value if isinstance(value, list) else [value] for value in (actual, expected)),
        strict=True,
    ):
        moved = np.moveaxis(other, -1, np.ndim(other) - 3)
        np.testing.assert_allclose(one, moved, rtol=1e-4, atol=1e-5)


def pair(build: Callable[[str], Any]) -> tuple[Any, Any]:
    """Models with the channels first and last that have the same weights."""
    first, last = build("channels_first"), build("channels_last")
    for variable, other in zip(first.weights, last.weights, strict=True):
        values = GENERATOR.uniform(0.1, 0.7, other.shape)
        variable.assign(values)
        other.assign(values)
    return first, last


def test_operations(tmp_path: Path) -> None:
    def build(order: str) -> Any:
        x = images(order)
        return keras.Model(x, [call(x, order) for call in OPERATIONS.values()])

    first, last = pair(build)
    for suffix in (".keras", ".h5"):
        first.save(tmp_path / f"m{suffix}")
        assert_same(load_model(audit_file(tmp_path / f"m{suffix}")).model, last)


@pytest.mark.long
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_recurrences_in_two_directions(library: Any, suffix: str, tmp_path: Path) -> None:
    if library is tf_keras and suffix == ".keras":
        pytest.skip("a format of Keras 3")
    layers = library.layers

    def build(order: str) -> Any:
        shape = (STEPS, ROWS, COLUMNS, CHANNELS)
        if order == "channels_first":
            shape = (STEPS, CHANNELS, ROWS, COLUMNS)
        x = inputs = library.Input(shape)
        for mode in ("sum", "ave"):
            cell = layers.ConvLSTM2D(2, 2, data_format=order, return_sequences=True, padding="same")
            x = layers.Bidirectional(cell, merge_mode=mode)(x)
        backward = layers.ConvLSTM2D(4, (1, 2), data_format=order, go_backwards=True)
        forward = layers.ConvLSTM2D(4, (1, 2), data_format=order, activation="relu")
        both = layers.Bidirectional(forward, merge_mode=None, backward_layer=backward)
        return library.Model(inputs, list(both(x)))

    first, last = pair(build)
    first.save(tmp_path / f"m{suffix}")
    loaded = load_model(audit_file(tmp_path / f"m{suffix}")).model
    assert_same(loaded, last, axis=2, steps=(STEPS,))


def test_two_directions_join_the_last_axis(tmp_path: Path) -> None:
    """As in Keras, which has one axis for all layers."""
    x = keras.Input((STEPS, CHANNELS, ROWS, COLUMNS))
    cell = keras.layers.ConvLSTM2D(2, 2, data_format="channels_first", padding="same")
    model = keras.Model(x, keras.layers.Bidirectional(cell)(x))
    model.save(tmp_path / "m.keras")
    loaded = load_model(audit_file(tmp_path / "m.keras")).model
    values = GENERATOR.normal(size=(2, *x.shape[1:])).astype("float32")
    assert loaded(values).shape == (2, 2, ROWS, 2 * COLUMNS)
    # Loading lets the model itself compute, too.
    np.testing.assert_allclose(loaded(values), model(values), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_models_inside_layers(suffix: str, tmp_path: Path) -> None:
    """A model for each frame, which is also called on its own."""
    layers = keras.layers

    def build(order: str) -> Any:
        first = order == "channels_first"
        frame = (CHANNELS, ROWS, COLUMNS) if first else (ROWS, COLUMNS, CHANNELS)
        inner = keras.Sequential(
            [
                keras.Input(frame),
                layers.Conv2D(4, 3, padding="same", data_format=order, activation="relu"),
                layers.BatchNormalization(axis=1 if first else -1),
                layers.DepthwiseConv2D(2, data_format=order),
            ],
            name="inner",
        )
        x = keras.Input((STEPS, *frame))
        return keras.Model(x, [layers.TimeDistributed(inner)(x), inner(x[:, 0])])

    first, last = pair(build)
    first.save(tmp_path / f"m{suffix}")
    loaded = load_model(audit_file(tmp_path / f"m{suffix}")).model
    assert_same(loaded, last, axis=2, steps=(STEPS,))


SCRIPT = """
import keras
from keras import layers

keras.config.set_image_data_format("ORDER")
FIRST = "ORDER" == "channels_first"

@keras.saving.register_keras_serializable(package="own")
class Block(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Conv2D(4, 3, padding="same")
        self.norm = layers.BatchNormalization(axis=1 if FIRST else -1)

    def build(self, shape):
        self.inner.build(shape)
        self.norm.build((None, 4, *shape[2:]) if FIRST else (*shape[:-1], 4))
        self.built = True

    def call(self, x):
        return keras.ops.relu(self.norm(self.inner(x)))

def build(*block):
    x = keras.Input((3, 7, 4) if FIRST else (7, 4, 3))
    h = layers.Conv2D(3, 1)(x)
    for layer in block:
        h = layer(h)
    # As many columns as channels, where Keras itself would add the bias along the columns.
    h = layers.Conv2D(4, (2, 1))(h)
    return keras.Model(x, layers.Conv2DTranspose(2, 2, strides=2)(h))

def own():
    return build(Block(name="block"))
"""


@pytest.mark.parametrize("function", only(["build", "own"], "build"))
def test_architectures_and_classes_of_the_user(function: str, tmp_path: Path) -> None:
    models = {}
    before = keras.config.image_data_format()
    try:
        for order in ("channels_first", "channels_last"):
            script = SCRIPT.replace("ORDER", order)
            (tmp_path / f"{order}.py").write_text(script)
            names: dict[str, Any] = {"__name__": order}
            exec(script, names)
            models[order] = names[function]()
        first, last = pair(models.__getitem__)
        path = tmp_path / "m.weights.h5"
        first.save_weights(path)
        keras.config.set_image_data_format("channels_last")
        architecture = f"{tmp_path / 'channels_first.py'}:{function}"
        assert_same(load_model(audit_file(path), architecture=architecture).model, last)
        if function == "own":
            first.save(tmp_path / "m.keras")
            keras.config.set_image_data_format("channels_last")
            own = tmp_path / "channels_first.py"
            assert_same(
                load_model(audit_file(tmp_path / "m.keras"), custom_objects=own).model, last
            )
    finally:
        keras.config.set_image_data_format(before)
