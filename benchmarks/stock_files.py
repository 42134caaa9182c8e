"""Files of the stock routes, for :mod:`benchmarks.quantization`.

The routes are TensorFlow's converter for a function with batch size 1, and Keras' ONNX export with
onnxruntime's quantizers. Each runs in a process of its own, because some crash. They return no
attention maps, so their maps are not validated.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(KERAS_BACKEND="tensorflow", CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="3")

import numpy as np

CALIBRATION = 100  # samples
SCHEMES = {
    "tflite": ("float32", "float16", "dynamic_int8", "int8"),
    "onnx": ("float32", "dynamic_int8", "int8"),
}
Run = Callable[[np.ndarray], np.ndarray]


def make(model: Path, scheme: str, path: Path, calibration: Path) -> str:
    """Convert ``model`` in another process, and return why there is no file, or nothing."""
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.stock_files", str(model.resolve()), scheme]
    process = subprocess.run(
        [*command, str(path.resolve()), str(calibration.resolve())],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    if process.returncode == -signal.SIGSEGV:
        return "crash: segmentation fault"
    if process.returncode:
        lines = process.stderr.strip().splitlines() or ["no message"]
        return f"no file: {lines[-1][:60]}"
    return ""


def open_file(path: Path) -> Run:
    """Return a function that runs the file, on one thread."""
    return (_litert if path.suffix == ".tflite" else _onnxruntime)(path)


def convert(model_path: Path, scheme: str, path: Path, calibration_path: Path) -> None:
    """Convert a model by a stock route and write the file."""
    import keras

    import edgeattn.layers  # noqa: F401 - registers the attention layer

    model = keras.models.load_model(model_path, compile=False)
    calibration = np.load(calibration_path)[:CALIBRATION].astype(model.inputs[0].dtype)
    if path.suffix == ".tflite":
        path.write_bytes(_tflite(model, scheme, calibration))
        return
    from onnxruntime.quantization import quantize_dynamic, quantize_static

    model(calibration[:1])
    exported = path if scheme == "float32" else path.with_suffix(".float.onnx")
    model.export(exported, format="onnx", verbose=False)
    if scheme == "dynamic_int8":
        quantize_dynamic(exported, path)
    elif scheme == "int8":
        import onnxruntime

        name = onnxruntime.InferenceSession(str(exported)).get_inputs()[0].name
        quantize_static(exported, path, _CalibrationReader(name, calibration))


class _CalibrationReader:
    def __init__(self, name: str, samples: np.ndarray) -> None:
        self._feeds = iter([{name: samples[k : k + 1]} for k in range(len(samples))])

    def get_next(self) -> Any:
        return next(self._feeds, None)


def _tflite(model: Any, scheme: str, calibration: np.ndarray) -> bytes:
    import tensorflow as tf

    (tensor,) = model.inputs
    signature = [tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype)]
    function = tf.function(lambda x: model(x, training=False), input_signature=signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    if scheme != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if scheme == "int8":
        converter.representative_dataset = lambda: ([row[None]] for row in calibration)
    return bytes(converter.convert())


def _litert(path: Path) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(x: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source["index"], x.astype(source["dtype"]))
        interpreter.invoke()
        return interpreter.get_tensor(target["index"])

    return run


def _onnxruntime(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


if __name__ == "__main__":
    convert(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
