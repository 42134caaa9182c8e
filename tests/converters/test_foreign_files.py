"""``edgeattn validate`` of files that other converters wrote, with Keras or arrays to compare."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from corpus.routes import in_this_process

import models
from edgeattn.validation.foreign_file import ForeignFile

layers = keras.layers
STEPS, FEATURES = 5, 3


@pytest.fixture(scope="module")
def model() -> Any:
    """Two outputs of one shape, which only their names or their order tell apart."""
    x = keras.Input((STEPS, FEATURES), name="x")
    hidden = layers.Dense(100, activation="relu")(layers.Flatten()(x))
    outputs = [layers.Dense(2, name=name)(hidden) for name in ("second", "first")]
    return models.filled(keras.Model(x, outputs))


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as ``m.keras``, and as the stock converters write it."""
    import tensorflow as tf
    import tf2onnx

    folder = tmp_path_factory.mktemp("stored")
    model.save(folder / "m.keras")
    model.export(folder / "exported", verbose=False)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    (folder / "stock.tflite").write_bytes(converter.convert())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    (folder / "dynamic.tflite").write_bytes(converter.convert())
    signature = [tf.TensorSpec((None, STEPS, FEATURES), tf.float32, name="input")]
    function = tf.function(lambda x: model(x), input_signature=signature)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=18)
    (folder / "stock.onnx").write_bytes(proto.SerializeToString())
    other = keras.models.clone_model(model)
    other.set_weights([weight * 1.01 for weight in model.get_weights()])
    wrong = tf.lite.TFLiteConverter.from_keras_model(other).convert()
    (folder / "wrong.tflite").write_bytes(wrong)
    x = np.random.default_rng(3).normal(size=(20, STEPS, FEATURES)).astype("float32")
    np.savez(folder / "x.npz", x=x)
    second, first = model.predict(x, verbose=0)
    arrays = {"input/x": x, "output/second": second, "output/first": first}
    np.savez(folder / "reference.npz", **arrays)
    return folder


@pytest.mark.parametrize(
    ("file", "scheme", "data"),
    [pytest.param("stock.tflite", "float32", True, marks=pytest.mark.long),
     ("stock.onnx", "float32", False), ("dynamic.tflite", "dynamic_int8", True)],
)  # fmt: skip
def test_stock_files_with_the_keras_file(
    folder: Path, edgeattn: Callable[..., Any], file: str, scheme: str, data: bool
) -> None:
    command = ["validate", folder / file, "--model", folder / "m.keras", "--jobs", 1, "--json"]
    with in_this_process():
        result = edgeattn(*command, *(["--data", folder / "x.npz"] if data else []))
    assert result.code == 0, result.err
    [artifact] = result.document["artifacts"]
    assert (artifact["scheme"], artifact["verdict"]) == (scheme, "pass")
    compared = {c["output"] for c in artifact["checks"] if c["metric"] == "samples_max_abs_error"}
    assert compared == {"first", "second"}


@pytest.mark.parametrize(("file", "code"), [("stock.tflite", 0), ("wrong.tflite", 1)])
def test_files_with_an_exported_folder(
    folder: Path, edgeattn: Callable[..., Any], file: str, code: int
) -> None:
    command = ["validate", folder / file, "--model", folder / "exported", "--jobs", 1, "--json"]
    with in_this_process():
        result = edgeattn(*command, "--data", folder / "x.npz")
    assert result.code == code, result.err


def test_a_wrong_file_fails(folder: Path, edgeattn: Callable[..., Any]) -> None:
    with in_this_process():
        result = edgeattn("validate", folder / "wrong.tflite", "--model", folder / "m.keras")
    assert (result.code, "Verdict: fail" in result.out) == (1, True)
    assert "the limits are those of float32" in result.err


@pytest.mark.parametrize(
    ("file", "code"), [("stock.tflite", 0), ("stock.onnx", 0), ("wrong.tflite", 1)]
)
def test_files_with_arrays(
    folder: Path, edgeattn: Callable[..., Any], file: str, code: int
) -> None:
    result = edgeattn("validate", folder / file, "--reference", folder / "reference.npz")
    assert result.code == code, result.err
    assert "Compared with reference.npz on 20 samples" in result.out


