"""Dense layers after an operation that extends one feature, as in temporal fusion transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from long_parameters import only

import models
from edgeattn.runners import open_runner
from edgeattn_converters.formats import tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

L, ops = keras.layers, keras.ops
STEPS = 8
VALUES = np.random.default_rng(5).normal(size=6).astype("float32")


def gated(x: Any, units: int, context: Any = None) -> Any:
    """A gated residual network, with the static context that enriches each step."""
    hidden = L.Dense(units)(x)
    if context is not None:
        hidden = hidden + ops.expand_dims(L.Dense(units, use_bias=False)(context), 1)
    hidden = L.Dense(units)(L.Activation("elu")(hidden))
    gate = L.Dense(units, activation="sigmoid")(hidden)
    skipped = x if x.shape[-1] == units else L.Dense(units)(x)
    return L.LayerNormalization()(skipped + L.Dense(units)(hidden) * gate)


def selected(x: Any) -> Any:
    """A variable selection network: a Dense layer and a gated network for each variable."""
    variables = [L.Dense(6)(x[..., k : k + 1]) for k in range(3)]
    context = x[:, 0]
    weights = L.Softmax()(gated(L.Concatenate()(variables), 3, context))
    features = ops.stack([gated(variable, 6) for variable in variables], axis=-2)
    return gated(ops.sum(features * ops.expand_dims(weights, -1), axis=-2), 6, context)


LAYERS: dict[str, Callable[[Any], Any]] = {
    "dense": lambda x: L.Dense(6)(L.Dense(6)(x[..., :1])),
    "dense of one unit": lambda x: L.Dense(5)(L.Dense(4)(L.Dense(1)(x))),
    "product": lambda x: L.Dense(5)(x[..., 1:2] * VALUES),
    "sum": lambda x: L.Dense(6)(x[..., 1:2] + VALUES),
    "product and sum": lambda x: L.Dense(6)(x[..., 1:2] * VALUES + VALUES),
    "quotient": lambda x: L.Dense(6)(x[..., 1:2] / VALUES),
    "einsum": lambda x: L.Dense(6)(L.EinsumDense("btf,fu->btu", (STEPS, 6))(x[..., :1])),
    "einsum to two axes": lambda x: L.Dense(3)(
        ops.reshape(L.EinsumDense("btf,fhd->bthd", (STEPS, 2, 3))(x[..., :1]), (-1, STEPS, 6))
    ),
    "error function": lambda x: ops.erf(L.Dense(6)(L.Dense(6)(x[..., :1]))),
    "variable selection": selected,
}


@pytest.mark.parametrize("kind", only(LAYERS, "dense", "product and sum", "einsum", "quotient"))
def test_as_in_keras(kind: str, tmp_path: Path) -> None:
    x = keras.Input((STEPS, 3), name="x")
    model = models.filled(keras.Model(x, LAYERS[kind](x)))
    interface = interface_of(model)
    tflite.convert(model, interface, recipe_for("float32"), tmp_path / "m.tflite")
    runner = open_runner(tmp_path / "m.tflite", "tflite", interface.inputs, interface.outputs)
    row = np.random.default_rng(1).normal(size=(1, STEPS, 3)).astype("float32")
    (actual,) = runner.run({"x": row}).values()
    np.testing.assert_allclose(actual, model.predict(row, verbose=0), rtol=1e-4, atol=1e-5)
