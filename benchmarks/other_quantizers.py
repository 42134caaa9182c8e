"""Quantized files of other tools, made from the Keras model and compared with it.

    python -m benchmarks.other_quantizers MODEL FOLDER TOOL...

``FOLDER`` has ``calibration.npy`` and ``test.npz``. Each tool writes ``NUMBER.tflite``, and a line
of JSON to stdout: its file, or why there is none. Some tools crash, so :func:`quantize` runs them
in processes of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.update(CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="3", KERAS_BACKEND="tensorflow")

import numpy as np

TENSORFLOW, UNROLLED, AI_EDGE = "TensorFlow", "TensorFlow, unroll=True", "ai-edge-quantizer"
# The schemes of each tool. The last ones of them crash most often.
SCHEMES = {AI_EDGE: ("dynamic_int8", "int8"), UNROLLED: ("int8",), TENSORFLOW: ("int8",)}
RECIPES = {"dynamic_int8": "dynamic_wi8_afp32", "int8": "static_wi8_ai8"}
CALIBRATION, COUNTED = 100, 4  # samples
REASON = 120  # characters


@dataclass(frozen=True)
class Result:
    """A file with its outputs for the test data and those of Keras, or why there is none."""

    tool: str
    scheme: str
    path: Path | None = None
    outputs: np.ndarray | None = None
    expected: np.ndarray | None = None
    failure: str = ""


def quantize(model: Path, folder: Path, tools: Sequence[str]) -> list[Result]:
    """The files of ``tools`` for a model; see the module for ``folder``.

    Without recurrent layers, :data:`UNROLLED` has no result, because its file would be the same.
    """
    remaining = [f"{tool}/{scheme}" for tool in tools for scheme in SCHEMES[tool]]
    results = []
    while remaining:
        process = subprocess.run(
            [sys.executable, "-m", "benchmarks.other_quantizers", model, folder, *remaining],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=False,
        )
        lines = [json.loads(line) for line in process.stdout.splitlines() if line[:1] == "{"]
        results += [_result(folder, line) for line in lines if line.get("failure") != "-"]
        remaining = remaining[len(lines) :]
        if process.returncode >= 0 and remaining:
            raise RuntimeError(f"{remaining[0]} failed: {process.stderr[-2000:]}")
        if remaining:
            tool, _, scheme = remaining.pop(0).partition("/")
            results.append(Result(tool, scheme, failure="no file: the process crashes"))
    return results


def _result(folder: Path, line: dict[str, str]) -> Result:
    if "failure" in line:
        return Result(line["tool"], line["scheme"], failure=line["failure"])
    path = folder / line["path"]
    outputs = np.load(path.with_suffix(".npy"))
    expected = np.load(folder / "expected.npy")
    return Result(line["tool"], line["scheme"], path, outputs, expected)


def main(model_path: Path, folder: Path, requests: Sequence[str]) -> None:
    from edgeattn_converters.loading.audit import audit_file
    from edgeattn_converters.loading.load import load_model

    model = load_model(audit_file(model_path)).model
    calibration = np.load(folder / "calibration.npy")[:CALIBRATION].astype(model.inputs[0].dtype)
    with np.load(folder / "test.npz") as file:
        x = file["x"].astype(model.inputs[0].dtype)
    np.save(folder / "expected.npy", _first(model.predict(x, verbose=0)))
    make: dict[str, Callable[..., bytes]] = {
        TENSORFLOW: _tensorflow,
        UNROLLED: _unrolled,
        AI_EDGE: _ai_edge,
    }
    for request in requests:
        tool, _, scheme = request.partition("/")
        line = {"tool": tool, "scheme": scheme}
        path = folder / f"{tool.split()[-1]}.{scheme}.tflite"
        if tool == UNROLLED and not _recurrent(model):
            print(json.dumps({**line, "failure": "-"}), flush=True)
            continue
        try:
            path.write_bytes(make[tool](model, calibration, scheme))
        except Exception as error:  # tools raise exceptions of their own
            print(json.dumps({**line, "failure": f"no file: {_reason(error)}"}), flush=True)
            continue
        try:
            np.save(path.with_suffix(".npy"), _run(path, x))
        except Exception as error:  # runtimes raise exceptions of their own
            print(json.dumps({**line, "failure": f"does not run: {_reason(error)}"}), flush=True)
            continue
        print(json.dumps({**line, "path": path.name}), flush=True)


def _tensorflow(model: Any, calibration: np.ndarray, scheme: str) -> bytes:
    """TensorFlow's ``int8`` of a function with batch size 1, as the model is."""
    _unroll(model, False)
    return _convert(model, calibration)


