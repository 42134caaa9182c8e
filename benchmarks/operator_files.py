"""Files with one operator repeated, whose ARM instructions are counted.

See :mod:`benchmarks.operator_costs`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn.first_bytes import TFLITE
from edgeattn_converters.graphs.tflite_file import TFLiteFile

ACTIVATION_SCALES = {"INT8": 0.05, "INT16": 1e-3}
FIXED_SCALES = {
    ("LOGISTIC", "INT8"): (1 / 256, -128),
    ("TANH", "INT8"): (1 / 128, 0),
    ("SOFTMAX", "INT8"): (1 / 256, -128),
}
FIXED_SCALES |= {(kind, "INT16"): (1 / 32768, 0) for kind in ("LOGISTIC", "TANH", "SOFTMAX")}


@dataclass(frozen=True)
class Case:
    """An operator in one dtype: ``float32``, ``int8``, ``int16``, or ``dynamic`` for int8 weights.

    ``shape`` is that of its input. ``width`` is the number of outputs of a product's row, or the
    number of parts of a SPLIT or UNPACK.
    """

    kind: str
    dtype: str
    shape: tuple[int, ...]
    width: int = 0


class Graph:
    """A file under construction with one float32 input."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        from ai_edge_litert import schema_py_generated as schema

        model = schema.ModelT()
        model.version, model.operatorCodes, model.buffers = 3, [], [schema.BufferT()]
        graph = schema.SubGraphT()
        graph.tensors, graph.operators, graph.inputs, graph.outputs = [], [], [], []
        model.subgraphs = [graph]
        import flatbuffers

        builder = flatbuffers.Builder(256)
        builder.Finish(model.Pack(builder), file_identifier=TFLITE)
        self.file = TFLiteFile(bytes(builder.Output()))
        for name in ("tensors", "operators", "inputs", "outputs"):
            if getattr(self.file.main, name) is None:
                setattr(self.file.main, name, [])
        self.file.main.inputs, self.file.main.outputs = [0], []
        self.file.model.operatorCodes = list(self.file.model.operatorCodes or [])
        self.random = np.random.default_rng(0)
        self.tensor("FLOAT32", (1, *shape))
        sizes = self.tensor("INT32", (len(shape),), np.array(shape, np.int32))
        self.tensor("FLOAT32", shape)
        self.operator("RESHAPE", [0, sizes], [self.first])

    first = 2

    def tensor(
        self,
        dtype: str,
        shape: tuple[int, ...],
        value: Any = None,
        scale: tuple[float, int] | None = None,
    ) -> int:
        parameters = None
        if scale is not None:
            parameters = self.file.quantization(np.array([scale[0]], np.float32), scale[1])
        number = len(self.file.main.tensors)
        return self.file.add_tensor(
            self.file.main, f"t{number}", dtype, shape, value=value, quantization=parameters
        )

    def operator(
        self, kind: str, inputs: list[int], outputs: list[int], version: int = 1, **options: Any
    ) -> None:
        item = self.file.new_operator(kind, inputs, outputs, version)
        name = OPTIONS.get(kind)
        if name is not None:
            item.builtinOptionsType = getattr(self.file.schema.BuiltinOptions, name)
            item.builtinOptions = getattr(self.file.schema, f"{name}T")()
            for key, value in options.items():
                setattr(item.builtinOptions, key, value)
        self.file.main.operators.append(item)

    def constant(self, dtype: str, shape: tuple[int, ...], scale: Any = None) -> int:
        if dtype == "FLOAT32":
            value = self.random.uniform(-0.1, 0.1, shape).astype(np.float32)
        else:
            value = self.random.integers(-100, 100, shape).astype(dtype.lower())
        return self.tensor(dtype, shape, value, scale)


OPTIONS = {
    **{kind: f"{kind.title()}Options" for kind in ("ADD", "SUB", "MUL", "SOFTMAX", "SPLIT")},
    **{kind: f"{kind.title()}Options" for kind in ("UNPACK", "PACK", "CONCATENATION")},
    "MEAN": "ReducerOptions",
    "SUM": "ReducerOptions",
    "RESHAPE": "ReshapeOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "TRANSPOSE": "TransposeOptions",
}


