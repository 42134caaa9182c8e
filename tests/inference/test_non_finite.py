"""NaN and infinity in samples and outputs are errors of ``load`` and ``run``, unless allowed."""

from __future__ import annotations

import io

import artifacts
import numpy as np
import pytest
from artifacts import X, artifact, dense, samples, save_onnx, write_bundle
from long_parameters import only
from onnx import TensorProto, helper

import edgeattn
from edgeattn.errors import ArtifactError, SampleError
from edgeattn.inference.run import RunOptions, run_bundle, stream_bundle
from edgeattn.tensors import TensorSpec

INVALID = [np.nan, np.inf, -np.inf]
ROW = np.float32([1, 2, 3])


@pytest.fixture(params=["tflite", "onnx"])
def format(request):
    return request.param


@pytest.mark.parametrize("value", [*INVALID, 1e300])
def test_inputs_of_a_model(dense_bundle, format, value):
    model = edgeattn.load(dense_bundle.path, format=format)
    for sample in ([1.0, value, 3.0], np.array([[1.0, value, 3.0]]), {"x": [1.0, value, 3.0]}):
        with pytest.raises(SampleError, match="Input x has values that are NaN, infinite or") as e:
            model(sample)
        assert "allow_non_finite=True" in e.value.hint
    np.testing.assert_array_equal(model(ROW)["score"], dense(ROW[None]))


def test_allowed_inputs_of_a_model(dense_bundle, format):
    model = edgeattn.load(dense_bundle.path, format=format, allow_non_finite=True)
    assert np.isnan(model([1.0, np.nan, 3.0])["score"]).all()


@pytest.fixture
def int8_bundle(tmp_path):
    folder = tmp_path / "same.edge"
    folder.mkdir()
    artifacts.write_int8_tflite(folder / "same.tflite")
    specs = {"inputs": (artifacts.INT8_X,), "outputs": (artifacts.INT8_Y,)}
    entry = artifact(folder / "same.tflite", scheme="int8", **specs)
    return write_bundle(folder, [entry], {"input/x": samples(1), "output/same": samples(1)})


@pytest.mark.parametrize("value", INVALID)
def test_quantized_inputs_of_a_model(int8_bundle, value):
    """They would become ordinary numbers."""
    with pytest.raises(SampleError, match="Input x has values that are NaN or infinite"):
        edgeattn.load(int8_bundle.path)([1.0, value, 3.0])
    model = edgeattn.load(int8_bundle.path, allow_non_finite=True)
    if np.isnan(value):
        with pytest.raises(SampleError, match="is quantized and cannot represent NaN"):
            model([1.0, value, 3.0])
    else:
        # real = (integer + 3) / 2 with integers of -128 to 127
        limit = 65 if value > 0 else -62.5
        np.testing.assert_array_equal(model([1.0, value, 3.0])["same"], [[1, limit, 3]])


@pytest.mark.parametrize("value", only(INVALID, INVALID[0]))
def test_quantized_inputs_of_runs(int8_bundle, tmp_path, value):
    file, target = tmp_path / "x.npy", tmp_path / "out.npz"
    np.save(file, np.float32([[1, value, 3]]))

    def streamed(**options):
        source = io.BufferedReader(io.BytesIO(f"1 {value} 3\n".encode()))
        return next(stream_bundle(int8_bundle.path, source, RunOptions(**options)))

    with pytest.raises(SampleError, match="NaN or infinite"):
        run_bundle(int8_bundle.path, file, target)
    assert "NaN or infinite" in streamed().message
    if np.isnan(value):
        with pytest.raises(SampleError, match="cannot represent NaN"):
            run_bundle(int8_bundle.path, file, target, RunOptions(allow_non_finite=True))
        assert "cannot represent NaN" in streamed(allow_non_finite=True).message
        assert not target.exists()
    else:
        expected = [[1, 65 if value > 0 else -62.5, 3]]
        result = run_bundle(int8_bundle.path, file, target, RunOptions(allow_non_finite=True))
        np.testing.assert_array_equal(result.outputs["same"], expected)
        np.testing.assert_array_equal(streamed(allow_non_finite=True)["same"], expected)


