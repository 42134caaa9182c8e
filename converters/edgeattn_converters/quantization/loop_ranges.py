"""Ranges of activations inside the loops of a ``.tflite`` file.

Runtimes do not show the tensors of a loop's body, so every body is run as a model of its own, from
the values that the loop starts from, once per iteration.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.mask_fills import has_fills
from edgeattn_converters.quantization.ranges import MeasuredRanges, Ranges, constants_of

# Compares a loop's counter with a constant.
COMPARISONS = {"LESS": 0, "LESS_EQUAL": 1}


def iterations(file: TFLiteFile, operator: Any) -> int | None:
    """How often a WHILE runs its body, whose counter starts at 0; None if data decides."""
    condition = file.model.subgraphs[operator.builtinOptions.condSubgraphIndex]
    limits = [
        int(value.reshape(-1)[0]) + COMPARISONS[file.kind(item)]
        for item in condition.operators
        if file.kind(item) in COMPARISONS
        for value in [file.constant(condition.tensors[int(item.inputs[1])])]
        if value is not None and value.size == 1
    ]
    return min(limits, default=None)


def loops(file: TFLiteFile, graph: Any) -> Iterator[Any]:
    """The WHILE operators of one graph."""
    return (item for item in graph.operators if file.kind(item) == "WHILE")


class LoopRanges:
    """Measures the ranges inside the loops that ``graph`` contains, at any depth.

    :meth:`add` runs them from the inputs of one inference.
    """

    def __init__(self, content: bytes, graph: int = 0) -> None:
        file = TFLiteFile(content)
        self._bodies = [
            (operator, _Body(content, operator.builtinOptions.bodySubgraphIndex), count)
            for operator in loops(file, file.model.subgraphs[graph])
            for count in [iterations(file, operator)]
            if count is not None
        ]

    def __bool__(self) -> bool:
        return bool(self._bodies)

    @property
    def ranges(self) -> dict[int, Ranges]:
        """By the index of the body among the file's graphs, and then by tensor."""
        measured: dict[int, Ranges] = {}
        for _, body, _ in self._bodies:
            measured |= body.ranges()
        return measured

    def add(self, value_of: Callable[[int], Array]) -> None:
        """Run the loops of the graph; ``value_of(index)`` is the value of one of its tensors.

        Loops that cannot run alone, such as those of other layers, keep their float32 operators.
        """
        for item in list(self._bodies):
            operator, body, count = item
            try:
                values = [value_of(int(index)) for index in operator.inputs]
                for _ in range(count):
                    values = body.run(values)
            except (ValueError, RuntimeError):
                self._bodies.remove(item)


class _Body:
    """The body of a loop as a model of its own."""

    def __init__(self, content: bytes, number: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        file = TFLiteFile(content)
        graph = file.model.subgraphs[number]
        self._number, self._inner = number, LoopRanges(content, number)
        self._floats = [
            index
            for index, tensor in enumerate(graph.tensors)
            if file.dtype(tensor) == "FLOAT32" and file.constant(tensor) is None
        ]
        self._inputs, self._outputs = list(map(int, graph.inputs)), list(map(int, graph.outputs))
        self._measured: MeasuredRanges[int] = MeasuredRanges(masked=has_fills(constants_of(file)))
        file.model.subgraphs[0] = graph
        file.model.signatureDefs = []
        self._interpreter = Interpreter(
            model_content=file.to_bytes(), experimental_preserve_all_tensors=True, num_threads=1
        )
        self._interpreter.allocate_tensors()

    def ranges(self) -> dict[int, Ranges]:
        """The ranges of the body and of the loops inside it, by graph."""
        return {self._number: self._measured.ranges(), **self._inner.ranges}

    def run(self, values: Sequence[Array]) -> list[Array]:
        """The values after one iteration."""
        interpreter = self._interpreter
        for index, value in zip(self._inputs, values, strict=True):
            interpreter.set_tensor(index, np.asarray(value))
        interpreter.invoke()
        self._measure()
        self._inner.add(interpreter.get_tensor)
        return [interpreter.get_tensor(index) for index in self._outputs]

    def _measure(self) -> None:
        for index in self._floats:
            try:
                self._measured.add(index, self._interpreter.get_tensor(index))
            except ValueError:  # scratch memory of an operator, never computed
                continue
