"""int4 weights, which are converted on explicit request only, in the real runtimes."""

from __future__ import annotations

import numpy as np
import pytest
from quantized_models import ConversionsOf

from edgeattn.errors import ConversionError
from edgeattn.metrics import pairwise as metrics
from edgeattn.schemes import EXPERIMENTAL, SCHEMES
from edgeattn_converters.graphs.tflite_pack import pack_int4, unpack_int4
from edgeattn_converters.recipes import RECIPES, default_schemes


def test_int4_values_are_packed_two_to_a_byte() -> None:
    # 1 in the lower half and -2 (14) in the upper half; then 7 alone.
    assert list(pack_int4(np.array([1, -2, 7], np.int8))) == [0xE1, 0x07]
    values = np.arange(-8, 7, dtype=np.int8).reshape(3, 5)
    np.testing.assert_array_equal(unpack_int4(pack_int4(values), (3, 5)), values)


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_outputs_in_the_runtime(format: str, conversions_of: ConversionsOf) -> None:
    conversions = conversions_of("lstm")
    int8 = conversions.make(format, "dynamic_int8")
    converted = conversions.make(format, "int4")
    weights = converted.achieved["weights"]
    assert weights["int4"] / sum(weights.values()) > 0.9
    assert converted.path.stat().st_size < int8.path.stat().st_size - 0.4 * weights["int4"]
    for name, want in conversions.make(format, "float32").actual.items():
        # Seven steps per sign: noise of (1 / 14) ** 2 / 12, 33 dB below the largest weight.
        assert metrics.snr_db(want, converted.actual[name]) >= 20


def test_schemes_without_a_kernel_are_rejected(conversions_of: ConversionsOf) -> None:
    conversions = conversions_of("convolutional")
    with pytest.raises(ConversionError, match="32% of the weights are int4"):
        conversions.make("tflite", "int4")
    with pytest.raises(ConversionError, match="tflite-runtime has no kernel for int4"):
        conversions.make("tflite", "int4", runtime="tflite-runtime")
    with pytest.raises(ConversionError, match="int4 needs ONNX operator set 21"):
        conversions.make("onnx", "int4", opset=18)


def test_slow_and_experimental_schemes_must_be_named() -> None:
    assert set(default_schemes(calibrated=True)) == set(SCHEMES) - {"int16x8"}
    assert set(RECIPES) == {*SCHEMES, *EXPERIMENTAL}
