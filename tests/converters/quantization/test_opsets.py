"""ONNX operator sets: what each scheme makes of each, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from weighty_models import Workshop

from edgeattn.errors import ConversionError, UsageError
from edgeattn_converters.formats.onnx import runtimes
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.recipes import OPSETS


@pytest.fixture(scope="module", params=["transformer", "text"])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(request.param, tmp_path_factory.mktemp(request.param))


def _opset(path: Path) -> int:
    return next(o.version for o in onnx.load(path).opset_import if o.domain in ("", "ai.onnx"))


@pytest.mark.parametrize("opset", [13, 17, 19, 20, 21])
def test_a_file_is_of_the_set_that_was_asked_for(shop: Workshop, opset: int) -> None:
    expected = shop.make("onnx", "float32").actual
    made = shop.make("onnx", "float32", opset=opset)
    assert _opset(made.path) == opset
    for name, want in expected.items():
        np.testing.assert_allclose(made.actual[name], want, atol=1e-5, rtol=1e-4)
    assert runtimes(made.achieved) == {"onnxruntime": ">=1.18" if opset > 20 else ">=1.17"}
    if opset != 20:
        assert _opset(shop.make("onnx", "dynamic_int8", opset=opset).path) == opset


@pytest.mark.parametrize("opset", [13, 19])
def test_integers(shop: Workshop, opset: int) -> None:
    assert _opset(shop.make("onnx", "int8", opset=opset).path) == opset
    with pytest.raises(ConversionError, match=f"needs ONNX operator set 21, and --opset {opset}"):
        shop.make("onnx", "int16x8", opset=opset)


def test_int16_in_the_set_that_has_it(shop: Workshop) -> None:
    assert _opset(shop.make("onnx", "int16x8", opset=21).path) == 21


@pytest.mark.parametrize("opset", [OPSETS[0] - 1, OPSETS[-1] + 1])
def test_others_are_refused(opset: int) -> None:
    with pytest.raises(UsageError, match=f"ONNX operator set {opset} is not supported"):
        QuantizationOptions(opset=opset)
