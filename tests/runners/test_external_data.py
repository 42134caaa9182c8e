"""ONNX files with weights in other files are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeattn.errors import UnsafeModelError
from edgeattn.runners.external_data import refuse_external_data

onnx = pytest.importorskip("onnx", reason="the onnx package writes the files")
helper = onnx.helper


def tensor(*, external: bool) -> object:
    tensor_proto = onnx.numpy_helper.from_array(np.ones((5, 3), np.float32), "w")
    if external:
        tensor_proto.ClearField("raw_data")
        tensor_proto.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "weights.bin"), ("offset", "0"), ("length", "60")):
            tensor_proto.external_data.add(key=key, value=value)
    return tensor_proto


def graph(*, initializer: object = None, attribute: object = None, body: object = None) -> object:
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 5])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    if attribute is not None:
        nodes.append(helper.make_node("Constant", [], ["c"], value=attribute))
    if body is not None:
        nodes.append(helper.make_node("If", ["x"], ["z"], then_branch=body, else_branch=body))
    return helper.make_graph(nodes, "g", [x], [y], [initializer] if initializer else [])


def saved(graph_proto: object, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(helper.make_model(graph_proto).SerializeToString())
    return path


def test_weights_in_the_file_are_accepted(tmp_path: Path) -> None:
    inner = graph(initializer=tensor(external=False))
    model_graph = graph(
        initializer=tensor(external=False), attribute=tensor(external=False), body=inner
    )
    refuse_external_data(saved(model_graph, tmp_path))


@pytest.mark.parametrize("location", ["initializer", "attribute", "body"])
def test_weights_in_other_files_are_refused(location: str, tmp_path: Path) -> None:
    outside = tensor(external=True)
    model_graph = (
        graph(body=graph(initializer=outside))
        if location == "body"
        else graph(**{location: outside})
    )
    with pytest.raises(UnsafeModelError, match="stores the tensor 'w' in another file"):
        refuse_external_data(saved(model_graph, tmp_path))


@pytest.mark.parametrize("content", [b"", b"\x08\x07\xff", b"\x0f" * 40, b"\x3a\xff\xff\xff\x7f"])
def test_malformed_files_are_left_to_the_runtime(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    refuse_external_data(path)


def test_inspection_and_the_runner_refuse_it(tmp_path: Path) -> None:
    from edgeattn.inspection import read_onnx
    from edgeattn.runners.onnx import ONNXRunner

    path = saved(graph(initializer=tensor(external=True)), tmp_path)
    with pytest.raises(UnsafeModelError):
        read_onnx(str(path))
    with pytest.raises(UnsafeModelError):
        ONNXRunner(path, (), ())
