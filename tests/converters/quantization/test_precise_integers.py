"""What integer files for Lite Micro do for sharp attention: weights of two int8 values each, and
weights of zero for keys without weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from long_parameters import only
from quantized_models import integer_file, tflite_of

from edgeattn.metrics.limits import LIMITS
from edgeattn.metrics.pairwise import max_abs_error, snr_db
from edgeattn.runners import open_runner
from edgeattn.schemes import MICRO
from edgeattn.tensors import TensorSpec
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization.candidates import Candidate
from edgeattn_converters.quantization.integer_pass import IntegerPass
from edgeattn_converters.quantization.quantized_model import ModelIO
from edgeattn_converters.quantization.tflite_micro import MicroQuantizer
from edgeattn_converters.recipes import recipe_for

pytest.importorskip("tflite_micro")
UNIT = 1 / 32768


def in_micro(
    content: bytes,
    x: np.ndarray,
    results: np.ndarray,
    folder: Path,
    *parts: str,
    runtime: str | None = MICRO,
) -> np.ndarray:
    """Outputs in Lite Micro, or another runtime, of the operators of ``content`` in integers.

    ``parts`` are the arguments of the pass, ``in_halves`` or ``cut_tails``, that name the result.
    """
    file = TFLiteFile(content)
    source, result = int(file.main.inputs[0]), int(file.main.outputs[0])
    ranges = {
        index: (float(array.min()), float(array.max()))
        for index, array in ((source, x), (result, results))
    }
    names = {file.name(file.main.tensors[result])}
    IntegerPass(file, ranges, {}, **dict.fromkeys(parts, names)).run()
    specs = [
        TensorSpec(file.name(file.main.tensors[index]), (1, *array.shape[1:]), str(array.dtype))
        for index, array in ((source, x), (result, results))
    ]
    path = folder / f"{'-'.join(parts)}.tflite"
    path.write_bytes(file.pack())
    runner = open_runner(path, "tflite", (specs[0],), (specs[1],), runtime=runtime)
    return np.asarray(runner.run({specs[0].name: x})[specs[1].name])


@pytest.mark.parametrize("activation", ["NONE", "RELU"])
def test_weights_in_two_halves(activation: str, tmp_path: Path) -> None:
    """The sum of two int8 values for each weight is closer to float32 than one, by a factor that
    only int16 activations limit."""
    import tensorflow as tf

    generator = np.random.default_rng(11)
    weights = generator.normal(0, 1, (16, 24)).astype("float32")
    weights[0] *= 50  # so that a single step is coarse for the others
    bias = generator.normal(0, 1, 24).astype("float32")
    x = generator.normal(0, 1, (40, 16)).astype("float32")

    def dense(row: Any) -> Any:
        total = tf.matmul(row, weights) + bias
        return tf.nn.relu(total) if activation == "RELU" else total

    content = tflite_of(dense, (1, 16))
    file = TFLiteFile(content)
    (product,) = file.main.operators
    used = str(product.builtinOptions.fusedActivationFunction)
    assert used == str(getattr(file.schema.ActivationFunctionType, activation))
    want = x @ weights + bias
    want = np.maximum(want, 0) if activation == "RELU" else want
    errors = [
        max_abs_error(want, in_micro(content, x, want, tmp_path, *parts))
        for parts in ((), ("in_halves",))
    ]
    # int16 activations have steps of 2 * 150 / 32767, and three results are rounded.
    assert errors[1] < 0.03 < 0.2 < errors[0]


@pytest.mark.parametrize("runtime", [MICRO, None], ids=["micro", "litert"])
@pytest.mark.parametrize("depthwise", [False, True])
def test_convolutions_in_two_halves(depthwise: bool, runtime: str | None, tmp_path: Path) -> None:
    """The runtimes accept the product with the second half, which has no bias."""
    import tensorflow as tf

    generator = np.random.default_rng(12)
    kernel = generator.normal(0, 1, (3, 1, 4, 1 if depthwise else 6)).astype("float32")
    kernel[0, 0, 0] *= 50
    bias = generator.normal(0, 1, 4 if depthwise else 6).astype("float32")
    x = generator.normal(0, 1, (12, 9, 1, 4)).astype("float32")

    def convolve(rows: Any) -> Any:
        if depthwise:
            return tf.nn.depthwise_conv2d(rows, kernel, [1, 1, 1, 1], "VALID") + bias
        return tf.nn.conv2d(rows, kernel, 1, "VALID") + bias

    content = tflite_of(convolve, (1, 9, 1, 4))
    want = convolve(x).numpy()
    errors = [
        max_abs_error(want, in_micro(content, x, want, tmp_path, *parts, runtime=runtime))
        for parts in ((), ("in_halves",))
    ]
    assert errors[1] < 0.04
    assert depthwise or errors[1] < errors[0] / 4


@pytest.mark.parametrize("runtime", [MICRO, None], ids=["micro", "litert"])
def test_transposed_convolutions(runtime: str | None, tmp_path: Path) -> None:
    """As in the decoder of an autoencoder; int8 weights have steps of at most 3.5 / 127."""
    import tensorflow as tf

    generator = np.random.default_rng(9)
    kernel = np.clip(generator.normal(0, 1, (1, 3, 5, 4)), -3.5, 3.5).astype("float32")
    bias = generator.normal(0, 1, 5).astype("float32")
    x = generator.normal(0, 1, (12, 1, 6, 4)).astype("float32")

    def convolve(rows: Any) -> Any:
        shape = (rows.shape[0], 1, 12, 5)
        return tf.nn.conv2d_transpose(rows, kernel, shape, (1, 2), "SAME") + bias

    content = tflite_of(convolve, (1, 1, 6, 4))
    assert "TRANSPOSE_CONV" in {kind for _, _, kind in TFLiteFile(content).operators()}
    want = convolve(x).numpy()
    actual = in_micro(content, x, want, tmp_path, runtime=runtime)
    assert snr_db(want, actual) >= 40
    assert max_abs_error(want, actual) < 0.15


def test_tables_in_two_halves(tmp_path: Path) -> None:
    """A table has one scale: with a large row, steps of int8 are 50 / 127, or 0.39."""
    import tensorflow as tf

    table = np.random.default_rng(11).normal(0, 1, (9, 5)).astype("float32")
    table[3, 2] = 50
    words = np.arange(9, dtype="int32")[:, None]
    content = tflite_of(lambda row: tf.gather(table, row), (1, 1), dtype="int32")
    want = table[words]
    errors = [
        max_abs_error(want, in_micro(content, words, want, tmp_path, *parts))
        for parts in ((), ("in_halves",))
    ]
    # int16 rows have steps of 2 * 50 / 32767.
    assert 0.15 < errors[0] < 0.2
    assert errors[1] < 0.004


def test_keys_without_weight_get_none(tmp_path: Path) -> None:
    """exp(-20) is 7e-5 of a unit of int16, but the kernel computes exp(-10), 1.5 units."""
    import tensorflow as tf

    scores = np.full((3, 12), -20, "float32")
    scores[[0, 1, 2], [2, 5, 7]] = 0
    scores[1, 6], scores[2, 8] = -1, -4
    content = tflite_of(tf.nn.softmax, (1, 12))
    exponentials = np.exp(scores)
    want = exponentials / exponentials.sum(axis=1, keepdims=True)
    usual = in_micro(content, scores, want, tmp_path)
    cut = in_micro(content, scores, want, tmp_path, "cut_tails")
    tail = scores == -20
    assert (usual[tail] >= UNIT).all()
    assert (cut[tail] == 0).all()
    # 2 units are subtracted, and the kernel reads exponentials from a table.
    assert max_abs_error(want[~tail], cut[~tail]) < 30 * UNIT


def test_only_softmaxes_of_attention_are_cut() -> None:
    """A classifier's probabilities stay as they are."""
    import tensorflow as tf

    projection = np.random.default_rng(7).normal(0, 20, (6, 6)).astype("float32")

    def attend(x: Any) -> Any:
        weights = tf.nn.softmax(tf.matmul(x, projection), name="map")
        return {"map": weights, "classes": tf.nn.softmax(tf.matmul(weights, projection))}

    content = tflite_of(attend, (1, 6))
    file = TFLiteFile(content)
    names = [file.name(file.main.tensors[int(i)]) for i in file.main.outputs]
    kinds = [file.kind(operator) for operator in file.main.operators]
    assert kinds.count("SOFTMAX") == 2
    (source,) = [file.name(file.main.tensors[int(i)]) for i in file.main.inputs]
    first = next(item for item in file.main.operators if file.kind(item) == "SOFTMAX")
    attention = file.name(file.main.tensors[int(first.outputs[0])])
    io = ModelIO(
        (TensorSpec(source, (1, 6), "float32"),),
        tuple(TensorSpec(name, (1, 6), "float32") for name in names),
        (attention,),
    )
    options = QuantizationOptions(runtime=MICRO)
    quantizer = MicroQuantizer(content, io, recipe_for("int16x8"), options)
    x = {source: np.random.default_rng(8).normal(0, 1, (64, 6)).astype("float32")}
    model = quantizer.quantize(x)
    # Scores are tens apart, so that most weights are zero.
    assert model.candidate.cut_tails
    assert any("2/32768" in note for note in model.notes)
    alone = quantizer.with_activations(Candidate(cut_tails=True))
    kinds = [kind for _, _, kind in TFLiteFile(alone.content).operators()]
    assert (kinds.count("SOFTMAX"), kinds.count("ADD")) == (2, 1)


