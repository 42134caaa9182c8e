"""ONNX files of onnxruntime's dynamic quantizer: results that depend on no other sample, and
layers that are called twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from long_parameters import only
from quantized_models import filled

from edgeattn.metrics import pairwise as metrics
from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

ROWS, STEPS, FEATURES, UNITS = 40, 16, 64, 32


def siamese(layer: Any, *, masked: bool) -> Any:
    """Both inputs pass through the same layer."""
    inputs = [keras.Input((STEPS, FEATURES), name=name) for name in ("left", "right")]
    mask = layers.Masking(0.0) if masked else layers.Identity()
    joined = layers.Concatenate()([layers.Flatten()(layer(mask(item))) for item in inputs])
    return keras.Model(inputs, layers.Dense(4, name="y")(joined))


MODELS: dict[str, Callable[[], Any]] = {
    "lstm": lambda: siamese(layers.LSTM(UNITS), masked=False),
    "masked_lstm": lambda: siamese(layers.LSTM(UNITS), masked=True),
    "both_directions": lambda: siamese(layers.Bidirectional(layers.LSTM(UNITS)), masked=True),
    "dense": lambda: siamese(layers.Dense(FEATURES), masked=False),
}


@pytest.mark.parametrize("name", only(MODELS, "masked_lstm", "dense"))
def test_sample_alone_and_in_a_batch(name: str, tmp_path: Path) -> None:
    model = filled(MODELS[name]())
    generator = np.random.default_rng(3)
    inputs = {}
    for side in ("left", "right"):
        values = generator.normal(size=(ROWS, STEPS, FEATURES))
        values *= generator.uniform(0.1, 3.0, (ROWS, 1, 1))
        values[::3, STEPS // 2 :] = 0.0
        inputs[side] = values.astype("float32")
    expected = model.predict(inputs, verbose=0)
    for scheme, samples in (("dynamic_int8", None), ("int8", inputs)):
        path = tmp_path / scheme
        file = onnx.convert(model, interface_of(model), recipe_for(scheme), path, samples=samples)
        dynamic = [kind for kind in file.achieved["operators"] if kind.startswith("Dynamic")]
        assert bool(dynamic) == (name != "dense" or scheme == "dynamic_int8")
        # Weights that two nodes share are stored once.
        assert file.achieved["weights"]["int8"] < 1.2 * model.count_params()
        sizes = {spec.shape[0] for spec in (*file.inputs, *file.outputs)}
        assert sizes == {1 if dynamic else None}
        runner = open_runner(path, "onnx", file.inputs, file.outputs)
        together = runner.run(inputs)["y"]
        assert metrics.snr_db(expected, together) > 15
        for row in (0, ROWS - 1):
            alone = runner.run({side: array[[row]] for side, array in inputs.items()})["y"]
            if dynamic:
                np.testing.assert_array_equal(alone[0], together[row])
            else:
                np.testing.assert_allclose(alone[0], together[row], atol=4 / 255 * np.ptp(together))