def _unrolled(model: Any, calibration: np.ndarray, scheme: str) -> bytes:
    """The same for a model whose recurrent layers have ``unroll=True``."""
    _unroll(model, True)
    return _convert(model, calibration)


def _ai_edge(model: Any, calibration: np.ndarray, scheme: str) -> bytes:
    """ai-edge-quantizer, for TensorFlow's float32 file of the unrolled model."""
    from ai_edge_quantizer import quantizer, recipe

    _unroll(model, True)
    tool = quantizer.Quantizer(bytearray(_with_signature(model)))
    tool.load_quantization_recipe(getattr(recipe, RECIPES[scheme])())
    ranges = None
    if tool.need_calibration:
        ranges = tool.calibrate({"serving_default": [{"x": row[None]} for row in calibration]})
    return bytes(tool.quantize(ranges).quantized_model)


def _recurrent(model: Any) -> list[Any]:
    return [layer for layer in model._flatten_layers() if hasattr(layer, "unroll")]


def _unroll(model: Any, unroll: bool) -> None:
    for layer in _recurrent(model):
        layer.unroll = unroll


def _function(model: Any) -> Any:
    """A concrete function with batch size 1."""
    import tensorflow as tf

    signature = [tf.TensorSpec((1, *t.shape[1:]), t.dtype, name="x") for t in model.inputs]
    function = tf.function(lambda x: _first(model(x, training=False)), input_signature=signature)
    return function.get_concrete_function()


def _convert(model: Any, calibration: np.ndarray) -> bytes:
    """TensorFlow's ``int8`` file."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_concrete_functions([_function(model)])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in calibration)
    return bytes(converter.convert())


def _with_signature(model: Any) -> bytes:
    """TensorFlow's float32 file with a signature, whose input is ``x``.

    The converter writes one only for functions of a module, whose variables must be constants.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    concrete = _function(model)
    frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
    signature = [tf.TensorSpec(t.shape, t.dtype, name="x") for t in frozen.inputs]
    function = tf.function(lambda x: frozen(x)[0], input_signature=signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()], tf.Module()
    )
    return bytes(converter.convert())


def _run(path: Path, x: np.ndarray) -> np.ndarray:
    """The outputs of a file for ``x``, one sample after the other, as real numbers.

    The first samples are written as the file accepts them, for counting its instructions.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (source,), target = interpreter.get_input_details(), interpreter.get_output_details()[0]
    scale, zero = source["quantization"]
    if scale:
        limits = np.iinfo(source["dtype"])
        x = np.clip(np.round(x / scale) + zero, limits.min, limits.max).astype(source["dtype"])
    np.save(inputs_of(path), x[:COUNTED])
    outputs = []
    for row in x:
        interpreter.set_tensor(source["index"], row[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(target["index"]))
    result = np.concatenate(outputs)
    scale, zero = target["quantization"]
    return (result.astype("float32") - zero) * scale if scale else result


def inputs_of(path: Path) -> Path:
    """The first test samples as a file accepts them."""
    return path.with_suffix(".inputs.npy")


def _first(outputs: Any) -> Any:
    """The first of several outputs."""
    if isinstance(outputs, dict):
        return next(iter(outputs.values()))
    return outputs[0] if isinstance(outputs, list | tuple) else outputs


def _reason(error: Exception) -> str:
    """The last line of an error, which is the most specific one of these tools."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:REASON]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
