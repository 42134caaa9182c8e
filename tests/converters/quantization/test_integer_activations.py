"""Activation functions in files with integers only, compared with Keras."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from long_parameters import only
from quantized_models import integer_file

from edgeattn.metrics.pairwise import snr_db
from edgeattn.runners import open_runner
from edgeattn.schemes import MICRO

pytest.importorskip("tflite_micro")


def with_activation(name: str) -> Any:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((12,), name="x")
    hidden = layers.Dense(8)(inputs)
    activation = layers.PReLU("normal") if name == "prelu" else layers.Activation(name)
    return keras.Model(inputs, layers.Dense(3, name="y")(activation(hidden)))


@pytest.mark.parametrize(
    ("scheme", "least", "runtime"),
    [
        ("int8", 20, "litert"),
        pytest.param("int8", 20, MICRO, marks=pytest.mark.long),
        pytest.param("int16x8", 35, "litert", marks=pytest.mark.long),
        ("int16x8", 35, MICRO),
    ],
)
@pytest.mark.parametrize(
    "name",
    only(
        ("elu", "selu", "softplus", "mish", "prelu", "hard_silu", "softsign", "exponential"),
        "mish",
    ),
)
def test_activation_functions_in_integers(
    name: str, scheme: str, least: float, runtime: str, tmp_path: Path
) -> None:
    model = with_activation(name)
    x = np.random.default_rng(1).normal(0, 1, (60, 12)).astype("float32")
    path = tmp_path / "m.tflite"
    file = integer_file(model, {"x": x}, path, scheme, runtime=runtime, integer_only=True)
    runner = open_runner(
        path, "tflite", file.inputs, file.outputs, as_deployed=True,
        runtime=MICRO if runtime == MICRO else None,
    )  # fmt: skip
    with contextlib.closing(runner):
        assert snr_db(model.predict(x, verbose=0), runner.run({"x": x})["y"]) >= least
