"""Diagnosis of ONNX files with LSTM layers whose int8 weights have scales of their own."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeattn_converters.diagnosis.onnx_graph import GraphReader

FEATURES, GATES, UNITS = 3, 20, 5


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("per_channel", [True, False])
def test_weights_are_decoded_by_direction(directions: int, per_channel: bool) -> None:
    """``(integer - zero point) * scale``, with the gates ahead of the features."""
    generator = np.random.default_rng(7)
    shape = (directions, GATES) if per_channel else (directions,)
    sizes = {"w": FEATURES, "r": UNITS}
    constants = {}
    for name, size in sizes.items():
        constants[name] = generator.integers(-99, 99, (directions, size, GATES)).astype(np.int8)
        constants[f"{name}_scale"] = generator.uniform(0.01, 0.1, shape).astype(np.float32)
        constants[f"{name}_zero"] = generator.integers(-9, 9, shape).astype(np.int8)
    names = ["x", "w", "r", "", "", "", "", "", "w_scale", "w_zero", "r_scale", "r_zero"]
    node = helper.make_node("DynamicQuantizeLSTM", names, ["y"], domain="com.microsoft")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 1, FEATURES])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, directions, 1, UNITS])
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    model = helper.make_model(helper.make_graph([node], "m", [x], [y], initializers))
    graph = GraphReader(model).read(["x"], ["y"])
    for name in sizes:
        values = graph.constants[name].values
        for direction in range(directions):
            scale, zero = (constants[f"{name}_{part}"][direction] for part in ("scale", "zero"))
            integers = constants[name][direction].astype(float)
            np.testing.assert_allclose(
                values[direction], ((integers - zero) * scale).T, rtol=1e-6, atol=1e-7
            )
