"""Activation functions of small values in int8 files, whose kernels have a fixed step."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from quantized_models import CONVERTERS

from edgeattn.metrics.pairwise import snr_db
from edgeattn.runners import open_runner
from edgeattn.tensors import Tensors
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

FEATURES = 32


def model() -> keras.Model:
    """Functions whose results are at most a quarter of their bounds from the middle."""
    x = keras.Input((FEATURES,), name="x")
    generator = np.random.default_rng(4)

    def constant(*shape: int) -> np.ndarray:
        return generator.normal(0, 1 / np.sqrt(shape[0]), shape).astype("float32")

    weights, bias = constant(FEATURES, 24), constant(24)
    quiet = ops.tanh(0.05 * x)
    loud = ops.tanh(x)
    return keras.Model(
        x,
        {
            "dense": ops.matmul(quiet, weights) + bias,
            "product": quiet * x,
            "joined": ops.matmul(ops.concatenate([0.1 * quiet, quiet], axis=1), constant(64, 24)),
            "beside": ops.matmul(ops.concatenate([loud, quiet], axis=1), constant(64, 24)),
        },
    )


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensors, Tensors, Path]:
    """What Keras and the file compute, and the file."""
    built = model()
    data = np.random.default_rng(5).uniform(-3, 3, (96, FEATURES)).astype("float32")
    path = tmp_path_factory.mktemp("scales") / "model.tflite"
    file = CONVERTERS["tflite"].convert(
        built, interface_of(built), recipe_for("int8"), path, samples={"x": data}
    )
    actual = open_runner(path, "tflite", file.inputs, file.outputs).run({"x": data})
    return built.predict(data, verbose=0), actual, path


@pytest.mark.parametrize("name", ["dense", "product", "joined", "beside"])
def test_quiet_results_are_as_exact_as_other_values(
    name: str, outputs: tuple[Tensors, Tensors, Path]
) -> None:
    """A step of 1/128 has an rms error of 1 / (128 * sqrt(12)) = 0.0023, which is 32 dB below the
    rms of 0.086 that tanh of uniform values up to 0.15 has."""
    assert snr_db(outputs[0][name], outputs[1][name]) > 34


def test_results_stay_where_integers_suffice(outputs: tuple[Tensors, Tensors, Path]) -> None:
    file = TFLiteFile(outputs[2].read_bytes())
    tensors = file.main.tensors
    dtypes = [
        file.dtype(tensors[int(item.outputs[0])])
        for item in file.main.operators
        if file.kind(item) == "TANH"
    ]
    assert sorted(dtypes) == ["FLOAT32", "INT8"]
