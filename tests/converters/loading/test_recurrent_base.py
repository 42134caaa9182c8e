"""Own recurrent layers of Keras 1 to 2.1 that derive from ``Recurrent``, such as decoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from long_parameters import only

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

OWN = """
from keras import backend as K
from keras.engine import InputSpec
from keras.layers import Input, Masking
from keras.models import Model
from {module} import Recurrent, {dense}


class Decoder(Recurrent):
    def __init__(self, units, **kwargs):
        self.units = units
        super(Decoder, self).__init__(**kwargs)

    def build(self, input_shape):
        self.states = [None, None]
        self.w = self.add_weight(shape=(3, self.units), name="w", initializer="zeros")
        self.u = self.add_weight(shape=(self.units, self.units), name="u", initializer="zeros")
        self.b = self.add_weight(shape=(self.units,), name="b", initializer="zeros")
        self.built = True

    {initial}

    def get_constants(self, inputs, training=None):
        return [K.sum(inputs, axis=1)] if {constants} else []

    def preprocess_input(self, inputs, training=None):
        return {dense}(inputs, self.w, self.b, 0, 3, self.units, 5) if {prepared} else inputs

    def step(self, x, states):
        h, count = states[:2]
        x = x if {prepared} else K.dot(x, self.w) + self.b
        if {constants}:
            x = x + K.dot(states[2], self.w)
        new = K.tanh(x + K.dot(h, self.u))
        return new * count, [new, count + 1]

    def get_config(self):
        return dict(super(Decoder, self).get_config(), units=self.units)

    def compute_output_shape(self, input_shape):
        shape = (input_shape[0], input_shape[1], self.units)
        return shape if self.return_sequences else (shape[0], shape[2])


def build():
    x = Input((5, 3))
    y = Masking()(x) if {masked} else x
    return Model(x, Decoder(4, {arguments}name="decoder")(y))
