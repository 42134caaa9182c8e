"""Errors about classes of the user that fail in Keras 3, also inside layers of Keras."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tf_keras
from twin_programs import run_in_tf_keras

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

CLASSES = """
import tensorflow as tf
from tensorflow.keras import layers


class Cell(layers.Layer):
    def __init__(self, units=4, **options):
        super().__init__(**options)
        self.units = self.state_size = self.output_size = units
        self.dense = layers.Dense(units)

    def call(self, x, states):
        FAILS
        h = tf.tanh(self.dense(x) + states[0])
        return h, [h]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Plain(Cell):
    def call(self, x, states):
        h = self.dense(x) + states[0]
        return h, [h]


class Scale(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense = layers.Dense(2)

    def compute_output_shape(self, shape):
        return (*shape[:-1], 2)

    def call(self, x):
        FAILS
        return self.dense(x)


class Two(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.scale = Scale()

    def compute_output_shape(self, shape):
        return (*shape[:-1], 2)

    def call(self, x):
        return self.scale(x)
"""
OLD = tf_keras.layers
FAILS = "x._size_of_keras"


def _saved(call: Callable[[Any, Any], Any], path: Path, version: str = "2.2.4") -> None:
    """Save a model of tf_keras with the classes, as that of another version.

    The graph of tf_keras is not used for the one that is the default.
    """
    own = SimpleNamespace(**run_in_tf_keras(CLASSES.replace("FAILS", "")))
    tf_keras.backend.clear_session()
    x = tf_keras.Input((5, 3), name="x")
    tf_keras.Model(x, call(own, x)).save(path)
    with h5py.File(path, "a") as file:
        for group in (file, file["model_weights"]):
            group.attrs["keras_version"] = version


# The layers with a class of the user, with the title and the class that the error names.
LAYERS: dict[str, tuple[Callable[[Any, Any], Any], str, str]] = {
    "rnn": (
        lambda own, x: OLD.RNN(own.Cell())(x),
        "'rnn' (RNN) with your class Cell",
        "Cell",
    ),
    "bidirectional": (
        lambda own, x: OLD.Bidirectional(OLD.RNN(own.Cell()))(x),
        "'bidirectional' (Bidirectional) with your class Cell",
        "Cell",
    ),
    "stacked": (
        lambda own, x: OLD.RNN([OLD.LSTMCell(2), own.Cell()])(x),
        "'rnn' (RNN) with your class Cell",
        "Cell",
    ),
    "several": (
        lambda own, x: OLD.RNN([own.Plain(), own.Cell(3), own.Plain(2)])(x),
        "'rnn' (RNN) with your class Cell",
        "Cell",
    ),
    "steps": (
        lambda own, x: OLD.TimeDistributed(own.Scale())(x),
        "'time_distributed' (TimeDistributed) with your class Scale",
        "Scale",
    ),
    "own": (lambda own, x: own.Scale()(x), "'scale' of your class Scale", "Scale"),
    "inner": (lambda own, x: own.Two()(x), "'two' of your class Two", "Scale"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_class_of_the_user_is_named(name: str, tmp_path: Path) -> None:
    call, title, cls = LAYERS[name]
    _saved(call, tmp_path / "m.h5")
    (tmp_path / "own.py").write_text(CLASSES.replace("FAILS", FAILS))
    with pytest.raises(UnsupportedModelError) as caught:
        load_model(audit_file(tmp_path / "m.h5"), custom_objects=tmp_path / "own.py")
    assert (
        f"Layer {title} fails in Keras {keras.__version__}: AttributeError" in caught.value.message
    )
    assert str(caught.value.hint).startswith(f"Change {cls} so that it runs in Keras 3")


# A cell of two inputs, which Keras 3 does not run, and neither Keras loads in a layer RNN.
PROGRAM = """
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers


class Timed(layers.Layer):
    def __init__(self, units=3, **options):
        super().__init__(**options)
        self.units = self.state_size = units
        self.dense = layers.Dense(units)

    def call(self, inputs, states):
        assert keras.layers.experimental.RandomFourierFeatures
        x, time = inputs
        h = tf.tanh(self.dense(x) + states[0] * time)
        return h, [h]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def build():
    x, time = keras.Input((5, 4), name="x"), keras.Input((5, 1), name="time")
    return keras.Model([x, time], layers.RNN(Timed(), return_sequences=True)((x, time)))
"""


@pytest.mark.parametrize("name", ["whole.h5", "whole.keras"])
def test_weights_of_files_that_no_keras_loads(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code in the hint saves weights that convert with the program."""
    monkeypatch.chdir(tmp_path)
    names = run_in_tf_keras(PROGRAM)
    tf_keras.backend.clear_session()
    model = names["build"]()
    generator = np.random.default_rng(3)
    model.set_weights([generator.normal(size=value.shape) for value in model.get_weights()])
    model.save(name)
    (tmp_path / "own.py").write_text(PROGRAM)
    with pytest.raises(UnsupportedModelError) as caught:
        load_model(audit_file(tmp_path / name), custom_objects=tmp_path / "own.py")
    message, hint = caught.value.message, str(caught.value.hint)
    assert "Layer 'rnn' (RNN) with your class Timed fails in Keras 3" in message
    assert (
        "The graph of tf_keras was not used: ValueError: An `initial_state` was passed" in message
    )
    assert "Or change Timed so that it runs in Keras 3" in hint
    code = re.search(r"with tf_keras: (.*), and convert that file with --architecture", hint)
    assert code
    tf_keras.backend.clear_session()
    exec(code[1], {**names})
    loaded = load_model(
        audit_file(tmp_path / "weights.h5"), architecture=f"{tmp_path / 'own.py'}:build"
    )
    x, time = generator.normal(size=(4, 5, 4)), generator.normal(size=(4, 5, 1))
    actual = loaded.model({"x": x.astype("float32"), "time": time.astype("float32")})
    (values,) = actual.values()
    np.testing.assert_allclose(values, model([x, time]), rtol=1e-5, atol=1e-6)


def test_classes_that_fail_in_both(tmp_path: Path) -> None:
    """Weights of such a class would not help."""
    call, title, cls = LAYERS["stacked"]
    _saved(call, tmp_path / "m.h5", version=tf_keras.__version__)
    (tmp_path / "own.py").write_text(CLASSES.replace("FAILS", FAILS))
    with pytest.raises(UnsupportedModelError, match=re.escape(title)) as caught:
        load_model(audit_file(tmp_path / "m.h5"), custom_objects=tmp_path / "own.py")
    assert str(caught.value.hint).startswith(f"Change {cls} so that")
