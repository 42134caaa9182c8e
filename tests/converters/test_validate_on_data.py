"""``edgeattn validate --data`` with Keras as the reference, on a converted model."""

import json
import shutil

import keras
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import models
from edgeattn.bundle.manifest import MANIFEST, sha256
from edgeattn.layers import Attention

layers = keras.layers
STEPS = 6
MAP = "attention/look"
# The first value of the samples of which the planted fault makes the map uniform.
UNUSUAL = 3.0


def samples(count, seed):
    return np.random.default_rng(seed).standard_normal((count, STEPS, 4)).astype("float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Keras model with an output that never changes, and 200 samples, 7 of them unusual."""
    folder = tmp_path_factory.mktemp("data")
    inputs = keras.Input((STEPS, 4), name="x")
    states = layers.LSTM(5, return_sequences=True)(inputs)
    vector = Attention(units=4, name="look")(states)
    answer = layers.Dense(1, name="answer")(vector)
    dead = layers.Dense(1, activation="relu", name="dead")(vector)
    model = models.filled(keras.Model(inputs, [answer, dead]))
    kernel, _ = model.get_layer("dead").get_weights()
    model.get_layer("dead").set_weights([kernel, np.array([-50.0], "float32")])
    model.save(folder / "model.keras")
    x = np.clip(samples(200, 1), -2, 2)
    x[:70:10, 0, 0] = UNUSUAL
    truth = model.predict(x, verbose=0)[0]
    np.savez(folder / "test.npz", x=x, answer=truth)
    np.savez(folder / "samples.npz", x=np.clip(samples(20, 2), -2, 2))
    return folder


@pytest.fixture
def bundle(folder, edgeattn, tmp_path):
    shutil.copy(folder / "model.keras", tmp_path)
    shutil.copy(folder / "test.npz", tmp_path)
    command = ("convert", "model.keras", "--samples", folder / "samples.npz", "--format", "onnx")
    result = edgeattn(*command, "--scheme", "float32", "-o", "m.edge", "--json")
    assert result.code == 0
    warning = "output 'dead' of Keras is the same for all 20 samples (samples.npz)"
    assert result.document["warnings"] == [warning]
    return tmp_path / "m.edge"


def plant_uniform_maps(folder):
    """Make the map of samples that begin with UNUSUAL uniform in the ONNX file."""
    path = folder / "model.float32.onnx"
    model = onnx.load(path)
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["right map" if name == MAP else name for name in node.output]
        node.input[:] = ["right map" if name == MAP else name for name in node.input]
    constants = {
        "begin": np.array([0, 0], np.int64),
        "end": np.array([1, 1], np.int64),
        "axes": np.array([1, 2], np.int64),
        "last axis": np.array([2], np.int64),
        "unusual value": np.array(UNUSUAL, np.float32),
        "share": np.array(1 / STEPS, np.float32),
    }
    graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    graph.node.extend(
        [
            helper.make_node("Slice", ["x", "begin", "end", "axes"], ["first"]),
            helper.make_node("Squeeze", ["first", "last axis"], ["value"]),
            helper.make_node("Equal", ["value", "unusual value"], ["unusual"]),
            helper.make_node("Where", ["unusual", "share", "right map"], [MAP]),
        ]
    )
    assert graph.output[-1].type.tensor_type.elem_type == TensorProto.FLOAT
    onnx.save(model, path)
    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    manifest["artifacts"][0]["sha256"] = sha256(path)
    (folder / MANIFEST).write_text(json.dumps(manifest), "utf-8")


def test_seven_uniform_maps_of_200_fail_although_the_reference_passes(edgeattn, bundle):
    command = ("validate", bundle, "--data", "test.npz", "--jobs", 1, "--json")
    sound = edgeattn(*command).document
    (item,) = sound["artifacts"]
    assert item["task"]["reference"] == "Keras"
    assert item["stages"]["attention"] == "pass"
    assert {c["metric"] for c in item["checks"] if c.get("data") and c["output"] == MAP} >= {
        "max_abs_error",
        "jensen_shannon",
        "worst_jensen_shannon",
    }
    assert sound["warnings"] == [
        "output 'dead' of Keras is the same for all 20 samples (samples.npz)",
        "output 'dead' of Keras is the same for all 200 samples (test.npz)",
    ]
    plant_uniform_maps(bundle)
    (item,) = edgeattn(*command).document["artifacts"]
    failed = [check for check in item["checks"] if check["passed"] is False]
    # The operators that were added differ from those in the manifest.
    failed = [check for check in failed if check["metric"] != "manifest_differences"]
    assert {check["output"] for check in failed} == {MAP}
    assert {check.get("data") for check in failed} == {"test.npz"}
    assert (item["verdict"], item["stages"]["attention"]) == ("fail", "fail")
