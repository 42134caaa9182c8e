"""ONNX files in onnxruntime: batches, dtypes, malformed files."""

import sys
from dataclasses import replace

import artifacts
import numpy as np
import pytest
from artifacts import X, Y, dense, samples

from edgeattn.errors import ArtifactError, RuntimeUnavailableError
from edgeattn.runners import open_runner
from edgeattn.runners.onnx import ONNXRunner
from edgeattn.tensors import TensorSpec


@pytest.mark.parametrize("batch", [1, 3, 7, 11])
@pytest.mark.parametrize("as_deployed", [True, False])
def test_fixed_batch_sizes(tmp_path, batch, as_deployed):
    artifacts.write_dense_onnx(tmp_path / "m.onnx", batch=batch)
    x, y = (replace(spec, shape=(batch, *spec.shape[1:])) for spec in (X, Y))
    runner = open_runner(tmp_path / "m.onnx", "onnx", (x,), (y,), as_deployed=as_deployed)
    np.testing.assert_array_equal(runner.run({"x": samples(7)})["score"], dense(samples(7)))


def sizes_of_calls(runner):
    """A list that receives the batch size of every call of the session."""
    session, sizes = runner._session, []

    class Counting:
        def run(self, names, feeds):
            sizes.append(len(feeds["x"]))
            return session.run(names, feeds)

    runner._session = Counting()
    return sizes


@pytest.mark.parametrize(("as_deployed", "calls"), [(True, [1] * 7), (False, [7])])
def test_deployed_artifacts_take_one_sequence_per_call(tmp_path, as_deployed, calls):
    artifacts.write_dense_onnx(tmp_path / "m.onnx")
    runner = open_runner(tmp_path / "m.onnx", "onnx", (X,), (Y,), as_deployed=as_deployed)
    sizes = sizes_of_calls(runner)
    np.testing.assert_array_equal(runner.run({"x": samples(7)})["score"], dense(samples(7)))
    assert sizes == calls


@pytest.mark.parametrize(("batch", "calls"), [(None, [2, 3, 2]), (4, [4, 4])])
def test_requested_batch_sizes_apply_to_a_free_batch_axis(tmp_path, batch, calls):
    artifacts.write_dense_onnx(tmp_path / "m.onnx", batch=batch)
    x, y = (replace(spec, shape=(batch, *spec.shape[1:])) for spec in (X, Y))
    runner = open_runner(tmp_path / "m.onnx", "onnx", (x,), (y,), as_deployed=True)
    sizes = sizes_of_calls(runner)
    scores = runner.run({"x": samples(7)}, (2, 3))["score"]
    np.testing.assert_array_equal(scores, dense(samples(7)))
    assert sizes == calls


def test_booleans_and_integers(tmp_path):
    artifacts.write_kinds_onnx(tmp_path / "m.onnx")
    outputs = (TensorSpec("best", (None,), "int64"), TensorSpec("sign", (None, 3), "bool"))
    x = samples(131)
    got = ONNXRunner(tmp_path / "m.onnx", (X,), outputs).run({"x": x})
    assert [(name, array.dtype.name) for name, array in got.items()] == [
        ("best", "int64"),
        ("sign", "bool"),
    ]
    np.testing.assert_array_equal(got["best"], x.argmax(1))
    np.testing.assert_array_equal(got["sign"], x > 0)


def test_outputs_are_fetched_by_name(tmp_path):
    artifacts.write_dense_onnx(tmp_path / "m.onnx", outputs=("score", "other"))
    outputs = (replace(Y, name="other"), Y)
    got = ONNXRunner(tmp_path / "m.onnx", (X,), outputs).run({"x": samples()})
    np.testing.assert_array_equal(got["other"], -dense(samples()))
    np.testing.assert_array_equal(got["score"], dense(samples()))


def test_missing_tensors(tmp_path):
    artifacts.write_dense_onnx(tmp_path / "m.onnx")
    for inputs, outputs in [((replace(X, name="z"),), (Y,)), ((X,), (replace(Y, name="z"),))]:
        runner = ONNXRunner(tmp_path / "m.onnx", inputs, outputs)
        with pytest.raises(ArtifactError, match="failed during inference"):
            runner.run({"x": samples(), "z": samples()})


@pytest.mark.parametrize("content", [b"", b"garbage" * 999])
def test_malformed_files(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"(cannot load m\.onnx|m\.onnx was refused)"):
        ONNXRunner(tmp_path / "m.onnx", (X,), (Y,))


def test_a_missing_runtime(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeUnavailableError) as caught:
        ONNXRunner(tmp_path / "m.onnx", (X,), (Y,))
    assert "edgeattn[onnx]" in caught.value.hint
