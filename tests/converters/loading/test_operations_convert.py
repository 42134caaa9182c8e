"""A model of each operation of Keras 3, converted to both formats and compared with Keras."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import operations
import pytest
import tensorflow as tf
from long_parameters import every_third

from edgeattn.errors import EdgeattnError, UnsupportedModelError
from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.reference.keras_outputs import predict
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
CALLS = {name: call for calls in operations.GROUPS.values() for name, call in calls.items()}
# Operations of TensorFlow that a format lacks, which the error names.
_MATRICES = {
    **dict.fromkeys(("SVD", "Pinv", "MatrixRank", "Lstsq"), "Svd"),
    "Eigh": "SelfAdjointEigV2",
}
_LACKED = {"Nextafter": "NextAfter"}
MISSING: Mapping[str, Mapping[str, str]] = {
    "tflite": {**_MATRICES, **_LACKED},
    # The update of one sample of a batch, whose size a file does not know.
    "onnx": {**_MATRICES, **_LACKED, "SliceUpdate": "XlaDynamicUpdateSlice", "View": "Bitcast"},
}
# Keras computes them for tensors of known sizes only.
NOT_IN_GRAPHS = ("Gcd", "Lcm", "Inner", "Kron", "Nanmedian", "Nanpercentile", "Nanquantile")
# The first axis of the result, or another, depends on the batch or on values.
NOT_BY_SAMPLE = ("Vstack", "Bincount", "SegmentSum", "SegmentMin", "SegmentProd", "SegmentMax")
CONVERTED = [name for name in CALLS if name not in (*NOT_IN_GRAPHS, *NOT_BY_SAMPLE)]
QUICK = ("STFT", "IRFFT", "FFT2", "Cross", "RGBToHSV", "InTopK", "BitwiseOr", "Linspace", "Unfold")
ROWS = 2


class _Used:
    """Symbolic inputs, of which those that are read become inputs of the model."""

    def __init__(self) -> None:
        self.all = vars(operations.inputs())
        self.names: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name not in self.names:
            self.names.append(name)
        return self.all[name]


def _model(name: str) -> tuple[Any, list[str]]:
    inputs = _Used()
    outputs = keras.tree.flatten(CALLS[name](inputs))
    return keras.Model([inputs.all[item] for item in inputs.names], outputs), inputs.names


def _check(name: str, format: str, path: Path) -> None:
    """Compare the file with Keras for samples alone, because some operations mix samples."""
    model, names = _model(name)
    samples = operations.samples(ROWS)
    interface = interface_of(model)
    if name in MISSING[format]:
        with pytest.raises(EdgeattnError) as caught:
            CONVERTERS[format].convert(model, interface, recipe_for("float32"), path)
        assert MISSING[format][name] in str(caught.value)
        assert {"tflite": "TFLite", "onnx": "ONNX"}[format] in str(caught.value)
        return
    file = CONVERTERS[format].convert(model, interface, recipe_for("float32"), path)
    runner = open_runner(path, format, file.inputs, file.outputs, as_deployed=True)
    for row in range(ROWS):
        inputs = {f"in_{item}": samples[f"in_{item}"][row : row + 1] for item in names}
        expected = keras.tree.flatten(model(list(inputs.values())))
        actual = runner.run(inputs)
        for spec, value in zip(interface.outputs, expected, strict=True):
            np.testing.assert_allclose(actual[spec.name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("format", CONVERTERS)
@pytest.mark.parametrize("name", every_third(QUICK))
def test_operations_that_are_composed(name: str, format: str, tmp_path: Path) -> None:
    _check(name, format, tmp_path / "model")


@pytest.mark.parametrize("format", CONVERTERS)
def test_updates_of_slices(format: str, tmp_path: Path) -> None:
    """One part of each sample, of one axis, and one that would exceed the axis."""
    x = keras.Input((4, 6), name="x")
    outputs = [
        keras.ops.slice_update(x, (0, 1, 2), x[:, :2, :3] * 2.0),
        keras.ops.slice_update(x, (0, 0, 0), keras.ops.zeros_like(x[:, :1])),
        keras.ops.slice_update(x, (0, 3, 5), x[:, 2:, 1:3] + 1.0),
    ]
    model, path = keras.Model(x, outputs), tmp_path / "model"
    interface = interface_of(model)
    file = CONVERTERS[format].convert(model, interface, recipe_for("float32"), path)
    sample = np.arange(24, dtype="float32").reshape(1, 4, 6)
    by_hand = [sample.copy() for _ in outputs]
    by_hand[0][:, 1:3, 2:5] = sample[:, :2, :3] * 2
    by_hand[1][:, :1] = 0
    by_hand[2][:, 2:, 4:] = sample[:, 2:, 1:3] + 1
    actual = open_runner(path, format, file.inputs, file.outputs).run({"x": sample})
    for spec, value in zip(interface.outputs, by_hand, strict=True):
        np.testing.assert_array_equal(actual[spec.name], value)


@pytest.mark.long
@pytest.mark.parametrize("format", CONVERTERS)
@pytest.mark.parametrize("name", [name for name in CONVERTED if name not in QUICK])
def test_every_operation(name: str, format: str, tmp_path: Path) -> None:
    _check(name, format, tmp_path / "model")


@pytest.mark.parametrize("name", ["Gcd", "Nanquantile", "Kron"])
def test_operations_that_keras_computes_for_known_sizes(name: str) -> None:
    model, _ = _model(name)
    with pytest.raises(UnsupportedModelError, match=rf"Keras cannot compute .*{name}\.call"):
        interface_of(model)


@pytest.mark.long
@pytest.mark.parametrize("name", NOT_IN_GRAPHS)
def test_every_operation_for_known_sizes(name: str) -> None:
    model, _ = _model(name)
    with pytest.raises(UnsupportedModelError, match=r"Keras cannot compute .*\w+\.call"):
        interface_of(model)


def test_reshapes_to_the_size_of_a_batch(tmp_path: Path) -> None:
    """``model.predict`` has samples of a last batch that is smaller."""
    x = keras.Input((4, 6), name="x")
    model = keras.Model(x, keras.layers.Lambda(lambda x: tf.reshape(x, [x.shape[0], 24]), (24,))(x))
    interface = interface_of(model)
    samples = np.random.default_rng(0).normal(size=(35, 4, 6)).astype("float32")
    (values,) = predict(model, interface, {"x": samples}).values()
    np.testing.assert_array_equal(values, samples.reshape(35, 24))
    tflite.convert(model, interface, recipe_for("float32"), tmp_path / "m")


def test_results_that_are_not_of_one_sample(tmp_path: Path) -> None:
    model, _ = _model("Vstack")
    with pytest.raises(UnsupportedModelError, match="first axis is not that of the samples"):
        tflite.convert(model, interface_of(model), recipe_for("float32"), tmp_path / "m")
