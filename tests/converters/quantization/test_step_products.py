"""Recurrent steps of which only the products are integers, in both forms of steps."""

from __future__ import annotations

import numpy as np
import pytest
from quantized_models import ConversionsOf, calibrated_quantizer

from edgeattn.metrics.pairwise import snr_db
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.candidates import Candidate
from edgeattn_converters.quantization.quantized_model import model_opener
from edgeattn_converters.quantization.tflite import TFLiteQuantizer

UNITS, STEPS = 37, 19
PRODUCTS_ONLY = Candidate(attention=True, recurrence=True, step_products=True)


@pytest.fixture(scope="module", params=["unrolled", "chunked"])
def quantizer(request: pytest.FixtureRequest, conversions_of: ConversionsOf) -> TFLiteQuantizer:
    """An LSTM of 19 steps with attention, calibrated."""
    conversions = conversions_of("lstm")
    return calibrated_quantizer(
        conversions.model, conversions.interface, conversions.samples, request.param
    )


def test_products_of_steps_alone_are_integers(quantizer: TFLiteQuantizer) -> None:
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


def test_states_that_attention_reads_are_not_rounded(quantizer: TFLiteQuantizer) -> None:
    """PACK and DYNAMIC_UPDATE_SLICE gather the states of all steps for the attention."""
    file = TFLiteFile(quantizer.with_activations(PRODUCTS_ONLY).content)
    for graph in file.model.subgraphs:
        makers = {int(i): file.kind(item) for item in graph.operators for i in item.outputs}
        packs = [item for item in graph.operators if file.kind(item) == "PACK"]
        kinds = {makers.get(int(i)) for item in packs for i in item.inputs}
        assert "DEQUANTIZE" not in kinds


def test_outputs_are_closer_to_keras_than_with_integer_steps(
    quantizer: TFLiteQuantizer, conversions_of: ConversionsOf
) -> None:
    conversions = conversions_of("lstm")
    expected = np.asarray(conversions.model(conversions.inputs["sensor"]))
    ratios = []
    for candidate in (PRODUCTS_ONLY, Candidate(attention=True)):
        model = quantizer.with_activations(candidate)
        with model_opener(quantizer.content, quantizer.io)(model) as run:
            ratios.append(snr_db(expected, run(conversions.inputs)["answer"]))
    assert ratios[0] > max(30, ratios[1])
