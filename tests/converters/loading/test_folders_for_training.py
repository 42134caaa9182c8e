"""SavedModels with signatures beside inference that train, or write and read checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from edgeattn.errors import UnsafeModelError, UnsupportedModelError, UsageError
from edgeattn.runners import open_runner
from edgeattn_converters.formats import tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

X = np.random.default_rng(3).normal(size=(4, 6, 3)).astype("float32")
TEXT = [tf.TensorSpec((), tf.string, "path")]


class Trained(tf.Module):
    """A recurrent model as for training on devices: inference, training, and checkpoints."""

    infer: Any
    train: Any
    save: Any
    restore: Any

    def __init__(self) -> None:
        super().__init__()
        inputs = keras.Input((6, 3))
        hidden = keras.layers.GRU(4, bias_initializer="glorot_normal")(inputs)
        self.model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
        self.rate = tf.constant([[0.5, 2.0]])
        spec = [tf.TensorSpec((None, 6, 3), name="x")]
        for name, takes in (("infer", spec), ("train", spec), ("save", TEXT), ("restore", TEXT)):
            method = tf.function(getattr(self, f"_{name}"), input_signature=takes)
            setattr(self, name, method)

    def _infer(self, x: Any) -> Any:
        return {"y": self.model(x) * self.rate}

    def _train(self, x: Any) -> Any:
        for weight in self.model.weights:
            weight.assign(weight * 0.5)
        return {"loss": tf.reduce_sum(self.model(x), axis=-1)}

    def _save(self, path: Any) -> Any:
        weights = self.model.weights
        values = [tf.convert_to_tensor(weight) for weight in weights]
        tf.raw_ops.Save(filename=path, tensor_names=[w.path for w in weights], data=values)
        return {"path": path}

    def _restore(self, path: Any) -> Any:
        weight = self.model.weights[0]
        value = tf.raw_ops.Restore(file_pattern=path, tensor_name=weight.path, dt=tf.float32)
        weight.assign(tf.ensure_shape(value, weight.shape))
        return {"value": value}


@pytest.fixture(scope="module")
def module() -> Trained:
    return Trained()


@pytest.fixture(scope="module")
def folder(module: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "model"
    names = ("infer", "train", "save", "restore")
    tf.saved_model.save(module, path, signatures={name: getattr(module, name) for name in names})
    return path


def test_the_signature_for_inference_converts(
    module: Trained, folder: Path, tmp_path: Path
) -> None:
    """Its weights are those of the folder: no other function of it has run."""
    loaded = load_model(audit_file(folder, signature="infer"))
    expected = module.infer(X)["y"].numpy()
    np.testing.assert_allclose(loaded.model({"x": X})["y"], expected, rtol=1e-5, atol=1e-6)
    assert any(
        "'restore', 'save', 'train'" in note and "may do more than compute" in note
        for note in loaded.notes
    )
    interface = interface_of(loaded.model)
    result = tflite.convert(loaded.model, interface, recipe_for("float32"), tmp_path / "m.tflite")
    runner = open_runner(tmp_path / "m.tflite", "tflite", result.inputs, result.outputs)
    np.testing.assert_allclose(runner.run({"x": X[:1]})["y"], expected[:1], rtol=1e-4, atol=1e-5)


def test_without_a_choice_the_signatures_are_listed(folder: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="'infer', 'restore', 'save', 'train'"):
        load_model(audit_file(folder))


@pytest.mark.parametrize(("name", "operation"), [("save", "Save"), ("restore", "Restore")])
def test_the_signature_itself_is_refused(folder: Path, name: str, operation: str) -> None:
    with pytest.raises(UnsafeModelError, match=f"the operation '{operation}'"):
        load_model(audit_file(folder, signature=name))


def test_serving_default_is_the_choice(module: Trained, tmp_path: Path) -> None:
    """Also if functions that are no signatures have the other operations."""
    tf.saved_model.save(module, tmp_path / "m", signatures=module.infer)
    loaded = load_model(audit_file(tmp_path / "m"))
    np.testing.assert_allclose(
        loaded.model({"x": X})["y"], module.infer(X)["y"], rtol=1e-5, atol=1e-6
    )
    assert any(note.startswith("Other functions of the folder") for note in loaded.notes)


def test_functions_that_restore_objects_are_checked(folder: Path, tmp_path: Path) -> None:
    """TensorFlow calls them when it loads a folder, whichever signature is used."""
    message = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    nodes = message.meta_graphs[0].object_graph_def.nodes
    [restore] = [child.node_id for child in nodes[0].children if child.local_name == "restore"]
    [model] = [child.node_id for child in nodes[0].children if child.local_name == "model"]
    nodes[model].saveable_objects["weights"].restore_function = restore
    nodes[model].saveable_objects["weights"].save_function = restore
    shutil.copytree(folder, tmp_path / "m")
    (tmp_path / "m/saved_model.pb").write_bytes(message.SerializeToString())
    with pytest.raises(UnsafeModelError, match="the operation 'Restore'"):
        load_model(audit_file(tmp_path / "m", signature="infer"))
    nodes[model].saveable_objects["weights"].restore_function = 10_000
    (tmp_path / "m/saved_model.pb").write_bytes(message.SerializeToString())
    with pytest.raises(UnsupportedModelError, match="is damaged: it has no object 10000"):
        load_model(audit_file(tmp_path / "m", signature="infer"))


@pytest.mark.parametrize("position", [-1, 10_000])
def test_damaged_folders_are_refused(folder: Path, tmp_path: Path, position: int) -> None:
    """Whatever their objects refer to: the first check already refused them."""
    message = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    nodes = message.meta_graphs[0].object_graph_def.nodes
    shutil.copytree(folder, tmp_path / "m")
    [signatures] = [child for child in nodes[0].children if child.local_name == "signatures"]
    for child in (nodes[signatures.node_id].children[0], signatures):
        child.node_id = position
        (tmp_path / "m/saved_model.pb").write_bytes(message.SerializeToString())
        with pytest.raises((UnsafeModelError, UnsupportedModelError, UsageError)):
            load_model(audit_file(tmp_path / "m", signature="infer"))
