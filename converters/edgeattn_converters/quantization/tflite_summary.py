"""The summary of a ``.tflite`` file."""

from collections.abc import Iterator
from typing import Any

from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.arithmetic import MIN_ELEMENTS
from edgeattn_converters.quantization.summary import INT8_WEIGHTS, SchemeSummary, summarize

# They convert numbers, or contain operators that are counted themselves.
UNCOUNTED = {"QUANTIZE", "DEQUANTIZE", "WHILE", "IF"}
REAL = ("FLOAT32", "FLOAT16", "INT8", "INT16", "INT4")


def summarize_tflite(content: bytes) -> SchemeSummary:
    file = TFLiteFile(content)
    return summarize(_operators(file), _weights(file), MIN_ELEMENTS)


def _operators(file: TFLiteFile) -> Iterator[tuple[str, str]]:
    for graph in file.model.subgraphs:
        integers = _integer_constants(file, graph)
        for operator in graph.operators:
            kind = file.kind(operator)
            if kind in UNCOUNTED or not len(operator.outputs):
                continue
            dtype = file.dtype(graph.tensors[int(operator.outputs[0])])
            if dtype not in REAL:
                continue
            has_integers = dtype == "FLOAT32" and any(int(i) in integers for i in operator.inputs)
            yield kind, INT8_WEIGHTS if has_integers else dtype.lower()


def _weights(file: TFLiteFile) -> Iterator[tuple[str, int]]:
    for graph in file.model.subgraphs:
        for tensor in graph.tensors:
            value = file.constant(tensor)
            if value is not None and value.ndim and file.dtype(tensor) in REAL:
                yield file.dtype(tensor).lower(), value.size


def _integer_constants(file: TFLiteFile, graph: Any) -> set[int]:
    """The int8 and int4 constants of a graph, and their dequantized values."""
    constants = {
        index
        for index, tensor in enumerate(graph.tensors)
        if file.dtype(tensor) in ("INT8", "INT4") and file.constant(tensor) is not None
    }
    dequantized = {
        int(operator.outputs[0])
        for operator in graph.operators
        if file.kind(operator) == "DEQUANTIZE" and int(operator.inputs[0]) in constants
    }
    return constants | dequantized
