"""Schemes of fused LSTMs: dynamic_int8 uses the kernel's own scaling, calibrated ones fail."""

from __future__ import annotations

import pytest
from quantized_models import Conversions, ConversionsOf

from edgeattn.errors import ConversionError
from edgeattn.metrics import pairwise as metrics
from edgeattn.runners import open_runner


@pytest.fixture(scope="module")
def conversions(conversions_of: ConversionsOf) -> Conversions:
    return conversions_of("lstm")


def test_dynamic_int8(conversions: Conversions) -> None:
    """The weights are int8, and no sequence depends on the previous one."""
    expected = conversions.make("tflite", "float32").actual
    converted = conversions.make("tflite", "dynamic_int8", lowering="fused")
    achieved = converted.achieved
    assert achieved["operators"]["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 1
    assert achieved["weights"]["int8"] / sum(achieved["weights"].values()) > 0.9
    runner = open_runner(
        converted.path, "tflite", converted.inputs, converted.outputs, as_deployed=True
    )
    for _ in range(2):
        actual = runner.run(conversions.inputs)
        for name, want in expected.items():
            assert metrics.snr_db(want, actual[name]) >= 30


@pytest.mark.parametrize("scheme", ["int8", "int16x8"])
def test_calibrated_schemes_are_rejected(conversions: Conversions, scheme: str) -> None:
    with pytest.raises(ConversionError, match=f"{scheme} does not support fused LSTMs") as error:
        conversions.make("tflite", scheme, lowering="fused")
    assert "dynamic_int8" in str(error.value.hint)
