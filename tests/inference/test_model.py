"""``edgeattn.load``: a bundle as a function whose arrays are made once."""

from __future__ import annotations

import artifacts
import numpy as np
import pytest
from artifacts import artifact, dense, samples, write_bundle

import edgeattn


@pytest.fixture(params=["tflite", "onnx"])
def model(request, dense_bundle):
    return edgeattn.load(dense_bundle.path, format=request.param)


def test_what_it_answers(model):
    for row in samples(5):
        np.testing.assert_array_equal(model(row)["score"], dense(row[None]))
        np.testing.assert_array_equal(model(row[None])["score"], dense(row[None]))
        np.testing.assert_array_equal(model({"x": row})["score"], dense(row[None]))
    assert model.runtime.split()[0] in ("ai-edge-litert", "onnxruntime")


def test_the_arrays_are_the_same_ones(model):
    first, second = samples(2)
    answer = model(first)
    array = answer["score"]
    kept = array.copy()
    assert model(second) is answer
    assert answer["score"] is array
    assert not np.array_equal(array, kept)


def test_the_sample_may_be_a_list_or_of_wider_floats(model):
    want = dense(np.float32([[1, 2, 3]]))
    np.testing.assert_array_equal(model([1, 2, 3])["score"], want)
    np.testing.assert_array_equal(model(np.array([1.0, 2.0, 3.0]))["score"], want)


@pytest.mark.parametrize("shape", [(), (1,), (2,), (2, 3), (1, 1, 3)])
def test_a_sample_of_another_shape(model, shape):
    with pytest.raises(edgeattn.SampleError, match=r"takes one sample of shape \(3,\)"):
        model(np.zeros(shape, np.float32))


def test_an_input_that_is_missing(model):
    with pytest.raises(edgeattn.SampleError, match="is missing: there is 'y'"):
        model({"y": np.zeros(3, np.float32)})


def test_quantized_ends_are_real_numbers(tmp_path):
    artifacts.write_int8_tflite(tmp_path / "same.tflite")
    made = artifact(
        tmp_path / "same.tflite",
        scheme="int8",
        inputs=(artifacts.INT8_X,),
        outputs=(artifacts.INT8_Y,),
    )
    x = np.float32([[0.5, 1.0, -2.5]])
    write_bundle(tmp_path, [made], {"input/x": x, "output/same": x})
    model = edgeattn.load(tmp_path)
    # real = (integer + 3) / 2 with integers of -128 to 127; 0.26 / 0.5 rounds to 1 step.
    np.testing.assert_array_equal(
        model(np.float32([0.26, 1000, -1000]))["same"], [[0.5, 65, -62.5]]
    )
    assert model(x)["same"].dtype == np.float32


def test_every_sample_starts_from_a_clean_state(tmp_path):
    artifacts.write_counter_tflite(tmp_path / "counter.tflite")
    made = artifact(
        tmp_path / "counter.tflite",
        inputs=(artifacts.COUNTER_X,),
        outputs=(artifacts.COUNTER_Y,),
    )
    x = np.ones((1, 1), np.float32)
    write_bundle(tmp_path, [made], {"input/x": x, "output/total": x})
    model = edgeattn.load(tmp_path)
    assert [float(model(x)["total"][0, 0]) for _ in range(3)] == [1.0, 1.0, 1.0]


def test_a_bundle_that_was_changed(dense_bundle):
    file = dense_bundle.artifact_path(dense_bundle.manifest.artifacts[0])
    file.write_bytes(file.read_bytes() + b"!")
    with pytest.raises(edgeattn.BundleError, match="differs from the manifest"):
        edgeattn.load(dense_bundle.path)


def test_nothing_that_fits(dense_bundle):
    with pytest.raises(edgeattn.BundleError, match="no artifact for int8"):
        edgeattn.load(dense_bundle.path, scheme="int8")