def repeated(case: Case, count: int) -> bytes:
    """A file with ``count`` of the operator."""
    graph = Graph(case.shape)
    dtype = {"dynamic": "FLOAT32"}.get(case.dtype, case.dtype.upper())
    scale = None if dtype == "FLOAT32" else (ACTIVATION_SCALES[dtype], 0)
    current = graph.first
    if case.kind == "QUANTIZE":
        current = _quantize_pairs(graph, case, dtype, count)
    else:
        if scale is not None:
            current = graph.tensor(dtype, case.shape, scale=scale)
            graph.operator("QUANTIZE", [graph.first], [current], 2)
        build = BUILDERS.get(case.kind, _elementwise)
        current = build(graph, case, dtype, scale, current, count)
        if scale is not None:
            last = graph.tensor("FLOAT32", tuple(graph.file.main.tensors[current].shape))
            graph.operator("DEQUANTIZE", [current], [last], 2)
            current = last
    graph.file.main.outputs = [current, *graph.file.main.outputs]
    return graph.file.to_bytes()


def _quantize_pairs(graph: Graph, case: Case, dtype: str, count: int) -> int:
    current = graph.first
    for _ in range(count):
        integers = graph.tensor(dtype, case.shape, scale=(ACTIVATION_SCALES[dtype], 0))
        graph.operator("QUANTIZE", [current], [integers], 2)
        restored = graph.tensor("FLOAT32", case.shape)
        graph.operator("DEQUANTIZE", [integers], [restored], 2)
        current = _multiplied(graph, case, "FLOAT32", None, restored, graph.first)
    return current


def _multiplied(graph: Graph, case: Case, dtype: str, scale: Any, current: int, other: int) -> int:
    """The product of two tensors. Between two operators, it keeps XNNPACK from merging them."""
    product = graph.tensor(dtype, case.shape, scale=scale)
    graph.operator("MUL", [current, other], [product])
    return product


def _elementwise(graph: Graph, case: Case, dtype: str, scale: Any, current: int, count: int) -> int:
    operand = current
    for _ in range(count):
        new = graph.tensor(dtype, case.shape, scale=FIXED_SCALES.get((case.kind, dtype), scale))
        inputs = [current, operand] if case.kind in ("ADD", "SUB", "MUL") else [current]
        options = {"beta": 1.0} if case.kind == "SOFTMAX" else {}
        graph.operator(case.kind, inputs, [new], 1 if case.kind == "NEG" else 2, **options)
        is_binary = case.kind in ("ADD", "SUB", "MUL")
        current = new if is_binary else _multiplied(graph, case, dtype, scale, new, operand)
    return current


def _reduction(graph: Graph, case: Case, dtype: str, scale: Any, current: int, count: int) -> int:
    axis = graph.tensor("INT32", (1,), np.array([1], np.int32))
    for _ in range(count):
        reduced = graph.tensor(dtype, (case.shape[0], 1), scale=scale)
        graph.operator(case.kind, [current, axis], [reduced], 2, keepDims=True)
        graph.file.main.outputs.append(reduced)
    return reduced


def _reshape(graph: Graph, case: Case, dtype: str, scale: Any, current: int, count: int) -> int:
    for number in range(count):
        shape = case.shape if number % 2 else case.shape[::-1]
        sizes = graph.tensor("INT32", (2,), np.array(shape, np.int32))
        new = graph.tensor(dtype, shape, scale=scale)
        graph.operator("RESHAPE", [current, sizes], [new], newShape=list(shape))
        current = new
    return current


def _transpose(graph: Graph, case: Case, dtype: str, scale: Any, current: int, count: int) -> int:
    order = graph.tensor("INT32", (2,), np.array([1, 0], np.int32))
    for number in range(count):
        new = graph.tensor(dtype, case.shape if number % 2 else case.shape[::-1], scale=scale)
        graph.operator("TRANSPOSE", [current, order], [new], 2)
        current = new
    return current


