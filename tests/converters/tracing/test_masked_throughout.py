"""Maps of queries all of whose keys are masked: what multiplies the values, and what Keras returns.

Without dropout, MultiHeadAttention of Keras 3.15 computes its result with equal weights for such a
query, but returns weights of zero. The values and the projection of the result are the identity
here, so that the result is the weights.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

STEPS = 5
X = np.eye(STEPS, dtype="float32")[None]
# The last two queries have no key.
MASK = np.zeros((1, STEPS, STEPS), "bool")
MASK[:, :3, :3] = True


def model_of(dropout: float) -> keras.Model:
    x = keras.Input((STEPS, STEPS), name="x")
    mask = keras.Input((STEPS, STEPS), dtype="bool", name="mask")
    look = layers.MultiHeadAttention(1, STEPS, dropout=dropout, use_bias=False, name="look")
    model = keras.Model([x, mask], look(x, x, attention_mask=mask))
    generator = np.random.default_rng(1)
    for weight in model.weights:
        identity = "value" in weight.path or "output" in weight.path
        values = np.eye(STEPS) if identity else generator.normal(size=(STEPS, STEPS))
        weight.assign(values.reshape(weight.shape))
    return model


@pytest.mark.parametrize("dropout", only([0.0, 0.1], 0.0))
def test_a_graph_shows_the_weights_that_multiply_the_values(dropout: float, tmp_path: Path) -> None:
    model = model_of(dropout)
    model.export(tmp_path / "exported", verbose=False)
    weights = np.asarray(model([X, MASK]))
    np.testing.assert_allclose(weights[0, 3:], 0 if dropout else 1 / STEPS, atol=1e-6)
    loaded = load_model(audit_file(tmp_path / "exported")).model
    interface = interface_of(loaded)
    file = onnx.convert(loaded, interface, recipe_for("float32"), tmp_path / "m")
    runner = open_runner(tmp_path / "m", "onnx", file.inputs, file.outputs)
    actual = runner.run({"x": X, "mask": MASK})
    [attention] = interface.attention
    np.testing.assert_allclose(actual[attention.name][:, 0], weights, atol=1e-6)


@pytest.mark.long
def test_a_layer_shows_the_weights_that_keras_returns(tmp_path: Path) -> None:
    model = model_of(0.0)
    interface = interface_of(model)
    file = onnx.convert(model, interface, recipe_for("float32"), tmp_path / "m")
    runner = open_runner(tmp_path / "m", "onnx", file.inputs, file.outputs)
    actual = runner.run({"x": X, "mask": MASK})
    look = model.get_layer("look")
    _, scores = look(X, X, attention_mask=MASK, return_attention_scores=True)
    np.testing.assert_allclose(actual["attention/look"], scores, atol=1e-6)
    np.testing.assert_allclose(actual["attention/look"][:, :, 3:], 0)
