"""TFLite files in their runtime: variables, batches, quantization, malformed files."""

import builtins
import importlib.metadata
from dataclasses import replace

import artifacts
import numpy as np
import pytest
from artifacts import COUNTER_X, COUNTER_Y, X, Y, dense, samples

from edgeattn.errors import ArtifactError, RuntimeUnavailableError
from edgeattn.runners import open_runner
from edgeattn.runners.tflite import TFLiteRunner

NUMBERS = np.arange(1, 6, dtype=np.float32)[:, None]


def test_variables_are_reset_unless_run_as_deployed(tmp_path):
    artifacts.write_counter_tflite(tmp_path / "m.tflite")

    def totals(**options):
        runner = open_runner(tmp_path / "m.tflite", "tflite", (COUNTER_X,), (COUNTER_Y,), **options)
        return [runner.run({"x": NUMBERS})["total"].reshape(-1).tolist() for _ in range(2)]

    assert totals() == [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]
    # As in a simple program on a device: variables keep their values between calls.
    assert totals(as_deployed=True) == [[1, 3, 6, 10, 15], [16, 18, 21, 25, 30]]


@pytest.mark.parametrize("batch", [1, 3, 7, 11])
def test_fixed_batch_sizes(tmp_path, batch):
    artifacts.write_dense_tflite(tmp_path / "m.tflite", batch=batch)
    x, y = (replace(spec, shape=(batch, *spec.shape[1:])) for spec in (X, Y))
    got = TFLiteRunner(tmp_path / "m.tflite", (x,), (y,)).run({"x": samples(7)})["score"]
    np.testing.assert_array_equal(got, dense(samples(7)))


def test_quantized_inputs_and_outputs_are_real_numbers(tmp_path):
    artifacts.write_int8_tflite(tmp_path / "m.tflite")
    runner = TFLiteRunner(tmp_path / "m.tflite", (artifacts.INT8_X,), (artifacts.INT8_Y,))
    got = runner.run({"x": np.array([[1.0, 2.6, 1000.0], [0.0, -1000.0, 0.25]])})["same"]
    assert got.dtype == np.float32
    # Steps of a half, from (-128 + 3) / 2 to (127 + 3) / 2; 0.25 is a tie, which rounds to even.
    assert got.tolist() == [[1.0, 2.5, 65.0], [0.0, -62.5, 0.0]]


def test_missing_tensors(tmp_path):
    artifacts.write_dense_tflite(tmp_path / "m.tflite")
    for inputs, outputs, name in [
        ((replace(X, name="z"),), (Y,), "z"),
        ((X,), (replace(Y, name="z"),), "z"),
        ((X,), (replace(Y, name="x"),), "x"),
    ]:
        with pytest.raises(ArtifactError, match=f"no tensor '{name}'"):
            TFLiteRunner(tmp_path / "m.tflite", inputs, outputs)


@pytest.mark.parametrize("content", [b"", b"TFL3", b"garbage" * 999])
def test_malformed_files(tmp_path, content):
    (tmp_path / "m.tflite").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"cannot load m\.tflite"):
        TFLiteRunner(tmp_path / "m.tflite", (X,), (Y,))


def test_a_missing_file(tmp_path):
    with pytest.raises(ArtifactError, match=r"m\.tflite cannot be read"):
        TFLiteRunner(tmp_path / "m.tflite", (X,), (Y,))


def test_a_dtype_that_differs_from_the_file(tmp_path):
    artifacts.write_dense_tflite(tmp_path / "m.tflite")
    wrong = TFLiteRunner(tmp_path / "m.tflite", (replace(X, dtype="int32"),), (Y,))
    with pytest.raises(ArtifactError, match="failed during inference"):
        wrong.run({"x": np.zeros((1, 3), np.int32)})


def without(monkeypatch, *modules):
    original = builtins.__import__

    def guarded(name, *args, **kwargs):
        if name.split(".")[0] in modules:
            raise ImportError(f"No module named {name!r}")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", guarded)


def test_a_missing_runtime(tmp_path, monkeypatch):
    artifacts.write_dense_tflite(tmp_path / "m.tflite")
    without(monkeypatch, "ai_edge_litert", "tflite_runtime")
    with pytest.raises(RuntimeUnavailableError) as caught:
        TFLiteRunner(tmp_path / "m.tflite", (X,), (Y,))
    assert "pip install ai-edge-litert" in caught.value.hint


def test_a_runtime_without_metadata(tmp_path, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    artifacts.write_dense_tflite(tmp_path / "m.tflite")
    monkeypatch.setattr(importlib.metadata, "version", missing)
    runner = TFLiteRunner(tmp_path / "m.tflite", (X,), (Y,))
    assert runner.runtime == "ai-edge-litert (version unknown)"
