"""Ways from a Keras model to something that runs: the stock tools', and edgeattn's."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from models import build, inputs

Run = Callable[[np.ndarray], np.ndarray]


def stock_tflite(name: str) -> Run:
    """(a) TensorFlow's converter on a function of batch 1."""
    return _litert(_stock_convert(build(name)))


def stock_unrolled(name: str) -> Run:
    """(b) The same of the model with ``unroll=True``."""
    return _litert(_stock_convert(build(name, unroll=True)))


def keras_onnx(name: str) -> Run:
    """(c) Keras' own ``export(format="onnx")``."""
    model = build(name)
    model(inputs(model, 1))  # the export refuses a model that was never called
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        model.export(path, format="onnx", verbose=False)
        return _onnxruntime(path.read_bytes())


def tf2onnx_static(name: str) -> Run:
    """(d) tf2onnx on a function of batch 1."""
    import tf2onnx

    function, signature = _function(build(name))
    proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=18)
    return _onnxruntime(proto.SerializeToString())


def keras_function(name: str) -> Run:
    """(e) Keras in a ``tf.function`` of batch 1."""
    import tensorflow as tf

    function, signature = _function(build(name))
    concrete = function.get_concrete_function(*signature)
    return lambda x: concrete(tf.constant(x))[0].numpy()


def edgeattn_tflite(name: str, lowering: str = "auto") -> Run:
    return _litert(_edgeattn(name, "tflite", lowering))


def edgeattn_fused(name: str) -> Run:
    return edgeattn_tflite(name, "fused")


def edgeattn_onnx(name: str) -> Run:
    return _onnxruntime(_edgeattn(name, "onnx", "auto"))


ROUTES: dict[str, Callable[[str], Run]] = {
    "a stock TFLite": stock_tflite,
    "b stock unroll": stock_unrolled,
    "c Keras ONNX": keras_onnx,
    "d tf2onnx": tf2onnx_static,
    "e tf.function": keras_function,
    "edgeattn TFLite": edgeattn_tflite,
    "edgeattn TFLite fused": edgeattn_fused,
    "edgeattn ONNX": edgeattn_onnx,
}


def _edgeattn(name: str, format: str, lowering: str) -> bytes:
    from edgeattn_converters import onnx, tflite
    from edgeattn_converters.recipes import recipe_for
    from edgeattn_converters.tracing import interface_of

    model = build(name)
    converter = {"tflite": tflite, "onnx": onnx}[format]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model.{format}"
        # Without the maps: the stock routes do not tell them either.
        converter.convert(
            model,
            interface_of(model),
            recipe_for("float32"),
            path,
            attention=False,
            lowering=lowering,
        )
        return path.read_bytes()


def _function(model: Any) -> tuple[Any, list[Any]]:
    import tensorflow as tf

    signature = [tf.TensorSpec((1, *t.shape[1:]), t.dtype) for t in model.inputs]
    function = tf.function(lambda x: [model(x, training=False)], input_signature=signature)
    return function, signature


def _stock_convert(model: Any) -> bytes:
    import tensorflow as tf

    function, signature = _function(model)
    concrete = function.get_concrete_function(*signature)
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert())


def _litert(content: bytes) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    (into,) = (item["index"] for item in interpreter.get_input_details())
    out = interpreter.get_output_details()[0]["index"]

    def run(x: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(into, x)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(out))

    run.size = len(content)  # type: ignore[attr-defined]
    return run


def _onnxruntime(content: bytes) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    into, out = session.get_inputs()[0].name, [session.get_outputs()[0].name]

    def run(x: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(out, {into: x})[0])

    run.size = len(content)  # type: ignore[attr-defined]
    return run
