"""The account of a ``.tflite`` file."""

from __future__ import annotations

from collections import Counter
from typing import Any

from edgeattn.tensors import Array
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.summary import WEIGHTS, SchemeSummary
from edgeattn_converters.quantization.tflite_weights import MIN_ELEMENTS

# They change how a number is written, or run what is counted itself.
UNCOUNTED = {"QUANTIZE", "DEQUANTIZE", "WHILE", "IF"}
REAL = ("FLOAT32", "FLOAT16", "INT8", "INT16", "INT4")


def summarize(content: bytes) -> SchemeSummary:
    file = TFLiteFile(content)
    computes = []
    stored: Counter[str] = Counter()
    large: Counter[str] = Counter()
    for graph in file.model.subgraphs:
        constants = [file.constant(tensor) for tensor in graph.tensors]
        integer = _integer_constants(file, graph, constants)
        for operator in graph.operators:
            kind = file.kind(operator)
            if kind in UNCOUNTED or not len(operator.outputs):
                continue
            made = file.dtype(graph.tensors[int(operator.outputs[0])])
            if made not in REAL:
                continue
            integer_weights = made == "FLOAT32" and any(int(i) in integer for i in operator.inputs)
            computes.append((kind, WEIGHTS if integer_weights else made.lower()))
        for tensor, value in zip(graph.tensors, constants, strict=True):
            if value is None or file.dtype(tensor) not in REAL or not value.ndim:
                continue
            dtype = file.dtype(tensor).lower()
            stored[dtype] += value.size
            if value.size >= MIN_ELEMENTS:
                large[dtype] += value.size
    return SchemeSummary(tuple(computes), dict(stored), dict(large))


def _integer_constants(file: TFLiteFile, graph: Any, constants: list[Array | None]) -> set[int]:
    """The int8 constants of a graph, and what DEQUANTIZE makes of them."""
    found = {
        index
        for index, value in enumerate(constants)
        if value is not None and file.dtype(graph.tensors[index]) in ("INT8", "INT4")
    }
    made = {
        int(operator.outputs[0])
        for operator in graph.operators
        if file.kind(operator) == "DEQUANTIZE" and int(operator.inputs[0]) in found
    }
    return found | made
