"""Files of Keras 2 on Theano, compared with what Theano computes, by its definitions in NumPy.

Theano convolves, so that the positions of a kernel are reversed for TensorFlow, and its padding
"same" is that of Keras' Theano backend 2.3.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tf_keras
from numpy_convolutions import convolution, depthwise, pooling, transposed_convolution
from tf_keras import layers

from edgeattn.errors import UnsupportedModelError
from edgeattn.metrics.pairwise import snr_db
from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import LoadedModel, load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}

GENERATOR = np.random.default_rng(8)
INPUTS = {
    1: GENERATOR.normal(size=(2, 7, 3)),
    2: GENERATOR.normal(size=(2, 6, 5, 3)),
    3: GENERATOR.normal(size=(2, 5, 4, 4, 2)),
}


def conv(kind: str, *arguments: Any, **options: Any) -> Any:
    return getattr(layers, kind)(*arguments, use_bias=False, **options)


# The axes of the input, the layer, and what Theano computes with its kernels.
LAYERS: dict[str, tuple[int, Any, Any]] = {
    "valid": (2, conv("Conv2D", 4, 3), lambda x, k: convolution(x, k, same=False)),
    "odd": (2, conv("Conv2D", 4, 3, padding="same"), convolution),
    "strides": (
        2, conv("Conv2D", 4, 3, strides=2, padding="same"),
        lambda x, k: convolution(x, k, strides=2),
    ),
    "even": (2, conv("Conv2D", 4, (2, 3), padding="same"), convolution),
    "even with strides": (
        2, conv("Conv2D", 4, 4, strides=(3, 2), padding="same"),
        lambda x, k: convolution(x, k, strides=(3, 2)),
    ),
    "dilated": (
        2, conv("Conv2D", 4, 2, dilation_rate=2, padding="same"),
        lambda x, k: convolution(x, k, rate=2),
    ),
    "one axis": (
        1, conv("Conv1D", 4, 4, strides=2, padding="same"),
        lambda x, k: convolution(x, k, strides=2),
    ),
    "three axes": (3, conv("Conv3D", 3, 2, padding="same"), convolution),
    "depthwise": (
        2, conv("DepthwiseConv2D", 3, strides=2, padding="same", depth_multiplier=2),
        lambda x, k: depthwise(x, k, strides=2),
    ),
    "depthwise valid": (
        2, conv("DepthwiseConv2D", 2), lambda x, k: depthwise(x, k, same=False),
    ),
    "separable": (
        2, conv("SeparableConv2D", 4, 3, strides=2, padding="same"),
        lambda x, k, p: depthwise(x, k, strides=2) @ p[0, 0],
    ),
    "separable of one axis": (
        1, conv("SeparableConv1D", 4, 3), lambda x, k, p: depthwise(x, k, same=False) @ p[0],
    ),
    "maximum": (2, layers.MaxPooling2D(2, padding="same"), lambda x: pooling(x, (2, 2), (2, 2))),
    "maximum of three": (
        2, layers.MaxPooling2D((3, 1), strides=(2, 2), padding="same"),
        lambda x: pooling(x, (3, 1), (2, 2)),
    ),
    "maximum of one axis": (
        1, layers.MaxPooling1D(2, strides=1, padding="same"), lambda x: pooling(x, (2,), (1,)),
    ),
    "average": (
        2, layers.AveragePooling2D(2, padding="same"),
        lambda x: pooling(x, (2, 2), (2, 2), average=True),
    ),
    "average of five": (
        1, layers.AveragePooling1D(5, strides=2, padding="same"),
        lambda x: pooling(x, (5,), (2,), average=True),
    ),
    "average of three axes": (
        3, layers.AveragePooling3D(2, padding="same"),
        lambda x: pooling(x, (2, 2, 2), (2, 2, 2), average=True),
    ),
}  # fmt: skip


def save(model: Any, path: Path, *, weights_only: bool = False) -> Path:
    """Save a model as if Keras 2.1.6 on Theano had done it."""
    model.save_weights(path) if weights_only else model.save(path)
    with h5py.File(path, "a") as file:
        for group in (file, file.get("model_weights", file)):
            group.attrs.update(backend=b"theano", keras_version=b"2.1.6")
    return path


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[LoadedModel, dict[str, Any]]:
    """The loaded model of all layers, and the results of Theano by the name of the layer."""
    inputs = {axes: tf_keras.Input(x.shape[1:]) for axes, x in INPUTS.items()}
    outputs, expected = [], {}
    for name, (axes, layer, _) in LAYERS.items():
        layer._name = name.replace(" ", "_")
        outputs.append(layer(inputs[axes]))
    model = tf_keras.Model(list(inputs.values()), outputs)
    for name, (axes, layer, compute) in LAYERS.items():
        layer.set_weights([GENERATOR.normal(size=value.shape) for value in layer.get_weights()])
        expected[name] = compute(INPUTS[axes], *map(np.float64, layer.get_weights()))
    path = save(model, tmp_path_factory.mktemp("theano") / "model.h5")
    return load_model(audit_file(path)), expected


@pytest.mark.parametrize("name", LAYERS)
def test_layers_compute_as_in_theano(name: str, loaded: Any) -> None:
    model, expected = loaded[0].model, loaded[1][name]
    actual = model([x.astype("float32") for x in INPUTS.values()])[list(LAYERS).index(name)]
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_integer_files_compute_as_in_theano(format: str, tmp_path: Path) -> None:
    """Padding of maxima and averages must not widen the range of the values."""
    inputs = tf_keras.Input((8, 8, 4), name="x")
    h = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(inputs)
    pooled = [
        layers.MaxPooling2D(2, padding="same")(h),
        layers.AveragePooling2D(2, padding="same")(h),
    ]
    joined = layers.Flatten()(layers.Concatenate()(pooled))
    model = tf_keras.Model(inputs, layers.Dense(4, use_bias=False, name="y")(joined))
    kernel, dense = map(np.float64, model.get_weights())
    x = np.random.default_rng(3).normal(size=(64, 8, 8, 4))
    hidden = convolution(x, kernel, strides=2)
    pooled = [pooling(hidden, (2, 2), (2, 2), average=average) for average in (False, True)]
    expected = np.concatenate(pooled, axis=-1).reshape(64, -1) @ dense
    result = load_model(audit_file(save(model, tmp_path / "model.h5"))).model
    interface, samples = interface_of(result), {"x": x.astype("float32")}
    for scheme, decibels in (("float32", 90.0), ("int8", 25.0)):
        path = tmp_path / scheme
        file = CONVERTERS[format].convert(
            result, interface, recipe_for(scheme), path, samples=samples
        )
        runner = open_runner(path, format, file.inputs, file.outputs, as_deployed=True)
        [actual] = runner.run(samples).values()
        assert snr_db(expected, actual) > decibels, scheme


def test_changes_are_noted(loaded: Any) -> None:
    notes = " ".join(loaded[0].notes)
    assert "kernels of its convolutions are reversed" in notes
    assert "pads as Theano does" in notes


@pytest.mark.parametrize("outer", ["wrapper", "wrapped model", "nested model"])
def test_layers_inside_others(outer: str, tmp_path: Path) -> None:
    inner: Any = conv("Conv2D", 4, 3, strides=2, padding="same", name="inner")
    if outer != "wrapper":
        inner = tf_keras.Sequential([tf_keras.Input((6, 5, 3)), inner])
    inputs = tf_keras.Input((6, 5, 3) if outer == "nested model" else (1, 6, 5, 3))
    call = inner if outer == "nested model" else layers.TimeDistributed(inner)
    model = tf_keras.Model(inputs, call(inputs))
    result = load_model(audit_file(save(model, tmp_path / "model.h5"))).model
    x = INPUTS[2] if outer == "nested model" else INPUTS[2][:, None]
    expected = convolution(INPUTS[2], np.float64(model.get_weights()[0]), strides=2)
    actual = np.asarray(result(x.astype("float32"))).reshape(expected.shape)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["convolution", "pooling"])
def test_channels_first(kind: str, tmp_path: Path) -> None:
    if kind == "pooling":
        layer: Any = layers.MaxPooling2D(2, padding="same", data_format="channels_first")
    else:
        layer = conv("Conv2D", 4, 2, padding="same", data_format="channels_first")
    inputs = tf_keras.Input((3, 6, 5))
    model = tf_keras.Model(inputs, layer(inputs))
    result = load_model(audit_file(save(model, tmp_path / "model.h5"))).model
    kernels = [np.float64(value) for value in model.get_weights()]
    expected = convolution(INPUTS[2], *kernels) if kernels else pooling(INPUTS[2], (2, 2), (2, 2))
    actual = result(np.moveaxis(INPUTS[2], -1, 1).astype("float32"))
    np.testing.assert_allclose(np.moveaxis(actual, 1, -1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axes", [2, 3])
def test_transposed_convolutions(axes: int, tmp_path: Path) -> None:
    layer = conv(f"Conv{axes}DTranspose", 2, 3)
    inputs = tf_keras.Input(INPUTS[axes].shape[1:])
    model = tf_keras.Model(inputs, layer(inputs))
    kernel = np.flip(np.float64(model.get_weights()[0]), tuple(range(axes)))
    x = INPUTS[axes]
    expected = transposed_convolution(x, kernel)
    result = load_model(audit_file(save(model, tmp_path / "model.h5"))).model
    np.testing.assert_allclose(result(x.astype("float32")), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: layers.Conv2DTranspose(2, 3, strides=2, padding="same"), (6, 5, 3)),
        (lambda: layers.ConvLSTM2D(2, 2, padding="same"), (2, 4, 4, 1)),
        (lambda: layers.UpSampling2D(2, interpolation="bilinear"), (6, 5, 3)),
    ],
)
def test_layers_that_are_refused(layer: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    inputs = tf_keras.Input(shape)
    path = save(tf_keras.Model(inputs, layer()(inputs)), tmp_path / "model.h5")
    with pytest.raises(UnsupportedModelError, match="other values than TensorFlow"):
        load_model(audit_file(path))


OWN = """
import keras
from keras import layers

