"""Every argument of every layer of Keras 2 has its effect in the loaded model, or is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_keras2_layers import INPUTS, LAYERS

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

# Arguments that are refused, with a message that names them.
REFUSED = {
    *((name, "time_major") for name in ("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")),
    *((name, "time_major") for name in ("GRU", "LSTM", "RNN", "SimpleRNN")),
    *((f"Conv{rank}DTranspose", "groups") for rank in (1, 2, 3)),
    *((f"{kind}Conv{rank}D", "groups") for kind in ("Depthwise", "Separable") for rank in (1, 2)),
    *((f"SpatialDropout{rank}D", "noise_shape") for rank in (1, 2, 3)),
}
_VALUES: dict[str, list[Any]] = {
    "padding": ["valid", "same", "causal"],
    "interpolation": ["nearest", "bilinear"],
    "activation": ["tanh", "hard_sigmoid", "softplus"],
    "recurrent_activation": ["tanh", "hard_sigmoid"],
    "score_mode": ["concat"],
    "max_value": [1.5],
    "output_mode": ["count", "one_hot"],
    "merge_mode": ["sum", "mul", "ave", None],
    "noise_shape": [(None, 1, 3)],
    "axis": [1, -1, [1]],
    "implementation": [1],
    "groups": [2],
    "depth_multiplier": [2],
}
_FIXED = frozenset(
    {"name", "dtype", "trainable", "seed", "rng_type", "batch_input_shape", "sparse"}
)


def other_values(key: str, value: Any) -> Iterator[Any]:
    """Other values of an argument; a layer may not accept all of them."""
    if key in _FIXED:
        return
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, float):
        yield 0.7 * value + 0.05
    elif key in ("strides", "dilation_rate"):
        yield 2 if isinstance(value, int) else tuple(2 for _ in value)
    elif not (key == "padding" and not isinstance(value, str)):
        yield from (item for item in _VALUES.get(key, ()) if item != value)


def probes() -> dict[tuple[str, str, str], tuple[Any, Any, Any]]:
    """Name of a layer, an argument and its value: a model with one call, its samples, outputs."""
    import tf_keras

    generator = np.random.default_rng(4)
    found: dict[tuple[str, str, str], Any] = {}
    for name, (kind, make) in LAYERS.items():
        x = tf_keras.Input(INPUTS[kind], name="x")
        model = tf_keras.Model(x, make(tf_keras.layers, x))
        layers = (item for item in model.layers if type(item).__name__ == name.split()[0])
        layer = next(layers, None)
        if layer is None:
            continue
        (call,) = layer.inbound_nodes
        named = {key: value for key, value in call.call_kwargs.items() if value is not None}
        samples = np.abs(generator.normal(size=(2, *INPUTS[kind]))).astype("float32")
        for key, value in layer.get_config().items():
            for other in other_values(key, value):
                probe = (type(layer).__name__, key, str(other))
                if probe in found:
                    continue
                try:
                    changed = type(layer).from_config(
                        {**layer.get_config(), key: other, "name": "changed"}
                    )
                    changed_model = tf_keras.Model(x, changed(*call.call_args, **named))
                    for variable in changed_model.weights:
                        if variable.dtype.is_floating:
                            values = generator.normal(0, 0.5, variable.shape)
                            variable.assign(np.abs(values) + 0.1)
                    outputs = changed_model(samples, training=False)
                except Exception:  # Keras 2 does not accept the value
                    continue
                found[probe] = (changed_model, samples, outputs)
    return found


@pytest.mark.long
def test_other_values_of_arguments(tmp_path: Path) -> None:
    import tensorflow as tf

    path, refused = tmp_path / "model.h5", set()
    changed = probes()
    assert len(changed) > 200
    for (name, key, value), (model, samples, expected) in changed.items():
        model.save(path)
        if (name, key) in REFUSED:
            with pytest.raises(UnsupportedModelError, match=key):
                load_model(audit_file(path))
            refused.add((name, key))
            continue
        actual = load_model(audit_file(path)).model(samples, training=False)
        pairs = zip(tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True)
        for one, other in pairs:
            np.testing.assert_allclose(
                one, other, rtol=1e-4, atol=1e-5, err_msg=f"{name} {key}={value}"
            )
    assert refused == REFUSED
