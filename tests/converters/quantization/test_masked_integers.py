"""Masks in files with integers only: padded steps, thresholds and averages of valid steps."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from long_parameters import only
from quantized_models import CONVERTERS, integer_file, tflite_of

from edgeattn.metrics.pairwise import snr_db
from edgeattn.runners import open_runner
from edgeattn.schemes import MICRO
from edgeattn.tensors import TensorSpec, dequantize
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization import tflite_micro
from edgeattn_converters.quantization.int8_comparisons import compare_integers
from edgeattn_converters.quantization.integer_forms import integer_threshold, joined_ranges
from edgeattn_converters.quantization.quantized_model import ModelIO, QuantizedModel
from edgeattn_converters.quantization.ranges import with_dequantized
from edgeattn_converters.quantization.tflite_micro import MicroQuantizer
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

pytest.importorskip("tflite_micro")
STEPS = 12


def padded(rows: int, lengths: tuple[int, int], value: float, seed: int) -> np.ndarray:
    """Sequences of values from 0 to 1, ``(rows, STEPS, 3)``, behind which ``value`` follows."""
    generator = np.random.default_rng(seed)
    x = generator.uniform(0, 1, (rows, STEPS, 3)).astype("float32")
    x[np.arange(STEPS) >= generator.integers(*lengths, (rows, 1), endpoint=True)] = value
    return x


def averaging(value: float) -> Any:
    """A model whose output is wrong if a padded step counts, or a valid one does not."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((STEPS, 3), name="x")
    states = layers.Dense(16, activation="tanh")(layers.Masking(value)(inputs))
    return keras.Model(inputs, layers.Dense(2, name="y")(layers.GlobalAveragePooling1D()(states)))


