"""int8 steps that multiply their input and their state in one product, compared with Keras."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from long_parameters import only
from quantized_models import calibrated_quantizer, filled

from edgeattn.metrics.pairwise import snr_db
from edgeattn.schemes import MICRO
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization.candidates import DEFAULT, Candidate, Stage
from edgeattn_converters.quantization.joined_products import join_step_products
from edgeattn_converters.quantization.quantized_model import (
    QuantizationSamples,
    QuantizedModel,
    model_opener,
)
from edgeattn_converters.quantization.selection import within_target
from edgeattn_converters.quantization.tflite import LiteRTQuantizer
from edgeattn_converters.quantization.tflite_micro import MicroQuantizer
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

STEPS, FEATURES, UNITS, LOUD = 7, 6, 24, 5.0
LAYERS: dict[str, Any] = {
    "lstm": layers.LSTM(UNITS, return_sequences=True, name="steps"),
    "gru": layers.GRU(UNITS, return_sequences=True, name="steps"),
    "gru before": layers.GRU(UNITS, return_sequences=True, reset_after=False, name="steps"),
    "rnn": layers.SimpleRNN(UNITS, name="steps"),
    "both": layers.Bidirectional(layers.LSTM(UNITS, return_sequences=True), name="steps"),
    "masked": layers.LSTM(UNITS, return_sequences=True, name="steps"),
}


@pytest.fixture(scope="module", params=only(LAYERS, "lstm", "masked"))
def case(request: pytest.FixtureRequest) -> tuple[str, Any, LiteRTQuantizer, Any]:
    """A model with inputs that are larger than its states, calibrated, and its samples."""
    x = keras.Input((STEPS, FEATURES), name="x")
    inner = layers.Masking(0.0)(x) if request.param == "masked" else x
    states = LAYERS[request.param](inner)
    model = filled(keras.Model(x, layers.Dense(3, name="answer")(states)))
    samples = np.random.default_rng(3).normal(0, LOUD, (64, STEPS, FEATURES)).astype("float32")
    if request.param == "masked":
        for row, sample in enumerate(samples):
            sample[STEPS - row % 3 :] = 0
    return (
        request.param,
        model,
        calibrated_quantizer(model, interface_of(model), {"x": samples}, "unrolled"),
        samples,
    )


def test_the_float_file_computes_the_same(case: Any) -> None:
    name, model, quantizer, samples = case
    file = TFLiteFile(quantizer.content)
    ranges, count = join_step_products(file, quantizer._ranges, lambda value: True)
    parts = 2 if name in ("both", "gru before") else 1
    assert count == parts
    for index, (low, high) in quantizer._ranges.items():
        assert ranges[index][0] <= low
        assert ranges[index][1] >= high
    assert join_step_products(file, ranges, lambda value: True) == (ranges, 0)
    counts = Counter(map(file.kind, file.main.operators))
    # All steps of a layer but the first, whose state is zero.
    assert counts["CONCATENATION"] - (name == "both") * STEPS <= parts * (STEPS - 1)
    joined = QuantizedModel(file.to_bytes(), quantizer.io.inputs, quantizer.io.outputs)
    with model_opener(quantizer.content, quantizer.io)(joined) as run:
        actual = run({"x": samples})["answer"]
    np.testing.assert_allclose(actual, np.asarray(model(samples)), atol=2e-5)


def test_integers_are_as_close_to_keras(case: Any) -> None:
    _, model, quantizer, samples = case
    expected = np.asarray(model(samples))
    ratios = []
    for candidate in (DEFAULT, replace(DEFAULT, joined=True)):
        quantized = quantizer.with_activations(candidate)
        with model_opener(quantizer.content, quantizer.io)(quantized) as run:
            ratios.append(snr_db(expected, run({"x": samples})["answer"]))
    assert ratios[1] > min(25, ratios[0] - 3)


def test_int16_files_of_lite_micro_are_closer_to_keras(case: Any) -> None:
    """With weights of two int8 values each, errors are those of rounding, which is done once.

    Padded steps lose some of it: inputs that are larger than the states set their common scale.
    """
    pytest.importorskip("tflite_micro")
    name, model, quantizer, samples = case
    options = QuantizationOptions(runtime=MICRO)
    micro = MicroQuantizer(quantizer.content, quantizer.io, recipe_for("int16x8"), options)
    micro.calibrate({"x": samples})
    expected = np.asarray(model(samples))
    ratios = []
    for candidate in (Candidate(halves="every"), Candidate(halves="every", joined=True)):
        quantized = micro.with_activations(candidate)
        with model_opener(micro.content, micro.io, runtime=MICRO)(quantized) as run:
            ratios.append(snr_db(expected, run({"x": samples})["answer"]))
    assert ratios[1] > max(55, ratios[0] - (3 if name == "masked" else 0))


def test_states_and_inputs_share_a_scale(case: Any) -> None:
    """Nothing is converted between the steps, except tanh's results, whose scale is fixed, and
    states that are joined with those of the other direction."""
    name, _, quantizer, _ = case
    file = TFLiteFile(quantizer.with_activations(replace(DEFAULT, joined=True)).content)
    tensors = file.main.tensors
    for operator in file.main.operators:
        kind = file.kind(operator)
        dtype = file.dtype(tensors[int(operator.inputs[0])])
        assert (kind, dtype) != ("QUANTIZE", "INT8") or name in ("rnn", "both")
        if kind == "FULLY_CONNECTED":
            assert dtype == "INT8"


def test_weights_of_another_precision_stay_apart(case: Any) -> None:
    name, _, quantizer, _ = case
    file = TFLiteFile(quantizer.content)
    before = [file.kind(item) for item in file.main.operators]
    ranges, count = join_step_products(file, quantizer._ranges, lambda value: len(value) < 4)
    assert count == 0
    if "gru" not in name:  # whose products of all gates are divided
        assert [file.kind(item) for item in file.main.operators] == before
        assert ranges == quantizer._ranges


@pytest.mark.parametrize(("loud", "is_joined"), [(2, True), (4, False)])
def test_steps_are_joined_only_near_the_limits(loud: float, is_joined: bool) -> None:
    """Two loud features cancel in the sum, but their weights set the scale that the weights of the
    state have in one product."""
    x = keras.Input((STEPS, FEATURES), name="x")
    states = layers.LSTM(UNITS, return_sequences=True, name="steps")(x)
    model = filled(keras.Model(x, layers.Dense(3, name="answer")(states)))
    kernel, recurrent, bias = model.get_layer("steps").get_weights()
    kernel[0] = kernel[1] = 1.0
    model.get_layer("steps").set_weights([kernel, 2 * recurrent, bias])
    samples = np.random.default_rng(3).normal(0, 1, (64, STEPS, FEATURES)).astype("float32")
    samples[:, :, 0] *= loud
    samples[:, :, 1] = -samples[:, :, 0]
    quantizer = calibrated_quantizer(model, interface_of(model), {"x": samples}, "unrolled")
    stages = (Stage((DEFAULT,)),)
    selected = quantizer.select(stages, quantizer.with_activations, {"x": samples})
    assert selected.candidate.joined == is_joined
    assert within_target(
        model_opener(quantizer.content, quantizer.io),
        quantizer.io,
        "int8",
        selected,
        QuantizationSamples({"x": samples}),
    )
