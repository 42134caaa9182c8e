"""Specimens compute what the Keras version that saved them computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from long_parameters import only

from edgeattn.errors import UnsupportedModelError
from edgeattn.tensors import TensorSpec
from edgeattn_converters.loading import stored_interface
from edgeattn_converters.loading.architecture import read_architecture
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.quantization.layer_weights import recurrent_layers
from edgeattn_converters.tracing.keras_call import dtype_of, layer_name

SPECIMENS = Path(__file__).parents[2] / "specimens"
SHARED = Path(__file__).parents[4] / "shared" / "models"
INDEX = SPECIMENS / "index.json"
ENTRIES = json.loads(INDEX.read_text()) if INDEX.exists() else []
# The Keras that saved these files cannot read them: a connection refers to a missing layer.
UNREADABLE = {"tf2.15/nested_unreadable.h5"}

# The class that a user of one specimen has to define, see specimens/make_keras3.py.
CUSTOM = """
import keras
from keras import ops

class TimeAttention(keras.layers.Layer):
    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 1))
        self.b = self.add_weight(shape=(shape[1], 1))

    def call(self, x):
        scores = ops.tanh(ops.matmul(x, self.w) + self.b)  # (batch, time, 1)
        return ops.sum(ops.softmax(scores, axis=1) * x, axis=1)
"""


@pytest.mark.parametrize("entry", only(ENTRIES, *ENTRIES[::24]), ids=lambda entry: entry["file"])
def test_specimen(entry: dict[str, Any], tmp_path: Path) -> None:
    path = SPECIMENS / entry["file"]
    truth = np.load(SPECIMENS / entry["truth"])
    if entry["file"] in UNREADABLE:
        with pytest.raises(UnsupportedModelError, match="not in it"):
            load_model(audit_file(path))
        return
    custom = tmp_path / "custom.py"
    custom.write_text(CUSTOM)
    keras.backend.clear_session()  # operations without a stored name count those of other tests
    loaded = load_model(
        audit_file(path),
        architecture=architecture_of(path),
        custom_objects=custom if "custom_layer" in path.name else None,
    )
    check_stored_model(path, loaded.model)
    outputs = loaded.model(inputs_of(loaded.model, truth), training=False)
    outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
    for expected, output in zip(outputs_of(truth), outputs, strict=True):
        tolerance = 1e-5 * max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(output, expected, rtol=1e-5, atol=tolerance)


def check_stored_model(path: Path, model: Any) -> None:
    """What is read from the configuration without building the model is right."""
    stored = stored_config(path)
    specs = stored_interface.input_specs(stored, None)
    if specs is not None:
        built = [TensorSpec(layer_name(x), (None, *x.shape[1:]), dtype_of(x)) for x in model.inputs]
        assert sorted(map(str, specs)) == sorted(map(str, built))
    outputs = stored_interface.output_names(stored)
    assert outputs in (None, tuple(layer_name(tensor) for tensor in model.outputs))
    layers = stored_interface.layer_list(stored)
    if layers is not None and "custom_layer" not in path.name:
        inputs = {layer_name(tensor) for tensor in model.inputs}
        assert {layer.name for layer in model.layers} - inputs <= set(layers.names)
        assert layers.recurrent or not recurrent_layers(model)


def stored_config(path: Path) -> Any:
    architecture = architecture_of(path)
    return read_architecture(Path(architecture)) if architecture else audit_file(path).config


def test_most_configurations_determine_the_inputs() -> None:
    paths = [SPECIMENS / entry["file"] for entry in ENTRIES if entry["file"] not in UNREADABLE]
    unknown = [
        path.name for path in paths if not stored_interface.input_specs(stored_config(path), 5)
    ]
    assert len(unknown) < len(paths) / 5, unknown


def architecture_of(path: Path) -> str | None:
    """Return the path of the architecture stored next to a file that contains weights only."""
    architecture = path.with_name(path.name.split(".")[0] + ".json")
    return str(architecture) if "weights_only" in path.name else None


def inputs_of(model: Any, truth: Any) -> Any:
    if "x" in truth.files:
        return truth["x"]
    stored = [name for name in truth.files if not name.startswith(("y", "attention"))]
    by_name = [tensor.name for tensor in model.inputs]
    names = by_name if set(by_name) <= set(stored) else stored
    return [truth[name] for name in names]


def outputs_of(truth: Any) -> list[Any]:
    names = sorted(name for name in truth.files if name == "y" or name.startswith("y_"))
    return [truth[name] for name in names]


REAL = {
    "A13_vsl_lstm_mha.h5": None,
    "A21_authai_mha.keras": None,
    "R02_countnet_rnn.h5": ("countnet_rnn.npz", "prob"),
    "R03_cmapss_lstm_bin.h5": ("cmapss_bin.npz", "pred"),
    "R05_pems_gru.h5": ("pems_gru.npz", "pred"),
    "R08_ethnicolr.h5": None,
    "R10_masked_lstm.keras": None,
}


@pytest.mark.parametrize("name", only(sorted(REAL), "R10_masked_lstm.keras"))
def test_real_model(name: str) -> None:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not part of the repository and not in ../shared/models")
    model = load_model(audit_file(path)).model
    if (outputs := REAL[name]) is not None:
        truth = np.load(SHARED / outputs[0])
        expected = truth[outputs[1]]
        output = np.asarray(model(truth["x"], training=False)).reshape(expected.shape)
    else:
        x = plausible_input(model)
        expected = stock_output(path, x)
        output = np.asarray(model(x, training=False))
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)


def plausible_input(model: Any) -> Any:
    generator = np.random.default_rng(7)
    shape = (5, *model.inputs[0].shape[1:])
    if len(shape) == 2:
        return generator.integers(1, 900, shape).astype("float32")
    x = generator.normal(size=shape).astype("float32")
    x[:2, shape[1] // 2 :] = 0  # padding, for models with masks
    return x


def stock_output(path: Path, x: Any) -> Any:
    """Return the output of the Keras version that opens the file without a migration."""
    if path.name.startswith("R08"):
        import tf_keras

        return tf_keras.models.load_model(path, compile=False)(x, training=False)
    import keras

    return keras.saving.load_model(path, compile=False)(x, training=False)
