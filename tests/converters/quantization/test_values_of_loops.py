"""Values that are moved for the body of a loop, in quantized ONNX files."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeattn.errors import ArtifactError
from edgeattn.tensors import TensorSpec
from edgeattn_converters.quantization import quantized_model
from edgeattn_converters.quantization.onnx_static import quantize_activations

MOVES = (
    ([("Transpose", {"perm": [1, 0, 2]})]),
    ([("Squeeze", {})]),
    ([("Transpose", {"perm": [2, 1, 0]}), ("Squeeze", {})]),
)
SPECS = (TensorSpec("x", (None, 5, 3), "float32"),)
RESULTS = (TensorSpec("y", (None,), "float32"),)


def model(moves: Any, *, is_rounded: bool) -> Any:
    """Squares of x, moved, whose first two parts a loop adds up."""
    nodes = [helper.make_node("Mul", ["x", "x"], ["square"])]
    if is_rounded:
        nodes.append(helper.make_node("QuantizeLinear", ["square", "scale", "zero"], ["integers"]))
        nodes.append(
            helper.make_node("DequantizeLinear", ["integers", "scale", "zero"], ["value0"])
        )
    else:
        nodes[0].output[0] = "value0"
    for number, (kind, attributes) in enumerate(moves):
        names = [f"value{number}"], [f"value{number + 1}"]
        nodes.append(helper.make_node(kind, *names, **attributes))
    body = helper.make_graph(
        [
            helper.make_node("Gather", [f"value{len(moves)}", "step"], ["part"], axis=0),
            helper.make_node("ReduceSum", ["part"], ["total"], keepdims=0),
            helper.make_node("Add", ["sum", "total"], ["sum_out"]),
            helper.make_node("Identity", ["go"], ["go_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_out", TensorProto.FLOAT, [1]),
        ],
    )
    nodes.append(helper.make_node("Loop", ["count", "true", "start"], ["y"], body=body))
    constants = {
        "scale": np.float32(0.1),
        "zero": np.int8(0),
        "count": np.int64(2),
        "true": np.array(True),
        "start": np.zeros(1, np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 5, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def load(proto: Any, path: Any) -> None:
    path.write_bytes(proto.SerializeToString())
    quantized = quantized_model.QuantizedModel(proto, SPECS, RESULTS)
    quantized_model._require_loadable(path, quantized)


def test_a_file_on_which_the_runtime_aborts_is_an_error(tmp_path: Any) -> None:
    """In a process of its own: the one that converts the model goes on."""
    with pytest.raises(ArtifactError, match="onnxruntime died of SIGABRT when it loaded the file"):
        load(model(MOVES[0], is_rounded=True), tmp_path / "model")


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("moves", MOVES, ids=lambda moves: "-".join(kind for kind, _ in moves))
def test_values_that_a_loop_reads_are_not_rounded(moves: Any, dtype: str, tmp_path: Any) -> None:
    x = np.random.default_rng(3).uniform(-1, 1, (2, 5, 3)).astype("float32")
    exact = model(moves, is_rounded=False)
    expected = onnxruntime.InferenceSession(exact.SerializeToString()).run(None, {"x": x})
    quantized = quantize_activations(exact, SPECS, set(), dtype, {"x": x})
    load(quantized, tmp_path / "model")
    actual = onnxruntime.InferenceSession(tmp_path / "model").run(None, {"x": x})
    np.testing.assert_allclose(actual[0], expected[0], rtol=0.02)