def _split(graph: Graph, case: Case, dtype: str, scale: Any, current: int, count: int) -> int:
    axis = graph.tensor("INT32", (), np.array(1, np.int32))
    for _ in range(count):
        shape = (1, case.shape[1] // case.width)
        parts = [graph.tensor(dtype, shape, scale=scale) for _ in range(case.width)]
        graph.operator("SPLIT", [axis, current], parts, 2, numSplits=case.width)
        graph.file.main.outputs += parts
    return parts[0]


def _unpack(graph: Graph, case: Case, dtype: str, scale: Any, current: int, count: int) -> int:
    for _ in range(count):
        parts = [graph.tensor(dtype, case.shape[1:], scale=scale) for _ in range(case.width)]
        graph.operator("UNPACK", [current], parts, 2, num=case.width, axis=0)
        graph.file.main.outputs += parts
    return parts[0]


def _join(graph: Graph, case: Case, dtype: str, scale: Any, current: int, count: int) -> int:
    for _ in range(count):
        if case.kind == "PACK":
            options: dict[str, int] = {"valuesCount": case.width, "axis": 0}
            shape: tuple[int, ...] = (case.width, *case.shape)
        else:
            options, shape = {"axis": 1}, (1, case.shape[1] * case.width)
        new = graph.tensor(dtype, shape, scale=scale)
        graph.operator(case.kind, [current] * case.width, [new], 2, **options)
        graph.file.main.outputs.append(new)
    return new


def _product(graph: Graph, case: Case, dtype: str, scale: Any, current: int, count: int) -> int:
    """Products, each with weights and an output of its own.

    Those of a scaled input get an input of their own, because XNNPACK would scale it once.
    """
    rows, size = case.shape
    weight_dtype = "FLOAT32" if case.dtype == "float32" else "INT8"
    for _ in range(count):
        if case.dtype == "dynamic":
            current = _multiplied(graph, case, dtype, scale, current, graph.first)
        shape = (case.width, size)
        weights = graph.constant(weight_dtype, shape)
        if weight_dtype == "INT8":
            scales = np.full(case.width, 0.01, np.float32)
            graph.file.main.tensors[weights].quantization = graph.file.quantization(scales)
        new = graph.tensor(dtype, (rows, case.width), scale=scale)
        dynamic = {"asymmetricQuantizeInputs": True} if case.dtype == "dynamic" else {}
        graph.operator(
            "FULLY_CONNECTED",
            [current, weights, -1],
            [new],
            12 if case.dtype == "dynamic" else 5,
            **dynamic,
        )
        graph.file.main.outputs.append(new)
    return new


def _row_product(graph: Graph, case: Case, dtype: str, scale: Any, current: int, count: int) -> int:
    for _ in range(count):
        weights = graph.constant(dtype, (case.width, case.shape[1]))
        new = graph.tensor(dtype, (1, case.width), scale=scale)
        graph.operator("BATCH_MATMUL", [current, weights], [new], 1, adjY=True)
        graph.file.main.outputs.append(new)
    return new


def _requantize(graph: Graph, case: Case, dtype: str, scale: Any, current: int, count: int) -> int:
    """Integers in another scale. A product behind each keeps XNNPACK from merging them."""
    operand = current
    for _ in range(count):
        other = graph.tensor(dtype, case.shape, scale=(scale[0] * 1.3, 0))
        graph.operator("QUANTIZE", [current], [other], 2)
        current = _multiplied(graph, case, dtype, scale, other, operand)
    return current


def _attention_product(
    graph: Graph, case: Case, dtype: str, scale: Any, current: int, count: int
) -> int:
    """Products of computed values: SCORES (1, steps, units) with a query, and a WEIGHTED_SUM of the
    steps. The other operand is a mean of them."""
    _, steps, units = case.shape
    is_sum = case.kind == "WEIGHTED_SUM"
    axis = graph.tensor("INT32", (1,), np.array([2 if is_sum else 1], np.int32))
    mean = graph.tensor(dtype, (1, steps) if is_sum else (1, units), scale=scale)
    graph.operator("MEAN", [current, axis], [mean], 2, keepDims=False)
    shape = (1, 1, steps) if is_sum else (1, units, 1)
    sizes = graph.tensor("INT32", (3,), np.array(shape, np.int32))
    other = graph.tensor(dtype, shape, scale=scale)
    graph.operator("RESHAPE", [mean, sizes], [other], newShape=list(shape))
    for _ in range(count):
        new = graph.tensor(dtype, (1, 1, units) if is_sum else (1, steps, 1), scale=scale)
        operands = [other, current] if is_sum else [current, other]
        graph.operator("BATCH_MATMUL", operands, [new], 3)
        graph.file.main.outputs.append(new)
    return new


def _batch_matmul(
    graph: Graph, case: Case, dtype: str, scale: Any, current: int, count: int
) -> int:
    _, rows, _ = case.shape
    for _ in range(count):
        new = graph.tensor(dtype, (1, rows, rows), scale=scale)
        graph.operator("BATCH_MATMUL", [current, current], [new], 3, adjY=True)
        graph.file.main.outputs.append(new)
    return new


BUILDERS: dict[str, Callable[..., int]] = {
    "MEAN": _reduction,
    "SUM": _reduction,
    "RESHAPE": _reshape,
    "TRANSPOSE": _transpose,
    "SPLIT": _split,
    "UNPACK": _unpack,
    "PACK": _join,
    "CONCATENATION": _join,
    "FULLY_CONNECTED": _product,
    "ROW_PRODUCT": _row_product,
    "BATCH_MATMUL": _batch_matmul,
    "SCORES": _attention_product,
    "WEIGHTED_SUM": _attention_product,
    "REQUANTIZE": _requantize,
}
