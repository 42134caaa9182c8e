"""Models in memory and arrays as arguments."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

import edgeattn
from edgeattn.api.sources import (
    Workspace,
    default_output,
    is_keras_model,
    keras_file,
    model_name,
    sample_file,
    workspace_for,
)


def class_of(package, save):
    """A class of models as ``package`` defines it."""
    return type("Model", (), {"__module__": f"{package}.src.models", "save": save})


def failing(self, path):
    raise ValueError("layer x has no get_config")


def test_models_are_recognized_without_keras():
    for package in ("keras", "tf_keras"):
        model = type("Mine", (class_of(package, failing),), {"__module__": "mine"})()
        assert is_keras_model(model)
    for value in ("m.h5", 3, None, class_of("torch", failing)()):
        assert not is_keras_model(value)


@pytest.mark.long
def test_results_as_models(dense_bundle, tmp_path):
    """Their model is their file, which remains, and bundles are written beside theirs."""

    class Result:
        def __init__(self, bundle, workspace):
            self.bundle, self._workspace = bundle, workspace
            self.model_file = workspace.path / "small.keras"

    result = Result(dense_bundle, Workspace())
    result.model_file.write_text("a model")
    file = result.model_file
    assert keras_file(result, Workspace()) == file
    assert default_output(result, file, ".tuned.edge") == tmp_path / "small.tuned.edge"
    assert default_output(str(file), file, ".tuned.edge") is None
    kept = workspace_for(result)
    del result
    gc.collect()
    assert file.read_text() == "a model"
    del kept
    gc.collect()
    assert not file.exists()


@pytest.mark.parametrize(("package", "suffix"), [("keras", ".keras"), ("tf_keras", ".h5")])
def test_a_model_is_saved_to_a_temporary_file(package, suffix):
    model = class_of(package, lambda self, path: Path(path).touch())()
    model.name = "two words/é"
    workspace = Workspace()
    path = keras_file(model, workspace)
    assert path == workspace.path / f"two_words_é{suffix}"
    folder = workspace.path
    assert path.is_file()
    del workspace
    gc.collect()
    assert not folder.exists()


def test_a_model_that_cannot_be_saved():
    with pytest.raises(edgeattn.UsageError) as error:
        keras_file(class_of("keras", failing)(), Workspace())
    assert error.value.message == (
        "Keras cannot save the model: ValueError: layer x has no get_config"
    )
    assert error.value.hint == "Save the model to a file, and pass its path."


def test_models_without_a_name():
    assert [model_name(name) for name in (object(), type("M", (), {"name": "//"})())] == [
        "model",
        "model",
    ]


def test_names_of_arrays_in_a_file_of_samples():
    x, y = np.zeros((3, 2), "f"), np.arange(3)
    expected = [
        (x, ["x"]),
        (x.tolist(), ["x"]),
        ({"a": x, "b": x}, ["a", "b"]),
        ((x, y), ["x", "y"]),
        (({"a": x, "b": x}, {"out": y}), ["a", "b", "y/out"]),
    ]
    for values, names in expected:
        workspace = Workspace()
        with np.load(sample_file(values, workspace, "data")) as arrays:
            assert sorted(arrays) == names
    assert sample_file(None, Workspace(), "data") is None
    assert str(sample_file("x.npy", Workspace(), "data")) == "x.npy"


@pytest.mark.long
@pytest.mark.parametrize("package", ["keras", "tf_keras"])
def test_conversion_of_a_model_in_memory(package, tmp_path, monkeypatch):
    """The outputs of the file are those that ``predict`` of the model has in this process."""
    pytest.importorskip("edgeattn_converters")
    keras = pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    inputs = keras.Input((4, 2))
    outputs = keras.layers.Dense(3)(keras.layers.LSTM(2)(inputs))
    model = keras.Model(inputs, outputs, name="small")
    x = np.random.default_rng(0).normal(size=(20, 4, 2)).astype("float32")
    expected = model.predict(x, verbose=0)
    result = edgeattn.convert(model, formats="onnx", schemes="float32", samples=x[:8])
    assert (result.verdict, str(result.path)) == ("pass", "small.edge")
    assert result.to_dict()["recommended"]["path"] == "small.float32.onnx"
    (actual,) = edgeattn.run(result, x).outputs.values()
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    # The model is still known, although it is not beside the bundle.
    validated = edgeattn.validate(result, data=(x, expected))
    assert validated.artifacts[0].task.reference_name == "Keras"
    assert edgeattn.inspect(model).to_dict()["parameters"] == model.count_params()
    # The next steps take the result, also when only the last one refers to the model.
    result = edgeattn.convert(result, formats="onnx", schemes="float16", samples=x[:8], force=True)
    gc.collect()
    assert [item.scheme for item in result.bundle.manifest.artifacts] == ["float16"]
    tuned = edgeattn.tune(
        result, (x, expected), formats="onnx", schemes="float32", samples=x[:8], max_drop=0.5
    )
    assert str(tuned.bundle.path) == "small.tuned.edge"
    (actual,) = edgeattn.run(tuned, x).outputs.values()
    np.testing.assert_allclose(actual, expected, atol=1e-5)
