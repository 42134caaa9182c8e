"""Contents of model files, compared with what the packages onnx and ai-edge-litert read."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import artifacts
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

from edgeattn.errors import ArtifactError
from edgeattn.file_structure import tflite_names
from edgeattn.file_structure.contents import FileContents, FileTensor
from edgeattn.file_structure.read import parse_contents, read_contents
from edgeattn.runners import flatbuffer

SPECIMENS = Path(__file__).parents[1] / "specimens" / "bundle-0.1.0.dev0"
WEIGHT_TYPES = ("FLOAT32", "FLOAT16", "INT8", "INT16", "INT4")


def names_of(enumeration: Any) -> dict[int, str]:
    return {v: k for k, v in vars(enumeration).items() if isinstance(v, int)}


def test_names_are_those_of_the_schema() -> None:
    operators, dtypes = names_of(schema.BuiltinOperator), names_of(schema.TensorType)
    assert tflite_names.OPERATORS[: len(operators)] == [operators[k] for k in sorted(operators)]
    assert tflite_names.DTYPES[: len(dtypes)] == [dtypes[k].lower() for k in sorted(dtypes)]
    assert set(tflite_names.BITS) < set(tflite_names.DTYPES)


@pytest.mark.parametrize("path", sorted(SPECIMENS.glob("*.tflite")), ids=lambda path: path.name)
def test_tflite_is_read_as_with_its_schema(path: Path) -> None:
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    kinds, dtypes = names_of(schema.BuiltinOperator), names_of(schema.TensorType)
    codes = [kinds[max(c.builtinCode, c.deprecatedBuiltinCode)] for c in model.operatorCodes]
    contents = read_contents(path, "tflite")
    assert contents.operators == Counter(
        codes[operator.opcodeIndex] for graph in model.subgraphs for operator in graph.operators
    )
    weights: Counter[str] = Counter()
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data
            dtype = dtypes[tensor.type]
            if data is not None and len(data) and len(tensor.shape) and dtype in WEIGHT_TYPES:
                weights[dtype.lower()] += int(np.prod(tensor.shape))
    assert contents.weights == weights
    main = model.subgraphs[0]
    for side, tensors in (("inputs", contents.inputs), ("outputs", contents.outputs)):
        expected = [main.tensors[index] for index in getattr(main, side)]
        assert [tensor.name.encode() for tensor in tensors] == [item.name for item in expected]
        assert [tensor.shape for tensor in tensors] == [tuple(item.shape) for item in expected]
    assert (contents.custom, contents.states, contents.cell_clips) == ((), 0, ())


@pytest.mark.parametrize("path", sorted(SPECIMENS.glob("*.onnx")), ids=lambda path: path.name)
def test_onnx_is_read_as_with_its_package(path: Path) -> None:
    proto = onnx.load(path)
    contents = read_contents(path, "onnx")
    assert contents.operators == Counter(node.op_type for node in proto.graph.node)
    names = {"FLOAT": "float32", "FLOAT16": "float16", "INT8": "int8", "UINT8": "int8"}
    weights: Counter[str] = Counter()
    for item in proto.graph.initializer:
        dtype = names.get(TensorProto.DataType.Name(item.data_type))
        if dtype is not None and item.dims:
            weights[dtype] += numpy_helper.to_array(item).size
    assert contents.weights == weights
    assert contents.to_json()["opset"] == {
        entry.domain or "ai.onnx": entry.version for entry in proto.opset_import
    }
    for values, tensors in (
        (proto.graph.input, contents.inputs),
        (proto.graph.output, contents.outputs),
    ):
        assert [tensor.name for tensor in tensors] == [value.name for value in values]
        for value, tensor in zip(values, tensors, strict=True):
            dims = value.type.tensor_type.shape.dim
            assert tensor.shape == tuple(dim.dim_value or None for dim in dims)
            assert tensor.dtype == "float32"


def test_counts_are_those_in_earlier_manifests() -> None:
    """The counts by which earlier versions, with TensorFlow's schema, described their files."""
    entries = json.loads((SPECIMENS / "manifest.json").read_text())["artifacts"]
    for entry in entries:
        counted = read_contents(SPECIMENS / entry["path"], entry["format"]).to_json()
        for key, value in counted.items():
            if key == "scheme":  # earlier versions did not name it
                continue
            earlier = entry["achieved"][key]
            # Of float32 .tflite files, earlier versions counted these before the last rewriting.
            if (key, entry["format"], entry["scheme"]) == ("computes_in", "tflite", "float32"):
                continue
            # onnxruntime computes a Tanh between conversions to int8 in float32.
            if (key, entry["format"], entry["scheme"]) == ("computes_in", "onnx", "int8"):
                assert earlier["int8"].pop("Tanh") == 1
                earlier["float32"]["Tanh"] += 1
            assert earlier == value, (entry["path"], key)


