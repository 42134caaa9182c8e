"""Recurrent steps of which only some operators are integers, in both forms of steps."""

from __future__ import annotations

import numpy as np
import pytest
from long_parameters import only
from quantized_models import ConversionsOf, calibrated_quantizer

from edgeattn.metrics.pairwise import snr_db
from edgeattn_converters.formats.tflite_float import has_loops
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.candidates import Candidate, Stage
from edgeattn_converters.quantization.quantized_model import QuantizedModel, model_opener
from edgeattn_converters.quantization.tflite import LiteRTQuantizer

UNITS, STEPS = 37, 19
PRODUCTS_ONLY = Candidate(attention=True, recurrence=True, step_products=True)
FLOAT_FUNCTIONS = Candidate(attention=True, states=True, functions=True)


@pytest.fixture(scope="module", params=only(["unrolled", "chunked"], "unrolled"))
def quantizer(request: pytest.FixtureRequest, conversions_of: ConversionsOf) -> LiteRTQuantizer:
    """An LSTM of 19 steps with attention, calibrated."""
    conversions = conversions_of("lstm")
    return calibrated_quantizer(
        conversions.model, conversions.interface, conversions.samples, request.param
    )


def test_products_of_steps_alone_are_integers(quantizer: LiteRTQuantizer) -> None:
    file = TFLiteFile(quantizer.with_activations(PRODUCTS_ONLY).content)
    products = 0
    for graph, operator, kind in file.operators():
        dtypes = {file.dtype(graph.tensors[int(i)]) for i in operator.outputs}
        if kind in ("LOGISTIC", "SPLIT", "ADD"):
            assert dtypes <= {"FLOAT32", "INT32"}, kind
        if kind == "FULLY_CONNECTED":
            units, features = map(int, graph.tensors[int(operator.inputs[1])].shape)
            if units == 4 * UNITS:
                assert dtypes == {"INT8" if features == UNITS else "FLOAT32"}
                products += features == UNITS
    # All steps but the first, whose state is zero, or those of the loop's body and before it.
    assert products in (STEPS - 1, 9)


def test_states_that_attention_reads_are_not_rounded(quantizer: LiteRTQuantizer) -> None:
    """PACK and DYNAMIC_UPDATE_SLICE gather the states of all steps for the attention."""
    file = TFLiteFile(quantizer.with_activations(PRODUCTS_ONLY).content)
    for graph in file.model.subgraphs:
        makers = {int(i): file.kind(item) for item in graph.operators for i in item.outputs}
        packs = [item for item in graph.operators if file.kind(item) == "PACK"]
        kinds = {makers.get(int(i)) for item in packs for i in item.inputs}
        assert "DEQUANTIZE" not in kinds


def test_functions_of_cells_alone_are_float(quantizer: LiteRTQuantizer) -> None:
    file = TFLiteFile(quantizer.with_activations(FLOAT_FUNCTIONS).content)
    tanhs = []
    for graph, operator, kind in file.operators():
        dtype = file.dtype(graph.tensors[int(operator.outputs[0])])
        if kind == "TANH":
            tanhs.append(dtype)
        if kind == "LOGISTIC":
            assert dtype == "INT8"
    # Two in each step, and one in the last layer, which stays an integer, as does the step before a
    # loop, which adds to no cell.
    counts = tanhs.count("FLOAT32"), tanhs.count("INT8")
    assert counts in ((2 * STEPS, 1), (2 * 9, 1 + 2))


def test_outputs_are_closer_to_keras_than_with_integer_steps(
    quantizer: LiteRTQuantizer, conversions_of: ConversionsOf
) -> None:
    conversions = conversions_of("lstm")
    expected = np.asarray(conversions.model(conversions.inputs["sensor"]))
    ratios = []
    for candidate in (PRODUCTS_ONLY, Candidate(attention=True)):
        model = quantizer.with_activations(candidate)
        with model_opener(quantizer.content, quantizer.io)(model) as run:
            ratios.append(snr_db(expected, run(conversions.inputs)["answer"]))
    assert ratios[0] > max(30, ratios[1])


def test_small_cells_are_closer_to_keras_with_float_functions() -> None:
    """Cells up to 0.3 use a third of the levels of an int8 TANH."""
    import keras

    from edgeattn_converters.tracing.trace import interface_of

    keras.utils.set_random_seed(4)
    inputs = keras.Input((6, 2), name="x")
    kernel = keras.initializers.RandomUniform(-0.1, 0.1)
    lstm = keras.layers.LSTM(48, kernel_initializer=kernel, unit_forget_bias=False)
    states = lstm(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="answer")(states))
    x = np.random.default_rng(4).normal(0, 1, (48, 6, 2)).astype("float32")
    quantizer = calibrated_quantizer(model, interface_of(model), {"x": x}, "unrolled")
    ratios = []
    for candidate in (Candidate(states=True, functions=True), Candidate(states=True)):
        quantized = quantizer.with_activations(candidate)
        with model_opener(quantizer.content, quantizer.io)(quantized) as run:
            ratios.append(snr_db(model.predict(x, verbose=0), run({"x": x})["answer"]))
    assert ratios[0] > ratios[1] + 1


def test_candidates_with_equal_files_are_made_once(
    quantizer: LiteRTQuantizer, conversions_of: ConversionsOf
) -> None:
    """The updates of states are among the steps that are float32 already. Loops have more to it."""
    first = Candidate(recurrence=True)
    second = Candidate(recurrence=True, states=True)
    made = {}

    def quantize(candidate: Candidate) -> QuantizedModel:
        made[candidate] = quantizer.with_activations(candidate)
        return made[candidate]

    samples = {name: array[:4] for name, array in conversions_of("lstm").samples.items()}
    assert quantizer.select([Stage((first, second))], quantize, samples).candidate == first
    if has_loops(quantizer.content):
        assert set(made) >= {first, second}
    else:
        assert second not in made
        assert quantizer.with_activations(second).content == made[first].content


def test_candidates_start_from_the_unchanged_file(quantizer: LiteRTQuantizer) -> None:
    changed = quantizer.copy()
    changed.main.operators.clear()
    changed.main.tensors[0].shape = [7]
    changed.add_constant(changed.main, np.ones(3, np.float32))
    read = TFLiteFile(quantizer.content)
    assert quantizer.copy().to_bytes() == read.to_bytes() == quantizer.original.to_bytes()
    assert read.kind(quantizer.copy().main.operators[0]) == read.kind(read.main.operators[0])
