"""Layers of Keras 1 without ``dim_ordering`` in their config: they have that of the other layers.

Keras 0.3 to 1.2.2 does not store it for UpSampling, ZeroPadding and Cropping layers. Expected
values are computed in NumPy, with the channels last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from long_parameters import only
from numpy_convolutions import convolution, pooling

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.loaded_model import LoadedModel

GENERATOR = np.random.default_rng(12)
SIZES = {2: (6, 5), 3: (4, 5, 3)}
Arrays = Mapping[str, Sequence[Any]]


def random(*shape: int) -> Any:
    return GENERATOR.normal(size=shape).astype("float32")


def layer(class_name: str, name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": class_name, "config": {"name": name, "trainable": True, **config}}


def conv(name: str, filters: int, order: str, axes: int = 2, **config: Any) -> dict[str, Any]:
    """A convolution of three positions along each axis, as Keras 1 stores it."""
    rows = ("kernel_dim1", "kernel_dim2", "kernel_dim3") if axes == 3 else ("nb_row", "nb_col")
    arguments = {
        **dict.fromkeys(rows, 3), "nb_filter": filters, "init": "glorot_uniform",
        "activation": "linear", "border_mode": "same", "subsample": [1] * axes,
        "dim_ordering": order, "W_regularizer": None, "bias": True,
    }  # fmt: skip
    return layer(f"Convolution{axes}D", name, **arguments, **config)


def dense(name: str, units: int) -> dict[str, Any]:
    return layer("Dense", name, output_dim=units, init="glorot_uniform", activation="linear",
                 W_regularizer=None, bias=True)  # fmt: skip


def sequential(layers: Sequence[Any], shape: Sequence[int] | None = None) -> dict[str, Any]:
    if shape is not None:
        first = layers[0]
        config = {**first["config"], "batch_input_shape": [None, *shape]}
        layers = [{**first, "config": config}, *layers[1:]]
    return {"class_name": "Sequential", "config": list(layers)}


def call(item: dict[str, Any], *inputs: str) -> dict[str, Any]:
    nodes = [[[name, 0, 0] for name in inputs]] if inputs else []
    name = item.get("name") or item["config"]["name"]
    return {**item, "name": name, "inbound_nodes": nodes}


def functional(layers: Sequence[Any], inputs: str, outputs: str) -> dict[str, Any]:
    config = {"name": "model_1", "layers": list(layers), "input_layers": [[inputs, 0, 0]],
              "output_layers": [[outputs, 0, 0]]}  # fmt: skip
    return {"class_name": "Model", "config": config}


def kernel(values: Any, order: str) -> Any:
    """(positions, channels, filters) in the layout of the file."""
    return values if order == "tf" else np.moveaxis(values, (-1, -2), (0, 1))


def in_order(shape: Sequence[int], order: str) -> list[int]:
    return list(shape) if order == "tf" else [shape[-1], *shape[:-1]]


def load(
    path: Path, stored: Any, arrays: Arrays, *, whole: bool = True, version: str = "1.2.2"
) -> LoadedModel:
    """Write a model as Keras 1 does, in one file or two, and load it."""
    text = json.dumps({**stored, "keras_version": version} if version else stored)
    with h5py.File(path / "m.h5", "w") as file:
        group = file
        if whole:
            file.attrs["model_config"] = text.encode()
            group = file.create_group("model_weights")
        if version:
            file.attrs["keras_version"] = version.encode()
        group.attrs["layer_names"] = [name.encode() for name in arrays]
        for name, values in arrays.items():
            names = [f"{name}_{number}:0".encode() for number in range(len(values))]
            group.create_group(name).attrs["weight_names"] = names or np.zeros(0, "S1")
            for item, value in zip(names, values, strict=True):
                group[name][item.decode()] = value
    (path / "m.json").write_text(text)
    architecture = None if whole else str(path / "m.json")
    return load_model(audit_file(path / "m.h5"), architecture=architecture)


def check(model: Any, x: Any, expected: Any, order: str) -> None:
    """``x`` and ``expected`` have the channels last."""
    actual = np.asarray(model(np.moveaxis(x, -1, 1) if order == "th" else x))
    actual = np.moveaxis(actual, 1, -1) if order == "th" and actual.ndim > 2 else actual
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def convolved(x: Any, weights: Sequence[Any]) -> Any:
    return convolution(x, weights[0], reverse=False) + weights[1]


def repeated(x: Any, sizes: Sequence[int]) -> Any:
    for axis, size in enumerate(sizes):
        x = np.repeat(x, size, axis + 1)
    return x


def padded(x: Any, sizes: Sequence[tuple[int, int]]) -> Any:
    return np.pad(x, [(0, 0), *sizes, (0, 0)])


# The axes, the class, its arguments, and what it computes with the channels last.
KINDS: dict[str, tuple[int, str, dict[str, Any], Any]] = {
    "repeated": (2, "UpSampling2D", {"size": [2, 3]}, lambda x: repeated(x, (2, 3))),
    "padded": (2, "ZeroPadding2D", {"padding": [1, 2]}, lambda x: padded(x, [(1, 1), (2, 2)])),
    "padded sides": (
        2, "ZeroPadding2D", {"padding": [1, 2, 0, 3]}, lambda x: padded(x, [(1, 2), (0, 3)]),
    ),
    "named sides": (
        2, "ZeroPadding2D", {"padding": {"top_pad": 1, "right_pad": 2}},
        lambda x: padded(x, [(1, 0), (0, 2)]),
    ),
    "cropped": (2, "Cropping2D", {"cropping": [[1, 2], [0, 1]]}, lambda x: x[:, 1:-2, :-1]),
    "repeated volume": (3, "UpSampling3D", {"size": [2, 1, 3]}, lambda x: repeated(x, (2, 1, 3))),
    "padded volume": (
        3, "ZeroPadding3D", {"padding": [1, 0, 2]},
        lambda x: padded(x, [(1, 1), (0, 0), (2, 2)]),
    ),
    "cropped volume": (
        3, "Cropping3D", {"cropping": [[1, 0], [0, 2], [1, 1]]},
        lambda x: x[:, 1:, :-2, 1:-1],
    ),
}  # fmt: skip


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("order", only(["th", "tf"], "th"))
@pytest.mark.parametrize("kind", KINDS)
def test_layers_between_convolutions(kind: str, order: str, whole: bool, tmp_path: Path) -> None:
    axes, class_name, arguments, compute = KINDS[kind]
    layers = [conv("c1", 2, order, axes), layer(class_name, "between", **arguments),
              conv("c2", 4, order, axes)]  # fmt: skip
    weights = {"c1": [random(*[3] * axes, 7, 2), random(2)], "between": [],
               "c2": [random(*[3] * axes, 2, 4), random(4)]}  # fmt: skip
    arrays = {name: [kernel(w[0], order), w[1]] if w else [] for name, w in weights.items()}
    stored = sequential(layers, in_order((*SIZES[axes], 7), order))
    loaded = load(tmp_path, stored, arrays, whole=whole)
    x = random(2, *SIZES[axes], 7)
    expected = convolved(compute(convolved(x, weights["c1"])), weights["c2"])
    check(loaded.model, x, expected, order)
    noted = any("between: the order of the axes is that of the other" in n for n in loaded.notes)
    assert noted == (order == "th")


def pool(name: str, order: str) -> dict[str, Any]:
    return layer("MaxPooling2D", name, pool_size=[2, 2], strides=[2, 2], border_mode="valid",
                 dim_ordering=order)  # fmt: skip


@pytest.mark.parametrize("order", only(["th", "tf"], "th"))
def test_networks_with_skip_connections(order: str, tmp_path: Path) -> None:
    """A U-Net of Keras 1: the channels are also the axis of Merge and BatchNormalization."""
    axis = 1 if order == "th" else -1
    image = layer("InputLayer", "image", batch_input_shape=[None, *in_order((6, 4, 3), order)],
                  input_dtype="float32", sparse=False)  # fmt: skip
    merged = layer("Merge", "joined", mode="concat", mode_type="raw", concat_axis=axis,
                   dot_axes=-1, output_shape=None, output_shape_type="raw",
                   arguments={}, output_mask=None, output_mask_type="raw")  # fmt: skip
    norm = layer("BatchNormalization", "norm", axis=axis, mode=0, momentum=0.99, epsilon=1e-3,
                 gamma_regularizer=None, beta_regularizer=None)  # fmt: skip
    layers = [
        call(image), call(conv("down", 2, order), "image"), call(pool("pool", order), "down"),
        call(conv("low", 5, order), "pool"),
        call(layer("UpSampling2D", "up", size=[2, 2]), "low"),
        call(merged, "up", "down"), call(norm, "joined"),
        call(layer("ZeroPadding2D", "pad", padding=[1, 2]), "norm"),
        call(conv("last", 4, order), "pad"),
    ]  # fmt: skip
    weights = {"down": [random(3, 3, 3, 2), random(2)], "low": [random(3, 3, 2, 5), random(5)],
               "last": [random(3, 3, 7, 4), random(4)]}  # fmt: skip
    gamma, beta, mean = random(7), random(7), random(7)
    variance = GENERATOR.uniform(0.5, 1, 7).astype("float32")
    arrays = {name: [kernel(w[0], order), w[1]] for name, w in weights.items()}
    arrays["norm"] = [gamma, beta, mean, variance]
    loaded = load(tmp_path, functional(layers, "image", "last"), arrays)
    x = random(2, 6, 4, 3)
    down = convolved(x, weights["down"])
    low = convolved(pooling(down, (2, 2), (2, 2), same=False), weights["low"])
    joined = np.concatenate([repeated(low, (2, 2)), down], axis=-1)
    normal = gamma * (joined - mean) / np.sqrt(variance + 1e-3) + beta
    expected = convolved(padded(normal, [(1, 1), (2, 2)]), weights["last"])
    check(loaded.model, x, expected, order)


def test_nested_models(tmp_path: Path) -> None:
    """An inner model without an order has that of the file; one with its own has its own."""
    silent = sequential([layer("UpSampling2D", "up", size=[2, 2]),
                         layer("Cropping2D", "crop", cropping=[[1, 0], [0, 1]])],
                        (2, 6, 5))  # fmt: skip
    frames = layer("TimeDistributed", "frames", layer=layer("ZeroPadding2D", "pad", padding=[1, 0]))
    last = sequential([conv("inner", 4, "tf"), layer("UpSampling2D", "up_inner", size=[1, 2])],
                      (11, 9, 2))  # fmt: skip
    image = layer("InputLayer", "image", batch_input_shape=[None, 3, 6, 5], input_dtype="float32")
    layers = [
        call(image), call(conv("first", 2, "th"), "image"),
        call({**silent, "name": "silent"}, "first"),
        call(layer("Permute", "moved", dims=[2, 3, 1]), "silent"),
        call({**last, "name": "last"}, "moved"),
        call(layer("Reshape", "split", target_shape=[1, 11, 18, 4]), "last"),
        call(frames, "split"),
    ]  # fmt: skip
    weights = {"first": [random(3, 3, 3, 2), random(2)], "last": [random(3, 3, 2, 4), random(4)]}
    arrays = {"first": [kernel(weights["first"][0], "th"), weights["first"][1]], "silent": [],
              "last": weights["last"]}  # fmt: skip
    x = random(2, 6, 5, 3)
    inner = repeated(convolved(x, weights["first"]), (2, 2))[:, 1:, :-1]
    inner = repeated(convolved(inner, weights["last"]), (1, 2))
    # The only layer outside of both has two orders to choose from, and no weights behind it.
    stored = functional(layers, "image", "frames")
    with pytest.raises(UnsupportedModelError, match=r"'pad'.*both orders"):
        load(tmp_path, stored, arrays)
    frames["config"]["layer"]["config"]["dim_ordering"] = "tf"
    loaded = load(tmp_path, stored, arrays)
    expected = padded(inner, [(1, 1), (0, 0)])[:, None]
    actual = np.asarray(loaded.model(np.moveaxis(x, -1, 1)))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", ["th", "tf"])
def test_weights_that_fit_in_one_order_only(order: str, tmp_path: Path) -> None:
    """A dense layer has a weight for each pixel; no other layer stores an order."""
    layers = [layer("ZeroPadding2D", "pad", padding=[1, 2]), layer("Flatten", "flat"),
              dense("out", 3)]  # fmt: skip
    x = random(2, 6, 5, 7)
    images = padded(x, [(1, 1), (2, 2)])
    images = np.moveaxis(images, -1, 1) if order == "th" else images
    weights = [random(images[0].size, 3), random(3)]
    loaded = load(tmp_path, sequential(layers, in_order((6, 5, 7), order)), {"out": weights})
    expected = images.reshape(2, -1) @ weights[0] + weights[1]
    check(loaded.model, x, expected, order)
    assert any("pad: channels" in n and "the weights do not fit otherwise" in n
               for n in loaded.notes)  # fmt: skip


def test_layers_that_a_program_forgot(tmp_path: Path) -> None:
    """With ``dim_ordering="tf"`` for each convolution only, the others pad as in Theano."""
    layers = [layer("ZeroPadding2D", "pad", padding=[1, 1]), conv("out", 3, "tf")]
    weights = [random(3, 3, 4, 3), random(3)]
    loaded = load(tmp_path, sequential(layers, (6, 5, 2)), {"pad": [], "out": weights})
    x = random(2, 6, 5, 2)
    expected = convolved(np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)]), weights)
    check(loaded.model, x, expected, "tf")
    assert any("pad: channels first" in note for note in loaded.notes)


@pytest.mark.parametrize("order", ["th", "tf"])
@pytest.mark.parametrize("source", ["input", "reshape"])
def test_shapes_of_images(source: str, order: str, tmp_path: Path) -> None:
    layers = [layer("UpSampling2D", "up", size=[2, 2]), layer("Flatten", "flat"), dense("out", 2)]
    shape = in_order((6, 5, 3), order)
    weights = [random(360, 2), random(2)]
    stored = sequential(layers, shape)
    if source == "reshape":
        layers = [layer("Reshape", "image", target_shape=shape), *layers]
        stored = sequential(layers, (90,))
    loaded = load(tmp_path, stored, {"out": weights})
    x = random(2, *shape)
    images = repeated(x, (2, 2)) if order == "tf" else x.repeat(2, axis=2).repeat(2, axis=3)
    expected = images.reshape(2, -1) @ weights[0] + weights[1]
    actual = loaded.model(x if source == "input" else x.reshape(2, -1))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
    assert any("as the shapes of the images show" in note for note in loaded.notes)


def test_unknown_orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the argument that decides, and the documentation how to add it to a file."""
    layers = [layer("UpSampling2D", "up", size=[2, 2])]
    with pytest.raises(UnsupportedModelError, match="'up' come first or last") as caught:
        load(tmp_path, sequential(layers, (6, 5, 7)), {})
    assert '"dim_ordering": "th"' in str(caught.value.hint)
    text = (Path(__file__).parents[3] / "docs" / "loading.md").read_text("utf-8")
    code = text.partition("### Channels of Keras 1")[2].partition("```python\n")[2]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.h5").rename("model.h5")
    exec(code.partition("```")[0], {})
    x = random(2, 5, 7, 6)
    check(load_model(audit_file(Path("model.h5"))).model, x, repeated(x, (2, 2)), "th")


def test_files_without_a_version(tmp_path: Path) -> None:
    """Neither the files of Keras before 1.0.8 nor layers without weights show it otherwise."""
    layers = [layer("ZeroPadding2D", "pad", padding=[1, 2]), pool("pool", "th")]
    loaded = load(tmp_path, sequential(layers, (7, 6, 4)), {}, version="")
    x = random(2, 6, 4, 7)
    expected = pooling(padded(x, [(1, 1), (2, 2)]), (2, 2), (2, 2), same=False)
    check(loaded.model, x, expected, "th")
