"""Remove what nothing reads from ``.tflite`` files, and conversions that cancel out."""

from collections.abc import Iterable

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
    renumbered = {-1: -1, **{old: new for new, old in enumerate(retained)}}
    for operator in graph.operators:
        operator.inputs = [renumbered[int(i)] for i in operator.inputs]
        operator.outputs = [renumbered[int(i)] for i in operator.outputs]
    graph.inputs = [renumbered[int(i)] for i in graph.inputs]
    graph.outputs = [renumbered[int(i)] for i in graph.outputs]
    graph.tensors = [graph.tensors[index] for index in retained]


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