@pytest.mark.parametrize("runtime", only((MICRO, "litert"), MICRO))
def test_outputs_near_their_limits_have_weights_in_halves(runtime: str, tmp_path: Path) -> None:
    """One weight of each output is 200 times the others, and its input is zero: the others have
    few of the integers."""
    generator = np.random.default_rng(11)
    inputs = keras.Input((32,), name="x")
    model = keras.Model(inputs, keras.layers.Dense(24, name="y")(inputs))
    weights = generator.normal(0, 1, (32, 24)).astype("float32")
    weights[0] *= 200
    model.set_weights([weights, np.zeros(24, "float32")])
    x = generator.normal(0, 1, (60, 32)).astype("float32")
    x[:, 0] = 0
    path = tmp_path / "m.tflite"
    file = integer_file(model, {"x": x}, path, "int16x8", runtime=runtime, integer_only=True)
    assert "two int8 values for each of all weights" in file.achieved["notes"]
    runner = open_runner(
        path, "tflite", file.inputs, file.outputs, as_deployed=True,
        runtime=MICRO if runtime == MICRO else None,
    )  # fmt: skip
    want = model.predict(x, verbose=0)
    step = np.abs(weights).max(axis=0) / 127
    rounded = x @ (np.rint(weights / step) * step)
    assert snr_db(want, rounded) < LIMITS["int16x8"].snr_db
    assert snr_db(want, runner.run({"x": x})["y"]) >= LIMITS["int16x8"].snr_db