"""
INITIAL = {
    "": "pass",
    "get_initial_states": "def get_initial_states(self, inputs):\n"
    "        first = K.tanh(K.dot(inputs[:, 0], self.w))\n"
    "        return [first, K.ones_like(first)]",
}
INITIAL["get_initial_state"] = INITIAL["get_initial_states"].replace("states(self", "state(self")
DEFAULT = {
    "module": "keras.layers.recurrent",
    "dense": "_time_distributed_dense",
    "initial": "get_initial_states",
    "arguments": "return_sequences=True, ",
    **dict.fromkeys(("constants", "prepared", "masked"), False),
}
KINDS: dict[str, dict[str, Any]] = {
    "states": {},
    "zeros": {"initial": ""},
    "renamed": {"initial": "get_initial_state", "module": "keras.legacy.layers"},
    "prepared": {"prepared": True, "constants": True},
    "public": {"prepared": True, "dense": "time_distributed_dense"},
    "last": {"arguments": ""},
    "backwards": {"arguments": "return_sequences=True, go_backwards=True, "},
    "unrolled": {"arguments": "return_sequences=True, unroll=True, implementation=2, "},
    "masked": {"masked": True},
}
GENERATOR = np.random.default_rng(3)
X = GENERATOR.normal(size=(4, 5, 3)).astype("float32")
WEIGHTS = {name: GENERATOR.normal(size=size).astype("float32") * 0.5
           for name, size in {"w": (3, 4), "u": (4, 4), "b": (4,)}.items()}  # fmt: skip


def computed(options: dict[str, Any], x: Any) -> Any:
    """The outputs, step by step; ``K.rnn`` before Keras 2.2.5 has the first state if masked."""
    w, u, b = WEIGHTS.values()
    h, count = np.zeros((len(x), 4)), np.zeros((len(x), 4))
    if options["initial"]:
        h, count = np.tanh(x[:, 0] @ w), np.ones((len(x), 4))
    outputs = []
    steps = range(5)[::-1] if "backwards" in options["arguments"] else range(5)
    for t in steps:
        others = x.sum(axis=1) @ w if options["constants"] else 0
        new = np.tanh(x[:, t] @ w + b + others + h @ u)
        is_real = np.ones((len(x), 1), bool)
        if options["masked"]:
            is_real = (x[:, t] != 0).any(axis=-1, keepdims=True)
        outputs.append(np.where(is_real, new * count, h))
        h, count = np.where(is_real, new, h), np.where(is_real, count + 1, count)
    return np.stack(outputs, 1) if "sequences" in options["arguments"] else outputs[-1]


def saved(folder: Path, version: str, config: Any = None) -> Path:
    """Write the weights, and the config of a whole model if there is one."""
    path = folder / "m.h5"
    with h5py.File(path, "w") as file:
        root = file if config is None else file.create_group("model_weights")
        for place in {file, root}:
            place.attrs.update(keras_version=version.encode(), backend=b"tensorflow")
        root.attrs["layer_names"] = [b"decoder"]
        group = root.create_group("decoder")
        group.attrs["weight_names"] = [f"decoder/{name}:0".encode() for name in WEIGHTS]
        for name, value in WEIGHTS.items():
            group[f"decoder/{name}:0"] = value
        if config is not None:
            file.attrs["model_config"] = json.dumps(config).encode()
    return path


@pytest.mark.parametrize("kind", only(KINDS, "prepared", "masked"))
def test_programs(kind: str, tmp_path: Path) -> None:
    options = {**DEFAULT, **KINDS[kind]}
    text = {**options, "initial": INITIAL[options["initial"]]}
    (tmp_path / "own.py").write_text(OWN.format(**text))
    file = audit_file(saved(tmp_path, "2.1.2"))
    loaded = load_model(file, architecture=f"{tmp_path / 'own.py'}:build")
    x = np.where(GENERATOR.random((4, 5, 1)) < 0.4, 0, X) if options["masked"] else X
    expected = computed(options, x)
    np.testing.assert_allclose(loaded.model(x), expected, rtol=1e-4, atol=1e-5)


def whole_file(folder: Path, **arguments: Any) -> Path:
    config = {
        "units": 4, "name": "decoder", "trainable": True, "implementation": 0,
        "return_sequences": True, "return_state": False, "go_backwards": False,
        "stateful": False, "unroll": False, **arguments,
    }  # fmt: skip
    layers = [
        {"class_name": "InputLayer", "name": "x", "inbound_nodes": [],
         "config": {"batch_input_shape": [None, 5, 3], "dtype": "float32", "name": "x",
                    "sparse": False}},
        {"class_name": "Decoder", "name": "decoder", "config": config,
         "inbound_nodes": [[["x", 0, 0, {}]]]},
    ]  # fmt: skip
    model = {"name": "m", "layers": layers, "input_layers": [["x", 0, 0]],
             "output_layers": [["decoder", 0, 0]]}  # fmt: skip
    return saved(folder, "2.1.2", {"class_name": "Model", "config": model})


@pytest.mark.parametrize("kind", only(["states", "last"], "states"))
def test_whole_files(kind: str, tmp_path: Path) -> None:
    options = {**DEFAULT, **KINDS[kind]}
    text = {**options, "initial": INITIAL[options["initial"]]}
    (tmp_path / "own.py").write_text(OWN.format(**text))
    path = whole_file(tmp_path, return_sequences=kind == "states")
    loaded = load_model(audit_file(path), custom_objects=tmp_path / "own.py")
    expected = computed(options, X)
    np.testing.assert_allclose(loaded.model(X), expected, rtol=1e-4, atol=1e-5)


STATEFUL = "return_sequences=True, stateful=True, "
CHANGES = {
    # As in attention decoders that were published.
    "resets": ("self.built = True", "self.built = True\n        self.reset_states()"),
    "one_sample": ("Input((5, 3))", "Input(batch_shape=(1, 5, 3))"),
}


@pytest.mark.parametrize("kind", ["resets", "one_sample", "whole_file"])
def test_stateful_layers_are_refused_for_what_they_are(kind: str, tmp_path: Path) -> None:
    """It was an error of the program, 'NotImplementedError', with the exit code 2."""
    options = {**DEFAULT, "initial": INITIAL["get_initial_states"], "arguments": STATEFUL}
    text = OWN.format(**options)
    (tmp_path / "own.py").write_text(text.replace(*CHANGES.get(kind, ("", ""))))
    file = whole_file(tmp_path, stateful=True) if kind == "whole_file" else saved(tmp_path, "2.1.2")
    program = tmp_path / "own.py"
    source: dict[str, Any] = {"architecture": f"{program}:build"}
    if kind == "whole_file":
        source = {"custom_objects": program}
    with pytest.raises(UnsupportedModelError, match="'decoder' of your class Decoder") as caught:
        load_model(audit_file(file), **source)
    assert caught.value.exit_code == 3
    assert "Stateful layers of this kind are not supported" in str(caught.value)
    assert "create it with stateful=False" in str(caught.value.hint)
