"""ONNX operator sets: the one of each file, and which schemes need which."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from long_parameters import only
from quantized_models import Conversions, ConversionsOf

from edgeattn.errors import ConversionError, UsageError
from edgeattn_converters.formats.onnx import runtimes
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.recipes import OPSETS


@pytest.fixture(scope="module", params=only(["transformer", "text"], "transformer"))
def conversions(request: pytest.FixtureRequest, conversions_of: ConversionsOf) -> Conversions:
    return conversions_of(request.param)


def _opset(path: Path) -> int:
    return next(o.version for o in onnx.load(path).opset_import if o.domain in ("", "ai.onnx"))


@pytest.mark.parametrize("opset", only([13, 17, 19, 20, 21], 13, 21))
def test_file_has_the_requested_opset(conversions: Conversions, opset: int) -> None:
    expected = conversions.make("onnx", "float32").actual
    converted = conversions.make("onnx", "float32", opset=opset)
    assert _opset(converted.path) == opset
    for name, want in expected.items():
        np.testing.assert_allclose(converted.actual[name], want, atol=1e-5, rtol=1e-4)
    assert runtimes(converted.achieved) == {"onnxruntime": ">=1.18" if opset > 20 else ">=1.17"}
    if opset != 20:
        assert _opset(conversions.make("onnx", "dynamic_int8", opset=opset).path) == opset


@pytest.mark.parametrize("opset", [13, 19])
def test_int16_needs_a_later_opset_than_int8(conversions: Conversions, opset: int) -> None:
    assert _opset(conversions.make("onnx", "int8", opset=opset).path) == opset
    with pytest.raises(
        ConversionError, match=f"needs ONNX operator set 21, but --opset {opset} was requested"
    ):
        conversions.make("onnx", "int16x8", opset=opset)


def test_int16_in_opset_21(conversions: Conversions) -> None:
    assert _opset(conversions.make("onnx", "int16x8", opset=21).path) == 21


@pytest.mark.parametrize("opset", [OPSETS[0] - 1, OPSETS[-1] + 1])
def test_unsupported_opsets_are_rejected(opset: int) -> None:
    with pytest.raises(UsageError, match=f"ONNX operator set {opset} is not supported"):
        QuantizationOptions(opset=opset)
