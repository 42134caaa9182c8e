"""Negations in ``.tflite`` files ahead of operators whose result depends on the sign of a zero."""

from typing import Any

import numpy as np

from edgeattn_converters.graphs.tflite_file import TFLiteFile

# The positions of the operands whose zeros have a sign that the result depends on.
_SIGNED = {"DIV": (1,), "POW": (0,), "ATAN2": (0, 1)}
_PASSED = frozenset(
    {"RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "SLICE", "STRIDED_SLICE", "GATHER"}
    | {"GATHER_ND", "CONCATENATION", "PACK", "UNPACK", "SPLIT", "SPLIT_V", "TILE", "BROADCAST_TO"}
    | {"REVERSE_V2", "SELECT", "SELECT_V2", "MUL", "DIV", "SQRT", "TANH", "NEG"}
)


def keep_negated_zeros(file: TFLiteFile) -> None:
    """Multiply by -1 in place of such negations: the runtimes compute ``0 - x`` for them."""
    for graph in file.model.subgraphs:
        signed: set[int] = set()
        for operator in reversed(graph.operators):
            kind = file.kind(operator)
            positions = _SIGNED.get(kind, ())
            signed.update(int(operator.inputs[position]) for position in positions)
            if kind not in _PASSED or signed.isdisjoint(map(int, operator.outputs)):
                continue
            signed.update(map(int, operator.inputs))
            if kind == "NEG" and file.dtype(graph.tensors[int(operator.inputs[0])]) == "FLOAT32":
                _multiply(file, graph, operator)


def _multiply(file: TFLiteFile, graph: Any, operator: Any) -> None:
    factor = file.add_constant(graph, np.array(-1, np.float32), "minus_one")
    operator.opcodeIndex = file.code_index("MUL")
    operator.inputs = [int(operator.inputs[0]), factor]
    operator.builtinOptionsType = file.schema.BuiltinOptions.MulOptions
    operator.builtinOptions = file.schema.MulOptionsT()