def written_onnx(path: Path, nodes: Any, constants: dict[str, np.ndarray], **opset: int) -> Path:
    value = helper.make_tensor_value_info
    artifacts.save_onnx(
        path,
        nodes,
        [value("x", TensorProto.FLOAT, ["n", 32])],
        [value("y", TensorProto.FLOAT, ["n", 32])],
        constants,
        **opset,
    )
    return path


def test_operators_in_onnx_by_how_they_compute(tmp_path: Path) -> None:
    """A product in float32, one of int8 weights, one operator in int8, one between conversions to
    int8 that onnxruntime computes in float32, and one whose bool output is left out."""
    kernel = np.ones((32, 32), np.float32)
    integers = {"int8": np.ones((32, 32), np.int8), "scale": np.float32(1), "zero": np.int8(0)}
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "kernel"], ["a"]),
        node("DequantizeLinear", ["int8", "scale", "zero"], ["weights"]),
        node("MatMul", ["a", "weights"], ["b"]),
        node("QuantizeLinear", ["b", "scale", "zero"], ["c"]),
        node("DequantizeLinear", ["c", "scale", "zero"], ["d"]),
        node("Relu", ["d"], ["e"]),
        node("QuantizeLinear", ["e", "scale", "zero"], ["f"]),
        node("DequantizeLinear", ["f", "scale", "zero"], ["g"]),
        node("Tanh", ["g"], ["h"]),
        node("QuantizeLinear", ["h", "scale", "zero"], ["i"]),
        node("DequantizeLinear", ["i", "scale", "zero"], ["j"]),
        node("Greater", ["j", "scale"], ["mask"]),
        node("Cast", ["mask"], ["numbers"], to=TensorProto.FLOAT),
        node("Mul", ["numbers", "j"], ["y"]),
    ]
    constants = {"kernel": kernel, **{k: np.asarray(v) for k, v in integers.items()}}
    contents = read_contents(written_onnx(tmp_path / "m.onnx", nodes, constants), "onnx")
    assert contents.computes_in == {
        "float32": {"MatMul": 1, "Mul": 1, "Tanh": 1},
        "int8 weights": {"MatMul": 1},
        "int8": {"Relu": 1},
    }
    assert contents.weights == contents.large_weights == {"float32": 1024, "int8": 1024}


def constants_in(storage: str) -> list[onnx.TensorProto]:
    """A scale and a zero point, stored as bytes or as numbers."""
    if storage == "bytes":
        values = np.array(0.25, np.float32), np.array(-3, np.int8)
        return [numpy_helper.from_array(v, name) for v, name in zip(values, "sz", strict=True)]
    return [
        helper.make_tensor("s", TensorProto.FLOAT, [], [0.25]),
        helper.make_tensor("z", TensorProto.INT8, [], [-3]),
    ]