@pytest.mark.parametrize("value", INVALID)
def test_integer_inputs(tmp_path, value):
    spec = TensorSpec("tokens", (None, 2), "int32")
    write_identity(tmp_path / "m.onnx", TensorProto.INT32, "tokens", 2)
    entry = artifact(tmp_path / "m.onnx", inputs=(spec,), outputs=(renamed(spec),))
    tokens = np.int32([[1, 2]])
    write_bundle(tmp_path, [entry], {"input/tokens": tokens, "output/same": tokens})
    with pytest.raises(SampleError, match="cannot be represented in int32"):
        edgeattn.load(tmp_path, allow_non_finite=True)([1.0, value])
    source = io.BufferedReader(io.BytesIO(f"1 {value}\n".encode()))
    assert "takes int32 values" in next(stream_bundle(tmp_path, source)).message


def renamed(spec):
    return TensorSpec("same", spec.shape, spec.dtype)


def write_identity(path, dtype, name, width):
    values = [helper.make_tensor_value_info(n, dtype, ["n", width]) for n in (name, "same")]
    node = helper.make_node("Identity", [name], ["same"])
    save_onnx(path, [node], values[:1], values[1:], {})


@pytest.fixture
def overflowing(tmp_path, format):
    """``score`` is infinite for inputs of 1e38, and finite for small ones."""
    folder = tmp_path / "overflowing.edge"
    return artifacts.write_dense_bundle(folder, formats=(format,))


LARGE = np.float32([0, 1e38, 0])  # times 4


def test_outputs_of_a_model(overflowing):
    with pytest.raises(ArtifactError, match="Output score has values that are NaN or infinite"):
        edgeattn.load(overflowing.path)(LARGE)
    model = edgeattn.load(overflowing.path, allow_non_finite=True)
    assert np.isinf(model(LARGE)["score"]).any()


def test_outputs_of_runs(overflowing, tmp_path, edgeattn):
    np.save(tmp_path / "x.npy", np.stack([ROW, LARGE, ROW]))
    result = edgeattn("run", overflowing.path, "--input", "x.npy")
    assert result.code == 3
    assert "Sample 1: Output score has values that are NaN or infinite." in result.err
    assert not (tmp_path / "x.outputs.npz").exists()
    assert edgeattn("run", overflowing.path, "--input", "x.npy", "--allow-non-finite").code == 0
    source = io.BufferedReader(io.BytesIO(b"0 1e38 0\n1 2 3\n"))
    error, outputs = stream_bundle(overflowing.path, source)
    assert isinstance(error, ArtifactError)
    np.testing.assert_array_equal(outputs["score"], dense(ROW[None]))


def test_samples_of_a_file(dense_bundle, tmp_path):
    np.save(tmp_path / "x.npy", np.float32([[1, 2, 3], [1, np.nan, 3]]))
    with pytest.raises(SampleError, match=r"NaN or infinite, the first at \(1, 1\)"):
        run_bundle(dense_bundle.path, tmp_path / "x.npy", tmp_path / "out.npz")
    result = run_bundle(
        dense_bundle.path,
        tmp_path / "x.npy",
        tmp_path / "out.npz",
        RunOptions(allow_non_finite=True),
    )
    assert np.isnan(result.outputs["score"][1]).all()


def test_infinity_does_not_become_a_carried_state(tmp_path):
    """``total = initial + x`` overflows once; the next sample starts from the total before it."""
    initial = TensorSpec("initial", (None, 3), "float32", state="total")
    total = TensorSpec("total", (None, 3), "float32")
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3])
        for name in ("x", "initial", "total")
    ]
    node = helper.make_node("Add", ["x", "initial"], ["total"])
    save_onnx(tmp_path / "m.onnx", [node], values[:2], values[2:], {})
    entry = artifact(tmp_path / "m.onnx", inputs=(X, initial), outputs=(total,))
    x = samples(1)
    arrays = {"input/x": x, "input/initial": 0 * x, "output/total": x}
    write_bundle(tmp_path, [entry], arrays)
    most = np.finfo(np.float32).max
    model = edgeattn.load(tmp_path, carry_states=True)
    model([most, 0, 0])
    with pytest.raises(ArtifactError):
        model([most, 0, 0])
    np.testing.assert_array_equal(model([0, 1, 0])["total"], np.float32([[most, 1, 0]]))
    source = io.BufferedReader(io.BytesIO(f"{most} 0 0\n{most} 0 0\n0 1 0\n".encode()))
    _, error, last = stream_bundle(tmp_path, source, RunOptions(carry_states=True))
    assert isinstance(error, ArtifactError)
    np.testing.assert_array_equal(last["total"], np.float32([[most, 1, 0]]))