def as_on_a_pico(x: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Integers as the program of examples/pico computes them: float32, halves away from zero."""
    assert spec.scale is not None
    quotient = x / np.float32(spec.scale)
    rounded = np.copysign(np.floor(np.abs(quotient) + np.float32(0.5)), quotient)
    limits = np.iinfo(spec.dtype)
    return np.clip(rounded + (spec.zero_point or 0), limits.min, limits.max).astype(spec.dtype)


# The largest magnitude of the inputs is that of padded steps. As half of the largest int16, float32
# and float64 would round these to different integers.
# Beside -999, all real values would share a few integers: it is none of the range.
@pytest.mark.parametrize("value", only((-999.0, -1.2, -1.7), -1.7))
@pytest.mark.parametrize(("scheme", "least"), [("int8", 20), ("int16x8", 35)])
def test_padded_steps_in_any_rounding(
    scheme: str, least: float, value: float, tmp_path: Path
) -> None:
    """Sequences are shorter and longer than those of the calibration. Weights are int8."""
    model = averaging(value)
    samples = {"x": padded(40, (5, 8), value, seed=1)}
    path = tmp_path / "m.tflite"
    file = integer_file(model, samples, path, scheme, runtime=MICRO, integer_only=True)
    (spec,) = file.inputs
    assert spec.dtype == "int16"
    runner = open_runner(path, "tflite", file.inputs, file.outputs, runtime=MICRO)
    x = padded(60, (1, STEPS), value, seed=2)
    with contextlib.closing(runner):
        # The runner quantizes real numbers of these integers to the same integers.
        actual = runner.run({"x": dequantize(as_on_a_pico(x, spec), spec)})["y"]
    assert snr_db(model.predict(x, verbose=0), actual) >= least


def test_no_valid_step_gives_no_average(tmp_path: Path) -> None:
    """The sum is zero then, and not divided by zero, as Keras does."""
    path = tmp_path / "m.tflite"
    samples = {"x": padded(40, (1, STEPS), -1.0, seed=1)}
    model = averaging(-1.0)
    file = integer_file(model, samples, path, "int16x8", runtime=MICRO, integer_only=True)
    runner = open_runner(path, "tflite", file.inputs, file.outputs, runtime=MICRO, as_deployed=True)
    x = np.full((1, STEPS, 3), -1, "float32")
    assert np.isnan(model.predict(x, verbose=0)).all()
    with contextlib.closing(runner):
        bias = model.layers[-1].bias.numpy()
        np.testing.assert_allclose(runner.run({"x": x})["y"][0], bias, atol=1e-3)


@pytest.mark.parametrize("value", only((0.0, -1.0, 999.0), -1.0))
def test_masks_in_int8_alone(value: float, tmp_path: Path) -> None:
    """Accelerators have no int16: truth values are selected, and int8 values are compared."""
    samples = {"x": padded(60, (1, STEPS), value, seed=1)}
    path = tmp_path / "m.tflite"
    model = averaging(value)
    file = integer_file(model, samples, path, "int8", integer_only=True)
    dtypes = {TFLiteFile(path.read_bytes()).dtype(t) for t in graph_tensors(path)}
    assert dtypes <= {"INT8", "INT32", "BOOL"}
    runner = open_runner(path, "tflite", file.inputs, file.outputs, as_deployed=True)
    x = padded(60, (1, STEPS), value, seed=2)
    with contextlib.closing(runner):
        assert snr_db(model.predict(x, verbose=0), runner.run({"x": x})["y"]) >= 20


@pytest.mark.parametrize("value", only((-1.0, -999.0), -1.0))
@pytest.mark.parametrize("scheme", ["int8", "int16x8"])
@pytest.mark.parametrize("format", only(["tflite", "onnx"], "tflite"))
def test_masks_of_integer_inputs(format: str, scheme: str, value: float, tmp_path: Path) -> None:
    """Between float operators: the comparison is with what the integer of the value stands for."""
    model = averaging(value)
    file = CONVERTERS[format].convert(
        model,
        interface_of(model),
        recipe_for(scheme),
        tmp_path / "m",
        quantization=QuantizationOptions(integer_io=True, allow_float_fallback=True),
        samples={"x": padded(60, (1, STEPS), value, seed=1)},
    )
    assert file.inputs[0].dtype == {"int8": "int8", "int16x8": "int16"}[scheme]
    runner = open_runner(tmp_path / "m", format, file.inputs, file.outputs, as_deployed=True)
    x = padded(60, (1, STEPS), value, seed=2)
    with contextlib.closing(runner):
        assert snr_db(model.predict(x, verbose=0), runner.run({"x": x})["y"]) >= 25


@pytest.mark.parametrize("scheme", only(("int8", "int16x8"), "int16x8"))
def test_maps_of_sequences_shorter_than_those_of_the_calibration(
    scheme: str, tmp_path: Path
) -> None:
    """Keras multiplies the softmax by the mask. The only token of a sequence has the weight 1."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((STEPS,), name="x", dtype="int32")
    embedded = layers.Embedding(9, 8, mask_zero=True)(inputs)
    attended = layers.MultiHeadAttention(2, 4, name="heads")(embedded, embedded)
    pooled = layers.GlobalAveragePooling1D()(attended)
    model = keras.Model(inputs, layers.Dense(2, name="y")(pooled))
    generator = np.random.default_rng(1)
    tokens = generator.integers(1, 9, (40, STEPS)).astype("int32")
    tokens[np.arange(STEPS) >= generator.integers(6, STEPS, (40, 1))] = 0
    path = tmp_path / "m.tflite"
    file = integer_file(model, {"x": tokens}, path, scheme, integer_only=True)
    runner = open_runner(path, "tflite", file.inputs, file.outputs, as_deployed=True)
    with contextlib.closing(runner):
        (weights,) = runner.run({"x": np.eye(1, STEPS, dtype="int32") * 3})["attention/heads"]
    np.testing.assert_allclose(weights[:, 0], np.tile(np.eye(1, STEPS), (2, 1)), atol=0.01)


def graph_tensors(path: Path) -> list[Any]:
    graph = TFLiteFile(path.read_bytes()).main
    used = {int(i) for item in graph.operators for i in (*item.inputs, *item.outputs)}
    return [graph.tensors[index] for index in used if index >= 0]


@pytest.mark.long
def test_copies_in_int8_alone(tmp_path: Path) -> None:
    """TensorFlow's quantizer leaves TILE and BROADCAST_TO float32 behind the state of an LSTM."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((5, 3), name="x")
    states, h, c = layers.LSTM(4, return_sequences=True, return_state=True)(inputs)
    decoded = layers.LSTM(4, return_sequences=True)(layers.RepeatVector(4)(h), initial_state=[h, c])
    scores = layers.Softmax()(layers.Dot((2, 2))([decoded, states]))
    model = keras.Model(inputs, layers.Dense(3, name="y")(layers.Dot((2, 1))([scores, states])))
    samples = {"x": np.random.default_rng(1).normal(0, 1, (40, 5, 3)).astype("float32")}
    for runtime, kind in (("litert", "CONCATENATION"), (MICRO, "BROADCAST_TO")):
        path = tmp_path / f"{runtime}.tflite"
        file = integer_file(model, samples, path, "int8", integer_only=True, runtime=runtime)
        assert kind in file.achieved["operators"]
        runner = open_runner(
            path, "tflite", file.inputs, file.outputs, as_deployed=True,
            runtime=MICRO if runtime == MICRO else None,
        )  # fmt: skip
        with contextlib.closing(runner):
            actual = runner.run(samples)["y"]
        assert snr_db(model.predict(samples["x"], verbose=0), actual) >= 20


def compared(x: Any) -> Any:
    import tensorflow as tf

    return tf.cast(tf.not_equal(x, -2.0), "float32")


@pytest.mark.parametrize(
    ("scale", "zero_point", "integer"),
    [
        (0.25, 0, -8),
        (2 / 127.5, 0, None),  # between two integers
        (2 / 127.5, -1, -128),  # the smaller one of which is beyond int8
        (0.01, 0, None),  # beyond int8
    ],
)
def test_comparisons_in_int8(scale: float, zero_point: int, integer: int | None) -> None:
    file = TFLiteFile(tflite_of(compared, (1, 4)))
    (source,) = map(int, file.main.inputs)
    parameters = file.quantization(np.array([scale], np.float64), zero_point)
    quantized = file.add_tensor(file.main, "", "INT8", [1, 4], quantization=parameters)
    # The comparison is before the operator whose result it reads.
    file.main.operators.append(file.new_operator("QUANTIZE", [source], [quantized]))
    compare_integers(file)
    kinds = [file.kind(item) for item in file.main.operators]
    comparison = next(item for item in file.main.operators if file.kind(item) == "NOT_EQUAL")
    if integer is None:
        assert int(comparison.inputs[0]) == source
        return
    assert kinds.index("QUANTIZE") < kinds.index("NOT_EQUAL")
    assert int(comparison.inputs[0]) == quantized
    value = file.constant(file.main.tensors[int(comparison.inputs[1])])
    assert value is not None
    assert value.dtype == np.int8
    assert value.item() == integer


def marked(x: Any) -> Any:
    import tensorflow as tf

    return tf.cast(tf.not_equal(tf.transpose(x), -3.0), "float32")


def test_a_threshold_is_a_multiple_of_the_scale() -> None:
    """Of the largest magnitude, 3, the integer would be 16,383.5: half of the largest int16."""
    file = TFLiteFile(tflite_of(marked, (1, 4)))
    (source,) = map(int, file.main.inputs)
    names = {int(i) for item in file.main.operators for i in item.outputs}
    moved = next(i for i in names if file.dtype(file.main.tensors[i]) == "FLOAT32")
    joined = joined_ranges(file, {source: (-3.0, 1.0), moved: (-3.0, 1.0)})
    low, high = joined[source]
    assert joined[moved] == (low, high)
    assert high == 1
    assert -3.001 < low < -3
    # int16 has twice the range.
    scale = np.float32(-low * 2 / 32767)
    assert abs(3 / scale - 16383) < 0.01


@pytest.mark.parametrize(
    ("kind", "value", "scale", "integer"),
    [
        ("LESS", 2.5, 1.0, 3),
        ("GREATER", 2.5, 1.0, 2),
        ("NOT_EQUAL", -1.0, 1 / 3, -3),
        # Quotients of float32 scales are not exactly integers.
        ("GREATER_EQUAL", 1.0, (1 - 1e-7) / 5461, 5461),
        ("GREATER", 1.0, (1 + 1e-7) / 5461, 5461),
        ("LESS", 1.0, (1 - 1e-7) / 5461, 5461),
        ("LESS_EQUAL", 1.0, (1 + 1e-7) / 5461, 5461),
    ],
)
def test_integer_thresholds(kind: str, value: float, scale: float, integer: int) -> None:
    assert integer_threshold(kind, np.array(value), scale) == integer


def test_renamed_integers_have_the_ranges_of_their_scales() -> None:
    """TensorFlow's quantizer renames results that it joins, so that no range is found by name."""
    file = TFLiteFile(tflite_of(marked, (1, 4)))
    parameters = file.quantization(np.array([0.5], np.float32), -28)
    integers = file.add_tensor(file.main, "joined", "INT8", [1, 4], quantization=parameters)
    named = file.add_tensor(file.main, "named", "INT8", [1, 4], quantization=parameters)
    results = [file.add_tensor(file.main, f"{k}", "FLOAT32", [1, 4]) for k in range(2)]
    for source, result in zip((integers, named), results, strict=True):
        file.main.operators.append(file.new_operator("DEQUANTIZE", [source], [result]))
    before = file.add_tensor(file.main, "SelectV2_111", "FLOAT32", [1, 4])
    file.main.operators.append(file.new_operator("QUANTIZE", [before], [named]))
    ranges = with_dequantized(file, {named: (-1.0, 2.0)})
    assert ranges[before] == (-1.0, 2.0)
    assert ranges[results[0]] == (-50.0, 77.5)
    assert ranges[results[1]] == (-1.0, 2.0)


def test_outputs_of_a_fused_lstm_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not chosen, although the limits of int8 would accept it: the verdict would not."""
    want = np.random.default_rng(3).normal(0, 1, (20, 4)).astype("float32")
    spec = TensorSpec("y", (1, 4), "float32")
    io = ModelIO((TensorSpec("x", (1, 4), "float32"),), (spec,), ())
    quantizer = MicroQuantizer.__new__(MicroQuantizer)
    quantizer.content, quantizer.io, quantizer.recipe = b"", io, recipe_for("int16x8")
    quantizer.options = QuantizationOptions(runtime=MICRO)
    ratios = []
    for error in (1e-3, 1.6e-2):  # 60 and 36 dB; the limits are 40 and, in int8, 20

        @contextlib.contextmanager
        def opened(model: Any, *, as_deployed: bool = False, error: float = error) -> Any:
            yield lambda rows: {"y": rows["x"] * (1 if model is None else 1 + error)}

        monkeypatch.setattr(tflite_micro, "model_opener", lambda *a, opened=opened, **b: opened)
        ratios.append(quantizer._ratio(QuantizedModel(b"", (), ()), {"x": want}))
    assert ratios[0] < tflite_micro.TARGET < ratios[1]
