"""Routes from a Keras model to a file that runs: those of the stock tools and of edgeattn.

Keras itself, in a ``tf.function``, is a route without a file. Files of edgeattn are converted
without attention maps, because the stock routes return none.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]
# The limits that edgeattn validate uses: max abs error for float32, SNR in dB for dynamic_int8.
TOLERANCE = 1e-4
SNR_DB = {"dynamic_int8": 30.0, "int8": 20.0}
CALIBRATION = 134


@dataclass(frozen=True)
class Route:
    """``convert`` returns the content of the file for a model's name, or the function for Keras."""

    label: str
    runtime: str  # tflite, onnx or keras
    scheme: str
    convert: Callable[[str], Any]
    stock: bool = False


def stock_tflite(name: str) -> bytes:
    """(a) TensorFlow's converter for a function with batch size 1."""
    return _stock_convert(_model(name))


def stock_unrolled(name: str) -> bytes:
    """(b) As (a), for the model with ``unroll=True``."""
    return _stock_convert(_model(name, unroll=True))


def stock_dynamic(name: str) -> bytes:
    return _stock_convert(_model(name), dynamic=True)


def stock_unrolled_dynamic(name: str) -> bytes:
    return _stock_convert(_model(name, unroll=True), dynamic=True)


@functools.lru_cache(maxsize=1)
def keras_onnx(name: str) -> bytes:
    """(c) Keras' ``export(format="onnx")``."""
    from benchmarks import models

    model = _model(name)
    model(models.inputs(model, 1))  # the export requires that the model was called once
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        model.export(path, format="onnx", verbose=False)
        return path.read_bytes()


def keras_onnx_dynamic(name: str) -> bytes:
    """(c), quantized by onnxruntime's ``quantize_dynamic``."""
    from onnxruntime.quantization import quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        path, quantized = Path(folder) / "model.onnx", Path(folder) / "dynamic.onnx"
        path.write_bytes(keras_onnx(name))
        quantize_dynamic(path, quantized)
        return quantized.read_bytes()


def tf2onnx_static(name: str) -> bytes:
    """(d) tf2onnx for a function with batch size 1."""
    import tf2onnx

    function, signature = _function(_model(name))
    proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=18)
    return bytes(proto.SerializeToString())


def keras_function(name: str) -> Run:
    """(e) Keras in a ``tf.function`` with batch size 1."""
    import tensorflow as tf

    function, signature = _function(_model(name))
    concrete = function.get_concrete_function(*signature)
    return lambda x: np.asarray(concrete(tf.constant(x))[0].numpy())


def edgeattn(
    name: str, format: str = "tflite", scheme: str = "float32", lowering: str = "auto"
) -> bytes:
    """Convert as ``edgeattn convert --no-attention`` does."""
    from edgeattn_converters.formats import onnx, tflite
    from edgeattn_converters.options import ConversionOptions
    from edgeattn_converters.recipes import recipe_for
    from edgeattn_converters.reference import reference_samples
    from edgeattn_converters.tracing.trace import interface_of

    model = _model(name)
    interface = interface_of(model)
    samples = None
    if scheme == "dynamic_int8":
        samples = reference_samples.selection_inputs(model, interface, None)
    if scheme == "int8":
        from benchmarks import models

        samples = {interface.inputs[0].name: models.inputs(model, CALIBRATION)}
    converter = {"tflite": tflite, "onnx": onnx}[format]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model.{format}"
        converter.convert(
            model,
            interface,
            recipe_for(scheme),
            path,
            # Maps decide how much of an int8 file is in integers.
            options=ConversionOptions(attention=scheme == "int8", lowering=lowering),
            samples=samples,
        )
        return path.read_bytes()


