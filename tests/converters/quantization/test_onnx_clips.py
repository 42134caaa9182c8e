"""Clips whose bounds are the range of the integers behind them, and others."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import parser

from edgeattn_converters.quantization.onnx_clips import drop_clips

# A product in steps of 0.2, and the clipped one in steps of 1/32 from 0 (zero point -128) or from
# -4 (zero point 0).
MODEL = """<ir_version: 8, opset_import: ["" : 18]>
clips (float[n, 2] x) => (float[n, 2] y{output})
<float[2, 2] w = {{1.0, 0.5, -2.0, 3.0}}, float s = {{0.2}}, int8 z = {{0}},
 float t = {{0.03125}}, int8 u = {{{zero}}}, float low = {{{low}}}, float high = {{{high}}}> {{
    h = MatMul(x, w)
    q = QuantizeLinear(h, s, z)
    d = DequantizeLinear(q, s, z)
    c = Clip(d, {bounds})
    r = QuantizeLinear(c, t, u)
    y = DequantizeLinear(r, t, u)
}}"""


def clips(low: float, high: float, zero: int, bounds: str = "low, high", output: str = "") -> Any:
    text = MODEL.format(low=low, high=high, zero=zero, bounds=bounds, output=output)
    return parser.parse_model(text)


def run(model: Any, x: Any) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(["y"], {"x": x})[0]


@pytest.mark.parametrize(
    ("low", "high", "zero", "bounds"),
    [
        (0.0, 255 / 32, -128, "low, high"),  # exactly the range
        (-1.0, 8.0, -128, "low, high"),
        (-4.0, 4.0, 0, "low, high"),
        (0.0, 6.0, -128, "low"),  # without an upper bound
        (-5.0, 255 / 32, -128, ", high"),
    ],
)
def test_integers_that_only_reach_the_bounds(
    low: float, high: float, zero: int, bounds: str
) -> None:
    """The result is that of the product itself, clipped, in the finer steps."""
    model = clips(low, high, zero, bounds)
    drop_clips(model)
    assert [node.op_type for node in model.graph.node] == [
        *("MatMul", "QuantizeLinear", "DequantizeLinear")
    ]
    x = np.random.default_rng(0).normal(0, 3, (50, 2)).astype("float32")
    product = x @ np.array([[1.0, 0.5], [-2.0, 3.0]], "float32")
    least, most = (-128 - zero) / 32, (127 - zero) / 32
    steps = np.round(np.clip(product, least, most) * 32) / 32
    np.testing.assert_allclose(run(model, x), steps, atol=1e-6)


@pytest.mark.parametrize(
    ("low", "high", "zero", "bounds", "output"),
    [
        (0.0, 6.0, -128, "low, high", ""),  # the range reaches to 7.97, as that of a wide output
        (0.5, 8.0, -128, "low, high", ""),  # integers have a zero, which is below the bound
        (0.0, 8.0, 0, "low, high", ""),
        (0.0, 8.0, -128, "low, high", ", float[n, 2] d"),  # what is clipped is an output, too
        (0.0, 8.0, -128, "low, high", ", float[n, 2] c"),
    ],
)
def test_clips_that_remain(low: float, high: float, zero: int, bounds: str, output: str) -> None:
    model = clips(low, high, zero, bounds, output)
    before = model.SerializeToString()
    drop_clips(model)
    assert model.SerializeToString() == before


def test_a_clip_without_bounds() -> None:
    model = clips(0.0, 6.0, -128)
    clip = next(node for node in model.graph.node if node.op_type == "Clip")
    del clip.input[1:]
    drop_clips(model)
    assert "Clip" not in [node.op_type for node in model.graph.node]
