"""Ways from a Keras model to something that runs: the stock tools', and edgeattn's.

Each makes a file, of one scheme, for one runtime; Keras itself is a function. edgeattn's files are
made without the attention maps as outputs: the stock routes do not tell them either.
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
# What a float32 route may be off by, and what a dynamic one must reach: as the verdict has it.
TOLERANCE = 1e-4
SNR_DB = 30.0


@dataclass(frozen=True)
class Route:
    """``make`` gives the file's bytes by the model's name, for Keras the function itself."""

    label: str
    runtime: str  # tflite, onnx or keras
    scheme: str
    make: Callable[[str], Any]
    stock: bool = False


def stock_tflite(name: str) -> bytes:
    """(a) TensorFlow's converter on a function of batch 1."""
    return _stock_convert(_model(name))


def stock_unrolled(name: str) -> bytes:
    """(b) The same of the model with ``unroll=True``."""
    return _stock_convert(_model(name, unroll=True))


def stock_dynamic(name: str) -> bytes:
    return _stock_convert(_model(name), dynamic=True)


def stock_unrolled_dynamic(name: str) -> bytes:
    return _stock_convert(_model(name, unroll=True), dynamic=True)


@functools.lru_cache(maxsize=1)
def keras_onnx(name: str) -> bytes:
    """(c) Keras' own ``export(format="onnx")``."""
    from benchmarks import models

    model = _model(name)
    model(models.inputs(model, 1))  # the export refuses a model that was never called
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        model.export(path, format="onnx", verbose=False)
        return path.read_bytes()


def keras_onnx_dynamic(name: str) -> bytes:
    """(c), and onnxruntime's ``quantize_dynamic`` of it."""
    from onnxruntime.quantization import quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        path, made = Path(folder) / "model.onnx", Path(folder) / "dynamic.onnx"
        path.write_bytes(keras_onnx(name))
        quantize_dynamic(path, made)
        return made.read_bytes()


def tf2onnx_static(name: str) -> bytes:
    """(d) tf2onnx on a function of batch 1."""
    import tf2onnx

    function, signature = _function(_model(name))
    proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=18)
    return bytes(proto.SerializeToString())


def keras_function(name: str) -> Run:
    """(e) Keras in a ``tf.function`` of batch 1."""
    import tensorflow as tf

    function, signature = _function(_model(name))
    concrete = function.get_concrete_function(*signature)
    return lambda x: np.asarray(concrete(tf.constant(x))[0].numpy())


def edgeattn(
    name: str, format: str = "tflite", scheme: str = "float32", lowering: str = "auto"
) -> bytes:
    """What ``edgeattn convert --no-attention`` makes."""
    from edgeattn_converters import reference
    from edgeattn_converters.formats import onnx, tflite
    from edgeattn_converters.options import ConversionOptions
    from edgeattn_converters.recipes import recipe_for
    from edgeattn_converters.tracing.trace import interface_of

    model = _model(name)
    interface = interface_of(model)
    samples = None
    if scheme == "dynamic_int8":
        samples = reference.selection_inputs(model, interface, None)
    converter = {"tflite": tflite, "onnx": onnx}[format]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model.{format}"
        converter.convert(
            model,
            interface,
            recipe_for(scheme),
            path,
            options=ConversionOptions(attention=False, lowering=lowering),
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
# What --lowering auto chooses between, one by one.
FORCED = {
    f"edgeattn TFLite {lowering}": Route(
        f"edgeattn TFLite {lowering}",
        "tflite",
        "float32",
        functools.partial(edgeattn, lowering=lowering),
    )
    for lowering in ("unrolled", "chunked", "fused")
}


def opened(route: Route, made: Any) -> Run:
    """Something to call with a batch of one: in a runtime of its own, on one thread."""
    if route.runtime == "tflite":
        return _litert(made)
    if route.runtime == "onnx":
        return _onnxruntime(made)
    return made  # type: ignore[no-any-return]


def judged(route: Route, expected: np.ndarray, got: np.ndarray) -> dict[str, Any]:
    """How far the answers are from Keras', and whether that is right for the scheme."""
    from edgeattn.metrics.pairwise import snr_db

    error = float(np.abs(got - expected).max()) if np.isfinite(got).all() else float("inf")
    noise = snr_db(expected, got)
    right = error < TOLERANCE if route.scheme == "float32" else noise >= SNR_DB
    return {"max_abs_error": error, "snr_db": min(float(noise), 999.0), "right": bool(right)}


def first_line(error: Exception) -> str:
    """Why a route made nothing: whatever a tool gives up with is a result."""
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
    (into,) = (item["index"] for item in interpreter.get_input_details())
    out = interpreter.get_output_details()[0]["index"]

    def run(x: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(into, x)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(out))

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

    return run