FUSED = "edgeattn TFLite fused"
ROUTES = {
    route.label: route
    for route in (
        Route("a stock TFLite", "tflite", "float32", stock_tflite, stock=True),
        Route("b stock unroll", "tflite", "float32", stock_unrolled, stock=True),
        Route("c Keras ONNX", "onnx", "float32", keras_onnx, stock=True),
        Route("d tf2onnx", "onnx", "float32", tf2onnx_static, stock=True),
        Route("e tf.function", "keras", "float32", keras_function, stock=True),
        Route("edgeattn TFLite", "tflite", "float32", edgeattn),
        Route(FUSED, "tflite", "float32", functools.partial(edgeattn, lowering="fused")),
        Route("edgeattn ONNX", "onnx", "float32", functools.partial(edgeattn, format="onnx")),
        Route("a dynamic", "tflite", "dynamic_int8", stock_dynamic, stock=True),
        Route("b dynamic", "tflite", "dynamic_int8", stock_unrolled_dynamic, stock=True),
        Route("c dynamic", "onnx", "dynamic_int8", keras_onnx_dynamic, stock=True),
        Route(
            "edgeattn TFLite dynamic",
            "tflite",
            "dynamic_int8",
            functools.partial(edgeattn, scheme="dynamic_int8"),
        ),
        Route(
            "edgeattn ONNX dynamic",
            "onnx",
            "dynamic_int8",
            functools.partial(edgeattn, format="onnx", scheme="dynamic_int8"),
        ),
    )
}
# Routes whose instructions are counted, but which are not timed: the lowerings that --lowering auto
# selects from, and integers.
COUNTED_ONLY = {
    label: Route(label, "tflite", scheme, functools.partial(edgeattn, scheme=scheme, lowering=how))
    for label, scheme, how in (
        ("edgeattn TFLite unrolled", "float32", "unrolled"),
        ("edgeattn TFLite chunked", "float32", "chunked"),
        (FUSED, "float32", "fused"),
        ("edgeattn TFLite dynamic unrolled", "dynamic_int8", "unrolled"),
        ("edgeattn TFLite int8", "int8", "auto"),
        ("edgeattn TFLite int8 unrolled", "int8", "unrolled"),
    )
}


def open_file(route: Route, file: Any) -> Run:
    """Return a function that runs a batch of one sequence, on one thread."""
    if route.runtime == "tflite":
        return _litert(file)
    if route.runtime == "onnx":
        return _onnxruntime(file)
    return file  # type: ignore[no-any-return]


def compare_outputs(route: Route, expected: np.ndarray, outputs: np.ndarray) -> dict[str, Any]:
    """Return the error of ``outputs``, and whether it is within the limit of the scheme."""
    from edgeattn.metrics.pairwise import snr_db

    finite = np.isfinite(outputs).all()
    error = float(np.abs(outputs - expected).max()) if finite else float("inf")
    snr = snr_db(expected, outputs)
    correct = error < TOLERANCE if route.scheme == "float32" else snr >= SNR_DB[route.scheme]
    return {"max_abs_error": error, "snr_db": min(float(snr), 999.0), "correct": bool(correct)}


def first_line(error: Exception) -> str:
    """Return the first line of a route's error, which is part of the results."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


@functools.lru_cache(maxsize=2)
def _model(name: str, unroll: bool = False) -> Any:
    from benchmarks import models

    return models.build(name, unroll=unroll)


def _function(model: Any) -> tuple[Any, list[Any]]:
    import tensorflow as tf

    signature = [tf.TensorSpec((1, *t.shape[1:]), t.dtype) for t in model.inputs]
    function = tf.function(lambda x: [model(x, training=False)], input_signature=signature)
    return function, signature


def _stock_convert(model: Any, *, dynamic: bool = False) -> bytes:
    import tensorflow as tf

    function, signature = _function(model)
    concrete = function.get_concrete_function(*signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    if dynamic:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return bytes(converter.convert())


def _litert(content: bytes) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    (input_index,) = (item["index"] for item in interpreter.get_input_details())
    output_index = interpreter.get_output_details()[0]["index"]

    def run(x: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(input_index, x)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(output_index))

    return run


def _onnxruntime(content: bytes) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    input_name, output_names = session.get_inputs()[0].name, [session.get_outputs()[0].name]

    def run(x: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(output_names, {input_name: x})[0])

    return run
