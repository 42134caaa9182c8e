"""What one step of T500's LSTM costs in XNNPACK, by its parts, beside onnxruntime's whole step.

A step is a product of one row with the recurrent weights (100 x 400), and what the gates make of
it. Each part is measured as the difference between a file with more of it and one with less, so
that calling the runtime cancels out; all files take turns.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", TF_CPP_MIN_LOG_LEVEL="3")
os.environ.update(CUDA_VISIBLE_DEVICES="-1", KERAS_BACKEND="tensorflow")

import numpy as np

UNITS, STEPS = 100, 500
FEW, MANY = 2, 4
ROUNDS, SITTINGS = 75, 3
SEED = 4


def _products(count: int) -> bytes:
    """As many pairs of products: 100 x 400 and back."""
    import tensorflow as tf

    generator = np.random.default_rng(SEED)
    there, back = (
        tf.constant(generator.normal(0, 0.05, shape).astype(np.float32))
        for shape in ((UNITS, 4 * UNITS), (4 * UNITS, UNITS))
    )

    def run(h: Any) -> Any:
        for _ in range(count):
            h = tf.matmul(tf.matmul(h, there), back)
        return h

    return _converted(run, (1, UNITS))


def _gates(count: int) -> bytes:
    """All of so many steps but the product and the addition of the inputs' own."""
    import tensorflow as tf

    def run(z: Any) -> list[Any]:
        c, states = z[:, :UNITS], []
        for _ in range(count):
            i, f, g, o = tf.split(z, 4, axis=1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            h = tf.sigmoid(o) * tf.tanh(c)
            z = z + tf.reduce_max(h)  # the next step has to wait for it
            states.append(h)
        return states

    return _converted(run, (1, 4 * UNITS))


def _converted(run: Callable[..., Any], shape: tuple[int, ...]) -> bytes:
    import tensorflow as tf

    concrete = tf.function(run).get_concrete_function(tf.TensorSpec(shape, tf.float32))
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert())


def _lstm() -> bytes:
    """onnxruntime's own LSTM node of so many steps, and nothing else."""
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(SEED)
    shapes = {"W": (1, 4 * UNITS, 1), "R": (1, 4 * UNITS, UNITS)}
    stored = [
        numpy_helper.from_array(generator.normal(0, 0.05, shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    graph = helper.make_graph(
        [helper.make_node("LSTM", ["x", "W", "R"], ["y"], hidden_size=UNITS)],
        "lstm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("steps", 1, 1))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("steps", 1, 1, UNITS))],
        stored,
    )
    opset = helper.make_opsetid("", 18)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    return bytes(model.SerializeToString())


def measured(rounds: int = ROUNDS, sittings: int = SITTINGS) -> dict[str, float]:
    """Microseconds of a step's parts."""
    from benchmarks import machine, timing
    from benchmarks.routes import ROUTES, opened

    tflite, onnx = ROUTES["edgeattn TFLite"], ROUTES["edgeattn ONNX"]
    generator = np.random.default_rng(SEED)
    row = generator.standard_normal((1, 4 * UNITS)).astype(np.float32)
    matrix = generator.standard_normal((UNITS, 4 * UNITS)).astype(np.float32)
    lstm = _lstm()
    files = {
        "few products": (tflite, _products(FEW // 2), row[:, :UNITS]),
        "many products": (tflite, _products(MANY // 2), row[:, :UNITS]),
        "few gates": (tflite, _gates(FEW), row),
        "many gates": (tflite, _gates(MANY), row),
        "few steps": (onnx, lstm, np.zeros((STEPS // 2, 1, 1), np.float32)),
        "many steps": (onnx, lstm, np.zeros((STEPS, 1, 1), np.float32)),
    }

    def opening(route: Any, made: bytes, x: np.ndarray) -> Callable[[], Callable[[Any], Any]]:
        def open_one() -> Callable[[Any], Any]:
            run = opened(route, made)
            return lambda _: run(x)

        return open_one

    ways: dict[str, Any] = {label: opening(*file) for label, file in files.items()}
    ways["numpy"] = lambda: lambda _: np.dot(row[0, :UNITS], matrix)
    times = timing.interleaved(ways, [None], rounds, sittings)
    median = {label: 1e6 * float(np.median(each)) for label, each in times.items()}

    def each(what: str, more: int) -> float:
        return round((median[f"many {what}"] - median[f"few {what}"]) / more, 4)

    weights = 4 * UNITS * 4 * UNITS
    return {
        "product, XNNPACK": each("products", MANY - FEW),
        "gates, XNNPACK": each("gates", MANY - FEW),
        "product, numpy": round(median["numpy"], 4),
        "whole step, onnxruntime": each("steps", STEPS - STEPS // 2),
        "weights at the bandwidth of the cache": 1e6 * weights / machine.cache_bandwidth(weights),
        "multiplications at the matrix rate": 1e6 * UNITS * 4 * UNITS / machine.matrix_rate(),
    }


if __name__ == "__main__":
    print(json.dumps(measured()))
