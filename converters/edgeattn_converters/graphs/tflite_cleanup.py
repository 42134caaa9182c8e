"""Remove what nothing reads from ``.tflite`` files, and order and cancel conversions."""

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from edgeattn_converters.graphs.tflite_file import TFLiteFile


def join_conversions(file: TFLiteFile) -> None:
    """A QUANTIZE that follows a DEQUANTIZE reads the integers directly, in place.

    A DEQUANTIZE that nothing reads is removed.
    """
    graph = file.main
    sources = {
        int(operator.outputs[0]): int(operator.inputs[0])
        for operator in graph.operators
        if file.kind(operator) == "DEQUANTIZE"
    }
    for operator in graph.operators:
        if file.kind(operator) == "QUANTIZE" and int(operator.inputs[0]) in sources:
            operator.inputs = [sources[int(operator.inputs[0])]]
    drop_unread(file, {"DEQUANTIZE", "QUANTIZE"})


def sort_conversions(file: TFLiteFile) -> None:
    """Order DEQUANTIZE and QUANTIZE operators that follow each other by their inputs, in place.

    TensorFlow's quantizer writes those of an operator with several outputs in another order, with
    other indices of tensors, in every run.
    """
    graph = file.main
    operators: list[Any] = []
    tensors = list(graph.tensors)
    renumbered: dict[int, int] = {}

    def source(operator: Any) -> int:
        index = int(operator.inputs[0])
        return renumbered.get(index, index)

    for kind, group in groupby(graph.operators, key=file.kind):
        run = list(group)
        if kind in {"DEQUANTIZE", "QUANTIZE"}:
            indices = sorted(int(operator.outputs[0]) for operator in run)
            run.sort(key=source)
            for operator, index in zip(run, indices, strict=True):
                tensors[index] = graph.tensors[int(operator.outputs[0])]
                renumbered[int(operator.outputs[0])] = index
        operators += run
    graph.operators, graph.tensors = operators, tensors
    _renumber(file, renumbered)


def drop_unread(file: TFLiteFile, kinds: Iterable[str]) -> None:
    """Remove operators of these types whose outputs nothing reads, in place."""
    graph = file.main
    used = {int(i) for operator in graph.operators for i in operator.inputs}
    used.update(map(int, graph.outputs))
    graph.operators = [
        operator
        for operator in graph.operators
        if file.kind(operator) not in kinds or used.intersection(map(int, operator.outputs))
    ]


def drop_unused_tensors(file: TFLiteFile) -> None:
    """Remove tensors that no operator has, in place: Lite Micro would reserve memory for them."""
    graph = file.main
    used = {int(i) for op in graph.operators for i in (*op.inputs, *op.outputs) if int(i) >= 0}
    used.update(int(i) for i in (*graph.inputs, *graph.outputs))
    retained = sorted(used)
    graph.tensors = [graph.tensors[index] for index in retained]
    _renumber(file, {old: new for new, old in enumerate(retained)})


def _renumber(file: TFLiteFile, renumbered: Mapping[int, int]) -> None:
    """Replace the indices of tensors of the main graph that are keys, in place."""
    graph = file.main
    for item in (graph, *graph.operators):
        item.inputs = [renumbered.get(int(i), int(i)) for i in item.inputs]
        item.outputs = [renumbered.get(int(i), int(i)) for i in item.outputs]


def share_quantized_inputs(file: TFLiteFile) -> None:
    """A float input that becomes int16 and int8 becomes int8 from the int16 values, in place.

    Otherwise it could not be an integer itself.
    """
    graph = file.main
    for index in map(int, graph.inputs):
        readers = [
            operator
            for operator in graph.operators
            if file.kind(operator) == "QUANTIZE" and int(operator.inputs[0]) == index
        ]
        readers.sort(key=lambda operator: file.dtype(graph.tensors[int(operator.outputs[0])]))
        # INT16 comes before INT8.
        for other in readers[1:]:
            other.inputs = [int(readers[0].outputs[0])]
        if len(readers) > 1:
            others = [operator for operator in graph.operators if operator is not readers[0]]
            graph.operators = [readers[0], *others]
