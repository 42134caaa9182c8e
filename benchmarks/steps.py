"""Profile one step of T500's LSTM in XNNPACK, and compare it with onnxruntime's whole step.

A step is a product of one row with the recurrent weights (100 x 400), and the operations of the
gates. Each part is measured as the difference between a file with many repetitions of it and one
with few, which cancels the cost of calling the runtime. All files take turns.
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
    """Return a file with ``count`` pairs of products, with 100 x 400 and 400 x 100 weights."""
    import tensorflow as tf

    generator = np.random.default_rng(SEED)
    expand, reduce = (
        tf.constant(generator.normal(0, 0.05, shape).astype(np.float32))
        for shape in ((UNITS, 4 * UNITS), (4 * UNITS, UNITS))
    )

    def run(h: Any) -> Any:
        for _ in range(count):
            h = tf.matmul(tf.matmul(h, expand), reduce)
        return h

    return _convert(run, (1, UNITS))


def _gates(count: int) -> bytes:
    """Return a file with the gates of ``count`` steps, without products and inputs."""
    import tensorflow as tf

    def run(z: Any) -> list[Any]:
        c, states = z[:, :UNITS], []
        for _ in range(count):
            i, f, g, o = tf.split(z, 4, axis=1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            h = tf.sigmoid(o) * tf.tanh(c)
            z = z + tf.reduce_max(h)  # makes the next step depend on this one
            states.append(h)
        return states

    return _convert(run, (1, 4 * UNITS))


def _convert(run: Callable[..., Any], shape: tuple[int, ...]) -> bytes:
    import tensorflow as tf

    concrete = tf.function(run).get_concrete_function(tf.TensorSpec(shape, tf.float32))
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert())


def _lstm() -> bytes:
    """Return an ONNX file with a single LSTM node."""
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(SEED)
    shapes = {"W": (1, 4 * UNITS, 1), "R": (1, 4 * UNITS, UNITS)}
    weights = [
        numpy_helper.from_array(generator.normal(0, 0.05, shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    graph = helper.make_graph(
        [helper.make_node("LSTM", ["x", "W", "R"], ["y"], hidden_size=UNITS)],
        "lstm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("steps", 1, 1))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("steps", 1, 1, UNITS))],
        weights,
    )
    opset = helper.make_opsetid("", 18)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    return bytes(model.SerializeToString())


def measure(rounds: int = ROUNDS, sittings: int = SITTINGS) -> dict[str, float]:
    """Return the microseconds of the parts of a step."""
    from benchmarks import machine, timing
    from benchmarks.routes import ROUTES, open_file

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

    def opener(route: Any, file: bytes, x: np.ndarray) -> Callable[[], Callable[[Any], Any]]:
        def open_with_input() -> Callable[[Any], Any]:
            run = open_file(route, file)
            return lambda _: run(x)

        return open_with_input

    openers: dict[str, Any] = {label: opener(*file) for label, file in files.items()}
    openers["numpy"] = lambda: lambda _: np.dot(row[0, :UNITS], matrix)
    times = timing.interleaved(openers, [None], rounds, sittings)
    median = {label: 1e6 * float(np.median(seconds)) for label, seconds in times.items()}

    def per_repetition(part: str, repetitions: int) -> float:
        return round((median[f"many {part}"] - median[f"few {part}"]) / repetitions, 4)

    weight_bytes = 4 * UNITS * 4 * UNITS
    return {
        "product, XNNPACK": per_repetition("products", MANY - FEW),
        "gates, XNNPACK": per_repetition("gates", MANY - FEW),
        "product, numpy": round(median["numpy"], 4),
        "whole step, onnxruntime": per_repetition("steps", STEPS - STEPS // 2),
        "reading the weights at the cache bandwidth": 1e6
        * weight_bytes
        / machine.cache_bandwidth(weight_bytes),
        "multiply-accumulates at the matrix rate": 1e6 * UNITS * 4 * UNITS / machine.matrix_rate(),
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