class Doubled(layers.Layer):
    def call(self, x):
        return x + x

def build():
    convolution = layers.Conv2D(4, 3, strides=2, padding="same", name="c")
    return keras.Sequential([keras.Input((6, 5, 3)), convolution, Doubled()])
"""


@pytest.mark.parametrize(
    ("order", "head", "noted"),
    [
        ("channels_last", "Flatten", True),
        ("channels_last", "GlobalMaxPooling2D", False),
        ("channels_first", "Flatten", False),
    ],
)
def test_order_of_the_axes_that_weights_do_not_show(
    order: str, head: str, noted: bool, tmp_path: Path
) -> None:
    """The values that Flatten arranges otherwise have the same number."""
    shape = (6, 5, 3) if order == "channels_last" else (3, 6, 5)
    parts = [
        layers.Conv2D(2, 3, data_format=order, name="c"),
        getattr(layers, head)(data_format=order),
        layers.Dense(1, name="d"),
    ]
    model = tf_keras.Sequential([tf_keras.Input(shape), *parts])
    path = save(model, tmp_path / "w.h5", weights_only=True)
    (tmp_path / "m.json").write_text(model.to_json())
    notes = load_model(audit_file(path), architecture=str(tmp_path / "m.json")).notes
    text = "If it had the channels first, as by default in Keras 1"
    assert any(text in note for note in notes) == noted


def test_built_model_that_would_pad_as_in_tensorflow(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    inputs = tf_keras.Input((6, 5, 3))
    layer = layers.Conv2D(4, 3, strides=2, padding="same", name="c")
    path = save(tf_keras.Model(inputs, layer(inputs)), tmp_path / "w.h5", weights_only=True)
    with pytest.raises(UnsupportedModelError, match="'c' has padding='same'") as error:
        load_model(audit_file(path), architecture=f"{tmp_path / 'own.py'}:build")
    assert "--custom-objects" in str(error.value.hint)
