"""Graphs of ``.onnx`` files: nodes, constants, inputs and outputs.

The numbers of fields are those of ``onnx.proto``. Malformed files raise :class:`ValueError`.
"""

import math
import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from edgeattn.file_structure.contents import FileTensor
from edgeattn.runners.protobuf import BYTES, FIXED32, VARINT, fields, varint

# The names of TensorProto.DataType, as far as NumPy has them under its own names.
DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    8: "string", 9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
    14: "complex64", 15: "complex128", 16: "bfloat16", 17: "float8e4m3fn", 18: "float8e4m3fnuz",
    19: "float8e5m2", 20: "float8e5m2fnuz", 21: "uint4", 22: "int4", 23: "float4e2m1",
}  # fmt: skip
_BITS = {
    **dict.fromkeys(("uint4", "int4", "float4e2m1"), 4),
    **dict.fromkeys(("uint8", "int8", "bool"), 8),
    **dict.fromkeys(("float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz"), 8),
    **dict.fromkeys(("uint16", "int16", "float16", "bfloat16"), 16),
    **dict.fromkeys(("float32", "int32", "uint32"), 32),
    **dict.fromkeys(("float64", "int64", "uint64", "complex64"), 64),
    "complex128": 128,
}
# How the numbers are stored that scales and zero points can be.
_NUMBERS = {"float32": "<f", "int8": "<b", "uint8": "<B", "int16": "<h", "uint16": "<H"}
_NUMBERS["int32"] = "<i"
# Depth of nested graphs; no real model is deeper.
_MAX_DEPTH = 32
_MAX_AXES = 64
_MAX_VARINT = 10

Data = bytes | mmap.mmap
Span = tuple[int, int]


