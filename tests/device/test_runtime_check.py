"""Checks of the runtimes, in worker processes with working and with broken runtimes."""

from __future__ import annotations

import base64

import artifacts

from edgeattn.device.runtime_check import TINY_INPUT, TINY_MODELS, TINY_OUTPUT, check_runtimes
from edgeattn.process.worker import Worker


def test_tiny_models_match_their_generators(tmp_path):
    artifacts.write_dense_tflite(tmp_path / "tiny.tflite")
    artifacts.write_dense_onnx(tmp_path / "tiny.onnx", batch=1)
    for format, encoded in TINY_MODELS.items():
        assert base64.b64decode(encoded) == (tmp_path / f"tiny.{format}").read_bytes(), format
    assert artifacts.dense(TINY_INPUT).tolist() == TINY_OUTPUT


def test_installed_runtimes_pass():
    tflite, onnx = check_runtimes()
    assert (tflite.state, tflite.xnnpack, tflite.reason) == ("pass", True, None)
    assert tflite.runtime.startswith("ai-edge-litert ")
    assert (onnx.state, onnx.xnnpack, onnx.reason) == ("pass", None, None)


def workers_with(tmp_path, package, code):
    """Return a function that starts workers in which ``package`` consists of ``code``."""
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(code)
    return lambda: Worker(environment={"PYTHONPATH": str(tmp_path)})


def test_crash_of_a_runtime_is_reported(tmp_path):
    code = "import os, signal; os.kill(os.getpid(), 4)"
    tflite, onnx = check_runtimes(workers_with(tmp_path, "onnxruntime", code))
    assert tflite.state == "pass"
    assert onnx.state == "fail"
    assert "died of SIGILL" in onnx.reason


def test_wrong_result_of_a_runtime_is_reported(tmp_path):
    code = """
import numpy
__version__ = "0"
class SessionOptions:
    def add_session_config_entry(self, key, value): pass
class InferenceSession:
    def __init__(self, *a, **k): pass
    def run(self, names, feeds): return [numpy.array([[-1.875, 43.5]], "float32")]
"""
    _, onnx = check_runtimes(workers_with(tmp_path, "onnxruntime", code))
    assert (onnx.state, onnx.reason) == ("fail", "its result for a tiny model is off by 0.5")


def test_missing_runtime_is_reported(tmp_path):
    code = "raise ModuleNotFoundError('none')"
    _, onnx = check_runtimes(workers_with(tmp_path, "onnxruntime", code))
    assert onnx.state == "not installed"