def stock_onnx(model: Any, path: Path, *shapes: tuple[int | None, ...]) -> Path:
    """The file that tf2onnx writes of a model for inputs of these shapes."""
    import tensorflow as tf
    import tf2onnx

    signature = [
        tf.TensorSpec((1, *shape), tf.float32, name=tensor.name)
        for tensor, shape in zip(model.inputs, shapes, strict=True)
    ]
    function = tf.function(lambda *x: model(list(x)), input_signature=signature)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=18)
    path.write_bytes(proto.SerializeToString())
    return path


def free_model(path: Path) -> Any:
    """A sequence of any length, and an image of any size; two sequences would be swapped."""
    a, b = keras.Input((None, 3), name="a"), keras.Input((None, None, 2), name="b")
    summed = layers.Dense(2)(layers.GlobalMaxPooling1D()(a))
    pooled = layers.GlobalMaxPooling2D()(layers.Conv2D(2, 3)(b))
    model = models.filled(keras.Model([a, b], layers.Add(name="y")([summed, pooled])))
    model.save(path)
    return model


@pytest.mark.long
def test_sizes_of_inputs(tmp_path: Path) -> None:
    model = free_model(tmp_path / "m.keras")
    shapes = ((7, 3), (5, 11, 2))
    stored = ForeignFile.read(stock_onnx(model, tmp_path / "m.onnx", *shapes), "onnx")
    assert stored.sizes() == {"lengths": (("a", 7),), "shapes": (("b", (5, 11, 2)),)}
    free = stock_onnx(model, tmp_path / "free.onnx", (None, 3), (5, 11, 2))
    assert ForeignFile.read(free, "onnx").sizes() == {}


@pytest.mark.long
def test_inputs_of_different_sizes(tmp_path: Path, edgeattn: Callable[..., Any]) -> None:
    """The file shows them; the Keras file leaves them free."""
    model = free_model(tmp_path / "m.keras")
    file = stock_onnx(model, tmp_path / "m.onnx", (7, 3), (5, 11, 2))
    command = ["validate", file, "--model", tmp_path / "m.keras", "--jobs", 1, "--json"]
    with in_this_process():
        result = edgeattn(*command)
    assert result.code == 0, result.err
    free = stock_onnx(model, tmp_path / "free.onnx", (None, 3), (5, 11, 2))
    with in_this_process():
        result = edgeattn("validate", free, "--model", tmp_path / "m.keras")
    assert result.code == 2
    assert "their sizes are free" in result.err


def test_sequences_of_any_length(edgeattn: Callable[..., Any], tmp_path: Path) -> None:
    """The free axes of a TFLite file get the lengths of the samples."""
    import tensorflow as tf

    x = keras.Input((None, FEATURES), name="x")
    model = models.filled(keras.Model(x, layers.Conv1D(2, 3, padding="causal", name="y")(x)))
    (tmp_path / "m.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    values = np.random.default_rng(1).normal(size=(4, 7, FEATURES)).astype("float32")
    outputs = model.predict(values, verbose=0)
    np.savez(tmp_path / "r.npz", **{"input/x": values, "output/y": outputs})
    result = edgeattn("validate", "m.tflite", "--reference", "r.npz")
    assert result.code == 0, result.out + result.err
    np.savez(tmp_path / "r.npz", **{"input/x": values, "output/y": outputs + 1e-3})
    assert edgeattn("validate", "m.tflite", "--reference", "r.npz").code == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no bundle"),
        (["--reference", "none.npz"], "no such file"),
        (["--reference", "reference.npz", "--model", "m.keras"], "exclude each other"),
        (["--reference", "reference.npz", "--data", "x.npz"], "exclude each other"),
        (["--reference", "x.npz"], "no reference: its arrays are x"),
        (["--reference", "other.npz"], "without the batch axis differ"),
        (["--reference", "reference.npz", "--explain"], "--explain has no effect"),
        (["--reference", "reference.npz", "--scheme", "int8", "--scheme", "float32"], "one file"),
    ],
)
def test_mistakes(
    folder: Path,
    edgeattn: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
) -> None:
    with np.load(folder / "reference.npz") as arrays:
        np.savez(folder / "other.npz", **{k: v[..., :2] for k, v in arrays.items()})
    monkeypatch.chdir(folder)
    result = edgeattn("validate", "stock.tflite", *options)
    assert (result.code, message in result.err) == (2, True), result.err


def test_reference_of_a_bundle(edgeattn: Callable[..., Any], dense_bundle: Any) -> None:
    result = edgeattn("validate", dense_bundle.path, "--reference", "r.npz")
    assert (result.code, "no effect on a bundle" in result.err) == (2, True)
