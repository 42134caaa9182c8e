"""ONNX files with weights in other files are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeattn.errors import ArtifactError, EdgeattnError, UnsafeModelError
from edgeattn.runners.external_data import FIELDS, refuse_external_data

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


@pytest.mark.parametrize(
    "content",
    [b"\x08\x07\xff", b"\x0f" * 40, b"\x3a\xff\xff\xff\x7f", b"\x00\x00", b"\x0b\x0c"],
)
def test_malformed_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="malformed"):
        refuse_external_data(path)


def key(number: int, kind: int, *, above: int = 0) -> bytes:
    """The key of a field in five bytes, with bits ``above`` the 32 that protobuf reads."""
    value = (number << 3 | kind) | above << 32
    return bytes((value >> shift & 0x7F) | (0x80 if shift < 28 else 0) for shift in range(0, 35, 7))


def hidden(model: bytes) -> dict[str, bytes]:
    """Files that protobuf reads as ``model``, and a careless parser as one without tensors."""
    graph_key = model.index(b"\x3a")
    nested = b"".join(key(100, 3) for _ in range(40)) + b"".join(key(100, 4) for _ in range(40))
    return {
        "group": b"\xa3\x06\xa4\x06" + model,
        "nested groups": nested + model,
        "group with a field": b"\xa3\x06\x08\x01\xa4\x06" + model,
        "key over 32 bits": model[:graph_key] + key(7, 2, above=1) + model[graph_key + 1 :],
        "bytes after the model": model + b"\xa3\x06\xa4\x06",
    }


@pytest.mark.parametrize(
    "how",
    ["group", "nested groups", "group with a field", "key over 32 bits", "bytes after the model"],
)
def test_what_protobuf_reads_and_this_parser_does_not_is_refused(how: str, tmp_path: Path) -> None:
    path = saved(graph(initializer=tensor(external=True)), tmp_path)
    content = hidden(path.read_bytes())[how]
    path.write_bytes(content)
    parsed = onnx.ModelProto.FromString(content) if how != "key over 32 bits" else None
    assert parsed is None or parsed.graph.initializer[0].external_data
    with pytest.raises(EdgeattnError, match="was refused"):
        refuse_external_data(path)


def test_the_searched_fields_are_those_of_the_format() -> None:
    messages: dict[str, dict[int, str]] = {}

    def name_of(descriptor: Any) -> str:
        # With the name of its parent: TypeProto.Tensor is no tensor.
        return str(descriptor.full_name).removeprefix("onnx.").removesuffix("Proto")

    def add(descriptor: Any) -> None:
        if name_of(descriptor) not in messages:
            inner = [field for field in descriptor.fields if field.message_type]
            messages[name_of(descriptor)] = {f.number: name_of(f.message_type) for f in inner}
            for field in inner:
                add(field.message_type)

    add(onnx.ModelProto.DESCRIPTOR)
    lead, count = {"Tensor"}, 0
    while len(lead) > count:
        count = len(lead)
        lead |= {name for name, inner in messages.items() if lead.intersection(inner.values())}
    assert {
        name: {number: inner for number, inner in messages[name].items() if inner in lead}
        for name in lead - {"Tensor"}
    } == FIELDS


def test_weights_of_functions_in_other_files_are_refused(tmp_path: Path) -> None:
    default = helper.make_attribute("value", tensor(external=True))
    function = onnx.FunctionProto(name="F", domain="d", attribute_proto=[default])
    path = tmp_path / "model.onnx"
    model = helper.make_model(graph(), functions=[function])
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UnsafeModelError):
        refuse_external_data(path)


def test_deeply_nested_graphs_are_searched_or_refused(tmp_path: Path) -> None:
    inner = graph(initializer=tensor(external=True))
    for _ in range(28):
        body = graph()
        body.node.append(helper.make_node("Loop", ["", "c"], ["z"], body=inner))
        inner = body
    with pytest.raises(EdgeattnError, match="was refused"):
        refuse_external_data(saved(inner, tmp_path))


def test_the_runtime_never_reads_its_own_format(tmp_path: Path) -> None:
    from edgeattn.runners.onnx import import_onnxruntime, session_options

    runtime = import_onnxruntime()
    options = session_options()
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    model = helper.make_model(graph(), opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    own = tmp_path / "model.ort"
    assert own.read_bytes()[4:8] == b"ORTM"
    for source in (str(own), own.read_bytes()):
        with pytest.raises(Exception, match=r"(?i)protobuf|parse"):
            runtime.InferenceSession(source, session_options(), ["CPUExecutionProvider"])


def test_inspection_and_the_runner_refuse_it(tmp_path: Path) -> None:
    from edgeattn.inspection import read_onnx
    from edgeattn.runners.onnx import ONNXRunner

    path = saved(graph(initializer=tensor(external=True)), tmp_path)
    with pytest.raises(UnsafeModelError):
        read_onnx(str(path))
    with pytest.raises(UnsafeModelError):
        ONNXRunner(path, (), ())