@pytest.mark.parametrize("storage", ["bytes", "numbers"])
@pytest.mark.parametrize("case", ["plain", "no zero point", "two scales", "integers read"])
def test_scales_of_onnx_inputs_and_outputs(case: str, storage: str, tmp_path: Path) -> None:
    """ONNX has them in the nodes that convert an input, or make an output, and no other may be."""
    parameters = ["s"] if case == "no zero point" else ["s", "z"]
    nodes = [
        helper.make_node("DequantizeLinear", ["x", *parameters], ["real"]),
        helper.make_node("Relu", ["real"], ["positive"]),
        helper.make_node("QuantizeLinear", ["positive", "s", "z"], ["y"]),
    ]
    constants = [*constants_in(storage), numpy_helper.from_array(np.float32(0.5), "other")]
    if case == "two scales":
        nodes.append(helper.make_node("DequantizeLinear", ["x", "other", "z"], ["unused"]))
    if case == "integers read":
        nodes.append(helper.make_node("Cast", ["x"], ["unused"], to=TensorProto.INT32))
    ends = [helper.make_tensor_value_info(name, TensorProto.INT8, [1, 2]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    onnx.save(model, tmp_path / "m.onnx")
    contents = read_contents(tmp_path / "m.onnx", "onnx")
    scales = [(item.scale, item.zero_point) for item in (*contents.inputs, *contents.outputs)]
    of_input = {"plain": (0.25, -3), "no zero point": (0.25, 0)}.get(case, (None, None))
    assert scales == [of_input, (0.25, -3)]


def test_weights_in_nodes_and_bodies_are_counted(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("MatMul", ["x", "kernel"], ["then"])],
        "branch",
        [],
        [helper.make_tensor_value_info("then", TensorProto.FLOAT, ["n", 32])],
        [numpy_helper.from_array(np.ones((32, 32), np.float32), "kernel")],
    )
    other = helper.make_graph(
        [
            helper.make_node(
                "Constant", [], ["k"], value=numpy_helper.from_array(np.ones((32, 32), np.float16))
            ),
            helper.make_node("Cast", ["k"], ["k32"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["x", "k32"], ["else"]),
        ],
        "branch",
        [],
        [helper.make_tensor_value_info("else", TensorProto.FLOAT, ["n", 32])],
    )
    nodes = [
        helper.make_node("Constant", [], ["floats"], value_floats=[1.0] * 600),
        helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=other),
    ]
    path = written_onnx(tmp_path / "m.onnx", nodes, {"yes": np.array(True)})
    contents = read_contents(path, "onnx")
    assert contents.weights == {"float16": 1024, "float32": 1624}
    assert contents.operators == {"Cast": 1, "Constant": 2, "If": 1, "MatMul": 2}


def test_unused_constants_are_no_large_weights(tmp_path: Path) -> None:
    constants = {"kernel": np.ones((32, 32), np.float32), "unused": np.ones((64, 64), np.int8)}
    nodes = [helper.make_node("MatMul", ["x", "kernel"], ["y"])]
    contents = read_contents(written_onnx(tmp_path / "m.onnx", nodes, constants), "onnx")
    assert contents.weights == {"float32": 1024, "int8": 4096}
    assert contents.large_weights == {"float32": 1024}


def test_operators_of_other_domains_are_custom(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    written_onnx(path, [helper.make_node("Neg", ["x"], ["y"])], {})
    proto = onnx.load(path)
    for domain, custom in (("com.microsoft", ()), ("my.company", ("Neg",))):
        proto.graph.node[0].domain = domain
        onnx.save(proto, path)
        assert read_contents(path, "onnx").custom == custom


def tflite_of(kind: int, custom: str | None = None) -> artifacts.TFLite:
    model = artifacts.TFLite()
    x, y = model.tensor("x", (1, 3)), model.tensor("y", (1, 3))
    model.operator(kind, (x,), (y,))
    model._model.operatorCodes[0].customCode = custom
    return model


def test_custom_and_stateful_operators(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    tflite_of(schema.BuiltinOperator.CUSTOM, "FlexErf").save(path, (0,), (1,))
    contents = read_contents(path, "tflite")
    assert (contents.custom, contents.states) == (("CUSTOM FlexErf",), 0)
    tflite_of(schema.BuiltinOperator.READ_VARIABLE).save(path, (0,), (1,))
    contents = read_contents(path, "tflite")
    assert (contents.custom, contents.states) == ((), 1)
    artifacts.write_counter_tflite(path)
    assert read_contents(path, "tflite").states == 1


def test_signatures_must_name_the_same_tensors(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    model = tflite_of(schema.BuiltinOperator.NEG)
    signature = schema.SignatureDefT()
    entries = []
    for name, index in (("x", 0), ("y", 1)):
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, index
        entries.append([entry])
    signature.inputs, signature.outputs = entries
    model._model.signatureDefs = [signature]
    model.save(path, (0,), (1,))
    assert read_contents(path, "tflite").outputs == (FileTensor("y", (1, 3), "float32"),)
    signature.outputs[0].name = "z"
    model.save(path, (0,), (1,))
    with pytest.raises(ArtifactError, match="signature has another tensor for 'z'"):
        read_contents(path, "tflite")


# Malformed files


@pytest.fixture(params=["tflite", "onnx"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[bytes, str]:
    """The bytes of a file of one product, and its format."""
    path = tmp_path / f"m.{request.param}"
    {"tflite": artifacts.write_dense_tflite, "onnx": artifacts.write_dense_onnx}[request.param](
        path
    )
    return path.read_bytes(), request.param


def test_no_part_of_a_file_is_accepted(small: tuple[bytes, str]) -> None:
    content, format = small
    whole = parse_contents(content, format)
    assert sum(whole.operators.values()) == 1
    for length in range(len(content)):
        try:
            contents = parse_contents(content[:length], format)
        except ValueError:
            continue
        # Only padding after the last byte that is used may be missing.
        assert format == "tflite"
        assert contents == whole
        assert not any(content[length:])


def is_accepted(content: bytes, format: str) -> bool:
    """Whether the contents can be read. Errors other than :class:`ValueError` fail the test."""
    try:
        return isinstance(parse_contents(content, format), FileContents)
    except ValueError:
        return False


def test_changed_bits_raise_nothing_but_value_errors(small: tuple[bytes, str]) -> None:
    content, format = small
    accepted = 0
    for position in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[position] ^= 1 << bit
            accepted += is_accepted(bytes(changed), format)
    assert accepted < 8 * len(content)


def test_extreme_numbers_raise_nothing_but_value_errors(small: tuple[bytes, str]) -> None:
    content, format = small
    for position in range(len(content) - 4):
        for value in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80"):
            changed = content[:position] + value + content[position + 4 :]
            is_accepted(changed, format)


def test_vectors_are_limited_in_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets may refer to the same vector many times, so that a small file takes hours."""
    artifacts.write_dense_tflite(tmp_path / "m.tflite")
    monkeypatch.setattr(flatbuffer, "MAX_ELEMENTS", 100)
    with pytest.raises(ArtifactError, match="too many elements"):
        read_contents(tmp_path / "m.tflite", "tflite")


def message(number: int, content: bytes) -> bytes:
    """A field of the wire format that holds ``content``."""
    length, size = b"", len(content)
    while size > 127:
        length, size = length + bytes([size % 128 + 128]), size // 128
    return bytes([8 * number + 2]) + length + bytes([size]) + content


def test_nested_graphs_are_limited() -> None:
    graph = b""
    for _ in range(2000):
        graph = message(1, message(5, message(6, graph)))  # the body of a node's attribute
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_contents(message(7, graph), "onnx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.graph.initializer[0].dims.append(7), "has 24 bytes instead of 168"),
        (lambda p: p.graph.initializer[0].dims.append(-1), "has the shape"),
        (lambda p: setattr(p.graph.initializer[0], "data_type", 99), "dtype 99 does not exist"),
        (lambda p: setattr(p.graph.initializer[0], "data_location", 1), "in another file"),
        (lambda p: p.graph.initializer.append(p.graph.initializer[0]), "two constants"),
        (lambda p: p.ClearField("opset_import"), "names no operator set"),
        (lambda p: p.ClearField("graph"), "no graph"),
    ],
)
def test_malformed_onnx(tmp_path: Path, change: Any, message: str) -> None:
    artifacts.write_dense_onnx(tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    change(proto)
    with pytest.raises(ValueError, match=message):
        parse_contents(proto.SerializeToString(), "onnx")


def test_two_graphs_in_onnx_are_refused(tmp_path: Path) -> None:
    """Runtimes merge them."""
    artifacts.write_dense_onnx(tmp_path / "m.onnx")
    content = (tmp_path / "m.onnx").read_bytes()
    with pytest.raises(ValueError, match="two graphs"):
        parse_contents(content * 2, "onnx")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(ArtifactError, match=r"empty\.onnx cannot be read: it is empty"):
        read_contents(tmp_path / "empty.onnx", "onnx")
    with pytest.raises(ArtifactError, match="No such file"):
        read_contents(tmp_path / "missing.tflite", "tflite")
    (tmp_path / "other.tflite").write_bytes(b"something else")
    with pytest.raises(ArtifactError, match="identifier TFL3"):
        read_contents(tmp_path / "other.tflite", "tflite")
