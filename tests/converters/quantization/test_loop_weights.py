"""Every scheme with weights inside loops: those of convolutional LSTMs and of cells of a user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from long_parameters import only
from quantized_models import CONVERTERS, ConversionsOf, filled

from edgeattn.metrics import pairwise as metrics
from edgeattn.runners import open_runner
from edgeattn.tensors import Tensors
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.quantization.ranges import measure_ranges
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

# SNR in dB that the rounding of the weights, and of the activations outside loops, leaves.
SCHEMES = {"float16": 55, "dynamic_int8": 24, "int8": 20, "int16x8": 24}


class OwnCell(layers.Layer):
    """A simple recurrence with a gate."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.state_size = self.output_size = self.units = units

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
        self.recurrent = self.add_weight(shape=(self.units, self.units), name="recurrent")

    def call(self, inputs: Any, states: Any) -> Any:
        (state,) = states
        gate = ops.sigmoid(ops.matmul(state, self.recurrent))
        state = gate * state + (1.0 - gate) * ops.tanh(ops.matmul(inputs, self.kernel))
        return state, [state]


def loops() -> Any:
    """One output of each kind of loop; all return sequences, whose steps have free sizes."""
    inputs = keras.Input((3, 4, 4, 8), name="x")
    images = layers.ConvLSTM2D(8, 3, padding="same", return_sequences=True)(inputs)
    rows = layers.Reshape((3, 128))(images)
    own = layers.RNN(OwnCell(24), return_sequences=True)(rows)
    cells = [layers.LSTMCell(24), layers.GRUCell(24)]
    stacked = layers.RNN(cells, return_sequences=True)(own)
    outputs = {
        name: layers.Dense(16, name=name)(layers.Flatten()(value))
        for name, value in (("images", rows), ("own", own), ("stacked", stacked))
    }
    return keras.Model(inputs, outputs)


class Files:
    """The model with its data and what Keras computes."""

    def __init__(self) -> None:
        self.model = filled(loops())
        self.interface = interface_of(self.model)
        data = np.random.default_rng(2).normal(size=(40, 3, 4, 4, 8)).astype("float32")
        self.samples = {"x": data}
        self.inputs = {"x": data[:8]}
        self.expected: Tensors = self.model.predict(self.inputs, verbose=0)


@pytest.fixture(scope="module")
def files() -> Files:
    return Files()


@pytest.mark.parametrize("scheme", only(SCHEMES, "float16"))
@pytest.mark.parametrize("format", only(sorted(CONVERTERS), "tflite"))
def test_weights_in_loops(files: Files, format: str, scheme: str, tmp_path: Path) -> None:
    path = tmp_path / f"model.{format}"
    file = CONVERTERS[format].convert(
        files.model, files.interface, recipe_for(scheme), path, samples=files.samples
    )
    runner = open_runner(path, format, file.inputs, file.outputs, as_deployed=True)
    actual = runner.run(files.inputs)
    for name, expected in files.expected.items():
        assert metrics.snr_db(expected, actual[name]) > SCHEMES[scheme], name
    weights = file.achieved["weights"]
    stored = "float16" if scheme == "float16" else "int8"
    assert weights[stored] / sum(weights.values()) > 0.9


def test_values_that_no_operator_reads_are_not_measured(files: Files, tmp_path: Path) -> None:
    """The runtime does not write the unchanged values of a loop: they are random memory."""
    path = tmp_path / "model.tflite"
    CONVERTERS["tflite"].convert(files.model, files.interface, recipe_for("float32"), path)
    content = path.read_bytes()
    file = TFLiteFile(content)
    ranges, _ = measure_ranges(file, content, files.inputs, ["x"])
    loops = [item for item in file.main.operators if file.kind(item) == "WHILE"]
    read = {index for item in file.main.operators for index in item.inputs}
    unread = {index for item in loops for index in item.outputs} - read
    assert len(unread) >= len(loops)
    assert not unread & ranges.keys()
    assert {index for item in loops for index in item.outputs} & ranges.keys()


def test_unread_outputs_of_other_operators_have_the_range_of_their_input(
    conversions_of: ConversionsOf,
) -> None:
    """A first step without a state does not read all gates of its split."""
    conversions = conversions_of("lstm")
    content = conversions.make("tflite", "float32").path.read_bytes()
    file = TFLiteFile(content)
    ranges, _ = measure_ranges(
        file, content, conversions.samples, [spec.name for spec in conversions.interface.inputs]
    )
    read = {*file.main.outputs, *(k for item in file.main.operators for k in item.inputs)}
    splits = [item for item in file.main.operators if file.kind(item) == "SPLIT"]
    unread = [(item, k) for item in splits for k in item.outputs if k not in read]
    assert unread
    for item, output in unread:
        assert ranges[output] == ranges[item.inputs[1]]


@pytest.fixture(scope="module")
def exported(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The model as a graph: loops of a SavedModel have no Keras layers."""
    path = tmp_path_factory.mktemp("loops") / "exported"
    files.model.export(path, verbose=False)
    return load_model(audit_file(path)).model


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["float16", "int8"])
@pytest.mark.parametrize("format", CONVERTERS)
def test_weights_in_exported_loops(
    files: Files, exported: Any, format: str, scheme: str, tmp_path: Path
) -> None:
    path = tmp_path / f"model.{format}"
    interface = interface_of(exported)
    file = CONVERTERS[format].convert(
        exported, interface, recipe_for(scheme), path, samples=files.samples
    )
    actual = open_runner(path, format, file.inputs, file.outputs).run(files.inputs)
    for name, expected in files.expected.items():
        assert metrics.snr_db(expected, actual[name]) > SCHEMES[scheme], name
    assert file.achieved["weights"].get(scheme, 0) > 0
