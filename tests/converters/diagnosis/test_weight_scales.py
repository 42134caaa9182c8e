"""Weights of ONNX files that a Cast and a Mul decode."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeattn_converters.diagnosis.onnx_graph import GraphReader

SIZE = (4, 3)


@pytest.mark.parametrize(("shape", "axis"), [((3,), 1), ((1, 3), 1), ((4, 1), 0), ((), None)])
def test_the_axis_of_the_scales(shape: tuple[int, ...], axis: int | None) -> None:
    """Scales with fewer axes than the weights broadcast along the last ones, as in NumPy."""
    generator = np.random.default_rng(0)
    integers = generator.integers(-127, 128, SIZE).astype("int8")
    scales = generator.uniform(0.1, 1, shape).astype("float32")
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["integers"], ["cast"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["cast", "scales"], ["weights"]),
            helper.make_node("MatMul", ["x", "weights"], ["y"]),
        ],
        "weights",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, SIZE[0]))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, SIZE[1]))],
        [numpy_helper.from_array(integers, "integers"), numpy_helper.from_array(scales, "scales")],
    )
    read = GraphReader(helper.make_model(graph)).read(["x"], ["y"])
    weights = read.constants["weights"]
    np.testing.assert_array_equal(weights.values, integers * scales)
    assert weights.encoding.channel_axis == axis
