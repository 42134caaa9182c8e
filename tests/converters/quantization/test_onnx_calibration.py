"""Ranges of activations in ONNX files, of all calibration samples."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import parser

from edgeattn.tensors import TensorSpec
from edgeattn_converters.quantization.onnx_static import quantize_activations

MODEL = """<ir_version: 8, opset_import: ["" : 18]>
product (float[n, 2] x) => (float[n, 2] y)
<float[2, 2] w = {1.0, 0.5, -2.0, 3.0}, float[2, 2] v = {1.0, 0.0, 0.0, 1.0}> {
    h = MatMul(x, w)
    y = MatMul(h, v)
}"""
W = np.array([[1.0, 0.5], [-2.0, 3.0]], "float32")
BATCH = 16


@pytest.mark.parametrize("batches", [64, 65, 128, 130])
@pytest.mark.parametrize("first", [True, False])
def test_every_sample_counts(batches: int, first: bool) -> None:
    """onnxruntime drops the samples of each 64 batches if that is their largest number."""
    x = np.random.default_rng(2).uniform(-1, 1, (batches * BATCH, 2)).astype("float32")
    largest = np.array([[100.0, -100.0]], "float32")
    x[0 if first else -1] = largest
    spec = TensorSpec("x", (None, 2), "float32")
    model = quantize_activations(parser.parse_model(MODEL), (spec,), set(), "int8", {"x": x})
    session = onnxruntime.InferenceSession(model.SerializeToString())
    # Steps of 400 / 255 at most.
    np.testing.assert_allclose(session.run(["y"], {"x": largest})[0], largest @ W, atol=4)
