"""``edgeattn.load``: a bundle as a function of one sample."""

from __future__ import annotations

import artifacts
import numpy as np
import pytest
from artifacts import artifact, dense, samples, write_bundle

import edgeattn


@pytest.fixture(params=["tflite", "onnx"])
def model(request, dense_bundle):
    return edgeattn.load(dense_bundle.path, format=request.param)


def test_outputs_equal_those_of_the_layer(model):
    for row in samples(5):
        np.testing.assert_array_equal(model(row)["score"], dense(row[None]))
        np.testing.assert_array_equal(model(row[None])["score"], dense(row[None]))
        np.testing.assert_array_equal(model({"x": row})["score"], dense(row[None]))
    assert model.runtime.split()[0] in ("ai-edge-litert", "onnxruntime")


def test_every_call_returns_the_same_arrays(model):
    first, second = samples(2)
    outputs = model(first)
    array = outputs["score"]
    copy = array.copy()
    assert model(second) is outputs
    assert outputs["score"] is array
    assert not np.array_equal(array, copy)


def test_lists_and_float64_are_accepted(model):
    expected = dense(np.float32([[1, 2, 3]]))
    np.testing.assert_array_equal(model([1, 2, 3])["score"], expected)
    np.testing.assert_array_equal(model(np.array([1.0, 2.0, 3.0]))["score"], expected)


@pytest.mark.parametrize("shape", [(), (1,), (2,), (2, 3), (1, 1, 3)])
def test_samples_of_other_shapes(model, shape):
    with pytest.raises(edgeattn.SampleError, match=r"expected one sample of shape \(3,\)"):
        model(np.zeros(shape, np.float32))


def test_a_missing_input(model):
    with pytest.raises(edgeattn.SampleError, match=r"is missing\. Inputs of the sample: 'y'"):
        model({"y": np.zeros(3, np.float32)})


def test_quantized_inputs_and_outputs_are_real_numbers(tmp_path):
    artifacts.write_int8_tflite(tmp_path / "same.tflite")
    entry = artifact(
        tmp_path / "same.tflite",
        scheme="int8",
        inputs=(artifacts.INT8_X,),
        outputs=(artifacts.INT8_Y,),
    )
    x = np.float32([[0.5, 1.0, -2.5]])
    write_bundle(tmp_path, [entry], {"input/x": x, "output/same": x})
    model = edgeattn.load(tmp_path)
    # real = (integer + 3) / 2 with integers of -128 to 127; 0.26 / 0.5 rounds to 1 step.
    np.testing.assert_array_equal(
        model(np.float32([0.26, 1000, -1000]))["same"], [[0.5, 65, -62.5]]
    )
    assert model(x)["same"].dtype == np.float32


def test_variables_are_reset_for_every_sample(tmp_path):
    artifacts.write_counter_tflite(tmp_path / "counter.tflite")
    entry = artifact(
        tmp_path / "counter.tflite",
        inputs=(artifacts.COUNTER_X,),
        outputs=(artifacts.COUNTER_Y,),
    )
    x = np.ones((1, 1), np.float32)
    write_bundle(tmp_path, [entry], {"input/x": x, "output/total": x})
    model = edgeattn.load(tmp_path)
    assert [float(model(x)["total"][0, 0]) for _ in range(3)] == [1.0, 1.0, 1.0]


def test_a_changed_bundle_is_refused(dense_bundle):
    file = dense_bundle.artifact_path(dense_bundle.manifest.artifacts[0])
    file.write_bytes(file.read_bytes() + b"!")
    with pytest.raises(edgeattn.BundleError, match="differs from the manifest"):
        edgeattn.load(dense_bundle.path)


def test_no_matching_artifact(dense_bundle):
    with pytest.raises(edgeattn.BundleError, match="no artifact for int8"):
        edgeattn.load(dense_bundle.path, scheme="int8")
