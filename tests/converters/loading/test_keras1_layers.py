"""Convolutions and pooling of Keras 1, in both orders of the axes and on both backends.

Keras 1 stores kernels as (filters, channels, positions) with the channels first, and as (positions,
channels, filters) otherwise; those of 1-D convolutions have an additional axis.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from numpy_convolutions import convolution, depthwise, pooling, transposed_convolution

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

GENERATOR = np.random.default_rng(6)
COMMON = {"init": "glorot_uniform", "activation": "linear", "bias": True, "W_regularizer": None,
          "b_regularizer": None, "activity_regularizer": None, "W_constraint": None,
          "b_constraint": None, "trainable": True}  # fmt: skip
ROWS = {"nb_row": 3, "nb_col": 2, "subsample": [1, 1], "border_mode": "valid"}
SHAPES = {1: (7, 3), 2: (6, 5, 3), 3: (4, 5, 4, 2)}


def load(
    class_name: str,
    config: dict[str, Any],
    shape: Sequence[int],
    weights: list[Any],
    backend: str,
    path: Path,
) -> Any:
    """Write a Sequential of one layer as Keras 1.2.2 does, and load it.

    Only the names of the weights show the backend.
    """
    end = ":0" if backend == "tensorflow" else ""
    names = [f"layer_W_{k}{end}" for k in range(len(weights))]
    config = {**config, "name": "layer", "batch_input_shape": [None, *shape]}
    layers = [{"class_name": class_name, "config": config}]
    stored = {"class_name": "Sequential", "config": layers, "keras_version": "1.2.2"}
    with h5py.File(path, "w") as file:
        file.attrs.update(keras_version=b"1.2.2", model_config=json.dumps(stored).encode())
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"layer"]
        layer = group.create_group("layer")
        layer.attrs["weight_names"] = [name.encode() for name in names]
        for name, value in zip(names, weights, strict=True):
            layer[name] = np.asarray(value, "float32")
    return load_model(audit_file(path)).model


def stored_kernel(kernel: Any, order: str) -> Any:
    """(positions, channels, filters) in the layout of the file."""
    if order == "tf":
        return kernel
    return np.moveaxis(kernel, (-1, -2), (0, 1))


def random(*shape: int) -> Any:
    return GENERATOR.normal(size=shape)


def check(model: Any, x: Any, expected: Any, order: str) -> None:
    first = order == "th"
    actual = np.asarray(model((np.moveaxis(x, -1, 1) if first else x).astype("float32")))
    actual = np.moveaxis(actual, 1, -1) if first and actual.ndim > 2 else actual
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


# The axes, the class, its arguments, the shape of its kernel, and the options in NumPy.
CONVOLUTIONS: dict[str, tuple[int, str, dict[str, Any], tuple[int, ...], dict[str, Any]]] = {
    "two axes": (2, "Convolution2D", ROWS, (3, 2, 3, 4), {"same": False}),
    "strides": (
        2, "Convolution2D", {**ROWS, "subsample": [2, 2], "nb_col": 3}, (3, 3, 3, 4),
        {"same": False, "strides": 2},
    ),
    "padded": (
        2, "Convolution2D", {**ROWS, "nb_col": 3, "border_mode": "same"}, (3, 3, 3, 4), {},
    ),
    "dilated": (
        2, "AtrousConvolution2D", {**ROWS, "atrous_rate": [2, 3]}, (3, 2, 3, 4),
        {"same": False, "rate": (2, 3)},
    ),
    "three axes": (
        3, "Convolution3D",
        {"kernel_dim1": 3, "kernel_dim2": 2, "kernel_dim3": 2, "subsample": [1, 2, 1],
         "border_mode": "valid"},
        (3, 2, 2, 2, 4), {"same": False, "strides": (1, 2, 1)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("backend", ["tensorflow", "theano"])
@pytest.mark.parametrize("order", ["th", "tf"])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions(kind: str, order: str, backend: str, tmp_path: Path) -> None:
    axes, class_name, arguments, kernel_shape, options = CONVOLUTIONS[kind]
    kernel, bias = random(*kernel_shape), random(4)
    shape = SHAPES[axes] if order == "tf" else (SHAPES[axes][-1], *SHAPES[axes][:-1])
    config = {**COMMON, **arguments, "nb_filter": 4, "dim_ordering": order}
    weights = [stored_kernel(kernel, order), bias]
    model = load(class_name, config, shape, weights, backend, tmp_path / "model.h5")
    x = random(2, *SHAPES[axes])
    expected = convolution(x, kernel, reverse=backend == "theano", **options) + bias
    check(model, x, expected, order)


@pytest.mark.parametrize("backend", ["tensorflow", "theano"])
@pytest.mark.parametrize("version", ["1.0", "1.2"])
@pytest.mark.parametrize("rate", [1, 2])
def test_convolutions_of_one_axis(rate: int, version: str, backend: str, tmp_path: Path) -> None:
    """Keras 1.0 stores (filters, channels, length, 1), later (length, 1, channels, filters)."""
    kernel, bias = random(3, 3, 4), random(4)
    stored = kernel.transpose(2, 1, 0)[..., None] if version == "1.0" else kernel[:, None]
    config = {
        **COMMON, "nb_filter": 4, "filter_length": 3, "border_mode": "valid",
        "subsample_length": 1, "input_dim": 3, "input_length": 7,
    }  # fmt: skip
    class_name = "Convolution1D" if rate == 1 else "AtrousConvolution1D"
    config |= {"atrous_rate": rate} if rate > 1 else {}
    model = load(class_name, config, SHAPES[1], [stored, bias], backend, tmp_path / "model.h5")
    x = random(2, *SHAPES[1])
    expected = convolution(x, kernel, rate=rate, same=False, reverse=backend == "theano") + bias
    check(model, x, expected, "tf")


@pytest.mark.parametrize("order", ["th", "tf"])
@pytest.mark.parametrize(
    ("padding", "size"), [("valid", (13, 11)), ("valid", (14, 12)), ("same", (12, 9))]
)
def test_transposed_convolutions(
    padding: str, size: tuple[int, int], order: str, tmp_path: Path
) -> None:
    """Of the shapes with as many inputs, the argument ``output_shape`` chooses one."""
    kernel, bias = random(3, 3, 3, 4), random(4)
    output = [None, 4, *size] if order == "th" else [None, *size, 4]
    config = {**COMMON, **ROWS, "nb_col": 3, "subsample": [2, 2], "border_mode": padding,
              "nb_filter": 4, "dim_ordering": order, "output_shape": output}  # fmt: skip
    shape = SHAPES[2] if order == "tf" else (3, 6, 5)
    weights = [stored_kernel(kernel, order), bias]
    model = load("Deconvolution2D", config, shape, weights, "tensorflow", tmp_path / "model.h5")
    x = random(2, *SHAPES[2])
    full = transposed_convolution(x, kernel.swapaxes(-1, -2), 2)  # (2, 13, 11, 4)
    if padding == "valid":
        expected = np.zeros((2, *size, 4))
        expected[:, :13, :11] = full
    else:  # of the padding of the convolution that it inverts, half is before
        starts = [(n - m) // 2 for n, m in zip(full.shape[1:3], size, strict=True)]
        expected = full[:, starts[0] :, starts[1] :][:, : size[0], : size[1]]
    check(model, x, expected + bias, order)


@pytest.mark.parametrize("order", ["th", "tf"])
def test_separable_convolutions(order: str, tmp_path: Path) -> None:
    kernel, point, bias = random(3, 2, 3, 2), random(1, 1, 6, 4), random(4)
    config = {**COMMON, **ROWS, "nb_filter": 4, "depth_multiplier": 2, "dim_ordering": order,
              "depthwise_regularizer": None, "pointwise_constraint": None}  # fmt: skip
    shape = SHAPES[2] if order == "tf" else (3, 6, 5)
    weights = [stored_kernel(kernel, order), stored_kernel(point, order), bias]
    path = tmp_path / "model.h5"
    model = load("SeparableConvolution2D", config, shape, weights, "tensorflow", path)
    x = random(2, *SHAPES[2])
    check(model, x, depthwise(x, kernel, same=False) @ point[0, 0] + bias, order)


@pytest.mark.parametrize("order", ["th", "tf"])
def test_recurrent_convolutions(order: str, tmp_path: Path) -> None:
    """Every gate has its own arrays, in the order i, c, f, o; hard_sigmoid is 0.2x + 0.5."""
    kernels, inner, biases = random(4, 3, 3, 2, 3), random(4, 3, 3, 3, 3), random(4, 3)
    weights = []
    for gate in range(4):
        parts = stored_kernel(kernels[gate], order), stored_kernel(inner[gate], order)
        weights += [*parts, biases[gate]]
    config = {
        **COMMON, **ROWS, "nb_col": 3, "border_mode": "same", "nb_filter": 3,
        "dim_ordering": order, "inner_init": "orthogonal", "forget_bias_init": "one",
        "activation": "tanh", "inner_activation": "hard_sigmoid", "return_sequences": False,
        "go_backwards": False, "stateful": False, "U_regularizer": None, "dropout_W": 0.0,
        "dropout_U": 0.0,
    }  # fmt: skip
    del config["bias"]
    shape = (3, 5, 4, 2) if order == "tf" else (3, 2, 5, 4)
    model = load("ConvLSTM2D", config, shape, weights, "tensorflow", tmp_path / "model.h5")
    x = random(2, 3, 5, 4, 2)
    h = c = np.zeros((2, 5, 4, 3))
    for step in range(3):
        i, g, f, o = (
            convolution(x[:, step], kernels[k], reverse=False) + biases[k]
            + convolution(h, inner[k], reverse=False)
            for k in range(4)
        )  # fmt: skip
        i, f, o = (np.clip(0.2 * gate + 0.5, 0, 1) for gate in (i, f, o))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
    stored = np.moveaxis(x, -1, 2) if order == "th" else x
    actual = np.asarray(model(stored.astype("float32")))
    actual = np.moveaxis(actual, 1, -1) if order == "th" else actual
    np.testing.assert_allclose(actual, h, rtol=1e-4, atol=1e-5)


def _repeated(x: Any, axes: int) -> Any:
    for axis in range(1, axes + 1):
        x = np.repeat(x, 2, axis)
    return x


# The axes, the class, its arguments, and what it computes with the channels last.
OTHERS: dict[str, tuple[int, str, dict[str, Any], Any]] = {
    "maximum": (
        2, "MaxPooling2D", {"pool_size": [2, 2], "strides": [2, 2], "border_mode": "valid"},
        lambda x: pooling(x[:, :, :4], (2, 2), (2, 2), same=False),
    ),
    "average": (
        3, "AveragePooling3D",
        {"pool_size": [1, 1, 1], "strides": [2, 1, 2], "border_mode": "valid"},
        lambda x: x[:, ::2, :, ::2],
    ),
    "global maximum": (2, "GlobalMaxPooling2D", {}, lambda x: x.max((1, 2))),
    "global average": (3, "GlobalAveragePooling3D", {}, lambda x: x.mean((1, 2, 3))),
    "repeated": (2, "UpSampling2D", {"size": [2, 2]}, lambda x: _repeated(x, 2)),
    "repeated volume": (3, "UpSampling3D", {"size": [2, 2, 2]}, lambda x: _repeated(x, 3)),
    "cropped": (2, "Cropping2D", {"cropping": [[1, 2], [0, 1]]}, lambda x: x[:, 1:-2, :-1]),
    "padded": (
        3, "ZeroPadding3D", {"padding": [1, 1, 1]},
        lambda x: np.pad(x, [(0, 0), (1, 1), (1, 1), (1, 1), (0, 0)]),
    ),
    "dropout": (2, "SpatialDropout2D", {"p": 0.5}, lambda x: x),
}  # fmt: skip


@pytest.mark.parametrize("order", ["th", "tf"])
@pytest.mark.parametrize("kind", OTHERS)
def test_layers_without_weights(kind: str, order: str, tmp_path: Path) -> None:
    axes, class_name, arguments, compute = OTHERS[kind]
    shape = SHAPES[axes] if order == "tf" else (SHAPES[axes][-1], *SHAPES[axes][:-1])
    config = {**arguments, "dim_ordering": order, "trainable": True}
    model = load(class_name, config, shape, [], "tensorflow", tmp_path / "model.h5")
    x = random(2, *SHAPES[axes])
    check(model, x, compute(x), order)


def write_weights(path: Path, **layers: tuple[Any, Any]) -> Path:
    """Write kernels and biases by layer as ``save_weights`` of Keras 1.2.2 does."""
    with h5py.File(path, "w") as file:
        file.attrs.update(keras_version=b"1.2.2", backend=b"tensorflow")
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for name, (kernel, bias) in layers.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [b"W", b"b"]
            group["W"], group["b"] = kernel, bias
    return path


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("order", ["th", "tf"])
def test_kernels_with_one_shape_in_both_orders(order: str, wrapped: bool, tmp_path: Path) -> None:
    """The other kernels of the file decide; without any, the file is refused."""
    kernels = [random(3, 3, 3, 3), random(3, 3, 3, 4)]
    convolutions = [
        keras.layers.Conv2D(k.shape[-1], 3, name=f"c{n}") for n, k in enumerate(kernels)
    ]
    layers = [keras.layers.TimeDistributed(c, name=c.name) if wrapped else c for c in convolutions]
    inputs = keras.Input((1, 6, 5, 3) if wrapped else (6, 5, 3))
    architectures = {}
    for count in (1, 2):
        model = keras.Sequential([inputs, *layers[:count]])
        architectures[count] = tmp_path / f"{count}.json"
        architectures[count].write_text(model.to_json())
    stored = {
        f"c{n}": (stored_kernel(k, order), np.zeros(k.shape[-1])) for n, k in enumerate(kernels)
    }
    path = write_weights(tmp_path / "two.h5", **stored)
    loaded = load_model(audit_file(path), architecture=str(architectures[2])).model
    x = expected = random(2, 6, 5, 3)
    for kernel in kernels:
        expected = convolution(expected, kernel, same=False, reverse=False)
    actual = loaded((x[:, None] if wrapped else x).astype("float32"))
    np.testing.assert_allclose(np.reshape(actual, expected.shape), expected, rtol=1e-3, atol=1e-4)
    path = write_weights(tmp_path / "one.h5", c0=stored["c0"])
    with pytest.raises(UnsupportedModelError, match="'c0' has the same shape"):
        load_model(audit_file(path), architecture=str(architectures[1]))


@pytest.mark.parametrize("kind", ["two axes", "three axes", "transposed"])
def test_channels_first_for_an_architecture_with_the_channels_last(
    kind: str, tmp_path: Path
) -> None:
    """Weights of Keras 1 alone; the architecture is written for the current Keras."""
    axes = 3 if kind == "three axes" else 2
    layer = {
        "two axes": lambda: keras.layers.Conv2D(4, (3, 2), name="layer"),
        "three axes": lambda: keras.layers.Conv3D(4, (3, 2, 2), name="layer"),
        "transposed": lambda: keras.layers.Conv2DTranspose(4, (3, 2), name="layer"),
    }[kind]()
    inputs = keras.Input(SHAPES[axes])
    architecture = tmp_path / "model.json"
    architecture.write_text(keras.Model(inputs, layer(inputs)).to_json())
    kernel, bias = random(*(3, 2, 2)[:axes], SHAPES[axes][-1], 4), random(4)
    path = write_weights(tmp_path / "weights.h5", layer=(stored_kernel(kernel, "th"), bias))
    model = load_model(audit_file(path), architecture=str(architecture)).model
    x = random(2, *SHAPES[axes])
    if kind == "transposed":
        expected = transposed_convolution(x, kernel.swapaxes(-1, -2)) + bias
    else:
        expected = convolution(x, kernel, same=False, reverse=False) + bias
    check(model, x, expected, "tf")


@pytest.mark.parametrize(("end", "kernel"), [("", [[3.0], [2.0], [1.0]]), (":0", [[1], [2], [3]])])
def test_weights_without_a_version(end: str, kernel: list[list[float]], tmp_path: Path) -> None:
    """Theano convolves with the kernel 1, 2, 3, which is the correlation with 3, 2, 1."""
    (tmp_path / "own.py").write_text(
        "from keras.models import Sequential\n"
        "from keras.layers import Convolution1D\n"
        "def build():\n"
        "    model = Sequential()\n"
        "    model.add(Convolution1D(1, 3, input_shape=(8, 1), name='c'))\n"
        "    return model\n"
    )
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = [b"c"]
        group = file.create_group("c")
        group.attrs["weight_names"] = [f"c_{part}{end}".encode() for part in "Wb"]
        group[f"c_W{end}"] = np.float32([1, 2, 3]).reshape(3, 1, 1, 1)
        group[f"c_b{end}"] = np.zeros(1, "float32")
    loaded = load_model(audit_file(tmp_path / "w.h5"), architecture=f"{tmp_path / 'own.py'}:build")
    np.testing.assert_array_equal(loaded.model.get_weights()[0][..., 0], kernel)
    assert ("Theano" in " ".join(loaded.notes)) == (not end)