@dataclass(frozen=True)
class Constant:
    """A tensor that is stored in the file; ``number`` is the value of a single number."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    number: float | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def stored(self) -> int:
        """The number of bytes of the values, 0 for strings."""
        return -(-self.size * _BITS.get(self.dtype, 0) // 8)


@dataclass(frozen=True)
class Attribute:
    """An attribute of a node, with the kinds of values that are of interest."""

    integer: int = 0
    real: float = 0.0
    constants: tuple[Constant, ...] = ()
    graphs: "tuple[OnnxGraph, ...]" = ()


@dataclass(frozen=True)
class Node:
    kind: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]

    @property
    def bodies(self) -> "tuple[OnnxGraph, ...]":
        return tuple(graph for item in self.attributes.values() for graph in item.graphs)


@dataclass(frozen=True)
class OnnxGraph:
    """A graph; ``inputs`` lists only those that are not initializers."""

    nodes: tuple[Node, ...] = ()
    initializers: Mapping[str, Constant] = field(default_factory=dict)
    inputs: tuple[FileTensor, ...] = ()
    outputs: tuple[FileTensor, ...] = ()

    def nested(self) -> "Iterator[OnnxGraph]":
        """This graph, and the graphs inside its nodes."""
        yield self
        for node in self.nodes:
            for body in node.bodies:
                yield from body.nested()


@dataclass(frozen=True)
class OnnxModel:
    """``functions`` are those that the file defines, by domain and name."""

    graph: OnnxGraph
    opsets: Mapping[str, int]
    functions: Mapping[tuple[str, str], OnnxGraph]


def read_model(data: Data) -> OnnxModel:
    """The model of a file. Raises :class:`ValueError` if it is malformed."""
    graph = None
    opsets: dict[str, int] = {}
    functions: dict[tuple[str, str], OnnxGraph] = {}
    for number, kind, start, end in fields(data, 0, len(data)):
        if number == 7 and kind == BYTES:
            if graph is not None:
                raise ValueError("it has two graphs")
            graph = _read_graph(data, (start, end), 0)
        elif number == 8 and kind == BYTES:
            domain, version = _read_opset(data, (start, end))
            opsets[domain] = version
        elif number == 25 and kind == BYTES:
            key, function = _read_function(data, (start, end))
            functions[key] = function
    if graph is None:
        raise ValueError("it has no graph")
    if not opsets:
        raise ValueError("it names no operator set")
    return OnnxModel(graph, opsets, functions)


def _read_opset(data: Data, span: Span) -> tuple[str, int]:
    domain, version = "", 0
    for number, kind, start, end in fields(data, *span):
        if number == 1 and kind == BYTES:
            domain = _text(data, start, end)
        elif number == 2 and kind == VARINT:
            version = start
    return domain or "ai.onnx", version


def _read_function(data: Data, span: Span) -> tuple[tuple[str, str], OnnxGraph]:
    domain = name = ""
    nodes = []
    for number, kind, start, end in fields(data, *span):
        if number == 1 and kind == BYTES:
            name = _text(data, start, end)
        elif number == 10 and kind == BYTES:
            domain = _text(data, start, end)
        elif number == 7 and kind == BYTES:
            nodes.append(_read_node(data, (start, end), 1))
    return (domain, name), OnnxGraph(tuple(nodes))


def _read_graph(data: Data, span: Span, depth: int) -> OnnxGraph:
    if depth > _MAX_DEPTH:
        raise ValueError("its graphs are nested too deeply")
    nodes: list[Node] = []
    initializers: dict[str, Constant] = {}
    inputs: list[FileTensor] = []
    outputs: list[FileTensor] = []
    for number, kind, start, end in fields(data, *span):
        if kind != BYTES:
            continue
        if number == 1:
            nodes.append(_read_node(data, (start, end), depth))
        elif number in (5, 15):
            read = _read_constant if number == 5 else _read_sparse
            constant = read(data, (start, end))
            if constant.name in initializers:
                raise ValueError(f"two constants have the name {constant.name!r}")
            initializers[constant.name] = constant
        elif number in (11, 12):
            (inputs if number == 11 else outputs).append(_read_value(data, (start, end)))
    # Before version 4 of the format, constants had to be inputs as well.
    inputs = [item for item in inputs if item.name not in initializers]
    return OnnxGraph(tuple(nodes), initializers, tuple(inputs), tuple(outputs))


def _read_node(data: Data, span: Span, depth: int) -> Node:
    inputs: list[str] = []
    outputs: list[str] = []
    attributes: dict[str, Attribute] = {}
    texts = {4: "", 7: ""}
    for number, kind, start, end in fields(data, *span):
        if kind != BYTES:
            continue
        if number in (1, 2):
            (inputs if number == 1 else outputs).append(_text(data, start, end))
        elif number in texts:
            texts[number] = _text(data, start, end)
        elif number == 5:
            name, attribute = _read_attribute(data, (start, end), depth)
            attributes[name] = attribute
    return Node(texts[4], texts[7], tuple(inputs), tuple(outputs), attributes)


def _read_attribute(data: Data, span: Span, depth: int) -> tuple[str, Attribute]:
    name, integer, real, values = "", 0, 0.0, 0
    constants: list[Constant] = []
    graphs: list[OnnxGraph] = []
    single = []
    for number, kind, start, end in fields(data, *span):
        if number == 1 and kind == BYTES:
            name = _text(data, start, end)
        elif number == 2 and kind == FIXED32:
            (real,) = struct.unpack("<f", data[start:end])
        elif number == 3 and kind == VARINT:
            integer = _signed(start)
        elif number in (5, 10) and kind == BYTES:
            constants.append(_read_constant(data, (start, end)))
            single += [number] * (number == 5)
        elif number == 7:
            # The value of a Constant node; packed, or one number in each entry.
            values += (end - start) // 4
        elif number in (22, 23) and kind == BYTES:
            constants.append(_read_sparse(data, (start, end)))
        elif number in (6, 11) and kind == BYTES:
            graphs.append(_read_graph(data, (start, end), depth + 1))
            single += [number] * (number == 6)
    if len(set(single)) < len(single):
        raise ValueError(f"the attribute {name!r} has two values")
    if values and name == "value_floats":
        constants.append(Constant(name, "float32", (values,)))
    return name, Attribute(integer, real, tuple(constants), tuple(graphs))


def _read_constant(data: Data, span: Span) -> Constant:
    name, number_of_dtype, raw = "", 0, None
    shape: list[int] = []
    values: list[float] = []
    first = 0
    for number, kind, start, end in fields(data, *span):
        if number == 1:
            shape += _integers(data, kind, start, end)
        elif number == 2 and kind == VARINT:
            number_of_dtype = start
        elif number == 8 and kind == BYTES:
            name = _text(data, start, end)
        elif number == 9 and kind == BYTES:
            raw, first = end - start, start
        elif number == 4 and kind in (BYTES, FIXED32) and end - start == 4:
            values += struct.unpack("<f", data[start:end])
        elif number == 5 and (kind == VARINT or end - start <= _MAX_VARINT):
            values += _integers(data, kind, start, end)
        elif number == 13 or (number == 14 and start):
            raise ValueError(f"the constant {name!r} is stored in another file")
    constant = Constant(name, _dtype(number_of_dtype), _checked(name, shape))
    if constant.size == 1 and raw == constant.stored and constant.dtype in _NUMBERS:
        values += struct.unpack(_NUMBERS[constant.dtype], data[first : first + raw])
    if raw is not None and raw != constant.stored:
        raise ValueError(
            f"the constant {name!r} of shape {constant.shape} and dtype {constant.dtype} has "
            f"{raw} bytes instead of {constant.stored}"
        )
    return replace(constant, number=values[0]) if constant.size == len(values) == 1 else constant


def _read_sparse(data: Data, span: Span) -> Constant:
    """A sparse tensor, whose values are counted as stored."""
    values = None
    for number, kind, start, end in fields(data, *span):
        if number == 1 and kind == BYTES:
            values = _read_constant(data, (start, end))
    if values is None:
        raise ValueError("a sparse constant has no values")
    return values


def _read_value(data: Data, span: Span) -> FileTensor:
    name, dtype = "", "unknown"
    shape: tuple[int | None, ...] | None = None
    for number, kind, start, end in fields(data, *span):
        if number == 1 and kind == BYTES:
            name = _text(data, start, end)
        elif number == 2 and kind == BYTES:
            for inner, inner_kind, first, last in fields(data, start, end):
                if inner == 1 and inner_kind == BYTES:
                    dtype, shape = _read_tensor_type(data, (first, last))
    return FileTensor(name, shape, dtype)


def _read_tensor_type(data: Data, span: Span) -> tuple[str, tuple[int | None, ...] | None]:
    dtype, shape = "unknown", None
    for number, kind, start, end in fields(data, *span):
        if number == 1 and kind == VARINT:
            dtype = _dtype(start)
        elif number == 2 and kind == BYTES:
            axes = [span for n, k, *span in fields(data, start, end) if (n, k) == (1, BYTES)]
            shape = tuple(_axis(data, first, last) for first, last in axes)
    return dtype, shape


def _axis(data: Data, start: int, end: int) -> int | None:
    length = None
    for number, kind, value, _ in fields(data, start, end):
        if number == 1 and kind == VARINT:
            length = _signed(value)
        elif number == 2:
            length = None
    return length


def _integers(data: Data, kind: int, start: int, end: int) -> list[int]:
    """The values of a repeated integer field, which are in one entry or in several."""
    if kind == VARINT:
        return [_signed(start)]
    if kind != BYTES:
        raise ValueError("a shape is malformed")
    values, position = [], start
    while position < end:
        value, position = varint(data, position, end)
        values.append(_signed(value))
    return values


def _checked(name: str, shape: list[int]) -> tuple[int, ...]:
    if len(shape) > _MAX_AXES or any(axis < 0 for axis in shape):
        raise ValueError(f"the constant {name!r} has the shape {shape[:8]}")
    return tuple(shape)


def _dtype(number: int) -> str:
    if number not in DTYPES:
        raise ValueError(f"dtype {number} does not exist")
    return DTYPES[number]


def _signed(value: int) -> int:
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


def _text(data: Data, start: int, end: int) -> str:
    return data[start:end].decode("utf-8", "replace")
