"""Diagnosis of ONNX files in which several lookups read one int8 table."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edgeattn_converters.diagnosis.onnx_graph import GraphReader


def test_a_table_of_two_lookups_is_decoded_once() -> None:
    table = np.arange(-4, 8, dtype=np.int8).reshape(6, 2)
    nodes = [
        node
        for name in ("history", "candidates")
        for node in (
            helper.make_node("Gather", ["table", name], [f"{name}_int8"]),
            helper.make_node("Cast", [f"{name}_int8"], [f"{name}_float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}_float", "scale"], [f"{name}_rows"]),
        )
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT32, [1, 3])
        for name in ("history", "candidates")
    ]
    outputs = [
        helper.make_tensor_value_info(f"{item.name}_rows", TensorProto.FLOAT, [1, 3, 2])
        for item in inputs
    ]
    constants = {"table": table, "scale": np.array(0.25, np.float32)}
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    model = helper.make_model(helper.make_graph(nodes, "m", inputs, outputs, initializers))
    graph = GraphReader(model).read([i.name for i in inputs], [o.name for o in outputs])
    np.testing.assert_array_equal(graph.constants["table"].values, table * 0.25)
    assert [operator.kind for operator in graph.operators] == ["Gather", "Gather"]
